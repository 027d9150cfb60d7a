/**
 * Starts RabbitMQ on a host of the scene, with all its files in the scene's directory.
 * @module
 */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Host } from './host.ts';
import { eventually, LeftOut } from './report.ts';

/** The script in Debian; its wrapper in /usr/sbin would start it as another user. */
const SERVER = '/usr/lib/rabbitmq/bin/rabbitmq-server';

/** Starts RabbitMQ; resolves when it listens. */
export async function startRabbitMq(host: Pick<Host, 'spawn'>, directory: string): Promise<void> {
  if (!existsSync(SERVER)) {
    throw new LeftOut('RabbitMQ is not installed (Debian package rabbitmq-server)');
  }
  const home = join(directory, 'rabbitmq');
  mkdirSync(home, { recursive: true });
  writeFileSync(
    join(home, 'rabbitmq.conf'),
    'listeners.tcp.default = 0.0.0.0:5672\nloopback_users = none\nlog.console = true\nlog.file = false\n'
  );
  writeFileSync(join(home, 'enabled_plugins'), '[].\n');
  const env = {
    HOME: home,
    RABBITMQ_NODENAME: 'rabbit@localhost',
    RABBITMQ_CONFIG_FILE: join(home, 'rabbitmq.conf'),
    RABBITMQ_ENABLED_PLUGINS_FILE: join(home, 'enabled_plugins'),
    RABBITMQ_MNESIA_BASE: join(home, 'mnesia'),
    RABBITMQ_LOG_BASE: join(home, 'log'),
    RABBITMQ_PID_FILE: join(home, 'pid'),
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: '+S 1:1 +sbwt none',
  };
  const server = host.spawn([SERVER], env);
  let log = '';
  for (const stream of [server.stdout!, server.stderr!]) {
    stream.on('data', (chunk: Buffer) => {
      log += chunk;
    });
  }
  await eventually(
    'RabbitMQ',
    () => {
      if (server.exitCode !== null) throw new Error(log.trim().split('\n').slice(-3).join(' '));
      return /Server startup complete|started TCP listener/.test(log) ? true : undefined;
    },
    60_000
  );
}
