/**
 * The two worlds in which each case of Node's semantics runs: `node:net` on loopback, and the sockets of presences.
 */
import { once } from 'node:events';
import net from 'node:net';
import { setImmediate as nextRound } from 'node:timers/promises';
import { afterEach } from 'vitest';
import { createServer, type PresenceServer } from '../../src/sockets/stream/server.ts';
import { connect, PresenceSocket } from '../../src/sockets/stream/socket.ts';
import { StackNetwork } from './stack-network.ts';

export interface World {
  readonly name: string;
  readonly isOurs: boolean;
  /** Where servers listen, and another address at which nothing does. */
  readonly address: string;
  readonly otherAddress: string;
  connect(...args: unknown[]): net.Socket;
  socket(options?: object): net.Socket;
  server(options?: object, listener?: (socket: net.Socket) => void): net.Server;
}

/** A connection, seen from both ends. */
export interface Pair {
  readonly client: net.Socket;
  readonly accepted: net.Socket;
  readonly server: net.Server;
  readonly port: number;
}

const open: (net.Socket | net.Server)[] = [];
/** The sockets that have emitted `close`. `socket.closed` is true before that. */
const gone = new WeakSet<object>();

const keep = <T extends net.Socket | net.Server>(what: T): T => {
  open.push(what);
  what.on('close', () => gone.add(what));
  what.on('connect', () => gone.delete(what));
  return what;
};

/** Ends what a test has opened. */
export function closeAfterEach(): void {
  afterEach(async () => {
    const all = open.splice(0);
    for (const what of all) {
      if (!('destroy' in what)) continue;
      what.on('error', () => {});
      what.destroy();
    }
    for (const what of all) {
      if (!('listening' in what) || !what.listening) continue;
      what.close();
      await once(what, 'close');
    }
  });
}

export const nodeWorld = (): World => ({
  name: 'node:net',
  isOurs: false,
  address: '127.0.0.1',
  otherAddress: '127.0.0.2',
  connect: (...args) => keep(net.connect(...(args as [never]))),
  socket: (options) => keep(new net.Socket(options)),
  server: (options, listener) => {
    const server = net.createServer(options, listener);
    server.on('connection', keep);
    return keep(server);
  },
});

export const ourWorld = (): World => {
  const network = new StackNetwork();
  const client = network.stack('10.1.0.1', '2001:db8:1::1');
  const far = network.stack('10.2.0.1', '2001:db8:2::1');
  network.stack('10.2.0.2');
  return {
    name: 'presences',
    isOurs: true,
    address: '10.2.0.1',
    otherAddress: '10.2.0.2',
    connect: (...args) => keep(connect(client, ...args) as unknown as net.Socket),
    socket: (options) => keep(new PresenceSocket(client, options) as unknown as net.Socket),
    server: (options, listener) => {
      const server: PresenceServer = createServer(far, options, listener as never);
      server.on('connection', keep);
      return keep(server as unknown as net.Server);
    },
  };
};

export const worlds: readonly (() => World)[] = [nodeWorld, ourWorld];

export async function listening(world: World, server: net.Server): Promise<number> {
  server.listen(0, world.address);
  await once(server, 'listening');
  return (server.address() as net.AddressInfo).port;
}

export async function pairIn(
  world: World,
  options: { client?: object; server?: object } = {}
): Promise<Pair> {
  const server = world.server(options.server);
  const port = await listening(world, server);
  const client = world.connect({ port, host: world.address, ...options.client });
  const [[accepted]] = (await Promise.all([
    once(server, 'connection'),
    once(client, 'connect'),
  ])) as [[net.Socket], unknown];
  return { client, accepted, server, port };
}

/** Writes down the events of a socket: `end`, `close:false`, `error:ECONNRESET`, `data:3`. */
export function logOf(socket: net.Socket, log: string[] = [], prefix = ''): string[] {
  const note = (text: string) => log.push(prefix + text);
  socket.on('connect', () => note('connect'));
  socket.on('ready', () => note('ready'));
  socket.on('end', () => note('end'));
  socket.on('finish', () => note('finish'));
  socket.on('timeout', () => note('timeout'));
  socket.on('error', (error: NodeJS.ErrnoException) => note(`error:${error.code}`));
  socket.on('close', (hadError) => note(`close:${hadError}`));
  return log;
}

/** The own fields of an error, with the address and port of the world taken out. */
export function shapeOf(world: World, error: object, port: number): Record<string, unknown> {
  const plain = (text: string) =>
    text
      .replaceAll(world.address, '<address>')
      .replaceAll(world.otherAddress, '<other>')
      .replace(String(port), '<port>');
  const { stack: _, ...fields } = Object.fromEntries(
    Object.getOwnPropertyNames(error).map((name) => [name, (error as never)[name]])
  ) as Record<string, unknown>;
  return Object.fromEntries(
    Object.entries(fields).map(([name, value]) => [
      name,
      name === 'port' ? '<port>' : typeof value === 'string' ? plain(value) : value,
    ])
  );
}

/** Waits until nothing more happens without new input. It is for what must *not* happen. */
export async function settled(): Promise<void> {
  for (let round = 0; round < 20; round++) await nextRound();
}

export async function closed(...sockets: net.Socket[]): Promise<void> {
  await Promise.all(
    sockets.map(
      (socket) => gone.has(socket) || new Promise((resolve) => socket.on('close', resolve))
    )
  );
}

/** Waits for a condition, round by round of the event loop. */
export async function until(isTrue: () => boolean): Promise<void> {
  while (!isTrue()) await new Promise((resolve) => setImmediate(resolve));
}
