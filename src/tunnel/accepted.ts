/**
 * The listening side's end of one tunnel. It lives as long as its first lane.
 * @module
 */
import type { GatewayIdentity } from '../pki/names.ts';
import type { CloseCause } from './lane.ts';
import { LaneTunnel } from './lane-tunnel.ts';
import type { Hello } from './messages.ts';
import type { Timers } from './timers.ts';
import type { TlsLane } from './tls-lane.ts';
import type { ConnectionInfo, TunnelState } from './tunnel.ts';

export interface AcceptedOptions {
  readonly peer: GatewayIdentity;
  readonly info: ConnectionInfo;
  readonly hello: Hello;
  readonly maxSlabs: number;
  readonly timers: Timers;
  readonly onClosed: (cause: CloseCause) => void;
}

export class AcceptedTunnel extends LaneTunnel {
  readonly info: ConnectionInfo;
  /** What the peer says it runs; not verified. */
  readonly software: string;
  readonly #onClosed: AcceptedOptions['onClosed'];
  #state: TunnelState = 'up';

  /** Takes over a lane that is up. */
  constructor(first: TlsLane, options: AcceptedOptions) {
    super(options.peer, options.maxSlabs, options.timers);
    this.info = options.info;
    this.software = options.hello.software;
    this.#onClosed = options.onClosed;
    this.begin(first);
  }

  get state(): TunnelState {
    return this.#state;
  }

  /** Takes over a further lane that is up. */
  override join(lane: TlsLane): void {
    super.join(lane);
  }

  protected override finish(): void {}

  protected override onLost(cause: CloseCause): void {
    this.#state = 'closed';
    this.#onClosed(cause);
    this.emit('down', cause);
  }
}
