/**
 * A map that grows without a pause: a large `Map` takes milliseconds to make room for more.
 * @module
 */

/** Keys are paths. Those that differ in their last part alone are in one small map. */
export class ShardedMap<V> {
  readonly #shards = new Map<string, Map<string, V>>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get(key: string): V | undefined {
    return this.#shards.get(shardOf(key))?.get(key);
  }

  has(key: string): boolean {
    return this.#shards.get(shardOf(key))?.has(key) ?? false;
  }

  set(key: string, value: V): void {
    const name = shardOf(key);
    let shard = this.#shards.get(name);
    if (shard === undefined) {
      shard = new Map();
      this.#shards.set(name, shard);
    }
    this.#size -= shard.size;
    shard.set(key, value);
    this.#size += shard.size;
  }

  delete(key: string): void {
    const name = shardOf(key);
    const shard = this.#shards.get(name);
    if (!shard?.delete(key)) return;
    this.#size--;
    if (shard.size === 0) this.#shards.delete(name);
  }

  /** Returns keys and values in no particular order. The map may change meanwhile. */
  *entries(): Generator<[string, V]> {
    for (const shard of this.#shards.values()) yield* shard;
  }

  *keys(): Generator<string> {
    for (const shard of this.#shards.values()) yield* shard.keys();
  }
}

function shardOf(key: string): string {
  return key.slice(0, key.lastIndexOf('/'));
}
