/**
 * A map whose values can be listed in the order of their keys, however often it changes.
 * @module
 */

/**
 * Sorts when it is first listed, and keeps the order from then on. A list that it has returned does not change any more,
 * so it may be read while the map changes.
 */
export class SortedMap<V> {
  /** The values, divided by the last character of their keys. */
  readonly #values: readonly Map<string, V>[];
  readonly #ending: string;
  /** All keys in order, once they were asked for. */
  #order: string[] | undefined;
  /** Whether a caller may hold `#order`. */
  #isShared = false;

  /**
   * @param ending is thought to follow each key in comparisons; default ''
   * @param parts how many parts the map has, so that many maps that grow together do not make room at once; default 1
   */
  constructor(ending = '', parts = 1) {
    this.#ending = ending;
    this.#values = Array.from({ length: parts }, () => new Map<string, V>());
  }

  get size(): number {
    return this.#values.reduce((sum, { size }) => sum + size, 0);
  }

  get(key: string): V | undefined {
    return this.#partOf(key).get(key);
  }

  set(key: string, value: V): void {
    const part = this.#partOf(key);
    if (this.#order !== undefined && !part.has(key)) {
      this.#ownOrder().splice(this.#placeOf(key), 0, key);
    }
    part.set(key, value);
  }

  delete(key: string): void {
    if (this.#partOf(key).delete(key) && this.#order !== undefined) {
      this.#ownOrder().splice(this.#placeOf(key), 1);
    }
  }

  /** Returns keys and values; those of a map of one part in the order in which the keys were first set. */
  *entries(): Generator<[string, V]> {
    for (const part of this.#values) yield* part;
  }

  /** Returns the keys in their order. */
  keys(): readonly string[] {
    this.#order ??= this.#values
      .flatMap((part) => [...part.keys()])
      .sort((a, b) => (this.#isBefore(a, b) ? -1 : 1));
    this.#isShared = true;
    return this.#order;
  }

  /** Returns the keys behind `key` in their order. A key that is deleted meanwhile is among them. */
  *keysAfter(key: string): Generator<string> {
    const keys = this.keys();
    for (let at = this.#placeOf(key); at < keys.length; at++) {
      if (keys[at] !== key) yield keys[at]!;
    }
  }

  /** Returns the values in the order of their keys. A key that is deleted meanwhile is left out. */
  *values(): Generator<V> {
    for (const key of this.keys()) {
      const value = this.get(key);
      if (value !== undefined) yield value;
    }
  }

  #partOf(key: string): Map<string, V> {
    const { length } = this.#values;
    return this.#values[length === 1 ? 0 : key.charCodeAt(key.length - 1) % length]!;
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
