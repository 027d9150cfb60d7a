/**
 * Two ends of a tunnel in memory. `deliver` moves what one end has flushed to the other. Each `reserve` returns
 * other memory, so that a test finds code that keeps the old one.
 */
import { EventEmitter } from 'eventemitter3';
import type { Json } from '../../src/store/index.ts';
import { FRAME_HEADER_LENGTH, MAX_PACKET_PAYLOAD } from '../../src/tunnel/frame.ts';
import {
  type ConnectionCounters,
  type ConnectionInfo,
  FrameType,
  type Tunnel,
  type TunnelEvents,
  type TunnelState,
} from '../../src/tunnel/index.ts';
import { newConnectionCounters } from '../../src/tunnel/tunnel.ts';

export class FakeTunnel extends EventEmitter<TunnelEvents> implements Tunnel {
  /** @param capacity the number of packets that may be in flight in each direction */
  static pair(site: string, capacity: number = 1000): [edge: FakeTunnel, cloud: FakeTunnel] {
    const edge = new FakeTunnel(site, capacity);
    const cloud = new FakeTunnel(site, capacity);
    edge.#peer = cloud;
    cloud.#peer = edge;
    return [edge, cloud];
  }

  readonly peer: Tunnel['peer'];
  readonly info: ConnectionInfo | undefined = undefined;
  readonly rttMs: number | undefined = undefined;
  readonly counters: Readonly<ConnectionCounters> = newConnectionCounters();
  readonly connections = 1;
  state: TunnelState = 'up';
  onPacket: Tunnel['onPacket'] = () => {};
  onBatchEnd: () => void = () => {};
  onDrain: () => void = () => {};
  buffer: Buffer = Buffer.alloc(0);
  /** Whether a slab was reserved or filled and not flushed since. */
  isHoldingSlab = false;
  flushes = 0;
  readonly #capacity: number;
  #peer!: FakeTunnel;
  #reservedAt = -1;
  #wasRefused = false;
  #committed: Buffer[] = [];
  #flushed: Buffer[] = [];

  private constructor(site: string, capacity: number) {
    super();
    this.peer = { trustDomain: 'test', role: 'site', site };
    this.#capacity = capacity;
  }

  /** Packets that were committed and not delivered yet. */
  get waiting(): number {
    return this.#committed.length + this.#flushed.length;
  }

  reserve(): number {
    this.#reservedAt = -1;
    if (this.state !== 'up') return -1;
    if (this.waiting >= this.#capacity) {
      this.#wasRefused = true;
      return -1;
    }
    this.buffer.fill(0xee);
    this.#reservedAt = FRAME_HEADER_LENGTH + (this.flushes % 7);
    this.buffer = Buffer.alloc(this.#reservedAt + MAX_PACKET_PAYLOAD, 0xdd);
    this.isHoldingSlab = true;
    return this.#reservedAt;
  }

  commit(type: FrameType, payloadLength: number): boolean {
    if (this.state !== 'up') return false;
    if (this.#reservedAt < 0) throw new Error('nothing was reserved');
    if (type !== FrameType.Packet) throw new Error(`committed a frame of type ${type}`);
    const end = this.#reservedAt + payloadLength;
    this.#committed.push(Buffer.from(this.buffer.subarray(this.#reservedAt, end)));
    this.#reservedAt = -1;
    return true;
  }

  flush(): void {
    this.flushes++;
    this.isHoldingSlab = false;
    this.#flushed.push(...this.#committed);
    this.#committed = [];
  }

  sendPacket(buffer: Buffer, start: number, end: number): boolean {
    const at = this.reserve();
    if (at < 0) return false;
    buffer.copy(this.buffer, at, start, end);
    this.commit(FrameType.Packet, end - start);
    return true;
  }

  sendControl(_message: Json): boolean {
    return false;
  }

  /** Brings up to `count` flushed packets to the peer, as one run. */
  deliver(count: number = Number.POSITIVE_INFINITY): number {
    const run = this.#flushed.splice(0, Math.min(count, this.#flushed.length));
    for (const packet of run) {
      const chunk = Buffer.alloc(FRAME_HEADER_LENGTH + packet.length + 16, 0xcc);
      packet.copy(chunk, FRAME_HEADER_LENGTH);
      const end = FRAME_HEADER_LENGTH + packet.length;
      this.#peer.onPacket(chunk, FRAME_HEADER_LENGTH, end);
      chunk.fill(0xbb); // gone when the call returns
    }
    if (run.length > 0) this.#peer.onBatchEnd();
    if (run.length > 0 && this.#wasRefused) {
      this.#wasRefused = false;
      this.onDrain();
    }
    return run.length;
  }

  /** Breaks the connection: packets in flight are lost, and no `onDrain` follows. */
  break(): void {
    this.state = 'waiting';
    this.#committed = [];
    this.#flushed = [];
    this.#wasRefused = false;
    this.emit('down', { by: 'network', code: 'connection-lost', reason: 'test' });
  }

  comeUp(): void {
    this.state = 'up';
    this.emit('up', {} as ConnectionInfo);
  }

  async close(): Promise<void> {
    this.break();
    this.state = 'closed';
  }

  abort(): Promise<void> {
    return this.close();
  }

  destroy(): void {
    void this.close();
  }
}
