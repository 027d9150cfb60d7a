/**
 * A cloud gateway that has few descriptors for the services behind its sockets: a limit of the kernel, in a process of
 * its own.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createSocket, type Socket as DatagramSocket } from 'node:dgram';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { afterEach, expect, onTestFinished, test, vi } from 'vitest';
import type { EdgeGateway } from '../../src/gateway/index.ts';
import type { PresenceSocket } from '../../src/sockets/index.ts';
import type { Question } from './descriptors-child.ts';
import { Gateways } from './scene.ts';

const LOOPBACK = '127.0.0.1';
const WAIT = { timeout: 60_000, interval: 20 };
const PATIENCE = { signal: AbortSignal.timeout(600_000) };
/**
 * The limit of the process; its backend has 768 of them, and each of its two sites 192. Node needs some hundred while it
 * loads the program.
 */
const DESCRIPTORS = 1024;

const gateways = new Gateways();
afterEach(() => gateways.close());

/** The real services, which answer with what they get, and the connections of the one of TCP. */
async function services(): Promise<{
  tcp: number;
  udp: number;
  accepted: Set<Socket>;
}> {
  const accepted = new Set<Socket>();
  const server = createServer((socket) => {
    accepted.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => accepted.delete(socket));
    socket.pipe(socket);
  });
  server.listen(0, LOOPBACK);
  const datagrams = createSocket('udp4', (message, { port, address }) => {
    datagrams.send(message, port, address);
  });
  datagrams.bind(0, LOOPBACK);
  await Promise.all([once(server, 'listening'), once(datagrams, 'listening')]);
  onTestFinished(() => {
    for (const socket of accepted) socket.destroy();
    server.close();
    datagrams.close();
  });
  return { tcp: portOf(server), udp: portOf(datagrams), accepted };
}

function portOf(server: { address(): unknown } | DatagramSocket): number {
  return (server.address() as AddressInfo).port;
}

class Cloud {
  readonly #child: ChildProcess;

  constructor(...ports: number[]) {
    const program = ['--import', 'tsx', 'test/gateway/descriptors-child.ts', ...ports.map(String)];
    const command = ['-c', `ulimit -n ${DESCRIPTORS}; exec "$0" "$@"`, process.execPath];
    const stdio = ['ignore', 'ignore', 'inherit', 'ipc'] as const;
    this.#child = spawn('sh', [...command, ...program], { stdio: [...stdio] });
    onTestFinished(() => {
      this.#child.kill('SIGKILL');
    });
  }

  async ask(question?: Question): Promise<unknown> {
    const answer = once(this.#child, 'message');
    if (question !== undefined) this.#child.send(question);
    return ((await answer) as [{ answer: unknown }])[0].answer;
  }

  async counter(name: string): Promise<number> {
    return ((await this.ask('counters')) as Record<string, number>)[`backend.${name}`]!;
  }
}

async function edge(token: string): Promise<EdgeGateway> {
  const device = { type: 'sockets', address: '10.0.0.9' } as const;
  const started = await gateways.edge({ device, token });
  await started.ready(PATIENCE);
  return started;
}

/** Opens connections; each that is connected gets an answer. */
function open({ sockets }: EdgeGateway, port: number, count: number): PresenceSocket[] {
  return Array.from({ length: count }, () => {
    const socket = sockets.connect({ host: 'bus', port });
    return socket.on('error', () => {});
  });
}

async function answers(socket: PresenceSocket): Promise<void> {
  socket.write('?');
  await once(socket, 'data');
}

/** Sends a datagram from a new port until it is answered. */
async function answersUdp({ sockets }: EdgeGateway, port: number): Promise<void> {
  const socket = sockets.datagram('udp4');
  let isAnswered = false;
  socket.on('message', () => {
    isAnswered = true;
  });
  await vi.waitUntil(() => {
    if (!isAnswered) socket.send('?', port, 'bus');
    return isAnswered;
  }, WAIT);
  // The socket closes with its gateway: a further answer to a closed one would end the flow, and give its place to a
  // connection.
}

const connected = (sockets: readonly PresenceSocket[]): PresenceSocket[] =>
  sockets.filter(({ readyState }) => readyState === 'open');

// Node raises its soft limit to the hard one, and the `ulimit` of a shell sets both.
test.skipIf(process.platform !== 'linux')(
  'connections without a descriptor wait and are counted, and a site takes no more than a quarter',
  async () => {
    const { tcp, udp, accepted } = await services();
    const cloud = new Cloud(tcp, udp);
    await cloud.ask();
    const tokens = (await cloud.ask('tokens')) as string[];
    const [a, b] = await Promise.all(tokens.map(edge));
    const [first] = open(a!, tcp, 1);
    await answers(first!);

    await cloud.ask('hold');
    const sockets = open(a!, tcp, 12);
    await vi.waitUntil(async () => (await cloud.counter('tcp.dialsPostponed')) >= 4, WAIT);
    expect(connected(sockets).length).toBeLessThanOrEqual(8);
    // Nobody has got a refusal, and what is connected goes on.
    expect(sockets.filter(({ destroyed }) => destroyed)).toEqual([]);
    await answers(first!);
    const datagrams = b!.sockets.datagram('udp4');
    await vi.waitUntil(async () => {
      datagrams.send('?', udp, 'bus');
      return (await cloud.counter('udp.failed')) > 0;
    }, WAIT);
    datagrams.close();

    await cloud.ask('free');
    await Promise.all(sockets.map(answers));
    await answersUdp(a!, udp);

    // 13 connections and a flow are there.
    const many = open(a!, tcp, 100);
    await vi.waitUntil(() => connected(many).length === 100, WAIT);
    const limited = await cloud.counter('tcp.limited');
    many.push(...open(a!, tcp, 100));
    await vi.waitUntil(async () => (await cloud.counter('tcp.limited')) >= limited + 22, WAIT);
    await vi.waitUntil(() => connected(many).length === 178, WAIT);
    // The kernel has accepted a connection before this process hears of it.
    await vi.waitUntil(() => accepted.size >= 191, WAIT);
    expect(accepted.size).toBe(191);
    // Its next flow takes the place of the one before, and the other site has its own part.
    await answersUdp(a!, udp);
    expect(await cloud.counter('udp.evicted')).toBe(1);
    await Promise.all(open(b!, tcp, 5).map(answers));
    await answersUdp(b!, udp);
    expect(connected(many)).toHaveLength(178);
  },
  // Clients that are not answered wait longer each time, up to half a minute on a busy machine.
  180_000
);
