/**
 * `talker.ts listen PORT` or `talker.ts connect HOST PORT FROM`: one end of one TCP connection that stays
 * open; FROM is its source address.
 * A line `send N` on standard input sends the next N bytes of an endless sequence that both ends know.
 * Prints `connected`, `received N` after every 4 MiB and at the end of what was sent, `wrong` for
 * a byte that is not the next one, and how the connection ended.
 */
import { connect, createServer, type Socket } from 'node:net';
import { createInterface } from 'node:readline';

/** A period that is not a power of two, so that a lost or duplicated block is detected. */
const SEQUENCE = Buffer.from(Uint8Array.from({ length: 1_048_573 }, (_, i) => (i * 31) ^ (i >> 7)));
const REPORT_BYTES = 4 << 20;

const say = (text: string): void => {
  process.stdout.write(`${text}\n`);
};

function talk(socket: Socket): void {
  let sent = 0;
  let left = 0;
  let received = 0;
  let reported = 0;
  let quiet: NodeJS.Timeout | undefined;
  const write = (): void => {
    while (left > 0) {
      const at = sent % SEQUENCE.length;
      const bytes = SEQUENCE.subarray(at, at + Math.min(left, 65_536));
      sent += bytes.length;
      left -= bytes.length;
      if (!socket.write(bytes)) return;
    }
  };
  socket.on('drain', write);
  socket.on('data', (chunk) => {
    for (let from = 0; from < chunk.length; ) {
      const at = received % SEQUENCE.length;
      const part = chunk.subarray(from, from + SEQUENCE.length - at);
      if (!part.equals(SEQUENCE.subarray(at, at + part.length))) say(`wrong behind ${received}`);
      received += part.length;
      from += part.length;
    }
    clearTimeout(quiet);
    const report = (): void => {
      reported = received;
      say(`received ${received}`);
    };
    if (received - reported >= REPORT_BYTES) report();
    else quiet = setTimeout(report, 50);
  });
  socket.on('error', (error) => say(`error ${error.message}`));
  socket.on('close', () => say('closed'));
  createInterface({ input: process.stdin }).on('line', (line) => {
    left += Number(line.split(' ')[1]);
    write();
  });
  say('connected');
}

const [role, ...args] = process.argv.slice(2);
if (role === 'listen') {
  createServer(talk).listen(Number(args[0]), () => say('listening'));
} else {
  const [host, port, localAddress] = args;
  const to = { host: host!, port: Number(port), localAddress: localAddress! };
  const socket = connect(to, () => talk(socket));
}
