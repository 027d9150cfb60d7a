/**
 * Simulates a bad network: loses, duplicates, reorders, corrupts and delays packets by a seeded random sequence,
 * so that every run is the same.
 * @module
 */
import { ApiMisuseError } from '../errors.ts';
import { VNET_HEADER_LENGTH } from '../packet/virtio.ts';
import type { PacketQueue } from './packet-queue.ts';

/** Probabilities from 0 to 1, and times in ms; each is 0 by default. */
export interface Faults {
  readonly loss?: number;
  readonly duplicate?: number;
  /** The packet changes places with the packet before it, if that packet still waits. */
  readonly reorder?: number;
  /** One bit of the packet, not of its virtio-net header, is inverted. */
  readonly corrupt?: number;
  /** How long each packet is on its way, in ms, at most 60,000. Meanwhile it has its place in the queue. */
  readonly delayMs?: number;
  /**
   * Each packet takes up to this many ms longer, at most 60,000, evenly distributed. A packet never overtakes the one
   * before it by that: it waits.
   */
  readonly jitterMs?: number;
  /** The same seed and the same packets give the same faults; 1 by default. */
  readonly seed?: number;
}

/** The number of packets with each fault. */
export interface FaultCounters {
  lost: number;
  duplicated: number;
  reordered: number;
  corrupted: number;
  delayed: number;
}

/** Puts packets into a queue, with faults. */
export class FaultInjector {
  readonly counters: FaultCounters = {
    lost: 0,
    duplicated: 0,
    reordered: 0,
    corrupted: 0,
    delayed: 0,
  };
  readonly #loss: number;
  readonly #duplicate: number;
  readonly #reorder: number;
  readonly #corrupt: number;
  readonly #delayMs: number;
  readonly #jitterMs: number;
  readonly #now: () => number;
  /** When the packet queued last arrives. */
  #lastDueMs = 0;
  #state: number;

  /**
   * @param now returns a monotonic time in ms, for `delayMs` and `jitterMs`
   * @throws {ApiMisuseError} if a probability is not from 0 to 1, or a time not from 0 to 60,000 ms.
   */
  constructor(faults: Faults, now: () => number) {
    this.#loss = probability('loss', faults.loss);
    this.#duplicate = probability('duplicate', faults.duplicate);
    this.#reorder = probability('reorder', faults.reorder);
    this.#corrupt = probability('corrupt', faults.corrupt);
    this.#delayMs = duration('delayMs', faults.delayMs);
    this.#jitterMs = duration('jitterMs', faults.jitterMs);
    this.#now = now;
    this.#state = (faults.seed ?? 1) | 0;
  }

  /**
   * Queues the frame `buffer[offset .. offset + length)`, with faults. Returns false if the queue was
   * full; a lost packet counts as taken.
   */
  push(queue: PacketQueue, buffer: Buffer, offset: number, length: number): boolean {
    if (this.#happens(this.#loss)) {
      this.counters.lost++;
      return true;
    }
    if (!this.#queue(queue, buffer, offset, length)) return false;
    if (this.#happens(this.#corrupt)) {
      const bits = 8 * (length - VNET_HEADER_LENGTH);
      queue.flipLast(8 * VNET_HEADER_LENGTH + Math.floor(this.#random() * bits));
      this.counters.corrupted++;
    }
    if (this.#happens(this.#reorder) && queue.swapLast()) this.counters.reordered++;
    if (this.#happens(this.#duplicate) && this.#queue(queue, buffer, offset, length)) {
      this.counters.duplicated++;
    }
    return true;
  }

  #queue(queue: PacketQueue, buffer: Buffer, offset: number, length: number): boolean {
    if (this.#delayMs === 0 && this.#jitterMs === 0) return queue.push(buffer, offset, length);
    const extraMs = this.#jitterMs === 0 ? 0 : this.#random() * this.#jitterMs;
    const dueMs = Math.max(this.#now() + this.#delayMs + extraMs, this.#lastDueMs);
    if (!queue.push(buffer, offset, length, dueMs)) return false;
    this.#lastDueMs = dueMs;
    this.counters.delayed++;
    return true;
  }

  /** Draws no random number when the fault is switched off. */
  #happens(chance: number): boolean {
    return chance > 0 && this.#random() < chance;
  }

  /** Returns the next number of mulberry32, which is at least 0 and less than 1. */
  #random(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let z = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
  }
}

function probability(name: string, value = 0): number {
  if (!(value >= 0 && value <= 1)) {
    throw new ApiMisuseError(`faults.${name} must be from 0 to 1, not ${value}`);
  }
  return value;
}

function duration(name: string, value = 0): number {
  if (!(value >= 0 && value <= MAX_DELAY_MS)) {
    throw new ApiMisuseError(`faults.${name} must be from 0 to ${MAX_DELAY_MS} ms, not ${value}`);
  }
  return value;
}

const MAX_DELAY_MS = 60_000;
