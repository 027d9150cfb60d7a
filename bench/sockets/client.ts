/**
 * The client of all contenders, an application for Node: the same code over `node:net` and over the sockets of this
 * library.
 *
 *     client net                      the kernel's sockets
 *     client agent|agent-1460 CONFIG  an edge gateway with sockets instead of a device, in this process; `agent-1460`
 *                                     speaks segments of 1,460 bytes without offload
 *     client straight CONFIG          a stack whose packets go to a TUN, without gateways
 *
 * It says "ready", and answers each command, one line of JSON on standard input, by one line of JSON. CONFIG is JSON too.
 * @module
 */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect as connectNet } from 'node:net';
import { createInterface } from 'node:readline';
import type { Duplex } from 'node:stream';
import { EdgeGateway } from 'virtual-presence';
import { openDevice } from 'virtual-presence/device';
import { SocketStack } from 'virtual-presence/sockets';
import { pump } from '../../test/support/device-pump.ts';

/** What the client does when it is told so. */
export type ClientCommand = { readonly host: string; readonly port: number } & (
  | {
      /** Opens streams, which send or receive as much as they can until `close`. */
      readonly do: 'send' | 'onread' | 'data';
      readonly streams: number;
    }
  | {
      /** Connects, sends 100 bytes, gets 100 bytes, and waits until the connection is closed; in sequence. */
      readonly do: 'request';
      readonly count: number;
      readonly ms: number;
    }
  | {
      /** Opens streams to what answers requests; each carries 4 bytes each way, and is idle until `close`. */
      readonly do: 'idle';
      readonly streams: number;
    }
  | { readonly do: 'close' }
);

export interface RequestTimes {
  readonly p50Us: number;
  readonly p99Us: number;
  readonly count: number;
}

/** For `agent` and `agent-1460`. */
export interface AgentConfig {
  readonly stateDirectory: string;
  readonly token: string;
  /** Default: what the token says. */
  readonly cloud?: readonly string[];
}

/** For `straight`. */
export interface StraightConfig {
  /** The address of the stack. */
  readonly address: string;
  /** The address that it reaches. */
  readonly service: string;
  readonly tun: string;
}

interface OnRead {
  readonly buffer: Uint8Array;
  readonly callback: (count: number) => boolean;
}

type Connect = (options: { host: string; port: number; onread?: OnRead }) => Stream;

/** A socket of the kernel or of a presence. */
type Stream = Duplex & { resetAndDestroy(): unknown };

async function main(): Promise<void> {
  const [kind, path] = process.argv.slice(2);
  const connect = await openers[kind!]!(path!);
  const streams: Stream[] = [];
  console.log('ready');
  for await (const line of createInterface({ input: process.stdin })) {
    const command = JSON.parse(line) as ClientCommand;
    console.log(JSON.stringify(await perform(command, connect, streams)));
  }
  process.exit();
}

const openers: Readonly<Record<string, (path: string) => Promise<Connect>>> = {
  net: async () => (options) => connectNet(options),
  agent: (path) => openAgent(path, false),
  'agent-1460': (path) => openAgent(path, true),
  straight: openStraight,
};

async function openAgent(path: string, isShort: boolean): Promise<Connect> {
  const config = configOf<AgentConfig>(path);
  const device = isShort ? new SocketStack({ mtu: 1500, offload: false }) : SOCKETS;
  const edge = await EdgeGateway.start({ ...config, device });
  await edge.ready({ signal: AbortSignal.timeout(60_000) });
  showCounters(() => edge.sockets.allCounters);
  return (options) => edge.sockets.connect(options);
}

async function openStraight(path: string): Promise<Connect> {
  const { address, service, tun } = configOf<StraightConfig>(path);
  const hosts = [{ name: 'service.example.test', addresses: [service], ports: ['tcp/1-65535'] }];
  const pool = `${service}/32`;
  const stack = new SocketStack();
  stack.setSite({ sources: [`${address}/32`], pools: [pool], zone: 'example.test', hosts });
  const device = await openDevice({ type: 'tun', name: tun, mtu: 1500, lan: ['wan0'] });
  pump(stack, device);
  showCounters(() => stack.allCounters);
  return (options) => stack.connect(options);
}

/** On SIGUSR2 the counters that are not 0 are printed to standard error. */
function showCounters(counters: () => Readonly<Record<string, number>>): void {
  process.on('SIGUSR2', () => {
    const some = Object.entries(counters()).filter(([, count]) => count !== 0);
    console.error(JSON.stringify(Object.fromEntries(some)));
  });
}

async function perform(
  command: ClientCommand,
  connect: Connect,
  streams: Stream[]
): Promise<unknown> {
  const { host, port } = command;
  switch (command.do) {
    case 'close':
      // A reset drops what waits in the buffers of a thousand streams, which would take minutes to send.
      for (const stream of streams.splice(0)) stream.resetAndDestroy();
      return {};
    case 'request':
      return requests(() => connect({ host, port }), command.count, command.ms);
    default:
      await open(connect, command, streams);
      if (command.do === 'idle') return {};
      // All begin at the same time, so that none has to connect beside a thousand that carry all they can.
      for (const stream of streams) {
        if (command.do === 'send') send(stream);
        else stream.write('?');
        if (command.do === 'data') stream.on('data', noop);
      }
      return {};
  }
}

/** Opens as many streams as are missing, some at a time. */
async function open(
  connect: Connect,
  command: Extract<ClientCommand, { readonly streams: number }>,
  streams: Stream[]
): Promise<void> {
  const { host, port, do: kind } = command;
  const one = async (): Promise<Stream> => {
    const stream = await opened(connect, kind === 'onread', { host, port });
    if (kind === 'idle') {
      stream.write('ping');
      await once(stream.on('data', noop), 'data');
    }
    return stream;
  };
  while (streams.length < command.streams) {
    const length = Math.min(command.streams - streams.length, CONCURRENT);
    streams.push(...(await Promise.all(Array.from({ length }, one))));
  }
}

function opened(
  connect: Connect,
  hasOnread: boolean,
  to: { host: string; port: number }
): Promise<Stream> {
  const onread = { buffer: BUFFER, callback: () => true };
  const stream = connect(hasOnread ? { ...to, onread } : to);
  return new Promise((resolve, reject) => {
    stream.once('error', reject);
    stream.once('connect', () => {
      stream.off('error', reject).on('error', fail);
      resolve(stream);
    });
  });
}

/** As a program does that has much to say: it waits for `drain` when the stream is full. */
function send(stream: Duplex): void {
  const more = (): void => {
    while (!stream.destroyed && stream.write(CHUNK));
  };
  stream.on('drain', more);
  more();
}

async function requests(connect: () => Duplex, count: number, ms: number): Promise<RequestTimes> {
  const times: number[] = [];
  const endMs = performance.now() + ms;
  for (let i = -WARM_UP; i < count && performance.now() < endMs; i++) {
    const startMs = performance.now();
    await request(connect());
    if (i >= 0) times.push((performance.now() - startMs) * 1000);
  }
  times.sort((a, b) => a - b);
  const at = (share: number): number => times[Math.floor(times.length * share)]!;
  return { p50Us: at(0.5), p99Us: at(0.99), count: times.length };
}

function request(stream: Duplex): Promise<void> {
  let missing = MESSAGE.length;
  return new Promise((resolve, reject) => {
    stream.on('error', reject);
    stream.on('data', (data: Buffer) => {
      missing -= data.length;
    });
    stream.on('close', () => {
      if (missing === 0) resolve();
      else reject(new Error(`${missing} bytes of the answer are missing`));
    });
    stream.write(MESSAGE);
  });
}

function configOf<T>(path: string): T {
  return JSON.parse(readFileSync(path, 'utf8')) as T;
}

function fail(error: Error): void {
  console.error(error);
  process.exit(1);
}

function noop(): void {}

const SOCKETS = { type: 'sockets' } as const;
const MESSAGE = Buffer.alloc(100);
const CHUNK = Buffer.alloc(65_536);
const BUFFER = Buffer.alloc(65_536);
const WARM_UP = 25;
const CONCURRENT = 50;

await main();
