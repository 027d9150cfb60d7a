/**
 * Asks upstream servers for names that are not ours, and hands their answers through unchanged, as
 * a transparent proxy does ([RFC 5625](https://www.rfc-editor.org/rfc/rfc5625)). Nothing is cached.
 *
 * 1. The query gets an id and a source port of its own, both random (RFC 5452 section 9.2).
 * 2. It goes to the first upstream by UDP; a reply counts if it comes from there, with that id and
 *    that question. Others are ignored.
 * 3. A truncated reply is fetched again by TCP.
 * 4. No reply in time, or one that says the server cannot help: the next upstream is asked.
 * @module
 */
import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { connect } from 'node:net';
import { checkFunction, checkObject } from '../base/option-check.ts';
import type { Upstream } from './forward-rules.ts';
import { encodeFrame, FrameDecoder } from './framing.ts';
import { integerWithin } from './limits.ts';
import {
  FLAG_QR,
  FLAG_TC,
  HEADER_LENGTH,
  OPCODE_MASK,
  type Query,
  RCODE_MASK,
  Rcode,
  readUint16,
} from './message.ts';

/** What `SiteResolver` needs to have foreign names answered; inject your own to ask otherwise. */
export interface Forwarder {
  /**
   * Asks the upstreams in turn. Resolves to a reply, with any id, or to `undefined` when none came;
   * never rejects.
   */
  exchange(query: Query, upstreams: readonly Upstream[]): Promise<Uint8Array | undefined>;
}

export interface DnsForwarderOptions {
  /** How long each try, by UDP or by TCP, may take, in ms; default 2000. */
  readonly timeoutMs?: number;
  /** Gives ids, 0 to 65535, which nobody may be able to predict; default random ones. */
  readonly randomId?: () => number;
}

/** What is used where an option is absent. */
export const DNS_FORWARDER_DEFAULTS: Readonly<{
  /** In ms. */
  timeoutMs: number;
}> = Object.freeze({ timeoutMs: 2000 });

export interface DnsForwarderCounters {
  /** Tries by UDP and by TCP. */
  udpTries: number;
  tcpTries: number;
  /** Tries that ended without a reply: in time, or because nobody listens. */
  failedTries: number;
  /** Datagrams and messages with another id or question than was sent; perhaps forged. */
  strayReplies: number;
}

/** Forwards over sockets of its own, one for each try; holds none in between. */
export class DnsForwarder implements Forwarder, AsyncDisposable {
  readonly counters: DnsForwarderCounters = {
    udpTries: 0,
    tcpTries: 0,
    failedTries: 0,
    strayReplies: 0,
  };
  readonly #timeoutMs: number;
  readonly #randomId: () => number;
  readonly #tries = new Set<Settle>();
  readonly #exchanges = new Set<Promise<unknown>>();
  #closing: Promise<void> | undefined;

  /**
   * @throws {ConfigError} if the timeout is not a positive integer.
   * @throws {ApiMisuseError} if `randomId` is no function.
   */
  constructor(options: DnsForwarderOptions = {}) {
    const { timeoutMs = DNS_FORWARDER_DEFAULTS.timeoutMs, randomId = () => randomInt(0x1_0000) } =
      checkObject('options', options);
    this.#timeoutMs = integerWithin('timeoutMs', timeoutMs, 1, MAX_TIMEOUT_MS);
    this.#randomId = checkFunction('randomId', randomId);
  }

  exchange(query: Query, upstreams: readonly Upstream[]): Promise<Uint8Array | undefined> {
    const exchange = this.#exchange(query, upstreams).finally(() =>
      this.#exchanges.delete(exchange)
    );
    this.#exchanges.add(exchange);
    return exchange;
  }

  async #exchange(query: Query, upstreams: readonly Upstream[]): Promise<Uint8Array | undefined> {
    let refusal: Buffer | undefined;
    for (const upstream of upstreams) {
      if (this.#closing !== undefined) return undefined;
      const request = Buffer.from(query.bytes);
      request.writeUInt16BE(this.#randomId());
      let reply = await this.#tryUdp(request, query.questionEnd, upstream);
      if (reply !== undefined && (readUint16(reply, 2) & FLAG_TC) !== 0) {
        reply = await this.#tryTcp(request, query.questionEnd, upstream);
      }
      if (reply === undefined) continue;
      if (!CANNOT_HELP.has(readUint16(reply, 2) & RCODE_MASK)) return reply;
      refusal = reply;
    }
    return refusal;
  }

  /** Ends all exchanges, now and to come, without a reply. */
  close(): Promise<void> {
    if (this.#closing === undefined) {
      this.#closing = Promise.allSettled(this.#exchanges).then(() => {});
      for (const settle of this.#tries) settle(undefined);
    }
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #tryUdp(request: Buffer, questionEnd: number, upstream: Upstream): Promise<Buffer | undefined> {
    this.counters.udpTries++;
    return this.#try((settle) => {
      const socket = createSocket(upstream.family === 4 ? 'udp4' : 'udp6');
      socket.on('message', (reply) => this.#accept(reply, request, questionEnd, settle));
      socket.on('error', () => settle(undefined));
      // connected, the kernel lets through what comes from the upstream alone
      socket.on('connect', () => socket.send(request));
      socket.connect(upstream.port, upstream.address);
      return () => socket.close();
    });
  }

  #tryTcp(request: Buffer, questionEnd: number, upstream: Upstream): Promise<Buffer | undefined> {
    this.counters.tcpTries++;
    return this.#try((settle) => {
      const decoder = new FrameDecoder();
      const socket = connect(upstream.port, upstream.address);
      socket.on('connect', () => socket.write(encodeFrame(request)));
      socket.on('data', (chunk) => {
        decoder.push(chunk);
        for (let reply = decoder.next(); reply !== undefined; reply = decoder.next()) {
          this.#accept(reply, request, questionEnd, settle);
        }
      });
      socket.on('error', () => settle(undefined));
      socket.on('close', () => settle(undefined));
      return () => socket.destroy();
    });
  }

  #accept(reply: Buffer, request: Buffer, questionEnd: number, settle: Settle): void {
    if (isReplyTo(reply, request, questionEnd)) settle(reply);
    else this.counters.strayReplies++;
  }

  /** `open` starts the try and returns what ends it; the first call of `settle` counts. */
  #try(open: (settle: Settle) => () => void): Promise<Buffer | undefined> {
    return new Promise((resolve) => {
      const settle: Settle = (reply) => {
        if (!this.#tries.delete(settle)) return;
        clearTimeout(timer);
        close();
        if (reply === undefined) this.counters.failedTries++;
        resolve(reply);
      };
      this.#tries.add(settle);
      const timer = setTimeout(settle, this.#timeoutMs, undefined);
      const close = open(settle);
    });
  }
}

type Settle = (reply: Buffer | undefined) => void;

/**
 * Whether `reply` answers `request`, whose question ends at `questionEnd`. Case in the name is not
 * compared. A server that could not read the query may leave the question out.
 */
function isReplyTo(reply: Buffer, request: Buffer, questionEnd: number): boolean {
  if (reply.length < HEADER_LENGTH || readUint16(reply, 0) !== readUint16(request, 0)) return false;
  const flags = readUint16(reply, 2);
  if ((flags & (FLAG_QR | OPCODE_MASK)) !== FLAG_QR) return false;
  const questions = readUint16(reply, 4);
  if (questions === 0) return (flags & RCODE_MASK) !== Rcode.NoError;
  if (questions !== 1 || reply.length < questionEnd) return false;
  const typeOffset = questionEnd - 4;
  for (let i = HEADER_LENGTH; i < questionEnd; i++) {
    const same =
      i < typeOffset ? foldCase(reply[i]!) === foldCase(request[i]!) : reply[i] === request[i];
    if (!same) return false;
  }
  return true;
}

/** Lengths of labels are below every letter, so that a whole name may be folded byte by byte. */
function foldCase(octet: number): number {
  return octet >= 0x41 && octet <= 0x5a ? octet | 0x20 : octet;
}

/** A server that answers so may be asked in vain while the next one knows. */
const CANNOT_HELP: ReadonlySet<number> = new Set([
  Rcode.FormErr,
  Rcode.ServFail,
  Rcode.NotImp,
  Rcode.Refused,
]);
/** The longest a timer of Node takes. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;
