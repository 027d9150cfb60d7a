/**
 * What needs no network: both ends in this process, their packets in memory. `local-measures.ts` builds and runs it, one
 * measure in each process, because what one measure makes the compiler assume would slow down the next.
 *
 *     local endpoint SUPER|1460 MIB             two TCP endpoints, without sockets
 *     local sockets SUPER|1460 onread|data MIB  two stacks with Node sockets
 *     local requests COUNT                      connect, 100 bytes there, 100 bytes back, close, in sequence
 *     local idle COUNT                          the heap of connections that have been used and are idle; --expose-gc
 *
 * Each prints one line of JSON.
 * @module
 */
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { VNET_HEADER_LENGTH } from 'virtual-presence/packet';
import { type PresenceSocket, SocketStack } from 'virtual-presence/sockets';
import { IpAddress } from '../../src/base/address.ts';
import { systemClock } from '../../src/base/clock.ts';
import {
  type ListenerOwner,
  type TcpConnection,
  TcpEndpoint,
  TcpEvent,
} from '../../src/tcp/index.ts';
import { pump } from '../../test/support/device-pump.ts';
import { collected } from './memory.ts';

/** Both ends together. */
export interface LocalBulk {
  readonly cpuSecondsPerGiB: number;
  readonly gbps: number;
  /** Packets in both directions. */
  readonly packets: number;
  readonly retransmitted: number;
}

/** What one connection with its request costs, both ends together, in µs. */
export interface LocalRequests {
  readonly us: number;
  readonly cpuUs: number;
}

/** For one end of one connection: in bytes. */
export interface IdleMemory {
  readonly heap: number;
  readonly external: number;
}

async function main(): Promise<void> {
  const [what, ...words] = process.argv.slice(2);
  // Stacks alone do not keep a process alive.
  setInterval(noop, 1_000);
  const result = await measures[what!]!(...words);
  console.log(JSON.stringify(result));
  process.exit();
}

/** The packets of up to 16 are on their way before the other end gets them, as in a turn of the event loop. */
function endpoint(size?: string, mebibytes?: string): LocalBulk {
  const total = Number(mebibytes) * 2 ** 20;
  const now = () => performance.now();
  const options = { clock: systemClock, ...sizeOptions(size) };
  const sender = new TcpEndpoint(options);
  const receiver = new TcpEndpoint(options);
  const sink = Buffer.alloc(2 ** 20);
  let got = 0;
  const server: ListenerOwner & { onTcpEvents(c: TcpConnection, events: number): void } = {
    onTcpConnection: (connection) => {
      connection.owner = server;
    },
    onTcpEvents: (connection, events) => {
      if ((events & TcpEvent.Readable) === 0) return;
      for (let n = -1; n !== 0; got += n) n = connection.read(sink, 0, sink.length);
    },
  };
  receiver.listen(undefined, PORT, server, 1);
  const chunk = Buffer.alloc(CHUNK, 1);
  let unwritten = total;
  const client = {
    onTcpEvents: (connection: TcpConnection) => {
      while (unwritten > 0) {
        const taken = connection.write(chunk);
        if (taken === 0) return;
        unwritten -= taken;
      }
    },
  };
  sender.connect(IpAddress.parse(CLIENT), 0, IpAddress.parse(SERVER), PORT, client);
  const frames = Array.from({ length: BATCH }, () => Buffer.alloc(MAX_FRAME));
  const lengths = new Array<number>(BATCH).fill(0);
  const move = (from: TcpEndpoint, to: TcpEndpoint): number => {
    let count = 0;
    for (; count < BATCH; count++) {
      const length = from.read(frames[count]!, 0);
      if (length === 0) break;
      lengths[count] = length;
    }
    to.advance();
    for (let i = 0; i < count; i++) to.receive(frames[i]!, 0, lengths[i]!);
    return count;
  };
  const runUntil = (bytes: number): void => {
    while (got < bytes) {
      const count = move(sender, receiver) + move(receiver, sender);
      sender.takeEvents();
      receiver.takeEvents();
      if (count > 0) continue;
      for (const each of [sender, receiver]) if (each.deadline <= now()) each.expire();
    }
  };
  const warmUp = total / 8;
  runUntil(warmUp);
  const measured = measureFrom(got);
  runUntil(total);
  const { retransmitted } = sender.counters;
  return measured(got, sender.counters.sent + receiver.counters.sent, retransmitted);
}

async function sockets(size?: string, mode?: string, mebibytes?: string): Promise<LocalBulk> {
  const total = Number(mebibytes) * 2 ** 20;
  const [client, server] = stacks(sizeOptions(size));
  let got = 0;
  const done = resolvers();
  const warm = resolvers();
  const onBytes = (count: number): void => {
    got += count;
    if (got >= total / 8) warm.resolve();
    if (got >= total) done.resolve();
  };
  const buffer = Buffer.alloc(2 ** 18);
  const listener = server.createServer((socket) => {
    socket.on('error', done.reject);
    chatter(socket);
  });
  const chunk = Buffer.alloc(CHUNK, 1);
  /** The server sends, because a client alone can have `onread`. */
  function chatter(socket: PresenceSocket): void {
    const more = (): void => {
      while (socket.write(chunk));
    };
    socket.on('drain', more);
    more();
  }
  listener.listen(PORT);
  await once(listener, 'listening');
  const onread = {
    buffer,
    callback: (count: number): boolean => {
      onBytes(count);
      return true;
    },
  };
  const socket = client.connect({
    host: SERVER,
    port: PORT,
    ...(mode === 'onread' ? { onread } : {}),
  });
  socket.on('error', done.reject);
  if (mode === 'data') socket.on('data', (data: Buffer) => onBytes(data.length));
  await Promise.race([warm.promise, done.promise]);
  const measured = measureFrom(got);
  await done.promise;
  const { sent, retransmitted } = server.tcp.counters;
  return measured(got, sent + client.tcp.counters.sent, retransmitted);
}

async function requests(count?: string): Promise<LocalRequests> {
  const [client, server] = stacks({});
  const message = Buffer.alloc(100);
  const listener = server.createServer((socket) => {
    socket.on('error', noop).on('data', () => socket.end(message));
  });
  listener.listen({ port: PORT, backlog: 1024 });
  await once(listener, 'listening');
  const request = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const socket = client.connect({ host: SERVER, port: PORT });
      socket.on('error', reject).on('data', noop).on('close', resolve);
      socket.write(message);
    });
  const wanted = Number(count);
  for (let i = 0; i < wanted / 10; i++) await request();
  const cpu = process.cpuUsage();
  const startMs = performance.now();
  for (let i = 0; i < wanted; i++) await request();
  const { user, system } = process.cpuUsage(cpu);
  const us = ((performance.now() - startMs) * 1000) / wanted;
  return { us, cpuUs: (user + system) / wanted };
}

async function idle(count?: string): Promise<IdleMemory> {
  const [client, server] = stacks({});
  const ends: PresenceSocket[] = [];
  let answered = noop;
  // Functions for all: what is measured is the library.
  function onPing(this: PresenceSocket): void {
    this.write('pong');
  }
  function onPong(): void {
    answered();
  }
  const listen = (socket: PresenceSocket, onData: () => void): void => {
    ends.push(socket);
    socket.on('data', onData).on('end', noop).on('error', fail).on('close', noop);
  };
  const listener = server.createServer((socket) => listen(socket, onPing));
  listener.listen({ port: PORT, backlog: 1024 });
  await once(listener, 'listening');
  const open = async (): Promise<void> => {
    const socket = client.connect({ host: SERVER, port: PORT });
    listen(socket, onPong);
    socket.write('ping');
    await new Promise<void>((resolve) => {
      answered = resolve;
    });
  };
  // The tables and pools that the first connections bring about are not what one more costs.
  for (let i = 0; i < 100; i++) await open();
  await delay(IDLE_MS);
  const before = collected();
  const wanted = Number(count);
  const opened = ends.length;
  for (let i = 0; i < wanted; i++) await open();
  // All acknowledgements are sent then.
  await delay(IDLE_MS);
  const after = collected();
  const added = ends.length - opened;
  return {
    heap: (after.heap - before.heap) / added,
    external: (after.external - before.external) / added,
  };
}

function stacks(options: SizeOptions): [SocketStack, SocketStack] {
  const stack = (own: string, other: string): SocketStack => {
    const made = new SocketStack({ ...options, name: own });
    const hosts = [{ name: 'other.example.test', addresses: [other], ports: [`tcp/${PORT}`] }];
    const [sources, pools] = [[`${own}/32`], [`${other}/32`]];
    made.setSite({ sources, pools, zone: 'example.test', hosts });
    return made;
  };
  const client = stack(CLIENT, SERVER);
  const server = stack(SERVER, CLIENT);
  pump(client, server);
  return [client, server];
}

interface Resolvers {
  readonly promise: Promise<void>;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

function resolvers(): Resolvers {
  let resolve: () => void = noop;
  let reject: (error: Error) => void = noop;
  const promise = new Promise<void>((onDone, onError) => {
    resolve = onDone;
    reject = onError;
  });
  return { promise, resolve, reject };
}

interface SizeOptions {
  readonly mtu?: number;
  readonly offload?: boolean;
}

function sizeOptions(size: string | undefined): SizeOptions {
  return size === '1460' ? { mtu: 1500, offload: false } : {};
}

type Finish = (got: number, packets: number, retransmitted: number) => LocalBulk;

function measureFrom(first: number): Finish {
  const cpu = process.cpuUsage();
  const startMs = performance.now();
  return (got, packets, retransmitted) => {
    const { user, system } = process.cpuUsage(cpu);
    const bytes = got - first;
    return {
      cpuSecondsPerGiB: (user + system) / 1e6 / (bytes / 2 ** 30),
      gbps: (bytes * 8) / (performance.now() - startMs) / 1e6,
      packets,
      retransmitted,
    };
  };
}

function noop(): void {}

function fail(error: Error): never {
  throw error;
}

const measures: Readonly<Record<string, (...words: string[]) => unknown>> = {
  endpoint,
  sockets,
  requests,
  idle,
};
const CLIENT = '10.0.0.1';
const SERVER = '10.0.0.2';
const PORT = 80;
const CHUNK = 2 ** 18;
const BATCH = 16;
const MAX_FRAME = VNET_HEADER_LENGTH + 65_536;
/** Longer than an acknowledgement is delayed, and than the least timer. */
const IDLE_MS = 1_500;

await main();
