/**
 * `sockets-blocked-child.ts CLOUD TOKEN`: a program that blocks its event loop while it transfers data over the sockets
 * of an edge gateway, first to a service and then from it. Each direction is tried several times, until an attempt has
 * retransmitted nothing: on a busy machine, packets may be late for other reasons. Prints what all attempts have
 * counted, as JSON.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { EdgeGateway } from '../../src/gateway/index.ts';
import { MemorySecrets, MemoryStore } from '../../src/store/index.ts';
import { testData } from './test-data.ts';

export type Attempt = Readonly<Record<'retransmitted' | 'timeouts' | 'tailProbes', number>>;
export interface Attempts {
  /** The attempts of each direction; only the last one may have retransmitted nothing. */
  readonly up: readonly Attempt[];
  readonly down: readonly Attempt[];
}

const BLOCK_MS = 300;
const BLOCKS = 4;
const ATTEMPTS = 6;
const DATA = testData();

const [cloud, token] = process.argv.slice(2);
const edge = await EdgeGateway.start({
  token: token!,
  cloud: [cloud!],
  device: { type: 'sockets' },
  store: new MemoryStore(),
  secrets: new MemorySecrets(),
});
await edge.ready();
const up = await attempts(upload);
const down = await attempts(download);
process.stdout.write(`${JSON.stringify({ up, down } satisfies Attempts)}\n`);
await edge.close();

async function attempts(transfer: () => Promise<string>): Promise<Attempt[]> {
  const expected = createHash('sha256').update(DATA).digest('hex');
  const results: Attempt[] = [];
  while (results.length < ATTEMPTS) {
    const before = look();
    if ((await transfer()) !== expected) throw new Error('the data have changed on the way');
    const after = look();
    const result = {
      retransmitted: after.retransmitted - before.retransmitted,
      timeouts: after.timeouts - before.timeouts,
      tailProbes: after.tailProbes - before.tailProbes,
    };
    results.push(result);
    if (result.retransmitted === 0) break;
  }
  return results;
}

async function upload(): Promise<string> {
  const socket = edge.sockets.connect({ host: 'web', port: 7000, allowHalfOpen: true });
  const answer = text(socket);
  const blocks = blocker();
  for (let at = 0; at < DATA.length; at += 65_536) {
    const chunk = DATA.subarray(at, at + 65_536);
    blocks(chunk.length);
    if (!socket.write(chunk)) await once(socket, 'drain');
  }
  socket.end();
  return answer;
}

async function download(): Promise<string> {
  const socket = edge.sockets.connect({ host: 'web', port: 8080 });
  socket.write('GET /data HTTP/1.0\r\n\r\n');
  const hash = createHash('sha256');
  const blocks = blocker();
  let head: Buffer | undefined = Buffer.alloc(0);
  for await (const chunk of socket as AsyncIterable<Buffer>) {
    blocks(chunk.length);
    if (head === undefined) {
      hash.update(chunk);
      continue;
    }
    head = Buffer.concat([head, chunk]);
    const end = head.indexOf('\r\n\r\n');
    if (end < 0) continue;
    hash.update(head.subarray(end + 4));
    head = undefined;
  }
  return hash.digest('hex');
}

/** Blocks the event loop some times, each after the same number of bytes. */
function blocker(): (length: number) => void {
  const step = DATA.length / (BLOCKS + 1);
  let count = 0;
  let next = step;
  return (length) => {
    count += length;
    if (count < next) return;
    next += step;
    const end = performance.now() + BLOCK_MS;
    while (performance.now() < end) {
      // The event loop waits.
    }
  };
}

function look(): Attempt {
  const { counters } = edge.status();
  const count = (name: string): number => counters[`sockets.tcp.${name}`] ?? 0;
  return {
    retransmitted: count('retransmitted'),
    timeouts: count('timeouts'),
    tailProbes: count('tailProbes'),
  };
}
