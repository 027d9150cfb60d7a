/**
 * A client's connections in a takeover: `client.ts ADDRESS PORT`. It receives a TCP transfer and exchanges a UDP request
 * and its answer every 10 ms with `test/e2e/several-processes-host.ts`. It answers each line of standard input with a
 * line of JSON:
 *
 * | line | then | answer |
 * | --- | --- | --- |
 * | `begin` | both begin anew | `{}` when both have received something |
 * | `gaps` | | the longest gaps since the last answer |
 * | `settle` | waits until both have received for a second without a pause | the same |
 * | `end` | both end | whether all bytes of the transfer have arrived, or how it was interrupted |
 *
 * @module
 */
import { createHash } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';

/** The longest times without anything received, in ms. */
export interface Gaps {
  readonly tcpMs: number;
  readonly udpMs: number;
}

export interface TransferEnd {
  readonly isWhole: boolean;
  readonly error?: string;
}

const REQUEST_EVERY_MS = 10;
const HASH_BYTES = 32;
/** What has received nothing for so long has a pause. */
const PAUSE_MS = 250;
const SETTLED_MS = 1000;
const GIVE_UP_MS = 60_000;
const [address, portText] = process.argv.slice(2);
const port = Number(portText);

/** The longest time between two receptions. */
class Gap {
  /** Whether something has been received. */
  hasBegun = false;
  #lastMs = performance.now();
  #longestMs = 0;

  received(): void {
    const nowMs = performance.now();
    this.#longestMs = Math.max(this.#longestMs, nowMs - this.#lastMs);
    this.#lastMs = nowMs;
    this.hasBegun = true;
  }

  /** The time since the last reception. */
  get silenceMs(): number {
    return performance.now() - this.#lastMs;
  }

  /** Returns the longest one since the last call. A gap that goes on belongs to this call and to the next one. */
  take(): number {
    const longestMs = Math.max(this.#longestMs, this.silenceMs);
    this.#longestMs = 0;
    return Math.round(longestMs);
  }
}

class Connections {
  readonly #tcp = new Gap();
  readonly #udp = new Gap();
  readonly #transfer = connect({ host: address!, port, family: 4 });
  readonly #exchange = createSocket('udp4');
  readonly #timer: NodeJS.Timeout;
  readonly #hash = createHash('sha256');
  /** The last bytes received, which are the hash at the end. */
  #tail = Buffer.alloc(0);
  readonly #ended: Promise<TransferEnd>;
  #next = 0;

  constructor() {
    const transfer = this.#transfer;
    transfer.on('connect', () => transfer.write('stream\n'));
    transfer.on('data', (chunk: Buffer) => this.#take(chunk));
    this.#ended = new Promise((resolve) => {
      transfer.on('end', () => resolve({ isWhole: this.#hash.digest().equals(this.#tail) }));
      transfer.on('error', ({ message }) => resolve({ isWhole: false, error: message }));
    });
    const request = Buffer.alloc(8);
    this.#exchange.on('error', () => {});
    this.#exchange.on('message', (answer) => {
      // An answer that was overtaken is no news.
      if (answer.readUInt32BE(0) >= this.#answered) {
        this.#answered = answer.readUInt32BE(0);
        this.#udp.received();
      }
    });
    this.#timer = setInterval(() => {
      request.writeUInt32BE(this.#next++, 0);
      this.#exchange.send(Buffer.from(request), port, address);
    }, REQUEST_EVERY_MS);
  }

  #answered = 0;

  /** Resolves when both have received something. */
  async begun(): Promise<void> {
    await this.#until('nothing was received', () => this.#tcp.hasBegun && this.#udp.hasBegun);
    this.gaps();
  }

  gaps(): Gaps {
    return { tcpMs: this.#tcp.take(), udpMs: this.#udp.take() };
  }

  /** Resolves when both have received for a second without a pause. */
  async settled(): Promise<Gaps> {
    let sinceMs = performance.now();
    await this.#until('the connections did not go on', () => {
      const isPaused = Math.max(this.#tcp.silenceMs, this.#udp.silenceMs) > PAUSE_MS;
      if (isPaused) sinceMs = performance.now();
      return performance.now() - sinceMs >= SETTLED_MS;
    });
    return this.gaps();
  }

  end(): Promise<TransferEnd> {
    clearInterval(this.#timer);
    this.#exchange.close();
    this.#transfer.end();
    return this.#ended;
  }

  #take(chunk: Buffer): void {
    this.#tcp.received();
    const all = Buffer.concat([this.#tail, chunk]);
    const behind = Math.max(0, all.length - HASH_BYTES);
    this.#hash.update(all.subarray(0, behind));
    this.#tail = all.subarray(behind);
  }

  async #until(otherwise: string, isOver: () => boolean): Promise<void> {
    const endMs = performance.now() + GIVE_UP_MS;
    while (!isOver()) {
      if (performance.now() > endMs) throw new Error(`${otherwise} for ${GIVE_UP_MS} ms`);
      await delay(REQUEST_EVERY_MS);
    }
  }
}

let connections: Connections | undefined;
for await (const line of createInterface(process.stdin)) {
  let answer: object = {};
  if (line === 'begin') {
    connections = new Connections();
    await connections.begun();
  } else if (line === 'gaps') answer = connections!.gaps();
  else if (line === 'settle') answer = await connections!.settled();
  else answer = await connections!.end();
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
