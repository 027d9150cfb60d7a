/**
 * `workload-host.ts serve ADDRESS PORT`: the service of the random fault run. UDP: the answer to a text is this text and the
 * address that it came from. TCP, selected by the first line of a client: `whoami` is answered with the client's address;
 * after `exchange NUMBER`, both sides send numbered words without end, and check those of the other side.
 *
 * `workload-host.ts clients SERVICE PORT`: the clients of a site. Commands are lines on standard input: `talk ADDRESS` and
 * `silence ADDRESS` begin and end that this address asks by UDP; `exchange NUMBER ADDRESS` and `end NUMBER` begin and end an
 * exchange; `whoami NUMBER ADDRESS` asks once by TCP.
 *
 * Both print one JSON document in a line for what happens.
 * @module
 */
import { createSocket, type Socket as DatagramSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { createInterface } from 'node:readline';

/** What the programs print. */
export type WorkloadEvent =
  | { readonly kind: 'ready' }
  /** An answer by UDP names another address than the one before. */
  | { readonly kind: 'seen'; readonly client: string; readonly address: string }
  | {
      readonly kind: 'whoami';
      readonly id: number;
      readonly address?: string;
      readonly error?: string;
    }
  /** An exchange has ended as it should. */
  | {
      readonly kind: 'ended';
      readonly id: number;
      readonly sent: number;
      readonly received: number;
    }
  /** A connection was reset, or bytes were lost or out of place. */
  | { readonly kind: 'fault'; readonly text: string }
  /** Once a second: answers by UDP and received bytes, since the beginning. */
  | {
      readonly kind: 'report';
      readonly answers: Readonly<Record<string, number>>;
      readonly received: Readonly<Record<string, number>>;
    };

const WORD_BYTES = 4;
const BLOCK_WORDS = 8192;
/** About 600 KB/s in each direction, which leaves CPU time for the gateways. */
const BLOCK_INTERVAL_MS = 50;
const TALK_INTERVAL_MS = 250;
const WHOAMI_LIMIT_MS = 20_000;

function print(event: WorkloadEvent): void {
  process.stdout.write(`${JSON.stringify(event)}\n`);
}

/** Returns the bytes of a stream of words from a position on; no two words of 16 GiB are equal. */
function bytesAt(seed: number, position: number, length: number): Buffer {
  const first = Math.floor(position / WORD_BYTES);
  const skipped = position - first * WORD_BYTES;
  const words = new Uint32Array(Math.ceil((skipped + length) / WORD_BYTES));
  for (let i = 0; i < words.length; i++) words[i] = Math.imul(first + i, 0x9e3779b1) + seed;
  return Buffer.from(words.buffer, skipped, length);
}

/** One end of an exchange. */
class Exchange {
  readonly #socket: Socket;
  readonly #id: number;
  readonly #side: 'client' | 'service';
  sent = 0;
  received = 0;
  #timer: NodeJS.Timeout;

  constructor(socket: Socket, id: number, side: 'client' | 'service') {
    this.#socket = socket;
    this.#id = id;
    this.#side = side;
    this.#timer = setInterval(() => this.#send(), BLOCK_INTERVAL_MS);
    socket.on('error', (error: NodeJS.ErrnoException) => this.#fault(`ended by ${error.code}`));
    socket.on('close', () => clearInterval(this.#timer));
    socket.on('end', () => {
      if (side === 'service') this.end();
      print({ kind: 'ended', id, sent: this.sent, received: this.received });
    });
  }

  take(chunk: Buffer): void {
    const seed = this.#side === 'client' ? -this.#id : this.#id;
    const expected = bytesAt(seed, this.received, chunk.length);
    if (!expected.equals(chunk)) {
      const at = chunk.findIndex((byte, i) => byte !== expected[i]);
      this.#fault(`byte ${this.received + at} is lost or out of place`);
      this.#socket.destroy();
      return;
    }
    this.received += chunk.length;
  }

  end(): void {
    clearInterval(this.#timer);
    this.#socket.end();
  }

  #send(): void {
    if (this.#socket.writableNeedDrain || this.#socket.connecting) return;
    const seed = this.#side === 'client' ? this.#id : -this.#id;
    const length = BLOCK_WORDS * WORD_BYTES;
    this.#socket.write(bytesAt(seed, this.sent, length));
    this.sent += length;
  }

  #fault(text: string): void {
    print({ kind: 'fault', text: `exchange ${this.#id} at the ${this.#side}: ${text}` });
  }
}

async function serve(address: string, port: number): Promise<void> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    let line = '';
    let exchange: Exchange | undefined;
    socket.on('error', () => socket.destroy());
    socket.on('data', (chunk: Buffer) => {
      if (exchange !== undefined) {
        exchange.take(chunk);
        return;
      }
      const end = chunk.indexOf('\n');
      line += chunk.subarray(0, end < 0 ? chunk.length : end).toString('latin1');
      if (end < 0) return;
      const [word, id] = line.split(' ');
      if (word === 'exchange') {
        exchange = new Exchange(socket, Number(id), 'service');
        if (end + 1 < chunk.length) exchange.take(chunk.subarray(end + 1));
      } else socket.end(`${socket.remoteAddress}\n`);
    });
  });
  await once(server.listen(port, address), 'listening');
  const answers = createSocket('udp4');
  answers.on('message', (text, from) => {
    answers.send(`${text} ${from.address}`, from.port, from.address);
  });
  answers.bind(port, address);
  await once(answers, 'listening');
  print({ kind: 'ready' });
}

function runClients(service: string, port: number): void {
  const talking = new Map<
    string,
    { readonly socket: DatagramSocket; readonly timer: NodeJS.Timeout }
  >();
  const answers: Record<string, number> = {};
  const seen = new Map<string, string>();
  const exchanges = new Map<number, Exchange>();

  const talk = (client: string): void => {
    const socket = createSocket('udp4');
    let number = 0;
    // The kernel reports errors of ICMP while there is no way.
    socket.on('error', () => {});
    socket.on('message', (text) => {
      const address = text.toString().split(' ')[1]!;
      answers[client] = (answers[client] ?? 0) + 1;
      if (seen.get(client) === address) return;
      seen.set(client, address);
      print({ kind: 'seen', client, address });
    });
    socket.bind(0, client, () => {
      const timer = setInterval(() => {
        socket.send(`${number++}`, port, service, () => {});
      }, TALK_INTERVAL_MS);
      talking.set(client, { socket, timer });
    });
  };
  const silence = (client: string): void => {
    const { socket, timer } = talking.get(client)!;
    clearInterval(timer);
    socket.close();
    talking.delete(client);
    seen.delete(client);
    delete answers[client];
  };
  const begin = (id: number, client: string): void => {
    const socket = connect({ host: service, port, localAddress: client, family: 4 });
    socket.on('connect', () => socket.write(`exchange ${id}\n`));
    const exchange = new Exchange(socket, id, 'client');
    socket.on('data', (chunk) => exchange.take(chunk));
    exchanges.set(id, exchange);
  };
  const whoami = (id: number, client: string): void => {
    let text = '';
    const socket = connect({ host: service, port, localAddress: client, family: 4 });
    socket.setTimeout(WHOAMI_LIMIT_MS, () => socket.destroy(new Error('no answer')));
    socket.on('connect', () => socket.write('whoami\n'));
    socket.on('data', (chunk) => {
      text += chunk;
    });
    socket.on('end', () => print({ kind: 'whoami', id, address: text.trim() }));
    socket.on('error', (error) => print({ kind: 'whoami', id, error: error.message }));
  };

  createInterface(process.stdin).on('line', (line) => {
    const [word, first, second] = line.split(' ') as [string, string, string];
    if (word === 'talk') talk(first);
    else if (word === 'silence') silence(first);
    else if (word === 'exchange') begin(Number(first), second);
    else if (word === 'whoami') whoami(Number(first), second);
    else {
      exchanges.get(Number(first))?.end();
      exchanges.delete(Number(first));
    }
  });
  setInterval(() => {
    const received = Object.fromEntries([...exchanges].map(([id, each]) => [id, each.received]));
    print({ kind: 'report', answers, received });
  }, 1000);
  print({ kind: 'ready' });
}

const [command, address, port] = process.argv.slice(2);
if (command === 'serve') await serve(address!, Number(port));
else runClients(address!, Number(port));
