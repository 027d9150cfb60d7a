/**
 * `data-service PORT`: takes a line with a number and sends that many MiB: first a line with their SHA-256, then
 * the bytes. It does as little work per byte as possible, because it shares the machine with the gateways.
 * @module
 */
import { createHash, randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';
import { serve } from './serve.ts';

const MAX_MEBIBYTES = 1024;
const block = randomBytes(1 << 20);

/** The hash of the first 1, 2, 3, ... MiB of an endless file. */
const hashes: string[] = [];
const running = createHash('sha256');
for (let i = 0; i < MAX_MEBIBYTES; i++) {
  running.update(block);
  hashes.push(running.copy().digest('hex'));
}

function send(socket: Socket, left: number): void {
  while (left > 0) {
    left--;
    if (!socket.write(block)) {
      socket.once('drain', () => send(socket, left));
      return;
    }
  }
  socket.end();
}

await serve(Number(process.argv[2]), (socket) => {
  socket.once('data', (line) => {
    const mebibytes = Math.max(1, Math.min(Number(line.toString()) | 0, MAX_MEBIBYTES));
    socket.write(`${hashes[mebibytes - 1]}\n`);
    send(socket, mebibytes);
  });
});
process.stdout.write('ready\n');
