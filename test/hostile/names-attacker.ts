/**
 * Whoever sends to the resolver, as a process of its own in the gateway's network namespace: floods,
 * greedy clients, an honest one beside them, and the upstream servers. Does one attack and prints what it
 * saw as a line of JSON.
 * @module
 */
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { Resolver } from 'node:dns/promises';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { encode, RECURSION_DESIRED } from 'dns-packet';
import { admin } from '../support/gateway-process.ts';
import { EDGE, GATEWAY, HONEST, SLOW_PORT, UPSTREAM_PORT } from './names-plan.ts';

/** What a flood was answered by. */
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
  /** Of the questions of the honest client, how many were answered. */
  readonly honest: number;
}

export interface GreedReport {
  /** Whether the gateway has refused the greedy client something. */
  readonly wasBounded: boolean;
  /** Of the questions of the honest client, how many were answered. */
  readonly honest: number;
}

/** Questions of the honest client in each attack. */
const HONEST_QUESTIONS = 5;

const [attack, source, adminSocket] = process.argv.slice(2) as [string, string, string];
const attacks: Readonly<Record<string, () => Promise<FloodReport | GreedReport | number>>> = {
  ask: askEdge,
  flood,
  forwards: () => greed('overShare', holdForwards),
  connections: () => greed('tcpOverShare', holdConnections),
};
let upstreamQueries = 0;
const open: { close(): unknown }[] = [];

/** Asks the edge gateway once. Returns the response code. */
async function askEdge(): Promise<number> {
  const socket = await bound();
  socket.send(question('nobody.openstack.test'), 53, EDGE);
  const [answer] = (await once(socket, 'message')) as [Buffer];
  return answer[3]! & 0x0f;
}

/** Asks for the longest answer that there is, again and again, and never looks at what comes. */
async function flood(): Promise<FloodReport> {
  const socket = await bound();
  const seen = { bytesOut: 0, whole: 0, truncated: 0, refused: 0, honest: 0 };
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
    if (sent % (FLOOD / HONEST_QUESTIONS) === 0) seen.honest += await askHonestly(1);
    await delay(2);
  }
  // The gateway is done when nothing comes any more.
  for (let before = -1; before !== seen.bytesOut; await delay(500)) before = seen.bytesOut;
  const receivedAfter = await counted('udpQueries');
  return {
    ...seen,
    sent,
    queryBytes: LONG.length,
    // The honest client's own are among them, and too few to matter.
    received: receivedAfter === undefined ? undefined : receivedAfter - receivedBefore!,
    seconds: (performance.now() - startedMs) / 1000,
    upstreamQueries,
  };
}

/** Takes what it can get until the gateway counts it, or the most that is tried. */
async function greed(
  counter: string,
  take: (count: number) => Promise<void>
): Promise<GreedReport> {
  const before = (await counted(counter)) ?? 0;
  const isBounded = async (): Promise<boolean> => ((await counted(counter)) ?? 0) > before;
  for (let taken = 0; taken < MOST_TAKEN && !(await isBounded()); taken += BATCH) {
    await take(BATCH);
  }
  return { wasBounded: await isBounded(), honest: await askHonestly(HONEST_QUESTIONS) };
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

/** Returns how many of the questions are answered, as an application's resolver sees it. */
async function askHonestly(count: number): Promise<number> {
  let answered = 0;
  for (let i = 0; i < count; i++) {
    const resolver = new Resolver({ tries: 2, timeout: 5000 });
    resolver.setServers([GATEWAY]);
    resolver.setLocalAddress(HONEST);
    const addresses = await resolver.resolve4('honest.example.org').catch(() => []);
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

/** One that answers by as much as a datagram may hold, and one that never answers. */
async function startUpstreams(): Promise<void> {
  const socket = await bound(GATEWAY, UPSTREAM_PORT);
  socket.on('message', (asked, client) => {
    if (asked.includes('long')) upstreamQueries++;
    socket.send(longAnswer(asked), client.port, client.address);
  });
  await bound(GATEWAY, SLOW_PORT);
}

/** 60 addresses. */
function longAnswer(asked: Buffer): Buffer {
  const questionEnd = asked.indexOf(0, 12) + 5;
  const head = Buffer.from(asked.subarray(0, questionEnd));
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
/** Sent in one go, which a socket's buffer holds. */
const BATCH = 40;
/** Places that a greedy client tries to take, far more than there are. */
const MOST_TAKEN = 4_000;

await startUpstreams();
const report = await attacks[attack]!();
for (const each of open) each.close();
console.log(JSON.stringify(report));
