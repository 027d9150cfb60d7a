/**
 * Keeps packets of TCP while the tunnel that they go to is down: of each flow the newest one. When the tunnel is up again
 * they are sent, so that the receiver acknowledges and the sender goes on at once. Without that a flow stands still until
 * its sender's timer, which has doubled with each packet that was lost (RFC 6298 section 5.5), tries again.
 *
 * Whatever comes, what is kept is bounded: in packets and bytes for each tunnel, in bytes for all of them, and in age. A new
 * packet takes the place of the oldest one of its tunnel; where the memory of all tunnels is used up, it is dropped. Packets of other protocols are not kept: who sends datagrams wants them
 * now or never.
 * @module
 */
import {
  IPV4_FRAGMENT,
  IPV4_FRAGMENT_OFFSET,
  IPV4_MIN_HEADER,
  IPV4_MORE_FRAGMENTS,
  IPV4_PROTOCOL,
  IPV6_HEADER,
  IPV6_NEXT_HEADER,
  Protocol,
} from '../packet/fields.ts';
import { flowHash } from '../packet/flow-hash.ts';
import { VNET_HEADER_LENGTH } from '../packet/index.ts';

/** Copies the packets, so the caller may reuse its buffers at once. Tunnels are numbers. */
export class KeptPackets {
  /** The packets of each tunnel, keyed by the hash of the flow; the oldest one is the first. */
  readonly #tunnels = new Map<number, Map<number, Kept>>();
  /** Bytes of memory held, of each tunnel and of all. */
  readonly #bytesOf = new Map<number, number>();
  #bytes = 0;
  #purgedMs = Number.NEGATIVE_INFINITY;

  /** How many packets are kept. */
  get size(): number {
    let size = 0;
    for (const packets of this.#tunnels.values()) size += packets.size;
    return size;
  }

  /** Bytes of memory that the packets take, about. */
  get bytes(): number {
    return this.#bytes;
  }

  /**
   * Keeps `buffer[vnet .. end)`, a packet with its virtio-net header, if it is one of TCP.
   *
   * @returns how many packets were dropped: this one, or others in its place
   */
  keep(tunnel: number, buffer: Buffer, vnet: number, end: number, nowMs: number): number {
    const start = vnet + VNET_HEADER_LENGTH;
    const length = end - vnet;
    if (!isTcp(buffer, start, end) || length + OVERHEAD_BYTES > MAX_BYTES) return 1;
    const packets = this.#tunnels.get(tunnel) ?? new Map<number, Kept>();
    const flow = flowHash(buffer, start, end);
    let dropped = 0;
    let memory: Buffer | undefined;
    const drop = (key: number): void => {
      memory = this.#remove(tunnel, packets, key);
      dropped++;
    };
    if (packets.has(flow)) drop(flow);
    while (
      packets.size >= MAX_PACKETS ||
      this.#held(tunnel) + length + OVERHEAD_BYTES > MAX_BYTES
    ) {
      drop(packets.keys().next().value!);
    }
    if (this.#bytes + length + OVERHEAD_BYTES > MAX_BYTES_OF_ALL) {
      dropped += this.#purge(nowMs);
      if (this.#bytes + length + OVERHEAD_BYTES > MAX_BYTES_OF_ALL) return dropped + 1;
    }
    if (memory === undefined || memory.length < length || memory.length > 2 * length) {
      memory = Buffer.allocUnsafeSlow(length);
    }
    buffer.copy(memory, 0, vnet, end);
    packets.set(flow, { memory, length, sinceMs: nowMs });
    this.#tunnels.set(tunnel, packets);
    this.#count(tunnel, memory.length + OVERHEAD_BYTES);
    return dropped;
  }

  /**
   * Removes the packets of a tunnel, and calls `send` with each that is not too old, the oldest first.
   *
   * @returns how many were too old
   */
  release(tunnel: number, nowMs: number, send: (buffer: Buffer, end: number) => void): number {
    const packets = this.#tunnels.get(tunnel);
    if (packets === undefined) return 0;
    this.#forget(tunnel);
    let old = 0;
    for (const { memory, length, sinceMs } of packets.values()) {
      if (isOld(sinceMs, nowMs)) old++;
      else send(memory, length);
    }
    return old;
  }

  /** Drops all packets. Returns how many there were. */
  clear(): number {
    const { size } = this;
    for (const tunnel of [...this.#tunnels.keys()]) this.#forget(tunnel);
    return size;
  }

  /** Drops what is too old, of all tunnels, once a second at most. Returns how many packets that were. */
  #purge(nowMs: number): number {
    if (Math.abs(nowMs - this.#purgedMs) < PURGE_MS) return 0;
    this.#purgedMs = nowMs;
    let old = 0;
    for (const [tunnel, packets] of this.#tunnels) {
      for (const [flow, { sinceMs }] of packets) {
        if (!isOld(sinceMs, nowMs)) break;
        this.#remove(tunnel, packets, flow);
        old++;
      }
      if (packets.size === 0) this.#forget(tunnel);
    }
    return old;
  }

  #remove(tunnel: number, packets: Map<number, Kept>, flow: number): Buffer {
    const { memory } = packets.get(flow)!;
    packets.delete(flow);
    this.#count(tunnel, -memory.length - OVERHEAD_BYTES);
    return memory;
  }

  #forget(tunnel: number): void {
    this.#tunnels.delete(tunnel);
    this.#count(tunnel, -this.#held(tunnel));
    this.#bytesOf.delete(tunnel);
  }

  #held(tunnel: number): number {
    return this.#bytesOf.get(tunnel) ?? 0;
  }

  #count(tunnel: number, bytes: number): void {
    this.#bytesOf.set(tunnel, this.#held(tunnel) + bytes);
    this.#bytes += bytes;
  }
}

interface Kept {
  readonly memory: Buffer;
  readonly length: number;
  readonly sinceMs: number;
}

/** A clock that has gone back tells nothing of the age, so the packet counts as old. */
function isOld(sinceMs: number, nowMs: number): boolean {
  return !(nowMs >= sinceMs && nowMs - sinceMs <= MAX_AGE_MS);
}

/** Whether it is a packet of TCP that is no fragment and, of IPv6, has no extension headers. */
function isTcp(buffer: Buffer, start: number, end: number): boolean {
  const version = end > start ? buffer[start]! >>> 4 : 0;
  if (version === 4 && end - start >= IPV4_MIN_HEADER) {
    const fragment = buffer.readUInt16BE(start + IPV4_FRAGMENT);
    const isWhole = (fragment & (IPV4_FRAGMENT_OFFSET | IPV4_MORE_FRAGMENTS)) === 0;
    return isWhole && buffer[start + IPV4_PROTOCOL] === Protocol.Tcp;
  }
  if (version !== 6 || end - start < IPV6_HEADER) return false;
  return buffer[start + IPV6_NEXT_HEADER] === Protocol.Tcp;
}

/** Less than the TTL of names by default (30 s), for which a presence rests before it may get another host. */
const MAX_AGE_MS = 25_000;
/** What a packet takes beside its bytes, about. */
const OVERHEAD_BYTES = 512;
/** What one tunnel may keep. */
const MAX_PACKETS = 1_024;
const MAX_BYTES = 1024 * 1024;
const MAX_BYTES_OF_ALL = 16 * 1024 * 1024;
const PURGE_MS = 1_000;
