/**
 * An open-addressing hash table whose keys and values are 32-bit words: one find costs no allocation
 * and, at the sizes of a gateway, about one cache miss for the slot and one for the record.
 *
 * Records are numbered from 0 in the order of insertion and are never removed: tables are derived
 * from a plan, and a new plan makes new tables.
 * @module
 */

/** A table of records, each `keyWords` words of key and then `valueWords` words of value. */
export class IntTable {
  /** Where the caller puts the key before `find` or `insert`; reused for every call. */
  readonly key: Int32Array;
  /** Words a record takes; record `n` begins at `words[n * stride]`, its value `keyWords` behind. */
  readonly stride: number;
  readonly keyWords: number;
  /** All records. Read it anew after an insert, which may replace it by a larger one. */
  words: Int32Array;
  /** How many records there are. */
  size = 0;

  /** Record number plus one, or 0 for a free slot; a power of two long. */
  #slots: Int32Array;
  readonly #maxSize: number;
  /** Differs between tables, so that nobody outside can choose keys that collide. */
  readonly #seed = (Math.random() * 0x1_0000_0000) | 0;

  constructor(keyWords: number, valueWords: number, maxSize: number) {
    this.key = new Int32Array(keyWords);
    this.keyWords = keyWords;
    this.stride = keyWords + valueWords;
    this.words = new Int32Array(INITIAL_RECORDS * this.stride);
    this.#slots = new Int32Array(INITIAL_RECORDS / MAX_LOAD);
    this.#maxSize = maxSize;
  }

  /** Returns the number of the record with the key in `key`, or -1. */
  find(): number {
    const { words, key, stride } = this;
    const slots = this.#slots;
    const mask = slots.length - 1;
    const keyWords = key.length;
    for (let slot = this.#hash() & mask; ; slot = (slot + 1) & mask) {
      const record = slots[slot]! - 1;
      if (record < 0) return -1;
      const at = record * stride;
      let i = 0;
      while (i < keyWords && words[at + i] === key[i]) i++;
      if (i === keyWords) return record;
    }
  }

  /** Adds a record with the key in `key`, which has none yet, and a value of zeros; -1 when full. */
  insert(): number {
    if (this.size >= this.#maxSize) return -1;
    if ((this.size + 1) * this.stride > this.words.length) {
      const larger = new Int32Array(this.words.length * 2);
      larger.set(this.words);
      this.words = larger;
    }
    const record = this.size++;
    this.words.set(this.key, record * this.stride);
    if (this.size > this.#slots.length * MAX_LOAD) this.#grow();
    else this.#place(record);
    return record;
  }

  #grow(): void {
    this.#slots = new Int32Array(this.#slots.length * 2);
    for (let record = 0; record < this.size; record++) {
      this.key.set(this.words.subarray(record * this.stride, record * this.stride + this.keyWords));
      this.#place(record);
    }
  }

  #place(record: number): void {
    const mask = this.#slots.length - 1;
    let slot = this.#hash() & mask;
    while (this.#slots[slot] !== 0) slot = (slot + 1) & mask;
    this.#slots[slot] = record + 1;
  }

  /** Multiply and shift each word in, then mix the high bits down to where the mask takes them. */
  #hash(): number {
    const key = this.key;
    let hash = this.#seed;
    for (let i = 0; i < key.length; i++) {
      hash = Math.imul(hash ^ key[i]!, 0x9e3779b1);
      hash ^= hash >>> 15;
    }
    hash = Math.imul(hash, 0x85ebca6b);
    return hash ^ (hash >>> 13);
  }
}

const INITIAL_RECORDS = 16;
/** Records per slot at most: linear probing stays at about 1.5 probes. */
const MAX_LOAD = 0.5;
