/**
 * `download HOST PORT MEBIBYTES`: fetches into memory from a data service, then checks the hash. Prints
 * a line when data begins to flow, and one JSON line at the end, however it ends; with nothing
 * received for two seconds it gives up.
 * @module
 */
import { createHash } from 'node:crypto';
import { connect } from 'node:net';

/** Bytes of a SHA-256 in hex and a line feed. */
const HASH_LINE = 65;

const [host, port, mebibytes] = process.argv.slice(2);
const expectedLength = Number(mebibytes) << 20;
/** A line with the hash, then the data. */
const received = Buffer.alloc(HASH_LINE + expectedLength);
let length = 0;
let firstMs = 0;
let lastMs = 0;

function finish(error?: string): never {
  const expected = received.toString('latin1', 0, HASH_LINE - 1);
  const data = received.subarray(HASH_LINE, length);
  const isWhole =
    data.length === expectedLength && createHash('sha256').update(data).digest('hex') === expected;
  const elapsedMs = lastMs - firstMs;
  process.stdout.write(
    `${JSON.stringify({ isWhole, length: data.length, elapsedMs, lastMs, error })}\n`
  );
  process.exit(isWhole ? 0 : 2);
}

const socket = connect({
  host: host!,
  port: Number(port),
  family: 4,
  // Read into one buffer again and again: the client is not what is to be measured.
  onread: {
    buffer: Buffer.alloc(1 << 20),
    callback: (bytes, buffer) => {
      lastMs = performance.timeOrigin + performance.now();
      if (length === 0) {
        firstMs = lastMs;
        process.stdout.write('flowing\n');
      }
      received.set(buffer.subarray(0, bytes), length);
      length += bytes;
      return true;
    },
  },
});
socket.setTimeout(2000, () => finish('nothing received for 2 s'));
socket.on('connect', () => socket.write(`${mebibytes}\n`));
socket.on('end', () => finish());
socket.on('error', (error) => finish(error.message));
