/**
 * A bounded table of records that are remembered for a while: sessions, and datagrams of which
 * fragments have come. A record stands at the place its hash gives, or a few behind it; when all of those
 * are taken, the table doubles until it has its greatest size, and from then on the oldest of them makes
 * room. So it never refuses, and what an attacker can fill is what was given to him.
 * @module
 */
import { mix } from './int-table.ts';

export class RecencyTable {
  /** Where the caller puts the key before `find` or `claim`; its first word is above 0. */
  readonly key: Int32Array;
  /** A record is its time, then its key, then its value. Read it anew after `claim`. */
  words: Int32Array;
  readonly stride: number;
  readonly #keyWords: number;
  readonly #maxRecords: number;
  readonly #maxProbes: number;
  /** The number of places, a power of two, less one. */
  #mask: number;
  readonly #seed = (Math.random() * 0x1_0000_0000) | 0;

  /**
   * @param maxRecords rounded up to a power of two; forgets hardly any too early while half of it is free
   * @param maxProbes how many places a record may stand at; at most as many as there are
   */
  constructor(keyWords: number, valueWords: number, maxRecords: number, maxProbes: number) {
    this.key = new Int32Array(keyWords);
    this.#keyWords = keyWords;
    this.stride = 1 + keyWords + valueWords;
    this.#maxRecords = 2 ** Math.ceil(Math.log2(maxRecords));
    this.#maxProbes = Math.min(maxProbes, this.#maxRecords);
    const records = Math.min(INITIAL_RECORDS, this.#maxRecords);
    this.words = new Int32Array(records * this.stride);
    this.#mask = records - 1;
  }

  /** Returns where in `words` the record of the key in `key` begins, or -1. It may be out of date. */
  find(): number {
    const { words, key, stride } = this;
    const keyWords = this.#keyWords;
    let place = this.#hash();
    for (let n = this.#maxProbes; n > 0; n--) {
      const at = (place++ & this.#mask) * stride;
      if (words[at + 1] === FREE) return -1;
      let i = 0;
      while (i < keyWords && words[at + 1 + i] === key[i]) i++;
      if (i === keyWords) return at;
    }
    return -1;
  }

  /** `find` for the key (a, b), which is not put in `key`. For a table of two words of key. */
  find2(a: number, b: number): number {
    const { words, stride } = this;
    const mask = this.#mask;
    let place = mix(mix(this.#seed, a), b);
    for (let n = this.#maxProbes; n > 0; n--) {
      const at = (place++ & mask) * stride;
      const first = words[at + 1]!;
      if (first === a && words[at + 2] === b) return at;
      if (first === FREE) return -1;
    }
    return -1;
  }

  /**
   * Returns where the record of the key begins, with its time set to `now`. A new one has a value of
   * zeros, and takes the place of one that is older than `timeoutMs`, or of the oldest.
   *
   * @param now in ms, modulo 2^32
   */
  claim(now: number, timeoutMs: number): number {
    const known = this.find();
    if (known >= 0) {
      this.words[known] = now;
      return known;
    }
    let at = this.#placeOf(now, timeoutMs);
    while (!this.#isUsable(at, now, timeoutMs) && this.#mask + 1 < this.#maxRecords) {
      this.#grow(now, timeoutMs);
      at = this.#placeOf(now, timeoutMs);
    }
    const { words } = this;
    words.fill(0, at, at + this.stride);
    words[at] = now;
    words.set(this.key, at + 1);
    return at;
  }

  /** Whether the record that begins at `at` is at most `timeoutMs` old. */
  isRecent(at: number, now: number, timeoutMs: number): boolean {
    return age(this.words, at, now) <= timeoutMs;
  }

  remove(at: number): void {
    this.words[at + 1] = REMOVED;
  }

  /** Where each record begins, those out of date included. Removing is allowed meanwhile. */
  *records(): Generator<number> {
    for (let at = 0; at < this.words.length; at += this.stride) {
      if (this.words[at + 1]! > 0) yield at;
    }
  }

  #grow(now: number, timeoutMs: number): void {
    const before = this.words;
    const { stride } = this;
    this.words = new Int32Array(before.length * 2);
    this.#mask = 2 * this.#mask + 1;
    const key = this.key.slice();
    for (let at = 0; at < before.length; at += stride) {
      if (before[at + 1]! <= 0 || age(before, at, now) > timeoutMs) continue;
      this.key.set(before.subarray(at + 1, at + 1 + this.#keyWords));
      this.words.set(before.subarray(at, at + stride), this.#placeOf(now, timeoutMs));
    }
    this.key.set(key);
  }

  /** Where a new record of the key goes: the first place that is usable, else that of the oldest. */
  #placeOf(now: number, timeoutMs: number): number {
    let place = this.#hash();
    let oldest = -1;
    for (let n = this.#maxProbes; n > 0; n--) {
      const at = (place++ & this.#mask) * this.stride;
      if (this.#isUsable(at, now, timeoutMs)) return at;
      if (oldest < 0 || age(this.words, at, now) > age(this.words, oldest, now)) oldest = at;
    }
    return oldest;
  }

  #isUsable(at: number, now: number, timeoutMs: number): boolean {
    return this.words[at + 1]! <= 0 || age(this.words, at, now) > timeoutMs;
  }

  #hash(): number {
    const key = this.key;
    let hash = this.#seed;
    for (let i = 0; i < key.length; i++) hash = mix(hash, key[i]!);
    return hash;
  }
}

/** In ms; right for up to 49 days. */
function age(words: Int32Array, at: number, now: number): number {
  return (now - words[at]!) >>> 0;
}

const INITIAL_RECORDS = 64;
/** In place of the first word of a key: nothing was ever here, so a search ends. */
const FREE = 0;
/** A record was here. */
const REMOVED = -1;
