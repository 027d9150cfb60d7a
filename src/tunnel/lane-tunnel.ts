/**
 * What both sides of a tunnel have in common: packets over several lanes, each flow on one of them.
 *
 * The first lane is the tunnel: it carries the control messages, and when it ends, the tunnel does.
 * Further lanes come and go.
 *
 * A packet's way out:
 * 1. `reserve` points into the lane of the packet before, for the next one is likely of the same flow
 * 2. `commit` finds the lane of the flow (`flow-spread.ts`), and copies the packet there if that is
 *    another one
 * 3. `flush` has every lane that got something send it
 * @module
 */
import { EventEmitter } from 'eventemitter3';
import { flowHash } from '../packet/flow-hash.ts';
import { VNET_HEADER_LENGTH } from '../packet/virtio.ts';
import type { GatewayIdentity } from '../pki/names.ts';
import type { Json } from '../store/store.ts';
import { FlowSpread } from './flow-spread.ts';
import { FrameType } from './frame.ts';
import {
  type CloseCause,
  type Lane,
  type LaneCounters,
  type LaneOwner,
  newLaneCounters,
} from './lane.ts';
import { type Close, CloseCode, type CloseEndpoint } from './messages.ts';
import { SlabBudget } from './slab-pool.ts';
import type { Timers } from './timers.ts';
import type { TlsLane } from './tls-lane.ts';
import type { ConnectionInfo, Tunnel, TunnelEvents, TunnelState } from './tunnel.ts';

export abstract class LaneTunnel extends EventEmitter<TunnelEvents> implements Tunnel {
  readonly peer: GatewayIdentity;
  readonly counters: LaneCounters = newLaneCounters();
  onPacket: (buffer: Buffer, start: number, end: number) => void = ignore;
  onBatchEnd: () => void = ignore;
  onDrain: () => void = ignore;
  #spread: FlowSpread | undefined;
  /** Whether flows are to be told apart also while there is one lane only. */
  protected mayGrow = false;
  readonly #timers: Timers;
  readonly #budget: SlabBudget;
  /** Those that carry packets, the first one first. */
  #lanes: Lane[] = [];
  /** That `reserve` pointed into last. */
  #reserved = 0;
  #reservedAt = 0;
  #wasRefused = false;
  /** Of the last flush; flows need no finer time. */
  #nowMs = 0;
  #first: Lane | undefined;

  constructor(peer: GatewayIdentity, maxSlabs: number, timers: Timers) {
    super();
    this.peer = peer;
    this.#timers = timers;
    this.#budget = new SlabBudget(maxSlabs);
  }

  /** Made when it is first needed: most tunnels have one lane. */
  protected get spread(): FlowSpread {
    this.#spread ??= new FlowSpread();
    return this.#spread;
  }

  abstract get state(): TunnelState;
  abstract get info(): ConnectionInfo | undefined;

  get rttMs(): number | undefined {
    return this.#first?.rttMs;
  }

  get lanes(): number {
    return this.#lanes.length;
  }

  get buffer(): Buffer {
    return this.#lanes[this.#reserved]?.buffer ?? EMPTY;
  }

  reserve(): number {
    const lanes = this.#lanes;
    for (let i = 0; i < lanes.length; i++) {
      const at = lanes[this.#reserved]!.reserve();
      if (at >= 0) {
        this.#reservedAt = at;
        return at;
      }
      this.#reserved = this.#reserved + 1 < lanes.length ? this.#reserved + 1 : 0;
    }
    this.#wasRefused = true;
    return -1;
  }

  commit(type: FrameType, payloadLength: number): boolean {
    const lanes = this.#lanes;
    const from = lanes[this.#reserved];
    if (from === undefined) return false;
    const start = this.#reservedAt;
    const lane = this.#laneOf(from.buffer, start, start + payloadLength);
    if (lane === this.#reserved) return from.commit(type, payloadLength);
    const { buffer } = from;
    this.#reserved = lane;
    return this.#copy(lanes[lane]!, type, buffer, start, start + payloadLength);
  }

  flush(): void {
    this.#nowMs = this.#timers.now();
    for (let i = 0; i < this.#lanes.length; i++) this.#lanes[i]!.flush();
  }

  sendPacket(buffer: Buffer, start: number, end: number): boolean {
    const lane = this.#lanes[this.#laneOf(buffer, start, end)];
    return lane !== undefined && this.#copy(lane, FrameType.Packet, buffer, start, end);
  }

  sendControl(message: Json): boolean {
    return this.#first?.sendControl(message) ?? false;
  }

  close(
    code: string = CloseCode.Shutdown,
    reason: string = '',
    endpoint?: CloseEndpoint
  ): Promise<void> {
    return this.#end((lane, close) => lane.close(close), { code, reason, endpoint });
  }

  abort(code: string, reason: string, endpoint?: CloseEndpoint): Promise<void> {
    return this.#end((lane, close) => lane.abort(close), { code, reason, endpoint });
  }

  destroy(): void {
    const close = { code: CloseCode.ConnectionLost, reason: 'the tunnel was destroyed' };
    void this.#end((lane, { code, reason }) => lane.destroy(code, reason), close);
  }

  /** Makes sure that no lane follows those there are. */
  protected abstract finish(): void;
  /** The first lane is gone, and all others with it. */
  protected abstract onLost(cause: CloseCause): void;

  /** A lane whose handshake is done is the tunnel from now on. */
  protected begin(lane: TlsLane): void {
    this.#first = lane;
    lane.handTo(this.#ownerOf((cause) => this.#onFirstClosed(cause)));
    this.#nowMs = this.#timers.now();
    this.#spread = undefined;
    this.#lanes = [lane];
    this.#reserved = 0;
  }

  /** A further lane whose handshake is done carries packets from now on. */
  protected join(lane: TlsLane): void {
    lane.handTo(this.#ownerOf(() => this.#remove(lane)));
    this.#lanes.push(lane);
    this.spread.setLanes(this.#lanes.length, this.#timers.now());
    this.#onLanes();
  }

  /** Ends the lanes behind the first `count`. */
  protected shrink(count: number): void {
    for (const lane of this.#lanes.slice(count)) {
      lane.close({ code: CloseCode.Idle, reason: 'the lane is not needed' });
    }
  }

  #ownerOf(onLaneClosed: (cause: CloseCause) => void): LaneOwner {
    return {
      counters: this.counters,
      budget: this.#budget,
      onPacket: (buffer, start, end) => this.onPacket(buffer, start, end),
      onBatchEnd: () => this.onBatchEnd(),
      onDrain: () => {
        if (!this.#wasRefused) return;
        this.#wasRefused = false;
        this.onDrain();
      },
      onHandshake: () => 'the handshake is done already',
      onControl: (message) => this.emit('control', message),
      onLaneClosed,
    };
  }

  #laneOf(buffer: Buffer, start: number, end: number): number {
    if (this.#lanes.length <= 1 && !this.mayGrow) return 0;
    const hash = flowHash(buffer, start + VNET_HEADER_LENGTH, end);
    return this.spread.laneOf(hash, end - start, this.#nowMs);
  }

  #copy(lane: Lane, type: FrameType, buffer: Buffer, start: number, end: number): boolean {
    const at = lane.reserve();
    if (at < 0) {
      this.#wasRefused = true;
      this.counters.droppedFull++;
      return false;
    }
    buffer.copy(lane.buffer, at, start, end);
    return lane.commit(type, end - start);
  }

  #remove(lane: Lane): void {
    const at = this.#lanes.indexOf(lane);
    if (at < 0) return;
    const last = this.#lanes.pop()!;
    if (last !== lane) this.#lanes[at] = last;
    this.spread.removeLane(at, this.#timers.now());
    this.#onLanes();
  }

  #onLanes(): void {
    this.#reserved = 0;
    this.emit('lanes', this.#lanes.length);
  }

  #onFirstClosed(cause: CloseCause): void {
    const others = this.#lanes.slice(1);
    this.#first = undefined;
    this.#lanes = [];
    for (const lane of others) {
      if (cause.by === 'us') lane.abort(cause);
      else lane.destroy(cause.code, cause.reason);
    }
    this.onLost(cause);
  }

  async #end(end: (lane: Lane, close: Close) => void, close: Close): Promise<void> {
    const first = this.#first;
    const lanes = this.#lanes.slice(1);
    this.finish();
    // The first one last: with it, the others are ended as if they were not to send any more.
    for (const lane of lanes) end(lane, close);
    if (first !== undefined) end(first, close);
    await Promise.all([first?.gone, ...lanes.map(({ gone }) => gone)]);
  }
}

function ignore(): void {}

const EMPTY: Buffer = Buffer.alloc(0);
