/**
 * `several-processes-host.ts ADDRESS PORT...`: the services of a host in these tests, selected by the first line that
 * a client sends. `whoami`: the client's address. `stream`: bytes without end; when the client ends its
 * side, their SHA-256. UDP is echoed on the same ports.
 *
 * `several-processes-host.ts get HOST PORT`: reads such a stream until it reads `stop` from standard
 * input. Prints a line for each MiB, and at the end whether the hash is right.
 *
 * `several-processes-host.ts clients HOST PORT`: asks `whoami` at once from each address of this host that it reads, a line
 * each. Prints `ADDRESS ANSWER` for each answer, and ends after the last line when all are answered.
 * @module
 */
import { createHash, randomBytes } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect, createServer, isIPv6, type Socket } from 'node:net';
import { createInterface } from 'node:readline';

const MEBIBYTE = 1 << 20;
const BLOCK_BYTES = 1 << 16;
/** Limits the stream to about 16 MB/s, which leaves CPU time for other programs. */
const BLOCK_INTERVAL_MS = 4;
const HASH_BYTES = 32;

const [command, ...args] = process.argv.slice(2);
if (command === 'get') get(args[0]!, Number(args[1]));
else if (command === 'clients') clients(args[0]!, Number(args[1]));
else await serve(command!, args.map(Number));

async function serve(address: string, ports: readonly number[]): Promise<void> {
  for (const port of ports) {
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      socket.on('error', () => socket.destroy());
      socket.once('data', (line) => {
        if (line.toString().trim() === 'stream') stream(socket);
        else socket.end(`${socket.remoteAddress}\n`);
      });
    });
    await once(server.listen(port, address), 'listening');
    const echo = createSocket(isIPv6(address) ? 'udp6' : 'udp4');
    echo.on('message', (message, from) => echo.send(message, from.port, from.address));
    echo.bind(port, address);
    await once(echo, 'listening');
  }
  process.stdout.write('ready\n');
}

function stream(socket: Socket): void {
  const hash = createHash('sha256');
  const timer = setInterval(() => {
    if (socket.writableNeedDrain) return;
    const block = randomBytes(BLOCK_BYTES);
    hash.update(block);
    socket.write(block);
  }, BLOCK_INTERVAL_MS);
  socket.on('close', () => clearInterval(timer));
  socket.on('end', () => {
    clearInterval(timer);
    socket.end(hash.digest());
  });
}

function clients(host: string, port: number): void {
  createInterface(process.stdin).on('line', (localAddress) => {
    const socket = connect({ host, port, localAddress }, () => socket.end('whoami\n'));
    const print = (answer: string): void =>
      void process.stdout.write(`${localAddress} ${answer}\n`);
    socket.on('data', (answer) => print(answer.toString().trim()));
    socket.on('error', (error: NodeJS.ErrnoException) => print(`${error.code}`));
  });
}

function get(host: string, port: number): void {
  const socket = connect({ host, port });
  const hash = createHash('sha256');
  let length = 0;
  // The last bytes are the hash of all bytes before them.
  let tail = Buffer.alloc(0);
  const finish = (error?: string): never => {
    const isWhole = error === undefined && hash.digest().equals(tail);
    process.stdout.write(`${JSON.stringify({ isWhole, length, error })}\n`);
    process.exit(0);
  };
  socket.on('connect', () => socket.write('stream\n'));
  socket.on('data', (chunk: Buffer) => {
    const all = Buffer.concat([tail, chunk]);
    const behind = Math.max(0, all.length - HASH_BYTES);
    hash.update(all.subarray(0, behind));
    tail = all.subarray(behind);
    const before = Math.floor(length / MEBIBYTE);
    length += behind;
    const now = Math.floor(length / MEBIBYTE);
    if (now > before) process.stdout.write(`received ${now}\n`);
  });
  socket.on('end', () => finish());
  socket.on('error', (error: NodeJS.ErrnoException) => finish(error.code));
  createInterface(process.stdin).once('line', () => socket.end());
}
