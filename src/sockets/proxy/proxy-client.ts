/**
 * One client of a proxy, from its first byte until it is joined with its target.
 *
 * 1. The first byte says whether it speaks SOCKS5 or HTTP. The request must be complete in time.
 * 2. The target is connected through the stack, which knows the names of the zone and no others. Meanwhile the client is
 *    read: what it sends behind its request is kept, and its end gives the target up.
 * 3. The client gets the reply, and the two connections are spliced. Or it gets a refusal, and is closed.
 *
 * Each client has exactly one outcome, which is counted when it is known.
 * @module
 */
import type { Socket } from 'node:net';
import type { HostPort } from '../../base/host-port.ts';
import { onreadTo, reset, splice } from '../host/splice.ts';
import type { SocketHost } from '../socket-host.ts';
import { connect, type PresenceSocket } from '../stream/socket.ts';
import {
  CONNECT_ACCEPTED,
  type ConnectRefusal,
  connectFailed,
  connectRefused,
  parseAuthority,
  parseBasic,
} from './connect-request.ts';
import {
  type ConnectRequestOwner,
  type ConnectRequestParser,
  headerLength,
} from './connect-request-parser.ts';
import { DIAL_REPLIES, dialFailureOf, type ProxyOutcome } from './proxy-outcome.ts';
import {
  type CredentialCheck,
  SOCKS4,
  SOCKS4_REJECTED,
  SOCKS5,
  SocksHandshake,
  SocksReply,
  socksReply,
} from './socks.ts';

/** What a client needs of its proxy. */
export interface ProxyClientHost {
  readonly stack: SocketHost;
  readonly isValid: CredentialCheck;
  readonly http: ConnectRequestParser;
  /** The clients whose refusal because of wrong credentials waits to be sent. */
  readonly delayed: Set<ProxyClient>;
  /** The clients that have their refusal and are read until they end, the oldest first. */
  readonly lingering: Set<ProxyClient>;
  /** The request is complete, and the outcome open. */
  onRequest(client: ProxyClient): void;
  /** Is called once for each client, to count it. */
  onOutcome(client: ProxyClient, outcome: ProxyOutcome): void;
}

export class ProxyClient implements ConnectRequestOwner {
  readonly #proxy: ProxyClientHost;
  readonly #socket: Socket;
  #phase: 'request' | 'dialling' | 'over' = 'request';
  #protocol: 'socks' | 'http' | undefined;
  #handshake: SocksHandshake | undefined;
  /** What was read and is not used up. */
  #received: Buffer[] = [];
  #receivedBytes = 0;
  #remote: PresenceSocket | undefined;
  #stopTimer: () => void;

  /** @param socket an accepted connection that stays open when the client has ended */
  constructor(proxy: ProxyClientHost, socket: Socket) {
    this.#proxy = proxy;
    this.#socket = socket;
    this.#stopTimer = proxy.stack.clock.after(REQUEST_TIMEOUT_MS, this.#onTimeout);
    socket.on('error', ignore);
    socket.on('close', this.#onGone);
    socket.on('end', this.#onGone);
    socket.on('data', this.#onData);
  }

  /** Ends the client, whose request is not complete or whose target is not connected. Other clients stay. */
  end(outcome: 'evicted' | 'closed'): void {
    if (this.#decide(outcome)) reset(this.#socket);
  }

  onConnectRequest(authority: string, authorization: string | undefined): void {
    if (this.#phase !== 'request') return;
    const { isValid } = this.#proxy;
    const given = parseBasic(authorization);
    const target = parseAuthority(authority);
    if (isValid !== undefined && given === undefined) this.#refuseHttp('unauthenticated');
    else if (given !== undefined && isValid?.(given.username, given.password) === false) {
      this.#refuseHttp('wrongCredentials');
    } else if (target === undefined) this.#refuseHttp('malformed');
    else {
      this.#dial(target);
      this.#socket.resume();
    }
  }

  onOtherRequest(reason: 'unsupported' | 'malformed'): void {
    this.#refuseHttp(reason);
  }

  readonly #onData = (chunk: Buffer): void => {
    if (this.#phase === 'over') return;
    this.#keep(chunk);
    if (this.#phase === 'request') this.#readRequest();
    else if (this.#receivedBytes >= MAX_EARLY_BYTES) this.#socket.pause();
  };

  /** The client has ended or failed. Until it has a reply, it has no reason to end only one direction. */
  readonly #onGone = (): void => {
    if (this.#phase === 'over') {
      if (!this.#socket.closed) return;
      this.#stopTimer();
      this.#proxy.delayed.delete(this);
      this.#proxy.lingering.delete(this);
      return;
    }
    this.#decide(this.#phase === 'request' ? 'abandoned' : 'dialAbandoned');
    this.#socket.destroy();
  };

  readonly #onTimeout = (): void => {
    if (this.#protocol === 'http') this.#refuseHttp('tooSlow');
    else if (this.#decide('tooSlow')) this.#socket.destroy();
  };

  #keep(chunk: Buffer): void {
    if (chunk.length === 0) return;
    this.#received.push(chunk);
    this.#receivedBytes += chunk.length;
  }

  /** Takes all that was read and is not used up. */
  #take(): Buffer {
    const bytes = this.#received.length === 1 ? this.#received[0]! : Buffer.concat(this.#received);
    this.#received = [];
    this.#receivedBytes = 0;
    return bytes;
  }

  #readRequest(): void {
    const bytes = this.#take();
    const first = bytes[0]!;
    if (this.#handshake !== undefined || first === SOCKS5) this.#readSocks(bytes);
    else if (first === SOCKS4) this.#refuse('unsupported', SOCKS4_REJECTED);
    else if (HTTP_FIRST.test(String.fromCharCode(first))) this.#readHttp(bytes);
    else if (this.#decide('unknownProtocol')) reset(this.#socket);
  }

  #readHttp(bytes: Buffer): void {
    this.#protocol = 'http';
    const length = headerLength(bytes.subarray(0, MAX_HEADER_BYTES));
    this.#keep(length === undefined ? bytes : bytes.subarray(length));
    if (length !== undefined) {
      // Nothing more is read until the parser has called.
      this.#socket.pause();
      this.#proxy.http.read(bytes.subarray(0, length), this);
    } else if (bytes.length >= MAX_HEADER_BYTES) this.#refuseHttp('tooLarge');
  }

  #readSocks(bytes: Buffer): void {
    this.#protocol = 'socks';
    this.#handshake ??= new SocksHandshake(this.#proxy.isValid);
    let step = this.#handshake.next(bytes);
    for (; step.kind === 'continue'; step = this.#handshake.next(bytes)) {
      this.#socket.write(step.reply);
      bytes = bytes.subarray(step.length);
    }
    if (step.kind === 'refuse') {
      this.#refuse(step.outcome, step.reply);
      return;
    }
    this.#keep(step.kind === 'connect' ? bytes.subarray(step.length) : bytes);
    if (step.kind === 'connect') this.#dial(step.target);
  }

  #dial({ host, port }: HostPort): void {
    this.#phase = 'dialling';
    this.#handshake = undefined;
    this.#stopTimer();
    this.#proxy.onRequest(this);
    const { stack } = this.#proxy;
    const onread = onreadTo(this.#socket);
    const remote = connect(stack, { host, port, allowHalfOpen: true, onread });
    this.#remote = remote;
    remote.on('connect', () => this.#join(remote));
    remote.on('error', (error) => this.#dialFailed(error, { host, port }));
  }

  /** Is called when the target is connected, and nothing was read of it yet. */
  #join(remote: PresenceSocket): void {
    if (!this.#decide('connected')) return;
    const socket = this.#socket;
    socket.off('data', this.#onData);
    socket.pause();
    const bound = { host: remote.localAddress!, port: remote.localPort! };
    const isHttp = this.#protocol === 'http';
    socket.write(isHttp ? CONNECT_ACCEPTED : socksReply(SocksReply.Succeeded, bound));
    const early = this.#take();
    if (early.length > 0) socket.unshift(early);
    splice(socket, remote);
  }

  #dialFailed(error: Error, target: HostPort): void {
    if (this.#phase !== 'dialling') return;
    const failure = dialFailureOf(error);
    const reply = DIAL_REPLIES[failure];
    const isHttp = this.#protocol === 'http';
    this.#refuse(failure, isHttp ? connectFailed(target, reply) : socksReply(reply.socks));
  }

  #refuseHttp(reason: ConnectRefusal): void {
    this.#refuse(reason, connectRefused(reason));
  }

  #refuse(outcome: ProxyOutcome, reply: Buffer): void {
    if (!this.#decide(outcome)) return;
    if (outcome === 'wrongCredentials') this.#finishLater(reply);
    else this.#finish(reply);
  }

  /**
   * A program that repeats wrong credentials is slowed down. That is no limit for who guesses: the answer to the right
   * ones is not delayed, so that a missing answer says as much as a refusal.
   */
  #finishLater(reply: Buffer): void {
    const { delayed, stack } = this.#proxy;
    if (delayed.size >= MAX_DELAYED_REFUSALS) {
      reset(this.#socket);
      return;
    }
    delayed.add(this);
    this.#socket.pause();
    this.#stopTimer = stack.clock.after(REFUSAL_DELAY_MS, () => {
      delayed.delete(this);
      this.#finish(reply);
    });
  }

  /**
   * Sends the last reply and closes. What the client still sends is read for a while: a connection that is closed with
   * unread data is reset, and the client might lose the reply.
   */
  #finish(reply: Buffer): void {
    const socket = this.#socket;
    const { lingering, stack } = this.#proxy;
    socket.end(reply);
    socket.resume();
    this.#stopTimer = stack.clock.after(LINGER_MS, () => socket.destroy());
    const [oldest] = lingering;
    if (lingering.size >= MAX_LINGERING) oldest!.#leave();
    lingering.add(this);
  }

  /** Makes room for another client that has its refusal. */
  #leave(): void {
    this.#proxy.lingering.delete(this);
    this.#socket.destroy();
  }

  /** Returns false if the outcome was known before. */
  #decide(outcome: ProxyOutcome): boolean {
    if (this.#phase === 'over') return false;
    const isDialling = this.#phase === 'dialling';
    this.#phase = 'over';
    this.#stopTimer();
    if (isDialling && outcome !== 'connected') this.#remote!.destroy();
    this.#proxy.onOutcome(this, outcome);
    return true;
  }
}

function ignore(): void {}

/** How long a request may take, from the connection to the last byte. */
const REQUEST_TIMEOUT_MS = 5_000;
/** How long a client may read its refusal, and how many may at once. RFC 1928 section 6 allows 10 s. */
const LINGER_MS = 2_000;
const MAX_LINGERING = 64;
/** When the reply to wrong credentials is sent, and how many of them wait at once. */
const REFUSAL_DELAY_MS = 1_000;
const MAX_DELAYED_REFUSALS = 16;
/** The longest header of an HTTP request. The longest handshake of SOCKS5 is shorter. */
export const MAX_HEADER_BYTES = 8192;
/** How much is kept while the target is being connected; it may be exceeded by a chunk. */
const MAX_EARLY_BYTES = 65_536;
/** The first byte of a method, or of an empty line before it (RFC 9112 section 2.2). */
const HTTP_FIRST = /[A-Za-z\r\n]/;
