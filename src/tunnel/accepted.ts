/**
 * The listening side's end of one tunnel. It lives as long as its first lane, and goes on when another
 * one has followed that.
 * @module
 */
import type { X509Certificate } from 'node:crypto';
import type { GatewayIdentity } from '../pki/names.ts';
import { Expiry } from './expiry.ts';
import type { CloseCause, LaneOptions } from './lane.ts';
import { LaneTunnel } from './lane-tunnel.ts';
import { CloseCode, type Hello } from './messages.ts';
import type { TlsLane } from './tls-lane.ts';
import type { ConnectionInfo, TunnelState } from './tunnel.ts';

export interface AcceptedOptions {
  readonly info: ConnectionInfo;
  readonly hello: Hello;
  readonly lane: LaneOptions;
  /** How long after the end of its certificate the tunnel may live, in ms. */
  readonly expiryGraceMs: number;
  /** Called before the tunnel ends because the certificate of its first lane has run out. */
  readonly onExpired: () => void;
  readonly onRenewed: () => void;
  readonly onLaneEnded: (cause: CloseCause) => void;
  readonly onClosed: (cause: CloseCause) => void;
}

export class AcceptedTunnel extends LaneTunnel {
  /** What the peer says it runs; not verified. */
  readonly software: string;
  readonly #options: AcceptedOptions;
  readonly #expiry: Expiry;
  #info: ConnectionInfo;
  #state: TunnelState = 'up';

  /** Made by a `TunnelListener`, of a lane that is up. */
  constructor(first: TlsLane, options: AcceptedOptions) {
    super(options.lane);
    this.#info = options.info;
    this.software = options.hello.software;
    this.#options = options;
    this.#expiry = new Expiry({
      clock: options.lane.clock,
      graceMs: options.expiryGraceMs,
      onExpired: ({ validTo }) => {
        options.onExpired();
        void this.abort(CloseCode.Untrusted, `the certificate ran out on ${validTo}`);
      },
    });
    this.begin(first, options.info);
    this.#expiry.watch(options.info.certificate);
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

  /** The verified end-entity certificates of all lanes: while it is renewed, old and new ones. */
  get certificates(): readonly X509Certificate[] {
    return this.set.certificates;
  }

  /** Takes over a further lane that is up. */
  join(lane: TlsLane, info: ConnectionInfo): void {
    this.set.join(lane, info);
  }

  /** Takes over a lane that is up, and is to be the first one. */
  succeed(lane: TlsLane, info: ConnectionInfo): void {
    this.set.succeed(lane, info);
  }

  /**
   * Whether a further lane may come, or with `isFirst` one that is to be the first. However the peer goes
   * about it, there are never more than twice `maxLanes`.
   */
  takesLane(isFirst: boolean, maxLanes: number): boolean {
    if (this.set.total >= 2 * maxLanes) return false;
    return isFirst ? !this.set.isRenewing : this.set.size < maxLanes;
  }

  protected override finish(): void {
    this.#expiry.stop();
  }

  protected override onRenewed(info: ConnectionInfo): void {
    this.#info = info;
    this.#expiry.watch(info.certificate);
    this.#options.onRenewed();
  }

  protected override onLaneEnded(cause: CloseCause): void {
    this.#options.onLaneEnded(cause);
  }

  protected override onLost(cause: CloseCause): void {
    this.#state = 'closed';
    this.#expiry.stop();
    this.#options.onClosed(cause);
    this.emit('down', cause);
  }
}
