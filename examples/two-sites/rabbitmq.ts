/**
 * RabbitMQ on a host of the scene, with all its files in the scene's directory.
 * @module
 */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Place } from './place.ts';
import { eventually, expect, LeftOut } from './report.ts';

/** The scripts in Debian; their wrappers in /usr/sbin would start them as another user. */
const SCRIPTS = '/usr/lib/rabbitmq/bin';
export const SERVER: string = `${SCRIPTS}/rabbitmq-server`;

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
    ...nodeOf(home),
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

/** A connection, as the broker sees it. */
export interface BrokerConnection {
  /** The client's address and port, and the broker's. */
  readonly name: string;
  readonly connectedAt: Date;
}

/** Asks the RabbitMQ of this host and directory which connections it has. */
export async function listConnections(
  host: Pick<Place, 'run'>,
  directory: string
): Promise<BrokerConnection[]> {
  const variables = Object.entries(nodeOf(join(directory, 'rabbitmq'))).map((each) =>
    each.join('=')
  );
  const list = ['list_connections', 'name', 'connected_at', '--silent', '--formatter', 'json'];
  const command = ['env', ...variables, `${SCRIPTS}/rabbitmqctl`, ...list];
  const { code, stdout, stderr } = await host.run(command);
  expect(code === 0, `rabbitmqctl: ${stderr.trim()}`);
  const connections = JSON.parse(stdout) as { name: string; connected_at: number }[];
  return connections.map(({ name, connected_at }) => ({
    name,
    connectedAt: new Date(connected_at),
  }));
}

/** What its programs have to know of a broker: where the shared secret is, and its name. */
function nodeOf(home: string): Record<string, string> {
  return { HOME: home, RABBITMQ_NODENAME: 'rabbit@localhost' };
}
