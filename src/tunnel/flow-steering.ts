/**
 * Steers each flow to one of the connections that carry packets. A hash puts the flows into buckets. A bucket
 * stays on its connection while packets come, so that they stay in order. When it has been quiet, it goes to the
 * connection with the fewest buckets. When connections come and go, and when a connection carries several busy flows
 * while another has none, only as many buckets move as balance needs: packets of those few flows may overtake others,
 * once.
 *
 * A flow is busy if it sends much within a second. Thousands of short connections fill every bucket and have no busy
 * flow, so each bucket counts one flow only: that of most of its packets (Boyer and Moore's majority vote).
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { flowHash } from '../packet/flow-hash.ts';
import { VNET_HEADER_LENGTH } from '../packet/virtio.ts';
import type { TunnelConnection } from './connection.ts';
import { FrameType } from './frame.ts';
import type { ConnectionCounters } from './tunnel.ts';

/**
 * The connections of a tunnel that carry what this side sends.
 *
 * The path of a packet out:
 * 1. `reserve` points into the connection of the packet before, because the next one is likely of the same flow
 * 2. `commit` finds the connection of the flow, and copies the packet there if that is another one
 * 3. `flush` has every connection send what it got
 */
export class SteeredSender {
  /** Called once after `reserve` returned -1, when there is space again. */
  onDrain: () => void = ignore;
  readonly #counters: ConnectionCounters;
  readonly #clock: Clock;
  #connections: TunnelConnection[] = [];
  /** Made when it is first needed, because most tunnels have one connection. */
  #steering: FlowSteering | undefined;
  /** Whether flows are distinguished also while there is only one connection. */
  #mayGrow = false;
  /** The connection that `reserve` pointed into last, and where. */
  #reserved = 0;
  #reservedAt = 0;
  #wasRefused = false;
  /** The time of the last flush, or of the last change of connections; steering needs no finer time. */
  #nowMs = 0;

  constructor(counters: ConnectionCounters, clock: Clock) {
    this.#counters = counters;
    this.#clock = clock;
  }

  get connections(): readonly TunnelConnection[] {
    return this.#connections;
  }

  get buffer(): Buffer {
    return this.#connections[this.#reserved]?.buffer ?? EMPTY;
  }

  /** Begins again without connections. With `mayGrow`, flows are distinguished also while there is one connection. */
  reset(mayGrow: boolean): void {
    this.#nowMs = this.#clock.monotonicMs();
    this.#connections = [];
    this.#reserved = 0;
    this.#steering = undefined;
    this.#mayGrow = mayGrow;
  }

  add(connection: TunnelConnection): void {
    this.#connections.push(connection);
    if (this.#connections.length === 1) return;
    // A bucket that is quiet now stays with its number, so it must be quiet for the next packet too.
    this.#nowMs = this.#clock.monotonicMs();
    this.#table().setConnections(this.#connections.length, this.#nowMs);
    this.#reserved = 0;
  }

  /** Returns false if the connection is not one of these. */
  remove(connection: TunnelConnection): boolean {
    const at = this.#connections.indexOf(connection);
    if (at < 0) return false;
    const last = this.#connections.pop()!;
    if (last !== connection) this.#connections[at] = last;
    this.#nowMs = this.#clock.monotonicMs();
    this.#table().removeConnection(at, this.#nowMs);
    this.#reserved = 0;
    return true;
  }

  /** Returns how many flows are busy. */
  busyFlows(nowMs: number): number {
    return this.#table().busy(nowMs);
  }

  /** See `Tunnel.reserve`. */
  reserve(): number {
    const connections = this.#connections;
    for (let i = 0; i < connections.length; i++) {
      const at = connections[this.#reserved]!.reserve();
      if (at >= 0) {
        this.#reservedAt = at;
        return at;
      }
      this.#reserved = this.#reserved + 1 < connections.length ? this.#reserved + 1 : 0;
    }
    this.#wasRefused = true;
    return -1;
  }

  /** See `Tunnel.commit`. */
  commit(type: FrameType, payloadLength: number): boolean {
    const connections = this.#connections;
    const from = connections[this.#reserved];
    if (from === undefined) return false;
    const start = this.#reservedAt;
    const to = this.#connectionOf(from.buffer, start, start + payloadLength);
    if (to === this.#reserved) return from.commit(type, payloadLength);
    const { buffer } = from;
    this.#reserved = to;
    return this.#copy(connections[to]!, type, buffer, start, start + payloadLength);
  }

  flush(): void {
    this.#nowMs = this.#clock.monotonicMs();
    // A connection may break during its flush, and the last one takes its place: that one was flushed before.
    for (let i = this.#connections.length - 1; i >= 0; i--) this.#connections[i]?.flush();
  }

  /** See `Tunnel.sendPacket`. */
  send(buffer: Buffer, start: number, end: number): boolean {
    const connection = this.#connections[this.#connectionOf(buffer, start, end)];
    return connection !== undefined && this.#copy(connection, FrameType.Packet, buffer, start, end);
  }

  /** One of the connections has space again. */
  drained(): void {
    if (!this.#wasRefused) return;
    this.#wasRefused = false;
    this.onDrain();
  }

  #table(): FlowSteering {
    this.#steering ??= new FlowSteering();
    return this.#steering;
  }

  #connectionOf(buffer: Buffer, start: number, end: number): number {
    if (this.#connections.length <= 1 && !this.#mayGrow) return 0;
    const hash = flowHash(buffer, start + VNET_HEADER_LENGTH, end);
    return this.#table().connectionOf(hash, end - start, this.#nowMs);
  }

  #copy(
    connection: TunnelConnection,
    type: FrameType,
    buffer: Buffer,
    start: number,
    end: number
  ): boolean {
    const at = connection.reserve();
    if (at < 0) {
      this.#wasRefused = true;
      this.#counters.droppedFull++;
      return false;
    }
    buffer.copy(connection.buffer, at, start, end);
    return connection.commit(type, end - start);
  }
}

/** The buckets, and the number of the connection of each. */
export class FlowSteering {
  #connections = 1;
  /** The connection of each bucket. */
  readonly #connectionOf = new Uint8Array(BUCKETS);
  /** When the last packet of each bucket came, in ms. */
  readonly #seenMs = new Float64Array(BUCKETS).fill(Number.NEGATIVE_INFINITY);
  /** The hash of the flow that each bucket counts, and by how much it leads, in bytes, since the last `#balance`. */
  readonly #leader = new Int32Array(BUCKETS);
  readonly #lead = new Float64Array(BUCKETS);
  /** Whether the flow of each bucket was busy before the last `#balance`: 0 or 1. */
  readonly #wasBusy = new Uint8Array(BUCKETS);
  #balancedMs = 0;
  readonly #load = new Int32Array(256);

  /** Connections are numbered from 0. */
  get connections(): number {
    return this.#connections;
  }

  /** Returns the number of the connection for a packet of `bytes` that is sent now. */
  connectionOf(hash: number, bytes: number, nowMs: number): number {
    if (nowMs - this.#balancedMs >= BALANCE_MS) this.#balance(nowMs);
    const bucket = hash & (BUCKETS - 1);
    if (nowMs - this.#seenMs[bucket]! > QUIET_MS)
      this.#connectionOf[bucket] = this.#emptiest(nowMs);
    this.#seenMs[bucket] = nowMs;
    this.#count(bucket, hash | 0, Math.max(bytes, MIN_BYTES));
    return this.#connectionOf[bucket]!;
  }

  /** Returns how many flows, as far as the buckets distinguish them, are busy. */
  busy(nowMs: number): number {
    if (nowMs - this.#balancedMs >= BALANCE_MS) this.#balance(nowMs);
    let count = 0;
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      if (this.#wasBusy[bucket] === 1 || this.#lead[bucket]! >= BUSY_BYTES) count++;
    }
    return count;
  }

  /** Uses the connections from 0 to `connections - 1` from now on, and no others. */
  setConnections(connections: number, nowMs: number): void {
    const load = this.#countLoad(nowMs);
    this.#connections = connections;
    let share = 0;
    for (let connection = 0; connection < 256; connection++) share += load[connection]!;
    share = Math.ceil(share / connections);
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      const from = this.#connectionOf[bucket]!;
      if (from < connections && load[from]! <= share) continue;
      if (nowMs - this.#seenMs[bucket]! > QUIET_MS) continue;
      const to = emptiest(load, connections);
      load[from]!--;
      load[to]!++;
      this.#connectionOf[bucket] = to;
    }
  }

  /** Removes a connection; the last one has its number from now on. */
  removeConnection(gone: number, nowMs: number): void {
    const last = this.#connections - 1;
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      if (this.#connectionOf[bucket] === gone) this.#connectionOf[bucket] = last;
      else if (this.#connectionOf[bucket] === last) this.#connectionOf[bucket] = gone;
    }
    this.setConnections(last, nowMs);
  }

  /** A packet of another flow than the one that leads takes from its lead, and a new flow leads when nothing is left. */
  #count(bucket: number, hash: number, bytes: number): void {
    const lead = this.#lead[bucket]!;
    if (this.#leader[bucket] === hash) this.#lead[bucket] = lead + bytes;
    else if (lead >= bytes) this.#lead[bucket] = lead - bytes;
    else {
      this.#leader[bucket] = hash;
      this.#lead[bucket] = bytes - lead;
    }
  }

  /** Moves busy flows from connections that have several to connections that have at least two fewer. */
  #balance(nowMs: number): void {
    // What was counted before a pause says nothing about now.
    const isRecent = nowMs - this.#balancedMs < 2 * BALANCE_MS;
    this.#balancedMs = nowMs;
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      this.#wasBusy[bucket] = isRecent && this.#lead[bucket]! >= BUSY_BYTES ? 1 : 0;
    }
    this.#lead.fill(0);
    if (this.#connections > 1) {
      const load = this.#load.fill(0);
      for (let bucket = 0; bucket < BUCKETS; bucket++) {
        if (this.#wasBusy[bucket] === 1) load[this.#connectionOf[bucket]!]!++;
      }
      for (let bucket = 0; bucket < BUCKETS; bucket++) {
        if (this.#wasBusy[bucket] === 0) continue;
        const from = this.#connectionOf[bucket]!;
        const to = emptiest(load, this.#connections);
        if (load[from]! < load[to]! + 2) continue;
        load[from]!--;
        load[to]!++;
        this.#connectionOf[bucket] = to;
      }
    }
  }

  #emptiest(nowMs: number): number {
    return this.#connections === 1 ? 0 : emptiest(this.#countLoad(nowMs), this.#connections);
  }

  #countLoad(nowMs: number): Int32Array {
    const load = this.#load.fill(0);
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      if (nowMs - this.#seenMs[bucket]! <= QUIET_MS) load[this.#connectionOf[bucket]!]!++;
    }
    return load;
  }
}

function emptiest(load: Int32Array, connections: number): number {
  let least = 0;
  for (let connection = 1; connection < connections; connection++) {
    if (load[connection]! < load[least]!) least = connection;
  }
  return least;
}

function ignore(): void {}

const EMPTY: Buffer = Buffer.alloc(0);
/** A power of two. */
const BUCKETS = 1024;
/** How often busy flows are balanced, in ms, and how many bytes make a flow busy in that time. */
const BALANCE_MS = 1000;
const BUSY_BYTES = 64 * 1024;
/** For how many bytes a packet counts at least: a flow that receives much sends 32 acknowledgements in a second. */
const MIN_BYTES = 2048;
/** The time in ms after which no packet of a flow is in the network any more, so it may take another connection. */
const QUIET_MS = 1000;
