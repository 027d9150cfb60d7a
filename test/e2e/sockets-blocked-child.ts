/**
 * `sockets-blocked-child.ts CLOUD TOKEN`: a program that blocks its event loop while it transfers data over the sockets
 * of an edge gateway: to a service, from it, and in bursts that the service returns. Each kind is tried several times, until an attempt has
 * retransmitted nothing: on a busy machine, packets may be late for other reasons. Prints what all attempts have
 * counted, as JSON.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { setTimeout as delay, setImmediate as nextTurn } from 'node:timers/promises';
import { EdgeGateway } from '../../src/gateway/index.ts';
import { MemorySecrets, MemoryStore } from '../../src/store/index.ts';
import { testData } from './test-data.ts';

export type Attempt = Readonly<Record<'retransmitted' | 'timeouts' | 'tailProbes', number>>;
/** The attempts of each kind; only the last one may have retransmitted nothing. */
export type Attempts = Readonly<Record<'up' | 'down' | 'bursts', readonly Attempt[]>>;

const BLOCK_MS = 300;
const BLOCKS = 3;
const ATTEMPTS = 6;
const DATA = testData();
const DATA_HASH = createHash('sha256').update(DATA).digest('hex');
/** Less than an initial window. */
const BURST_BYTES = 10_000;

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
const bursts = await attempts(
  exchange,
  ({ retransmitted, tailProbes }) => retransmitted + tailProbes === 0
);
process.stdout.write(`${JSON.stringify({ up, down, bursts } satisfies Attempts)}\n`);
await edge.close();

async function attempts(
  transfer: () => Promise<void>,
  isClean = ({ retransmitted }: Attempt) => retransmitted === 0
): Promise<Attempt[]> {
  const results: Attempt[] = [];
  while (results.length < ATTEMPTS) {
    const before = look();
    await transfer();
    const after = look();
    const result = {
      retransmitted: after.retransmitted - before.retransmitted,
      timeouts: after.timeouts - before.timeouts,
      tailProbes: after.tailProbes - before.tailProbes,
    };
    results.push(result);
    if (isClean(result)) break;
  }
  return results;
}

async function upload(): Promise<void> {
  const socket = edge.sockets.connect({ host: 'web', port: 7000, allowHalfOpen: true });
  const answer = text(socket);
  const blocks = blocker();
  for (let at = 0; at < DATA.length; at += 65_536) {
    const chunk = DATA.subarray(at, at + 65_536);
    blocks(chunk.length);
    if (!socket.write(chunk)) await once(socket, 'drain');
  }
  socket.end();
  check((await answer) === DATA_HASH);
}

async function download(): Promise<void> {
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
  check(hash.digest('hex') === DATA_HASH);
}

/**
 * Sends bursts that are on their way while the event loop is blocked, with nothing behind them. Each one has a
 * connection of its own that has learned how short a round trip is, so that the block is longer than any timer.
 */
async function exchange(): Promise<void> {
  for (let i = 0; i < BLOCKS; i++) {
    const socket = edge.sockets.connect({ host: 'web', port: 7001 });
    const returned: AsyncIterator<Buffer> = socket[Symbol.asyncIterator]();
    for (let trip = 0; trip < 20; trip++) {
      socket.write('?');
      await returned.next();
    }
    const burst = DATA.subarray(i * BURST_BYTES, (i + 1) * BURST_BYTES);
    // What is written now is sent in a tick. Then the event loop is blocked, and looks for timers before it reads.
    await delay(5);
    await nextTurn();
    socket.write(burst);
    for (let ticks = 0; ticks < 10; ticks++) await new Promise(process.nextTick);
    block();
    for (let got = 0; got < burst.length; ) {
      const { value } = await returned.next();
      check(value.equals(burst.subarray(got, got + value.length)));
      got += value.length;
    }
    socket.destroy();
  }
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
    setImmediate(block);
  };
}

function block(): void {
  const end = performance.now() + BLOCK_MS;
  while (performance.now() < end) {
    // The event loop waits.
  }
}

function check(isSame: boolean): void {
  if (!isSame) throw new Error('the data have changed on the way');
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
