/**
 * The service of `rootless.ts`: it does what `service.c` does, and needs no compiler.
 *
 * It prints "ready" with its ports on 127.0.0.1: one reads all that comes, one sends as much as it can once a byte has
 * come, one answers a request of 100 bytes with 100 bytes and closes. What begins with 4 bytes gets 4 bytes, and stays
 * open. A line on standard input is answered by one line of JSON: as by `service.c`, or at the line `memory` the memory
 * of this process. It runs until standard input ends.
 * @module
 */
import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { collected } from './memory.ts';

async function main(): Promise<void> {
  const streams = new Map<Socket, () => number>();
  const listen = async (onSocket: (socket: Socket) => void): Promise<number> => {
    const server = createServer({ noDelay: true }, (socket) => {
      socket.on('error', noop).on('close', forget);
      onSocket(socket);
    });
    server.listen({ port: 0, host: '127.0.0.1', backlog: 1024 });
    await once(server, 'listening');
    return (server.address() as AddressInfo).port;
  };
  function forget(this: Socket): void {
    streams.delete(this);
  }
  const sink = await listen((socket) => {
    streams.set(socket, () => socket.bytesRead);
    socket.on('data', noop);
  });
  const source = await listen((socket) => {
    streams.set(socket, () => socket.bytesWritten - socket.writableLength);
    const more = (): void => {
      while (!socket.destroyed && socket.write(CHUNK));
    };
    socket.once('data', more).on('drain', more);
  });
  const answer = await listen((socket) => void socket.on('data', answerTo));
  console.log(`ready ${JSON.stringify({ sink, source, answer })}`);
  for await (const line of createInterface({ input: process.stdin })) {
    if (line === '!') for (const socket of streams.keys()) socket.destroy();
    if (line === '!') streams.clear();
    const us = performance.now() * 1000;
    const bytes = [...streams.values()].map((count) => count());
    console.log(JSON.stringify(line === 'memory' ? collected() : { us, bytes }));
  }
  process.exit();
}

/** A function for all, so that an idle connection has none of its own. */
function answerTo(this: Socket, data: Buffer): void {
  if (this.bytesRead === PING_BYTES) this.write(data);
  else if (this.bytesRead >= MESSAGE.length) this.end(MESSAGE);
}

function noop(): void {}

const CHUNK = Buffer.alloc(262_144);
const MESSAGE = Buffer.alloc(100);
const PING_BYTES = 4;

await main();
