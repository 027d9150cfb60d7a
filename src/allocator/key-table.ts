/**
 * Finds the record of a key. A `Map` would do it too, but takes two to three times as long with many keys: it stores a
 * key and its record as objects that lie apart, and is copied as a whole again and again while keys come and go.
 *
 * It is an open hash table with linear probing. A slot has the hash of its key beside the record, so that other keys are
 * passed by without a look at their text. A removal moves the slots behind it forward, so that nothing is left of it.
 * @module
 */
export class KeyTable {
  /** A record and the hash of its key for each slot; record 0: the slot is empty. */
  #slots: Int32Array = new Int32Array(2 * FIRST_SLOTS);
  #count = 0;
  readonly #isIt: (record: number) => boolean;

  /** @param isIt returns whether a record, whose hash is the same, has the key that `get` is to find */
  constructor(isIt: (record: number) => boolean) {
    this.#isIt = isIt;
  }

  /** Returns the record of the key that has this hash; 0: none. */
  get(hash: number): number {
    const slots = this.#slots;
    const end = slots.length - 1;
    for (let at = (hash << 1) & end; slots[at] !== 0; at = (at + 2) & end) {
      if (slots[at + 1] === hash && this.#isIt(slots[at]!)) return slots[at]!;
    }
    return 0;
  }

  /** Makes this the record of its key, which has no other one. */
  set(record: number, hash: number): void {
    if (8 * (this.#count + 1) > 3 * this.#slots.length) this.#grow();
    this.#count++;
    this.#insert(record, hash);
  }

  /** Makes a key have no record, if this is the one that it has. */
  delete(record: number, hash: number): void {
    const slots = this.#slots;
    const end = slots.length - 1;
    let hole = (hash << 1) & end;
    for (; slots[hole] !== record; hole = (hole + 2) & end) if (slots[hole] === 0) return;
    this.#count--;
    for (let at = (hole + 2) & end; slots[at] !== 0; at = (at + 2) & end) {
      const home = (slots[at + 1]! << 1) & end;
      // A slot that is at home behind the hole stays where it is.
      if (((at - home) & end) < ((at - hole) & end)) continue;
      slots[hole] = slots[at]!;
      slots[hole + 1] = slots[at + 1]!;
      hole = at;
    }
    slots[hole] = 0;
  }

  #insert(record: number, hash: number): void {
    const slots = this.#slots;
    const end = slots.length - 1;
    let at = (hash << 1) & end;
    while (slots[at] !== 0) at = (at + 2) & end;
    slots[at] = record;
    slots[at + 1] = hash;
  }

  #grow(): void {
    const before = this.#slots;
    this.#slots = new Int32Array(2 * before.length);
    for (let at = 0; at < before.length; at += 2) {
      if (before[at] !== 0) this.#insert(before[at]!, before[at + 1]!);
    }
  }
}

const FIRST_SLOTS = 16;
