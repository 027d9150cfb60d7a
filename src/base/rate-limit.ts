/**
 * Limits how often each of many peers may do something. Each peer that was seen recently has a token bucket. It reads
 * no clock.
 * @module
 */
import { ApiMisuseError } from '../errors.ts';

/**
 * A new peer takes the place of the one that was seen longest ago, which begins with a full burst when it comes again.
 * The limit therefore does not stop a peer that has more names than are remembered.
 */
export class RateLimit {
  readonly #perMs: number;
  readonly #burst: number;
  readonly #maxKeys: number;
  /** Keyed by peer, the one that was seen longest ago first. */
  readonly #buckets = new Map<string, Bucket>();
  /** The peer that was seen last; it is at the end of the map already. */
  #newest: string | undefined;

  /**
   * @param perSecond how often a peer may do it in a second, averaged
   * @param burst how often a peer may do it at once
   * @param maxKeys how many peers are remembered; where unauthenticated peers choose their names, it bounds the memory
   */
  constructor(perSecond: number, burst: number, maxKeys: number = DEFAULT_MAX_KEYS) {
    this.#perMs = perSecond / 1000;
    this.#burst = burst;
    this.#maxKeys = maxKeys;
  }

  /** How many peers are remembered. */
  get size(): number {
    return this.#buckets.size;
  }

  /** Returns whether the peer `key` may do it once more now, and counts it. */
  take(key: string, nowMs: number): boolean {
    const before = this.#buckets.get(key);
    if (before === undefined) {
      if (this.#buckets.size >= this.#maxKeys) this.#forgetOldest();
      this.#buckets.set(key, { tokens: this.#burst - 1, atMs: nowMs });
      this.#newest = key;
      return true;
    }
    if (key !== this.#newest) {
      this.#buckets.delete(key);
      this.#buckets.set(key, before);
      this.#newest = key;
    }
    const tokens = before.tokens + (nowMs - before.atMs) * this.#perMs;
    before.tokens = Math.min(tokens, this.#burst);
    before.atMs = nowMs;
    if (before.tokens < 1) return false;
    before.tokens--;
    return true;
  }

  #forgetOldest(): void {
    for (const key of this.#buckets.keys()) {
      this.#buckets.delete(key);
      return;
    }
  }
}

/** @throws {ApiMisuseError} if it is not a finite number above 0. */
export function checkRate(name: string, value: number): number {
  if (Number.isFinite(value) && value > 0) return value;
  throw new ApiMisuseError(`${name} must be a number above 0, not ${value}`);
}

interface Bucket {
  tokens: number;
  atMs: number;
}

/** About 400 KiB of addresses. */
const DEFAULT_MAX_KEYS = 4096;
