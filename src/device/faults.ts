/**
 * What a bad network does to packets, on purpose and the same in every run: loses, doubles, reorders
 * and damages them by a seeded random sequence.
 * @module
 */
import { ApiMisuseError } from '../errors.ts';
import { VNET_HEADER_LENGTH } from '../packet/virtio.ts';
import type { PacketQueue } from './packet-queue.ts';

/** Probabilities from 0 to 1, each 0 by default. */
export interface Faults {
  readonly loss?: number;
  readonly duplicate?: number;
  /** The packet changes places with the one before it, if that one still waits. */
  readonly reorder?: number;
  /** One bit of the packet, not of its virtio-net header, is inverted. */
  readonly corrupt?: number;
  /** The same seed and the same packets give the same faults; 1 by default. */
  readonly seed?: number;
}

/** How often each fault was done. */
export interface FaultCounters {
  lost: number;
  duplicated: number;
  reordered: number;
  corrupted: number;
}

export class FaultInjector {
  readonly counters: FaultCounters = { lost: 0, duplicated: 0, reordered: 0, corrupted: 0 };
  readonly #loss: number;
  readonly #duplicate: number;
  readonly #reorder: number;
  readonly #corrupt: number;
  #state: number;

  /** @throws {ApiMisuseError} if a probability is not one. */
  constructor(faults: Faults) {
    this.#loss = probability('loss', faults.loss);
    this.#duplicate = probability('duplicate', faults.duplicate);
    this.#reorder = probability('reorder', faults.reorder);
    this.#corrupt = probability('corrupt', faults.corrupt);
    this.#state = (faults.seed ?? 1) | 0;
  }

  /**
   * Queues the frame `buffer[offset .. offset + length)`, or what becomes of it on its way. Returns
   * false if the queue was full; a lost packet counts as taken.
   */
  push(queue: PacketQueue, buffer: Buffer, offset: number, length: number): boolean {
    if (this.#happens(this.#loss)) {
      this.counters.lost++;
      return true;
    }
    if (!queue.push(buffer, offset, length)) return false;
    if (this.#happens(this.#corrupt)) {
      const bits = 8 * (length - VNET_HEADER_LENGTH);
      queue.flipLast(8 * VNET_HEADER_LENGTH + Math.floor(this.#random() * bits));
      this.counters.corrupted++;
    }
    if (this.#happens(this.#reorder) && queue.swapLast()) this.counters.reordered++;
    if (this.#happens(this.#duplicate) && queue.push(buffer, offset, length)) {
      this.counters.duplicated++;
    }
    return true;
  }

  /** Takes nothing from the random sequence when the fault is switched off. */
  #happens(chance: number): boolean {
    return chance > 0 && this.#random() < chance;
  }

  /** The next number of mulberry32, from 0 up to but not 1. */
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
