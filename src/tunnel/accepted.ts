/**
 * The driver of a tunnel on the listening side. Such a tunnel lives as long as its first lane, and goes on when another
 * one has followed that.
 * @module
 */
import type { Clock } from '../clock.ts';
import { ApiMisuseError } from '../errors.ts';
import type { GatewayIdentity } from '../pki/names.ts';
import { Expiry } from './expiry.ts';
import type { CloseCause } from './lane.ts';
import type { ListenerCounters } from './listen-options.ts';
import { CloseCode, type Hello } from './messages.ts';
import type { TlsLane } from './tls-lane.ts';
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
  readonly #first: TlsLane;
  readonly #options: AcceptedOptions;
  readonly #expiry: Expiry;
  #info: ConnectionInfo;
  #state: TunnelState = 'up';

  /** @param first the lane that is up, and that the tunnel begins with */
  constructor(tunnel: DrivenTunnel, first: TlsLane, options: AcceptedOptions) {
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

  /** Of the first lane; of the last one when the tunnel is closed. */
  get info(): ConnectionInfo {
    return this.#info;
  }

  /** Takes over a further lane that is up. */
  join(lane: TlsLane, info: ConnectionInfo): void {
    this.#tunnel.set.join(lane, info);
  }

  /** Takes over a lane that is up, and is to be the first one. */
  succeed(lane: TlsLane, info: ConnectionInfo): void {
    this.#tunnel.set.succeed(lane, info);
  }

  /**
   * Whether a further lane may come, or with `isFirst` one that is to be the first. However the peer goes
   * about it, there are never more than twice `maxLanes`.
   */
  takesLane(isFirst: boolean, maxLanes: number): boolean {
    if (this.#tunnel.set.total >= 2 * maxLanes) return false;
    return isFirst ? !this.#tunnel.set.isRenewing : this.#tunnel.set.size < maxLanes;
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

  onLaneEnded({ by, code }: CloseCause): void {
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
