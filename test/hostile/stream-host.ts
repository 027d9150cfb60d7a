/**
 * `stream-host.ts listen ADDRESS PORT` or `stream-host.ts connect ADDRESS PORT SECONDS`: one connection
 * that carries a stream of random bytes in each direction for so long. At the end, each side prints as JSON
 * how much it has sent and received, and the hashes of both (`StreamReport`).
 */
import { createCipheriv, createHash } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';

/** What one end of the connection has seen. */
export interface StreamReport {
  readonly sentBytes: number;
  readonly sentHash: string;
  readonly receivedBytes: number;
  readonly receivedHash: string;
  /** How the connection has ended, if not as expected. */
  readonly error?: string;
}

/** Sends until `isOver`, or until the other side has ended its stream. */
async function exchange(
  socket: Socket,
  seed: number,
  isOver: () => boolean
): Promise<StreamReport> {
  const stream = createCipheriv('aes-128-ctr', Buffer.alloc(16, seed), Buffer.alloc(16));
  const sent = createHash('sha256');
  const received = createHash('sha256');
  let [sentBytes, receivedBytes] = [0, 0];
  let error: string | undefined;
  let hasEnded = false;
  socket.on('data', (bytes) => {
    received.update(bytes);
    receivedBytes += bytes.length;
  });
  socket.on('end', () => {
    hasEnded = true;
  });
  socket.on('error', ({ message }) => {
    error = message;
  });
  const closed = new Promise((resolve) => socket.on('close', resolve));
  while (!hasEnded && !isOver() && !socket.destroyed) {
    const chunk = stream.update(ZEROS);
    sent.update(chunk);
    sentBytes += chunk.length;
    const hasRoom = socket.write(chunk);
    if (!hasRoom) await Promise.race([once(socket, 'drain').catch(() => {}), closed]);
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
  socket.end();
  await closed;
  return {
    sentBytes,
    sentHash: sent.digest('hex'),
    receivedBytes,
    receivedHash: received.digest('hex'),
    ...(error === undefined ? {} : { error }),
  };
}

function print(report: StreamReport): void {
  process.stdout.write(`${JSON.stringify(report)}\n`);
}

/** At most 16 MiB/s in each direction, which leaves CPU time for other programs. */
const ZEROS: Buffer = Buffer.alloc(64 * 1024);
const PAUSE_MS = 4;

const [role, address, port, seconds] = process.argv.slice(2);
if (role === 'listen') {
  const server = createServer({ allowHalfOpen: true }, async (socket) => {
    print(await exchange(socket, 1, () => false));
    server.close();
  });
  await once(server.listen(Number(port), address), 'listening');
  process.stdout.write('ready\n');
} else if (role === 'connect') {
  const socket = connect({ host: address!, port: Number(port), allowHalfOpen: true });
  await once(socket, 'connect');
  const end = performance.now() + 1000 * Number(seconds);
  print(await exchange(socket, 2, () => performance.now() > end));
}
