/**
 * The order of commits that concern the same entries, and how many are under way. etcd may apply two requests of one
 * connection in either order, and refuses them when it has too many.
 * @module
 */

interface Place {
  /** Resolves when the last commit that writes the entry has ended; undefined if it has. */
  written: Promise<void> | undefined;
  /** The commits that compare the entry, and were given after that one. */
  readonly read: Set<Promise<void>>;
}

export class CommitOrder {
  readonly #places = new Map<string, Place>();
  readonly #waiting: (() => void)[] = [];
  #free: number;

  /** @param limit how many commits are under way at most */
  constructor(limit: number) {
    this.#free = limit;
  }

  /**
   * Calls `commit` when those that were given before and write one of these keys have ended, and those that compare a
   * key that it writes.
   *
   * @param writes the keys that it writes
   * @param reads the keys that it compares only
   */
  async run<T>(
    writes: readonly string[],
    reads: readonly string[],
    commit: () => Promise<T>
  ): Promise<T> {
    const before = new Set<Promise<void> | undefined>();
    for (const key of writes) {
      const place = this.#places.get(key);
      before.add(place?.written);
      for (const each of place?.read ?? []) before.add(each);
    }
    for (const key of reads) before.add(this.#places.get(key)?.written);
    let end!: () => void;
    const ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    for (const key of writes) this.#places.set(key, { written: ended, read: new Set() });
    for (const key of reads) this.#placeOf(key).read.add(ended);
    try {
      await Promise.all(before);
      await this.#take();
      try {
        return await commit();
      } finally {
        this.#release();
      }
    } finally {
      end();
      for (const key of [...writes, ...reads]) this.#forget(key, ended);
    }
  }

  #placeOf(key: string): Place {
    let place = this.#places.get(key);
    if (place === undefined) {
      place = { written: undefined, read: new Set() };
      this.#places.set(key, place);
    }
    return place;
  }

  #forget(key: string, ended: Promise<void>): void {
    const place = this.#places.get(key);
    if (place === undefined) return;
    place.read.delete(ended);
    if (place.written === ended) place.written = undefined;
    if (place.written === undefined && place.read.size === 0) this.#places.delete(key);
  }

  async #take(): Promise<void> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  #release(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free++;
    else next();
  }
}
