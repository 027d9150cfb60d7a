/**
 * The thread that sends the packets of a stream and gets them back.
 * @module
 */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { parentPort, workerData } from 'node:worker_threads';
import { readUdpFrame, udpFrame } from '../../src/packet/index.ts';
import { rounded } from '../gateway/report.ts';

/** Where the packets go. */
export interface Route {
  /** The client's address. */
  readonly from: string;
  /** The address of the presence that it sends to. */
  readonly to: string;
  readonly port: number;
  /** The UDP port of the process that translates them. */
  readonly gateway: number;
}

/** `stop`: sends nothing until the next `start`, and reports what has passed so far. */
export type Command = 'start' | 'stop';

/** How the packets have passed. */
export interface Passage {
  readonly sent: number;
  readonly lost: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly mostMs: number;
}

const PACKETS_PER_SECOND = 1000;
const route = workerData as Route;
const socket = createSocket('udp4');
socket.bind(0, '127.0.0.1');
await once(socket, 'listening');
const payload = Buffer.alloc(64);
let sent = 0;
let arrived = 0;
/** Keyed by the number of the packet. */
const delaysMs: number[] = [];
let startMs = 0;
let sentBefore = 0;
let timer: NodeJS.Timeout | undefined;

socket.on('message', (frame) => {
  const datagram = readUdpFrame(frame);
  if (datagram === undefined || `${datagram.destination}` === route.to) {
    throw new Error('a packet came back that was not translated');
  }
  const content = Buffer.from(datagram.payload);
  const number = content.readUInt32BE(0);
  if (delaysMs[number] !== undefined) throw new Error(`packet ${number} came back twice`);
  delaysMs[number] = performance.now() - content.readDoubleBE(4);
  arrived++;
});

parentPort!.on('message', (command: Command) => {
  if (command === 'start') {
    startMs = performance.now();
    sentBefore = sent;
    timer = setInterval(send, 1);
  } else {
    clearInterval(timer);
    void drained().then(() => parentPort!.postMessage(passage()));
  }
});

/** Sends what is due, so that the pace is steady even if this thread had to wait. */
function send(): void {
  const due = sentBefore + Math.floor(((performance.now() - startMs) / 1000) * PACKETS_PER_SECOND);
  for (; sent < due; sent++) {
    payload.writeUInt32BE(sent, 0);
    payload.writeDoubleBE(performance.now(), 4);
    const ends = { source: route.from, sourcePort: 40_000, destination: route.to };
    const frame = udpFrame({ ...ends, destinationPort: route.port, payload });
    socket.send(frame, route.gateway, '127.0.0.1');
  }
}

/** Resolves when all have come back, or nothing has for a second. */
async function drained(): Promise<void> {
  for (let count = -1; count !== arrived && arrived < sent; ) {
    count = arrived;
    await delay(1000);
  }
}

function passage(): Passage {
  const sorted = delaysMs.filter((each) => each !== undefined).sort((a, b) => a - b);
  const at = (part: number) =>
    rounded(sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))]!);
  return { sent, lost: sent - arrived, p50Ms: at(0.5), p99Ms: at(0.99), mostMs: at(1) };
}
