/**
 * An open-addressing hash table whose keys and values are 32-bit words. `find` allocates nothing and costs
 * about one cache miss for the slot and one for the record.
 *
 * Records are numbered from 0. A table whose records are removed by `remove` has no gaps in its numbers; one that
 * uses `release` instead keeps the numbers of all other records.
 * @module
 */

/** A table of records. Each has `keyWords` words of key, then `valueWords` words of value. */
export class IntTable {
  /** The caller writes the key here before it calls `find` or `insert`. */
  readonly key: Int32Array;
  /** The number of words of a record; record `n` begins at `words[n * stride]`, its value `keyWords` later. */
  readonly stride: number;
  readonly keyWords: number;
  /** All records. `insert` may replace the array by a larger one, so read the property again after it. */
  words: Int32Array;
  /** The same memory as 64-bit floats, for values of two words that begin at an even word. */
  floats: Float64Array;
  /** The number of records. */
  size = 0;

  /** The record number plus one, or 0 for a free slot. The length is a power of two. */
  #slots: Int32Array;
  /** The number plus one of the record that was released last, or 0. The first word of a released record has the next. */
  #firstFree = 0;
  readonly #maxSize: number;
  /** Random, so that an attacker cannot choose keys that collide. */
  readonly #seed = (Math.random() * 0x1_0000_0000) | 0;
  readonly #salt = (Math.random() * 0x1_0000_0000) | 0;

  constructor(keyWords: number, valueWords: number, maxSize: number) {
    this.key = new Int32Array(keyWords);
    this.keyWords = keyWords;
    this.stride = keyWords + valueWords;
    this.words = new Int32Array(INITIAL_RECORDS * this.stride);
    this.floats = new Float64Array(this.words.buffer);
    this.#slots = new Int32Array(INITIAL_RECORDS / MAX_LOAD);
    this.#maxSize = maxSize;
  }

  /** Returns the number of the record with the key in `key`, or -1. */
  find(): number {
    const { words, key, stride } = this;
    const slots = this.#slots;
    const mask = slots.length - 1;
    const keyWords = key.length;
    for (let slot = this.#hash(key, 0) & mask; ; slot = (slot + 1) & mask) {
      const record = slots[slot]! - 1;
      if (record < 0) return -1;
      const at = record * stride;
      let i = 0;
      while (i < keyWords && words[at + i] === key[i]) i++;
      if (i === keyWords) return record;
    }
  }

  /** Finds the key (a, b, c) without using `key`, in a table with three key words. */
  find3(a: number, b: number, c: number): number {
    const { words, stride } = this;
    const slots = this.#slots;
    const mask = slots.length - 1;
    for (
      let slot = mix(mix(this.#seed, a ^ salted(b, this.#salt)), c) & mask;
      ;
      slot = (slot + 1) & mask
    ) {
      const record = slots[slot]! - 1;
      if (record < 0) return -1;
      const at = record * stride;
      if (words[at + 1] === b && words[at + 2] === c && words[at] === a) return record;
    }
  }

  /**
   * Finds the key of `first` and eight words of a view without using `key`, in a table with nine key words.
   */
  find9(first: number, view: DataView, offset: number): number {
    const { words, stride } = this;
    const slots = this.#slots;
    const salt = this.#salt;
    const mask = slots.length - 1;
    const a = view.getInt32(offset);
    const b = view.getInt32(offset + 4);
    const c = view.getInt32(offset + 8);
    const d = view.getInt32(offset + 12);
    const e = view.getInt32(offset + 16);
    const f = view.getInt32(offset + 20);
    const g = view.getInt32(offset + 24);
    const h = view.getInt32(offset + 28);
    let hash = mix(mix(this.#seed, first ^ salted(a, salt)), b ^ salted(c, salt));
    hash = mix(mix(mix(hash, d ^ salted(e, salt)), f ^ salted(g, salt)), h);
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const record = slots[slot]! - 1;
      if (record < 0) return -1;
      const at = record * stride;
      if (
        words[at + 8] === h &&
        words[at + 4] === d &&
        words[at] === first &&
        words[at + 1] === a &&
        words[at + 2] === b &&
        words[at + 3] === c &&
        words[at + 5] === e &&
        words[at + 6] === f &&
        words[at + 7] === g
      ) {
        return record;
      }
    }
  }

  /** The memory of the table in bytes. */
  get byteLength(): number {
    return this.words.byteLength + this.#slots.byteLength;
  }

  /**
   * Adds a record with the key in `key`, which must not be in the table, and a value of zeros. Returns its
   * number, or -1 if the table is full.
   */
  insert(): number {
    if (this.size >= this.#maxSize) return -1;
    const record = this.#firstFree > 0 ? this.#firstFree - 1 : this.size;
    const at = record * this.stride;
    if (this.#firstFree > 0) {
      this.#firstFree = this.words[at]!;
    } else if (at + this.stride > this.words.length) {
      const larger = new Int32Array(this.words.length * 2);
      larger.set(this.words);
      this.words = larger;
      this.floats = new Float64Array(larger.buffer);
    }
    this.size++;
    this.words.set(this.key, at);
    if (this.size > this.#slots.length * MAX_LOAD) this.#grow();
    this.#place(record);
    return record;
  }

  /** Removes a record. The last record moves to its place and gets its number. `key` does not change. */
  remove(record: number): void {
    this.#vacate(record);
    const { words, stride } = this;
    const last = this.size - 1;
    if (record !== last) {
      this.#slots[this.#slotOf(last)] = record + 1;
      words.copyWithin(record * stride, last * stride, (last + 1) * stride);
    }
    words.fill(0, last * stride, (last + 1) * stride);
    this.size = last;
  }

  /** Removes a record. The others keep their numbers, and the next `insert` takes this one. `key` does not change. */
  release(record: number): void {
    this.#vacate(record);
    const { words, stride } = this;
    words.fill(0, record * stride, (record + 1) * stride);
    words[record * stride] = this.#firstFree;
    this.#firstFree = record + 1;
    this.size--;
  }

  /** Frees the slot of a record. */
  #vacate(record: number): void {
    const slots = this.#slots;
    const mask = slots.length - 1;
    const { words, stride } = this;
    let hole = this.#slotOf(record);
    // Backward shift: a record behind the hole moves into it if its search begins at the hole or before.
    for (let slot = (hole + 1) & mask; slots[slot] !== 0; slot = (slot + 1) & mask) {
      const home = this.#hash(words, (slots[slot]! - 1) * stride) & mask;
      if (((slot - home) & mask) < ((slot - hole) & mask)) continue;
      slots[hole] = slots[slot]!;
      hole = slot;
    }
    slots[hole] = 0;
  }

  #grow(): void {
    const before = this.#slots;
    this.#slots = new Int32Array(before.length * 2);
    for (let slot = 0; slot < before.length; slot++) {
      if (before[slot] !== 0) this.#place(before[slot]! - 1);
    }
  }

  #place(record: number): void {
    const mask = this.#slots.length - 1;
    let slot = this.#hash(this.words, record * this.stride) & mask;
    while (this.#slots[slot] !== 0) slot = (slot + 1) & mask;
    this.#slots[slot] = record + 1;
  }

  #slotOf(record: number): number {
    const mask = this.#slots.length - 1;
    let slot = this.#hash(this.words, record * this.stride) & mask;
    while (this.#slots[slot] !== record + 1) slot = (slot + 1) & mask;
    return slot;
  }

  /**
   * Hashes the key at `words[at]`. It takes two words at a time, so that the processor can work on both in
   * parallel.
   */
  #hash(words: Int32Array, at: number): number {
    const salt = this.#salt;
    const end = at + this.keyWords;
    let hash = this.#seed;
    for (; at + 1 < end; at += 2) hash = mix(hash, words[at]! ^ salted(words[at + 1]!, salt));
    return at < end ? mix(hash, words[at]!) : hash;
  }
}

function salted(word: number, salt: number): number {
  return Math.imul(word ^ salt, 0x85ebca6b);
}

/** Mixes a word into a hash; the shift brings the high bits down to the mask. */
export function mix(hash: number, word: number): number {
  hash = Math.imul(hash ^ word, 0x9e3779b1);
  return hash ^ (hash >>> 15);
}

const INITIAL_RECORDS = 16;
/** The number of records per slot at most, so that linear probing needs about 1.5 probes. */
const MAX_LOAD = 0.5;
