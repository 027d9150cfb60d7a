/**
 * A map whose values can be listed in the order of their keys, however often it changes.
 * @module
 */

/**
 * Sorts when it is first listed, and keeps the order from then on. A list that it has returned does not change any more,
 * so it may be read while the map changes.
 */
export class SortedMap<V> {
  readonly #values = new Map<string, V>();
  readonly #ending: string;
  /** All keys in order, once they were asked for. */
  #order: string[] | undefined;
  /** Whether a caller may hold `#order`. */
  #isShared = false;

  /** @param ending is thought to follow each key in comparisons; default '' */
  constructor(ending = '') {
    this.#ending = ending;
  }

  get size(): number {
    return this.#values.size;
  }

  get(key: string): V | undefined {
    return this.#values.get(key);
  }

  set(key: string, value: V): void {
    if (this.#order !== undefined && !this.#values.has(key)) {
      this.#ownOrder().splice(this.#placeOf(key), 0, key);
    }
    this.#values.set(key, value);
  }

  delete(key: string): void {
    if (this.#values.delete(key) && this.#order !== undefined) {
      this.#ownOrder().splice(this.#placeOf(key), 1);
    }
  }

  /** Returns keys and values in the order in which the keys were first set. */
  entries(): IterableIterator<[string, V]> {
    return this.#values.entries();
  }

  /** Returns the keys in their order. */
  keys(): readonly string[] {
    this.#order ??= [...this.#values.keys()].sort((a, b) => (this.#isBefore(a, b) ? -1 : 1));
    this.#isShared = true;
    return this.#order;
  }

  /** Returns the values in the order of their keys. A key that is deleted meanwhile is left out. */
  *values(): Generator<V> {
    for (const key of this.keys()) {
      const value = this.#values.get(key);
      if (value !== undefined) yield value;
    }
  }

  #ownOrder(): string[] {
    if (this.#isShared) this.#order = this.#order!.slice();
    this.#isShared = false;
    return this.#order!;
  }

  /** Returns the index of a key, or of the first one after it. */
  #placeOf(key: string): number {
    const order = this.#order!;
    let low = 0;
    let high = order.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#isBefore(order[middle]!, key)) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #isBefore(a: string, b: string): boolean {
    // The ending decides only where one key is the beginning of the other.
    if (this.#ending === '' || a.length === b.length) return a < b;
    return a + this.#ending < b + this.#ending;
  }
}
