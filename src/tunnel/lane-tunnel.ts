/**
 * What both sides of a tunnel have in common: packets over several lanes, each flow on one of them.
 *
 * Which lanes there are, `lane-set.ts` knows; here are those that carry what this side sends.
 *
 * A packet's way out:
 * 1. `reserve` points into the lane of the packet before, for the next one is likely of the same flow
 * 2. `commit` finds the lane of the flow (`flow-spread.ts`), and copies the packet there if that is
 *    another one
 * 3. `flush` has every lane that got something send it
 * @module
 */
import { EventEmitter } from 'eventemitter3';
import type { Clock } from '../clock.ts';
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
  type LaneOptions,
  newLaneCounters,
} from './lane.ts';
import { LaneSet, type LaneSetOwner } from './lane-set.ts';
import { CloseCode, type CloseEndpoint } from './messages.ts';
import type { TlsLane } from './tls-lane.ts';
import type { ConnectionInfo, Tunnel, TunnelEvents, TunnelState } from './tunnel.ts';

export abstract class LaneTunnel extends EventEmitter<TunnelEvents> implements Tunnel {
  readonly counters: LaneCounters = newLaneCounters();
  onPacket: (buffer: Buffer, start: number, end: number) => void = ignore;
  onBatchEnd: () => void = ignore;
  onDrain: () => void = ignore;
  #spread: FlowSpread | undefined;
  /** Whether flows are to be told apart also while there is one lane only. */
  protected mayGrow = false;
  protected readonly set: LaneSet;
  readonly #clock: Clock;
  /** Those that carry packets. */
  #lanes: TlsLane[] = [];
  /** That `reserve` pointed into last. */
  #reserved = 0;
  #reservedAt = 0;
  #wasRefused = false;
  /** Of the last flush; flows need no finer time. */
  #nowMs = 0;

  constructor(options: LaneOptions) {
    super();
    this.#clock = options.clock;
    this.set = new LaneSet(options, this.#owner());
  }

  /** Made when it is first needed: most tunnels have one lane. */
  protected get spread(): FlowSpread {
    this.#spread ??= new FlowSpread();
    return this.#spread;
  }

  abstract get peer(): GatewayIdentity | undefined;
  abstract get state(): TunnelState;
  abstract get info(): ConnectionInfo | undefined;

  get rttMs(): number | undefined {
    return this.set.first?.rttMs;
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
    this.#nowMs = this.#clock.monotonicMs();
    // A lane may break during its flush, and the last one takes its place: that one was flushed before.
    for (let i = this.#lanes.length - 1; i >= 0; i--) this.#lanes[i]?.flush();
  }

  sendPacket(buffer: Buffer, start: number, end: number): boolean {
    const lane = this.#lanes[this.#laneOf(buffer, start, end)];
    return lane !== undefined && this.#copy(lane, FrameType.Packet, buffer, start, end);
  }

  sendControl(message: Json): boolean {
    return this.set.first?.sendControl(message) ?? false;
  }

  close(
    code: string = CloseCode.Shutdown,
    reason: string = '',
    endpoint?: CloseEndpoint
  ): Promise<void> {
    this.finish();
    return this.set.end('close', { code, reason, endpoint });
  }

  abort(code: string, reason: string, endpoint?: CloseEndpoint): Promise<void> {
    this.finish();
    return this.set.end('abort', { code, reason, endpoint });
  }

  destroy(): void {
    const reason = 'the tunnel was destroyed';
    this.finish();
    void this.set.end('destroy', { code: CloseCode.ConnectionLost, reason });
  }

  /** Makes sure that no lane follows those there are. */
  protected abstract finish(): void;
  /** Another lane is the first one from now on. */
  protected abstract onRenewed(info: ConnectionInfo): void;
  /** The first lane is gone, and all others with it. */
  protected abstract onLost(cause: CloseCause): void;
  /** A lane has ended, whichever. */
  protected onLaneEnded(_cause: CloseCause): void {}

  /** A lane whose handshake is done is the tunnel from now on. */
  protected begin(lane: TlsLane, info: ConnectionInfo): void {
    this.#nowMs = this.#clock.monotonicMs();
    this.#spread = undefined;
    this.set.begin(lane, info);
  }

  /** Has the lanes behind the first `count` drained, but for the first of all. */
  protected shrink(count: number): void {
    const further = this.#lanes.filter((lane) => lane !== this.set.first);
    for (const lane of further.slice(Math.max(count - 1, 0))) this.set.retire(lane);
  }

  #owner(): LaneSetOwner {
    return {
      counters: this.counters,
      onPacket: (buffer, start, end) => this.onPacket(buffer, start, end),
      onBatchEnd: () => this.onBatchEnd(),
      onDrain: () => {
        if (!this.#wasRefused) return;
        this.#wasRefused = false;
        this.onDrain();
      },
      onControl: (message) => this.emit('control', message),
      onCarrier: (lane) => this.#carry(lane),
      onCarrierGone: (lane) => this.#remove(lane),
      onRenewed: (info) => {
        this.onRenewed(info);
        this.emit('renewed', info);
      },
      onLaneEnded: (cause) => this.onLaneEnded(cause),
      onLost: (cause) => {
        this.#lanes = [];
        this.#reserved = 0;
        this.onLost(cause);
      },
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

  #carry(lane: TlsLane): void {
    this.#lanes.push(lane);
    if (this.#lanes.length === 1) return;
    this.spread.setLanes(this.#lanes.length, this.#clock.monotonicMs());
    this.#onLanes();
  }

  #remove(lane: TlsLane): void {
    const at = this.#lanes.indexOf(lane);
    if (at < 0) return;
    const last = this.#lanes.pop()!;
    if (last !== lane) this.#lanes[at] = last;
    this.spread.removeLane(at, this.#clock.monotonicMs());
    this.#onLanes();
  }

  #onLanes(): void {
    this.#reserved = 0;
    this.emit('lanes', this.#lanes.length);
  }
}

function ignore(): void {}

const EMPTY: Buffer = Buffer.alloc(0);
