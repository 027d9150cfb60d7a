/**
 * How often each of many may do something: a token bucket for each that was seen of late. It reads no
 * clock.
 * @module
 */
import { ApiMisuseError } from '../errors.ts';

/**
 * The one that was seen longest ago is forgotten for a new one, and begins with a full burst when it comes
 * again. So who has more names than are remembered is not held by the rate.
 */
export class RateLimit {
  readonly #perMs: number;
  readonly #burst: number;
  readonly #maxKeys: number;
  /** The one that was seen longest ago first. */
  readonly #buckets = new Map<string, Bucket>();
  /** The one that was seen last; it need not be moved to the end of the map again. */
  #newest: string | undefined;

  /**
   * @param perSecond averaged
   * @param burst that may come at once
   * @param maxKeys how many are remembered; for unauthenticated peers' names, a number that fits the memory
   */
  constructor(perSecond: number, burst: number, maxKeys: number = DEFAULT_MAX_KEYS) {
    this.#perMs = perSecond / 1000;
    this.#burst = burst;
    this.#maxKeys = maxKeys;
  }

  /** How many are remembered. */
  get size(): number {
    return this.#buckets.size;
  }

  /** Returns whether `key` may do it once more, now. */
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

/** Some 400 KiB of addresses. */
const DEFAULT_MAX_KEYS = 4096;
