/**
 * The two flows of the benchmark of outages, at the client and at the service. The service echoes messages on one port,
 * and counts the bytes of a stream on another one:
 *
 *     node --import tsx bench/outage/flows.ts serve ECHO BULK
 *     node --import tsx bench/outage/flows.ts client ADDRESS ECHO BULK
 *
 * The client sends 64 bytes and waits for the answer, again and again, with 10 ms between them, and beside it a stream of
 * 20 Mbit/s. Its own machine holds the stream back while the network takes nothing.
 *
 * Each prints a line for what has moved: `pong MS NUMBER` at the client, `bulk MS BYTES` at the service, by the monotonic
 * clock of the machine. `broken` follows if a connection has ended or a byte is not the one that was sent. A program ends
 * with its standard input.
 * @module
 */
import { connect, createServer, type Socket } from 'node:net';
import { machineMs } from './clock.ts';

function serve(echoPort: number, bulkPort: number): void {
  createServer({ noDelay: true }, (socket) => socket.on('error', () => {}).pipe(socket)).listen(
    echoPort
  );
  let newest: Socket | undefined;
  createServer((socket) => {
    newest = socket;
    let bytes = 0;
    socket.on('error', () => {});
    socket.on('data', (data) => {
      // What is left of an earlier client may still come.
      if (socket !== newest) return;
      for (const byte of data) if (byte !== (bytes++ & 0x7f)) report('broken bulk', bytes);
      report('bulk', bytes);
    });
  }).listen(bulkPort, () => console.log('ready'));
}

function client(address: string, echoPort: number, bulkPort: number): void {
  const echo = connect({ host: address, port: echoPort, noDelay: true });
  guard(echo, 'pong');
  let number = 0;
  let missing = 0;
  const ask = (): void => {
    missing = MESSAGE_BYTES;
    echo.write(Buffer.alloc(MESSAGE_BYTES, number & 0xff));
  };
  echo.on('connect', ask);
  echo.on('data', (data) => {
    for (const byte of data) if (byte !== (number & 0xff)) report('broken pong', number);
    missing -= data.length;
    if (missing > 0) return;
    report('pong', ++number);
    setTimeout(ask, PAUSE_MS);
  });
  const bulk = connect({ host: address, port: bulkPort });
  guard(bulk, 'bulk');
  const piece = Buffer.from(Array.from({ length: PIECE_BYTES }, (_, i) => i & 0x7f));
  setInterval(() => {
    if (bulk.writableLength < PIECE_BYTES) bulk.write(piece);
  }, PAUSE_MS);
}

function guard(socket: Socket, what: string): void {
  socket.on('error', ({ message }) => console.log(`broken ${what}: ${message}`));
  socket.on('end', () => console.log(`broken ${what}: it was ended`));
}

function report(what: string, count: number): void {
  console.log(`${what} ${machineMs().toFixed(1)} ${count}`);
}

const MESSAGE_BYTES = 64;
const PAUSE_MS = 10;
/** 20 Mbit/s in pieces every 10 ms; a multiple of 128, so that the pattern goes on. */
const PIECE_BYTES = 25_088;

process.stdin.on('end', () => process.exit()).resume();
const [role, ...words] = process.argv.slice(2);
if (role === 'serve') serve(Number(words[0]), Number(words[1]));
if (role === 'client') client(words[0]!, Number(words[1]), Number(words[2]));
