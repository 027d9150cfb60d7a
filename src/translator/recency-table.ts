/**
 * A bounded hash table of records with a time: sessions, and datagrams that arrive in fragments. A record
 * is in the slot of its hash or in one of the next few. If all of these are in use, the table doubles, up to
 * its largest size; after that a new record replaces the oldest of them. So the table never refuses a
 * record, and its memory is bounded.
 * @module
 */
import { mix } from './int-table.ts';

export class RecencyTable {
  /** The caller writes the key here before it calls `find` or `claim`. The first word must be above 0. */
  readonly key: Int32Array;
  /** The records: time, key, value. `claim` may replace the array, so read the property again after it. */
  words: Int32Array;
  readonly stride: number;
  /** How many records were replaced although they had not expired. */
  replaced = 0;
  readonly #keyWords: number;
  readonly #maxRecords: number;
  readonly #maxProbes: number;
  /** The number of slots (a power of two) minus one. */
  #mask: number;
  readonly #seed = (Math.random() * 0x1_0000_0000) | 0;

  /**
   * @param maxRecords rounded up to a power of two; while half of it is free, hardly any record is replaced
   *   too early
   * @param maxProbes the number of slots that a record may be in
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

  /** Returns the index in `words` of the record with the key in `key`, or -1. The record may have expired. */
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

  /** Finds the key (a, b) without using `key`, in a table with two key words. */
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
   * Returns the index of the record with the key in `key`, after setting its time to `now`. If there is no
   * such record, adds one with a value of zeros. It replaces one that is older than `timeoutMs`, or the
   * oldest.
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
    if (!this.#isUsable(at, now, timeoutMs)) this.replaced++;
    const { words } = this;
    words.fill(0, at, at + this.stride);
    words[at] = now;
    words.set(this.key, at + 1);
    return at;
  }

  /** Returns whether the record at `at` is at most `timeoutMs` old. */
  isRecent(at: number, now: number, timeoutMs: number): boolean {
    return age(this.words, at, now) <= timeoutMs;
  }

  remove(at: number): void {
    this.words[at + 1] = REMOVED;
  }

  /** Iterates over the indexes of all records, expired ones included. The caller may remove records. */
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

  /** Returns the index for a new record: the first usable slot, otherwise that of the oldest record. */
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

/** Returns the age of a record in ms, which may be up to 49 days. */
function age(words: Int32Array, at: number, now: number): number {
  return (now - words[at]!) >>> 0;
}

const INITIAL_RECORDS = 64;
/** Instead of the first key word: the slot was never used, so a search ends here. */
const FREE = 0;
/** Instead of the first key word: the record was removed (a tombstone), so a search goes on. */
const REMOVED = -1;
