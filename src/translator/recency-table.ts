/**
 * A bounded table of records that are remembered for a while: sessions, and datagrams of which
 * fragments have come. A few records share a set, and each may be in either of two sets, chosen by hash;
 * when both are full, the table doubles until it has its greatest size, and from then on the oldest
 * record of both makes room. So it never refuses, forgets none too early before it is three quarters full
 * (with eight to a set), and what an attacker can fill is what was given to him.
 * @module
 */
import { mix } from './int-table.ts';

export class RecencyTable {
  /** Where the caller puts the key before `find` or `claim`; its first word is never 0. */
  readonly key: Int32Array;
  /** A record is its time, then its key, then its value. Read it anew after `claim`. */
  words: Int32Array;
  readonly stride: number;
  readonly #keyWords: number;
  readonly #maxRecords: number;
  readonly #ways: number;
  /** The number of sets, a power of two, less one. */
  #setMask: number;
  /** What `#oldestIn` counted. */
  #filled = 0;
  readonly #seed = (Math.random() * 0x1_0000_0000) | 0;

  /**
   * @param maxRecords rounded up to a power of two
   * @param ways records that share a set at most, a power of two: with more of them fewer recent ones
   *   have to make room, and finding one takes longer
   */
  constructor(keyWords: number, valueWords: number, maxRecords: number, ways: number) {
    this.key = new Int32Array(keyWords);
    this.#keyWords = keyWords;
    this.stride = 1 + keyWords + valueWords;
    this.#maxRecords = 2 ** Math.ceil(Math.log2(maxRecords));
    this.#ways = Math.min(ways, this.#maxRecords);
    const records = Math.min(INITIAL_RECORDS, this.#maxRecords);
    this.words = new Int32Array(records * this.stride);
    this.#setMask = records / this.#ways - 1;
  }

  /** Returns where in `words` the record of the key in `key` begins, or -1. It may be out of date. */
  find(): number {
    const hash = this.#hash();
    const at = this.#findIn(this.#setOf(hash));
    return at >= 0 ? at : this.#findIn(this.#setOf(other(hash)));
  }

  /** `find` for the key (a, b), which is not put in `key`. For a table of two words of key. */
  find2(a: number, b: number): number {
    const hash = mix(mix(this.#seed, a), b);
    const at = this.#find2In(this.#setOf(hash), a, b);
    return at >= 0 ? at : this.#find2In(this.#setOf(other(hash)), a, b);
  }

  /**
   * Returns where the record of the key begins, with its time set to `now`. A new one has a value of
   * zeros, and takes the place of one that is older than `timeoutMs`, or of the oldest.
   *
   * @param now in ms, modulo 2^32
   */
  claim(now: number, timeoutMs: number): number {
    for (;;) {
      const known = this.find();
      if (known >= 0) {
        this.words[known] = now;
        return known;
      }
      const at = this.#oldest(now);
      const { words, stride } = this;
      const isFree = words[at + 1] === 0 || age(words, at, now) > timeoutMs;
      if (!isFree && words.length < this.#maxRecords * stride) {
        this.#grow(now);
        continue;
      }
      words.fill(0, at, at + stride);
      words[at] = now;
      words.set(this.key, at + 1);
      return at;
    }
  }

  /** Whether the record that begins at `at` is at most `timeoutMs` old. */
  isRecent(at: number, now: number, timeoutMs: number): boolean {
    return age(this.words, at, now) <= timeoutMs;
  }

  remove(at: number): void {
    this.words[at + 1] = 0;
  }

  /** Where each record begins, those out of date included. Removing is allowed meanwhile. */
  *records(): Generator<number> {
    for (let at = 0; at < this.words.length; at += this.stride) {
      if (this.words[at + 1] !== 0) yield at;
    }
  }

  #grow(now: number): void {
    const before = this.words;
    const { stride } = this;
    this.words = new Int32Array(before.length * 2);
    this.#setMask = 2 * this.#setMask + 1;
    const key = this.key.slice();
    for (let at = 0; at < before.length; at += stride) {
      if (before[at + 1] === 0) continue;
      this.key.set(before.subarray(at + 1, at + 1 + this.#keyWords));
      this.words.set(before.subarray(at, at + stride), this.#oldest(now));
    }
    this.key.set(key);
  }

  /** Where a new record of the key goes: a free place of the emptier set, else that of the oldest in both. */
  #oldest(now: number): number {
    const hash = this.#hash();
    const first = this.#oldestIn(this.#setOf(hash), now);
    const inFirst = this.#filled;
    const second = this.#oldestIn(this.#setOf(other(hash)), now);
    const inSecond = this.#filled;
    if (inFirst !== inSecond) return inFirst < inSecond ? first : second;
    return age(this.words, second, now) > age(this.words, first, now) ? second : first;
  }

  /** Returns a free place of the set, or that of its oldest record; and counts its records. */
  #oldestIn(set: number, now: number): number {
    const { words, stride } = this;
    let oldest = set;
    let free = -1;
    this.#filled = 0;
    for (let at = set; at < set + this.#ways * stride; at += stride) {
      if (words[at + 1] === 0) {
        free = at;
        continue;
      }
      this.#filled++;
      if (age(words, at, now) > age(words, oldest, now)) oldest = at;
    }
    return free < 0 ? oldest : free;
  }

  #findIn(set: number): number {
    const { words, key, stride } = this;
    const keyWords = this.#keyWords;
    for (let at = set; at < set + this.#ways * stride; at += stride) {
      let i = 0;
      while (i < keyWords && words[at + 1 + i] === key[i]) i++;
      if (i === keyWords) return at;
    }
    return -1;
  }

  #find2In(set: number, a: number, b: number): number {
    const { words, stride } = this;
    for (let at = set; at < set + this.#ways * stride; at += stride) {
      if (words[at + 1] === a && words[at + 2] === b) return at;
    }
    return -1;
  }

  #hash(): number {
    const key = this.key;
    let hash = this.#seed;
    for (let i = 0; i < key.length; i++) hash = mix(hash, key[i]!);
    return hash;
  }

  /** Where in `words` the set begins that a hash chooses. */
  #setOf(hash: number): number {
    return (hash & this.#setMask) * this.stride * this.#ways;
  }
}

/** The hash that chooses a record's second set. */
function other(hash: number): number {
  return mix(hash, 1);
}

/** In ms; right for up to 49 days. */
function age(words: Int32Array, at: number, now: number): number {
  return (now - words[at]!) >>> 0;
}

const INITIAL_RECORDS = 64;
