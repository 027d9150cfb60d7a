/**
 * `download HOST PORT MEBIBYTES SECONDS`: downloads from a data service into memory, then checks the hash. It prints a line
 * when data begins to flow, and one JSON line at the end in any case. It gives up after so many seconds without data.
 * @module
 */
import { createHash } from 'node:crypto';
import { connect } from 'node:net';

/** The length of a SHA-256 in hexadecimal and a line feed. */
const HASH_LINE = 65;

const [host, port, mebibytes, seconds] = process.argv.slice(2);
const expectedLength = Number(mebibytes) << 20;
/** A line with the hash, then the data. */
const received = Buffer.alloc(HASH_LINE + expectedLength);
let length = 0;
let firstMs = 0;
let lastMs = 0;
let longestGapMs = 0;

function finish(error?: string): never {
  const expected = received.toString('latin1', 0, HASH_LINE - 1);
  const data = received.subarray(HASH_LINE, length);
  const isWhole =
    data.length === expectedLength && createHash('sha256').update(data).digest('hex') === expected;
  const elapsedMs = lastMs - firstMs;
  process.stdout.write(
    `${JSON.stringify({ isWhole, length: data.length, elapsedMs, lastMs, longestGapMs, error })}\n`
  );
  process.exit(isWhole ? 0 : 2);
}

const socket = connect({
  host: host!,
  port: Number(port),
  family: 4,
  // All reads use one buffer, because the client must not limit the measured speed.
  onread: {
    buffer: Buffer.alloc(1 << 20),
    callback: (bytes, buffer) => {
      const nowMs = performance.timeOrigin + performance.now();
      if (length === 0) {
        firstMs = nowMs;
        process.stdout.write('flowing\n');
      } else {
        longestGapMs = Math.max(longestGapMs, nowMs - lastMs);
      }
      lastMs = nowMs;
      received.set(buffer.subarray(0, bytes), length);
      length += bytes;
      return true;
    },
  },
});
socket.setTimeout(Number(seconds) * 1000, () => finish(`nothing received for ${seconds} s`));
socket.on('connect', () => socket.write(`${mebibytes}\n`));
socket.on('end', () => finish());
socket.on('error', (error) => finish(error.message));
