/**
 * `KeyMap`: a map by key that consists of many small maps. A `Map` copies all its entries at once when it grows, which
 * stops the event loop for tens of milliseconds with some 100,000 entries.
 * @module
 */

/** Values by key, first divided by the first segment of the key, and then by a hash of its end. */
export class KeyMap<Value> {
  /** The small maps by first segment; those that are not needed yet are undefined. */
  readonly #areas = new Map<string, (Map<string, Value> | undefined)[]>();

  get(key: string): Value | undefined {
    return this.#areas.get(areaOf(key))?.[partOf(key)]?.get(key);
  }

  has(key: string): boolean {
    return this.#areas.get(areaOf(key))?.[partOf(key)]?.has(key) === true;
  }

  /** Returns the value that the key had before. */
  set(key: string, value: Value): Value | undefined {
    const area = areaOf(key);
    let parts = this.#areas.get(area);
    if (parts === undefined) {
      parts = new Array<undefined>(PARTS).fill(undefined);
      this.#areas.set(area, parts);
    }
    const part = partOf(key);
    const map = parts[part];
    if (map === undefined) {
      parts[part] = new Map([[key, value]]);
      return undefined;
    }
    const before = map.get(key);
    map.set(key, value);
    return before;
  }

  /** Returns the value that the key had before. */
  delete(key: string): Value | undefined {
    const map = this.#areas.get(areaOf(key))?.[partOf(key)];
    const before = map?.get(key);
    map?.delete(key);
    return before;
  }

  /** Returns the values whose key has the same first segment as `prefix`, or all if `prefix` is only a part of one. */
  *near(prefix: string): Generator<Value> {
    const areas = prefix.includes('/')
      ? [this.#areas.get(areaOf(prefix)) ?? []]
      : this.#areas.values();
    for (const parts of areas) {
      for (const map of parts) if (map !== undefined) yield* map.values();
    }
  }
}

/** Returns the first segment of a key; empty if the key has only one. */
function areaOf(key: string): string {
  const end = key.indexOf('/');
  return end < 0 ? '' : key.slice(0, end);
}

function partOf(key: string): number {
  let hash = 0;
  for (let i = Math.max(0, key.length - HASHED_LENGTH); i < key.length; i++) {
    hash = (Math.imul(hash, 31) + key.charCodeAt(i)) | 0;
  }
  return (hash ^ (hash >>> 8) ^ (hash >>> 16)) & (PARTS - 1);
}

/** A power of two. With 1,000,000 entries, a map has about 8,000. */
const PARTS = 128;
/** Keys differ at their end: an address, a number, a name. */
const HASHED_LENGTH = 12;
