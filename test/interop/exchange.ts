/**
 * Sends bytes over a socket and receives what the other end sends, both at the same time, and hashes both. It serves
 * both ends, so it imports nothing of the library.
 * @module
 */
import { createCipheriv, createHash } from 'node:crypto';
import type { Duplex } from 'node:stream';

export interface ExchangeSpec {
  /** How many bytes to send, before the direction is ended. */
  readonly bytes: number;
  /** What the bytes are. */
  readonly seed: number;
}

export interface ExchangeReport {
  readonly sent: Digest;
  readonly received: Digest;
  /** From the call to the end of what the other end sent. */
  readonly receivedMs: number;
}

export interface Digest {
  readonly bytes: number;
  readonly sha256: string;
}

/** Resolves when both directions have ended and the socket is closed. */
export async function exchange(socket: Duplex, spec: ExchangeSpec): Promise<ExchangeReport> {
  const closed = new Promise<void>((resolve, reject) => {
    socket.once('error', reject);
    socket.once('close', () => resolve());
  });
  const start = performance.now();
  let receivedMs = 0;
  socket.once('end', () => {
    receivedMs = performance.now() - start;
  });
  const received = receive(socket);
  const sent = send(socket, spec);
  await closed;
  return { sent: await sent, received: received(), receivedMs };
}

/** Begins to read. Returns a function that tells what has come so far. */
export function receive(socket: Duplex): () => Digest {
  const hash = createHash('sha256');
  let bytes = 0;
  socket.on('data', (chunk: Buffer) => {
    hash.update(chunk);
    bytes += chunk.length;
  });
  return () => ({ bytes, sha256: hash.copy().digest('hex') });
}

/** Writes as fast as the socket takes it, and ends. Resolves when all is written to the socket. */
export async function send(socket: Duplex, spec: ExchangeSpec): Promise<Digest> {
  const hash = createHash('sha256');
  for (const chunk of chunksOf(spec)) {
    if (socket.destroyed) break;
    hash.update(chunk);
    if (!socket.write(chunk)) await drained(socket);
  }
  socket.end();
  return { bytes: spec.bytes, sha256: hash.digest('hex') };
}

/** Resolves when the socket takes more, or is closed. */
function drained(socket: Duplex): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      socket.off('drain', done).off('close', done);
      resolve();
    };
    socket.on('drain', done).on('close', done);
  });
}

/** Bytes that depend on the seed and look random: the key stream of AES. */
export function* chunksOf({ bytes, seed }: ExchangeSpec): Iterable<Buffer> {
  const key = Buffer.alloc(16);
  key.writeInt32LE(seed);
  const cipher = createCipheriv('aes-128-ctr', key, Buffer.alloc(16));
  for (let left = bytes; left > 0; left -= CHUNK) {
    yield cipher.update(ZEROS.subarray(0, Math.min(left, CHUNK)));
  }
}

const CHUNK = 65_536;
const ZEROS = Buffer.alloc(CHUNK);
