/**
 * The listening side's end of one tunnel. It lives as long as its connection.
 * @module
 */
import type { TLSSocket } from 'node:tls';
import { formatIdentity, type GatewayIdentity } from '../pki/names.ts';
import type { Json } from '../store/store.ts';
import { FrameType } from './frame.ts';
import { type CloseCause, type LaneOptions, TlsLane } from './lane.ts';
import { type Close, PROTOCOL_VERSION, readHello } from './messages.ts';
import { type ConnectionInfo, connectionInfo, LaneTunnel, type TunnelState } from './tunnel.ts';

/** What the listener wants to hear of its tunnels, and is asked by them. */
export interface AcceptedTunnelHooks {
  /** Why the peer may not come up after all; undefined if it may. */
  authorize(): Close | undefined;
  onUp(tunnel: AcceptedTunnel): void;
  onClosed(tunnel: AcceptedTunnel, cause: CloseCause): void;
}

export class AcceptedTunnel extends LaneTunnel {
  readonly info: ConnectionInfo;
  /** What the peer says it runs; not verified. */
  software = '';
  readonly #hooks: AcceptedTunnelHooks;
  readonly #welcome: { readonly software: string; readonly keepaliveMs: number };
  #state: TunnelState = 'connecting';

  /** Takes over a connection whose peer is verified; waits for its HELLO. */
  constructor(
    peer: GatewayIdentity,
    socket: TLSSocket,
    welcome: { readonly software: string; readonly keepaliveMs: number },
    laneOptions: LaneOptions,
    hooks: AcceptedTunnelHooks
  ) {
    super(peer);
    this.info = connectionInfo(socket);
    this.#hooks = hooks;
    this.#welcome = welcome;
    const lane: TlsLane = new TlsLane(
      socket,
      FrameType.Hello,
      {
        counters: this.counters,
        onPacket: (buffer, start, end) => this.onPacket(buffer, start, end),
        onBatchEnd: () => this.onBatchEnd(),
        onDrain: () => this.onDrain(),
        onHandshake: (message) => this.#onHello(lane, message),
        onControl: (message) => this.emit('control', message),
        onLaneClosed: (cause) => this.#onLaneClosed(cause),
      },
      laneOptions
    );
    this.lane = lane;
  }

  get state(): TunnelState {
    return this.#state;
  }

  protected override finish(): void {}

  #onHello(lane: TlsLane, message: Json): string | undefined {
    const hello = readHello(message);
    if (hello === undefined) return 'the HELLO is malformed';
    const refusal = this.#hooks.authorize();
    if (refusal !== undefined) {
      lane.abort(refusal.code, refusal.reason);
      return undefined;
    }
    const { keepaliveMs } = this.#welcome;
    this.software = hello.software;
    lane.sendHandshake(FrameType.Welcome, {
      version: PROTOCOL_VERSION,
      peer: formatIdentity(this.peer),
      ...this.#welcome,
    });
    this.#state = 'up';
    lane.becomeUp(keepaliveMs);
    this.#hooks.onUp(this);
    return undefined;
  }

  #onLaneClosed(cause: CloseCause): void {
    const wasUp = this.#state === 'up';
    this.#state = 'closed';
    this.#hooks.onClosed(this, cause);
    if (wasUp) this.emit('down', cause);
  }
}
