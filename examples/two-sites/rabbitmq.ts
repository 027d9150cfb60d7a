/**
 * Starts RabbitMQ on a host of the scene, with all its files in the scene's directory.
 * @module
 */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Place } from './place.ts';
import { eventually, LeftOut } from './report.ts';

/** The script in Debian; its wrapper in /usr/sbin would start it as another user. */
const SERVER = '/usr/lib/rabbitmq/bin/rabbitmq-server';

/** @throws {LeftOut} if RabbitMQ is not installed. */
export function checkRabbitMq(): void {
  if (existsSync(SERVER)) return;
  throw new LeftOut('RabbitMQ is not installed (Debian package rabbitmq-server)');
}

/**
 * Starts RabbitMQ; resolves when it listens.
 *
 * @param address where it listens, at port 5672
 * @param own the environment that tells it apart from another RabbitMQ in the same network
 */
export async function startRabbitMq(
  host: Pick<Place, 'spawn'>,
  directory: string,
  address = '0.0.0.0',
  own: NodeJS.ProcessEnv = {}
): Promise<void> {
  checkRabbitMq();
  const home = join(directory, 'rabbitmq');
  mkdirSync(home, { recursive: true });
  writeFileSync(
    join(home, 'rabbitmq.conf'),
    `listeners.tcp.default = ${address}:5672\nloopback_users = none\nlog.console = true\nlog.file = false\n`
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
    ...own,
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
