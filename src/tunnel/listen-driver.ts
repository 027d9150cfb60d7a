/**
 * The driver of a tunnel on the listening side. Such a tunnel lives as long as its primary connection, or the one that
 * replaces it, and not much longer than the certificate of the primary connection.
 * @module
 */
import type { X509Certificate } from 'node:crypto';
import type { EventEmitter } from 'eventemitter3';
import type { Clock } from '../base/clock.ts';
import { ApiMisuseError } from '../errors.ts';
import type { GatewayIdentity } from '../pki/names.ts';
import type { AcceptedConnection } from './acceptor.ts';
import type { ConnectionSet } from './connection-set.ts';
import type { ListenerCounters } from './handshakes.ts';
import { CloseCode, type Hello } from './messages.ts';
import type { ResolvedListenOptions } from './options.ts';
import type {
  CloseCause,
  ConnectionInfo,
  TunnelDriver,
  TunnelEvents,
  TunnelState,
} from './tunnel.ts';

export class ListenDriver implements TunnelDriver {
  readonly software: string;
  readonly #set: ConnectionSet;
  readonly #first: AcceptedConnection;
  readonly #options: ResolvedListenOptions;
  readonly #counters: ListenerCounters;
  readonly #expiry: Expiry;
  #info: ConnectionInfo;
  #state: TunnelState = 'up';

  /** @param first the connection that the tunnel begins with */
  constructor(
    set: ConnectionSet,
    tunnel: EventEmitter<TunnelEvents>,
    first: AcceptedConnection,
    options: ResolvedListenOptions,
    counters: ListenerCounters
  ) {
    this.#set = set;
    this.#first = first;
    this.#info = first.info;
    this.software = first.hello.software;
    this.#options = options;
    this.#counters = counters;
    const { clock, expiryGraceMs } = options;
    this.#expiry = new Expiry(clock, expiryGraceMs, ({ validTo }) => {
      counters.expired++;
      const reason = `the certificate expired on ${validTo}`;
      void set.end('abort', { code: CloseCode.Untrusted, reason });
    });
    set.on('ended', ({ by, code }) => {
      if (by === 'us' && code === CloseCode.ProtocolError) counters.protocolErrors++;
    });
    set.on('renewed', (info) => {
      this.#info = info;
      this.#expiry.watch(info.certificate);
      counters.renewed++;
    });
    set.on('lost', (cause) => {
      this.#onLost(cause);
      tunnel.emit('down', cause);
    });
  }

  start(): void {
    const { connection, info } = this.#first;
    this.#set.begin(connection, info, false);
    this.#expiry.watch(info.certificate);
  }

  get peer(): GatewayIdentity {
    return this.#info.peer;
  }

  get state(): TunnelState {
    return this.#state;
  }

  /** What is known of the primary connection; of the last one when the tunnel is closed. */
  get info(): ConnectionInfo {
    return this.#info;
  }

  /** Takes over a further connection, or one that will be the primary one. */
  add({ connection, hello, info }: AcceptedConnection): void {
    if (isPrimary(hello)) this.#set.addNext(connection, info);
    else this.#set.add(connection, info);
  }

  /** Returns whether it may `add` a connection. Whatever the peer does, there are never more than twice `connections`. */
  takes(hello: Hello): boolean {
    const { connections } = this.#options;
    if (this.#set.total >= 2 * connections) return false;
    return isPrimary(hello) ? !this.#set.isRenewing : this.#set.size < connections;
  }

  updateCredentials(): Promise<void> {
    const message = 'a tunnel of the listening side uses the credentials of its TunnelListener';
    return Promise.reject(new ApiMisuseError(message));
  }

  finish(): void {
    this.#expiry.stop();
  }

  #onLost({ by, code }: CloseCause): void {
    this.#state = 'closed';
    this.#expiry.stop();
    if (by === 'us' && code === CloseCode.ControlRate) this.#counters.controlFloods++;
  }
}

/** Whether the connection begins a tunnel, or is to replace its primary one. */
export function isPrimary({ lane = 0 }: Hello): boolean {
  return lane === 0;
}

/**
 * Ends a tunnel when its certificate has expired. TLS checks the certificate in the handshake only, so without this a
 * peer that never renews would stay for ever.
 *
 * The time is that of the wall clock. Timers run on a clock that never goes back, and that stands still while a machine
 * sleeps, so the wall clock is read again at least once a minute.
 */
class Expiry {
  readonly #clock: Clock;
  readonly #graceMs: number;
  readonly #onExpired: (certificate: X509Certificate) => void;
  #isStopped = false;
  #cancelTimer: () => void = () => {};

  /**
   * @param graceMs how long after its end a certificate is still accepted
   * @param onExpired called once, never from within `watch`
   */
  constructor(clock: Clock, graceMs: number, onExpired: (certificate: X509Certificate) => void) {
    this.#clock = clock;
    this.#graceMs = graceMs;
    this.#onExpired = onExpired;
  }

  /** Watches this certificate in place of the one before. Does nothing after `stop`. */
  watch(certificate: X509Certificate): void {
    this.#cancelTimer();
    if (this.#isStopped) return;
    this.#wait(certificate, Date.parse(certificate.validTo) + this.#graceMs);
  }

  stop(): void {
    this.#isStopped = true;
    this.#cancelTimer();
  }

  #wait(certificate: X509Certificate, endMs: number): void {
    const leftMs = endMs - this.#clock.wallMs();
    this.#cancelTimer = this.#clock.after(leftMs > 0 ? Math.min(leftMs, CHECK_MS) : 0, () => {
      // Written so that an end that cannot be read (NaN) counts as past.
      if (endMs > this.#clock.wallMs()) {
        this.#wait(certificate, endMs);
        return;
      }
      this.stop();
      this.#onExpired(certificate);
    });
  }
}

/** Far below the 2^31 ms that a timer of Node can wait. */
const CHECK_MS = 60_000;
