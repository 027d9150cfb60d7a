/**
 * The clients of the resolver, as a process in the gateway's network namespace: floods, clients that take too much,
 * a normal client beside them, and the upstream servers. Runs one attack and prints what it saw as a line of
 * JSON.
 * @module
 */
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { Resolver } from 'node:dns/promises';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { encode, RECURSION_DESIRED } from 'dns-packet';
import { admin } from '../support/gateway-process.ts';
import { CLIENT, EDGE, GATEWAY, SLOW_PORT, UPSTREAM_PORT } from './names-plan.ts';

/** The answers to a flood. */
export interface FloodReport {
  readonly sent: number;
  readonly queryBytes: number;
  /** Queries that reached the gateway; undefined if it does not count them. */
  readonly received: number | undefined;
  readonly bytesOut: number;
  /** Answers with records. */
  readonly whole: number;
  readonly truncated: number;
  readonly refused: number;
  readonly seconds: number;
  /** Queries of the flood that were forwarded. */
  readonly upstreamQueries: number;
  /** How many queries of the normal client were answered. */
  readonly answered: number;
}

export interface GreedReport {
  /** Whether the gateway has refused the attacking client something. */
  readonly wasBounded: boolean;
  /** How many queries of the normal client were answered. */
  readonly answered: number;
}

/** Queries of the normal client in each attack. */
const CLIENT_QUERIES = 5;

const [attack, source, adminSocket] = process.argv.slice(2) as [string, string, string];
const attacks: Readonly<Record<string, () => Promise<FloodReport | GreedReport | number>>> = {
  query: queryEdge,
  flood,
  forwards: () => greed('overShare', holdForwards),
  connections: () => greed('tcpOverShare', holdConnections),
};
let upstreamQueries = 0;
const open: { close(): unknown }[] = [];

/** Sends one query to the edge gateway. Returns the response code. */
async function queryEdge(): Promise<number> {
  const socket = await bound();
  socket.send(question('unknown.openstack.test'), 53, EDGE);
  const [answer] = (await once(socket, 'message')) as [Buffer];
  return answer[3]! & 0x0f;
}

/** Sends queries with the longest possible answer, again and again, without reading the answers. */
async function flood(): Promise<FloodReport> {
  const socket = await bound();
  const seen = { bytesOut: 0, whole: 0, truncated: 0, refused: 0, answered: 0 };
  socket.on('message', (answer) => {
    seen.bytesOut += answer.length;
    if (answer.readUInt16BE(6) > 0) seen.whole++;
    else if ((answer[2]! & 0x02) !== 0) seen.truncated++;
    else if ((answer[3]! & 0x0f) === 5) seen.refused++;
  });
  const receivedBefore = await counted('udpQueries');
  const startedMs = performance.now();
  let sent = 0;
  while (sent < FLOOD) {
    for (let i = 0; i < BATCH; i++) socket.send(LONG, 53, GATEWAY);
    sent += BATCH;
    if (sent % (FLOOD / CLIENT_QUERIES) === 0) seen.answered += await countAnswers(1);
    await delay(2);
  }
  // The gateway has finished when no answer comes any more.
  for (let before = -1; before !== seen.bytesOut; await delay(500)) before = seen.bytesOut;
  const receivedAfter = await counted('udpQueries');
  return {
    ...seen,
    sent,
    queryBytes: LONG.length,
    // The queries of the normal client are among them, and too few to matter.
    received: receivedAfter === undefined ? undefined : receivedAfter - receivedBefore!,
    seconds: (performance.now() - startedMs) / 1000,
    upstreamQueries,
  };
}

/** Takes resources until the gateway counts a refusal, or up to a maximum. */
async function greed(
  counter: string,
  take: (count: number) => Promise<void>
): Promise<GreedReport> {
  const before = (await counted(counter)) ?? 0;
  const isBounded = async (): Promise<boolean> => ((await counted(counter)) ?? 0) > before;
  for (let taken = 0; taken < MOST_TAKEN && !(await isBounded()); taken += BATCH) {
    await take(BATCH);
  }
  return { wasBounded: await isBounded(), answered: await countAnswers(CLIENT_QUERIES) };
}

let forwards: UdpSocket | undefined;
async function holdForwards(count: number): Promise<void> {
  forwards ??= await bound();
  for (let i = 0; i < count; i++) forwards.send(SLOW, 53, GATEWAY);
  await delay(2);
}

async function holdConnections(count: number): Promise<void> {
  const sockets: Socket[] = [];
  for (let i = 0; i < count; i++) {
    const socket = connect({ port: 53, host: GATEWAY, localAddress: source });
    socket.on('error', () => {});
    socket.resume();
    sockets.push(socket);
    open.push({ close: () => socket.destroy() });
  }
  await Promise.all(sockets.map((socket) => once(socket, 'connect')));
}

/** Returns how many queries are answered, as an application's resolver sees it. */
async function countAnswers(count: number): Promise<number> {
  let answered = 0;
  for (let i = 0; i < count; i++) {
    const resolver = new Resolver({ tries: 2, timeout: 5000 });
    resolver.setServers([GATEWAY]);
    resolver.setLocalAddress(CLIENT);
    const addresses = await resolver.resolve4('normal.example.org').catch(() => []);
    if (addresses.length > 0) answered++;
  }
  return answered;
}

async function counted(name: string): Promise<number | undefined> {
  const { body } = await admin(adminSocket, 'GET', '/v1/status');
  return (body.dns as Readonly<Record<string, number>> | undefined)?.[name];
}

async function bound(address = source, port = 0): Promise<UdpSocket> {
  const socket = createSocket({ type: 'udp4', recvBufferSize: 4 << 20 });
  socket.bind(port, address);
  await once(socket, 'listening');
  open.push(socket);
  return socket;
}

/** Starts an upstream that answers with the longest datagram, and one that never answers. */
async function startUpstreams(): Promise<void> {
  const socket = await bound(GATEWAY, UPSTREAM_PORT);
  socket.on('message', (query, client) => {
    if (query.includes('long')) upstreamQueries++;
    socket.send(longAnswer(query), client.port, client.address);
  });
  await bound(GATEWAY, SLOW_PORT);
}

/** Returns an answer with 60 addresses. */
function longAnswer(query: Buffer): Buffer {
  const questionEnd = query.indexOf(0, 12) + 5;
  const head = Buffer.from(query.subarray(0, questionEnd));
  head.writeUInt16BE(0x8180, 2);
  head.writeUInt16BE(60, 6);
  head.writeUInt16BE(0, 10);
  const record = Buffer.from('c00c00010001000000000004c0000201', 'hex');
  return Buffer.concat([head, ...Array.from({ length: 60 }, () => record)]);
}

function question(name: string): Buffer {
  return encode({
    id: 1,
    flags: RECURSION_DESIRED,
    questions: [{ name, type: 'A' }],
    additionals: [
      {
        type: 'OPT',
        name: '.',
        udpPayloadSize: 4096,
        extendedRcode: 0,
        ednsVersion: 0,
        flags: 0,
        flag_do: false,
        options: [],
      },
    ],
  });
}

const LONG = question('long.example.org');
const SLOW = question('a.slow.example.org');
const FLOOD = process.env.VP_FULL === '1' ? 100_000 : 20_000;
/** The queries that are sent at once, which fit into a socket's buffer. */
const BATCH = 40;
/** How many places the attacking client tries to take, far more than exist. */
const MOST_TAKEN = 4_000;

await startUpstreams();
const report = await attacks[attack]!();
for (const each of open) each.close();
console.log(JSON.stringify(report));
