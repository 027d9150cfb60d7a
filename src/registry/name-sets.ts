/**
 * Sets of names by a key. Nearly all have one member, and then take no memory of their own.
 * @module
 */
export class NameSets {
  readonly #sets = new Map<string, string | readonly string[]>();

  /** The number of keys. */
  get size(): number {
    return this.#sets.size;
  }

  get(key: string): readonly string[] {
    const set = this.#sets.get(key);
    if (set === undefined) return NONE;
    return typeof set === 'string' ? [set] : set;
  }

  add(key: string, name: string): void {
    const set = this.get(key);
    if (set.includes(name)) return;
    this.#sets.set(key, set.length === 0 ? name : [...set, name]);
  }

  delete(key: string, name: string): void {
    const set = this.get(key).filter((each) => each !== name);
    if (set.length === 0) this.#sets.delete(key);
    else this.#sets.set(key, set.length === 1 ? set[0]! : set);
  }
}

const NONE: readonly string[] = [];
