/**
 * The driver of a tunnel on the listening side. Such a tunnel lives as long as its first connection, and goes on when another
 * one has followed that.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { ApiMisuseError } from '../errors.ts';
import type { GatewayIdentity } from '../pki/names.ts';
import type { TunnelConnection } from './connection.ts';
import type { CloseCause } from './connection-types.ts';
import { Expiry } from './expiry.ts';
import type { ListenerCounters } from './listen-options.ts';
import { CloseCode, type Hello } from './messages.ts';
import type { ConnectionInfo, TunnelState } from './tunnel.ts';
import type { DrivenTunnel, TunnelDriver } from './tunnel-driver.ts';

export interface AcceptedOptions {
  readonly info: ConnectionInfo;
  readonly hello: Hello;
  readonly clock: Clock;
  /** How long after the end of its certificate the tunnel may live, in ms. */
  readonly expiryGraceMs: number;
  readonly counters: ListenerCounters;
  readonly onClosed: () => void;
}

export class AcceptDriver implements TunnelDriver {
  readonly software: string;
  readonly #tunnel: DrivenTunnel;
  readonly #first: TunnelConnection;
  readonly #options: AcceptedOptions;
  readonly #expiry: Expiry;
  #info: ConnectionInfo;
  #state: TunnelState = 'up';

  /** @param first the connection that is up, and that the tunnel begins with */
  constructor(tunnel: DrivenTunnel, first: TunnelConnection, options: AcceptedOptions) {
    this.#tunnel = tunnel;
    this.#first = first;
    this.#info = options.info;
    this.software = options.hello.software;
    this.#options = options;
    this.#expiry = new Expiry({
      clock: options.clock,
      graceMs: options.expiryGraceMs,
      onExpired: ({ validTo }) => {
        options.counters.expired++;
        const reason = `the certificate ran out on ${validTo}`;
        void tunnel.abort({ code: CloseCode.Untrusted, reason });
      },
    });
  }

  start(): void {
    this.#tunnel.begin(this.#first, this.#info, false);
    this.#expiry.watch(this.#info.certificate);
  }

  get peer(): GatewayIdentity {
    return this.#info.peer;
  }

  get state(): TunnelState {
    return this.#state;
  }

  /** Of the first connection; of the last one when the tunnel is closed. */
  get info(): ConnectionInfo {
    return this.#info;
  }

  /** Takes over a further connection that is up. */
  join(connection: TunnelConnection, info: ConnectionInfo): void {
    this.#tunnel.set.join(connection, info);
  }

  /** Takes over a connection that is up, and is to be the first one. */
  succeed(connection: TunnelConnection, info: ConnectionInfo): void {
    this.#tunnel.set.succeed(connection, info);
  }

  /**
   * Whether a further connection may come, or with `isFirst` one that is to be the first. However the peer goes
   * about it, there are never more than twice `maxConnections`.
   */
  takesConnection(isFirst: boolean, maxConnections: number): boolean {
    if (this.#tunnel.set.total >= 2 * maxConnections) return false;
    return isFirst ? !this.#tunnel.set.isRenewing : this.#tunnel.set.size < maxConnections;
  }

  updateCredentials(): Promise<void> {
    const message = 'a tunnel of the listening side uses the credentials of its TunnelListener';
    return Promise.reject(new ApiMisuseError(message));
  }

  finish(): void {
    this.#expiry.stop();
  }

  onRenewed(info: ConnectionInfo): void {
    this.#info = info;
    this.#expiry.watch(info.certificate);
    this.#options.counters.renewed++;
  }

  onConnectionEnded({ by, code }: CloseCause): void {
    if (by === 'us' && code === CloseCode.ProtocolError) this.#options.counters.protocolErrors++;
  }

  onLost(cause: CloseCause): void {
    this.#state = 'closed';
    this.#expiry.stop();
    const { counters, onClosed } = this.#options;
    if (cause.by === 'us' && cause.code === CloseCode.ControlRate) counters.controlFloods++;
    onClosed();
    this.#tunnel.emit('down', cause);
  }
}
