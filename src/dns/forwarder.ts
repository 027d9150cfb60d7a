/**
 * Asks upstream servers for names that are not in our zones, and returns their answers unchanged, as
 * a transparent proxy does ([RFC 5625](https://www.rfc-editor.org/rfc/rfc5625)). Nothing is cached.
 *
 * 1. The query gets its own id and its own source port, both random (RFC 5452 section 9.2).
 * 2. It goes to the first upstream by UDP. A reply counts if it comes from that upstream and has that
 *    id and that question. Other messages are ignored.
 * 3. A truncated reply is fetched again by TCP.
 * 4. If no reply comes in time, or the reply says that the server cannot help, the next upstream is
 *    asked.
 *
 * `dns-packet` decodes the header of a reply, and nothing behind it: a message of 64 KiB can be made
 * so that its records take a tenth of a second to decode.
 * @module
 */
import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { connect } from 'node:net';
import { type DecodedPacket, decode } from 'dns-packet';
import { checkFunction, checkObject } from '../base/option-check.ts';
import type { Upstream } from './forward-rules.ts';
import { encodeFrame, FrameDecoder } from './framing.ts';
import { integerWithin } from './limits.ts';
import { HEADER_LENGTH, type Query, readQuestion, readUint16 } from './message.ts';

/** Answers foreign names for a `SiteResolver`; inject your own to ask in another way. */
export interface Forwarder {
  /**
   * Asks the upstreams in turn. Resolves to a reply, with any id, or to `undefined` when none came;
   * never rejects.
   */
  exchange(query: Query, upstreams: readonly Upstream[]): Promise<Uint8Array | undefined>;
}

export interface DnsForwarderOptions {
  /** The longest time that one try, by UDP or by TCP, may take, in ms; default 2000. */
  readonly timeoutMs?: number;
  /** Returns ids from 0 to 65535, which nobody may be able to predict; random ones by default. */
  readonly randomId?: () => number;
}

/** The default of each option. */
export const DNS_FORWARDER_DEFAULTS: Readonly<{
  /** In ms. */
  timeoutMs: number;
}> = Object.freeze({ timeoutMs: 2000 });

export interface DnsForwarderCounters {
  /** Tries by UDP. */
  udpTries: number;
  /** Tries by TCP. */
  tcpTries: number;
  /** Tries that ended without a reply: the time is over, or nobody listens there. */
  failedTries: number;
  /** Messages with another id or question than the query; they may be forged. */
  strayReplies: number;
}

/** Opens a socket for each try, and holds none between tries. */
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
      const bytes = Buffer.from(query.bytes);
      bytes.writeUInt16BE(this.#randomId());
      const request = { ...query, bytes };
      let reply = await this.#tryUdp(request, upstream);
      if (reply?.header.flag_tc === true) reply = await this.#tryTcp(request, upstream);
      if (reply === undefined) continue;
      if (!CANNOT_HELP.has(reply.header.rcode)) return reply.bytes;
      refusal = reply.bytes;
    }
    return refusal;
  }

  /** Ends all exchanges, running and later ones, without a reply. */
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

  #tryUdp(request: Query, upstream: Upstream): Promise<Reply | undefined> {
    this.counters.udpTries++;
    return this.#try((settle) => {
      const socket = createSocket(upstream.family === 4 ? 'udp4' : 'udp6');
      socket.on('message', (bytes) => this.#accept(bytes, request, settle));
      socket.on('error', () => settle(undefined));
      // A connected socket gets datagrams of the upstream only.
      socket.on('connect', () => socket.send(request.bytes));
      socket.connect(upstream.port, upstream.address);
      return () => socket.close();
    });
  }

  #tryTcp(request: Query, upstream: Upstream): Promise<Reply | undefined> {
    this.counters.tcpTries++;
    return this.#try((settle) => {
      const decoder = new FrameDecoder();
      const socket = connect(upstream.port, upstream.address);
      socket.on('connect', () => socket.write(encodeFrame(request.bytes)));
      socket.on('data', (chunk) => {
        decoder.push(chunk);
        for (let bytes = decoder.next(); bytes !== undefined; bytes = decoder.next()) {
          this.#accept(bytes, request, settle);
        }
      });
      socket.on('error', () => settle(undefined));
      socket.on('close', () => settle(undefined));
      return () => socket.destroy();
    });
  }

  #accept(bytes: Buffer, request: Query, settle: Settle): void {
    const header = decodeHeader(bytes);
    if (header !== undefined && isReplyTo(bytes, header, request)) settle({ bytes, header });
    else this.counters.strayReplies++;
  }

  /** `open` starts the try and returns what ends it. Only the first call of `settle` has an effect. */
  #try(open: (settle: Settle) => () => void): Promise<Reply | undefined> {
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

interface Reply {
  readonly bytes: Buffer;
  readonly header: Header;
}

type Settle = (reply: Reply | undefined) => void;

/** The fields of a header that are used here; `dns-packet` types only some of them. */
type Header = Pick<DecodedPacket, 'id' | 'type' | 'flag_tc'> & {
  readonly opcode: string;
  readonly rcode: string;
};

/** Decodes the header of a message as one that announces no questions and no records. */
function decodeHeader(message: Buffer): Header | undefined {
  if (message.length < HEADER_LENGTH) return undefined;
  const header = Buffer.alloc(HEADER_LENGTH);
  message.copy(header, 0, 0, COUNTS_OFFSET);
  return decode(header) as DecodedPacket & Header;
}

/**
 * Returns whether a message is a reply to `request`. A server that could not read the query may leave
 * the question out. Names are compared by `readQuestion`: `dns-packet` decodes some different names to
 * the same text.
 */
function isReplyTo(bytes: Buffer, header: Header, request: Query): boolean {
  const isReply = header.type === 'response' && header.opcode === 'QUERY';
  if (!isReply || header.id !== readUint16(request.bytes, 0)) return false;
  const questions = readUint16(bytes, COUNTS_OFFSET);
  if (questions === 0) return header.rcode !== 'NOERROR';
  const question = questions === 1 ? readQuestion(bytes) : undefined;
  return (
    question?.name === request.name &&
    question.type === request.type &&
    question.class === request.class
  );
}

/** Response codes of a server that cannot help, while the next one perhaps can. */
const CANNOT_HELP: ReadonlySet<string> = new Set(['FORMERR', 'SERVFAIL', 'NOTIMP', 'REFUSED']);
/** The numbers of questions and records follow the id and the flags. */
const COUNTS_OFFSET = 4;
/** The longest time that a timer of Node takes. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;
