/**
 * Which blocks of a pool belong to which group: numbers only, neither addresses nor time.
 *
 * A block is a run of addresses of one size. It is a group's as long as all of its addresses that are
 * held are, and nobody's while none is.
 * @module
 */
export class BlockMap {
  readonly #size: number;
  /** How many blocks there are. */
  readonly #count: number;
  /** By block: the held addresses, as indices, and their groups. A block without any is not here. */
  readonly #held = new Map<number, Map<number, string>>();
  /** By group: blocks that are its own and may have room. */
  readonly #open = new Map<string, Set<number>>();
  /** Blocks that are nobody's again, the longest first. */
  readonly #emptied = new Set<number>();
  /** Blocks from here on were never held. */
  #cursor = 0;

  /**
   * @param size addresses in a block
   * @param last index of the last address
   */
  constructor(size: number, last: number) {
    this.#size = size;
    this.#count = Math.floor(last / size) + 1;
  }

  hold(index: number, group: string): void {
    const block = Math.floor(index / this.#size);
    const held = this.#held.get(block) ?? new Map<number, string>();
    for (const other of held.values()) this.#open.get(other)?.delete(block);
    held.set(index, group);
    this.#held.set(block, held);
    this.#emptied.delete(block);
    if (ownerOf(held) === group) this.#openTo(group, block);
  }

  free(index: number): void {
    const block = Math.floor(index / this.#size);
    const held = this.#held.get(block);
    const group = held?.get(index);
    if (held === undefined || group === undefined) return;
    held.delete(index);
    if (held.size === 0) {
      this.#held.delete(block);
      this.#open.get(group)?.delete(block);
      this.#emptied.add(block);
      return;
    }
    const owner = ownerOf(held);
    if (owner !== undefined) this.#openTo(owner, block);
  }

  /**
   * Returns the first result of `take` that is not undefined, for the group's own blocks and then for
   * those that are nobody's.
   *
   * @param take looks for a free address in the indices from `first` to `last`
   */
  search<T>(group: string, take: (first: number, last: number) => T | undefined): T | undefined {
    const from = (block: number) => take(block * this.#size, (block + 1) * this.#size - 1);
    const own = this.#open.get(group);
    for (const block of own ?? []) {
      const found = from(block);
      if (found !== undefined) return found;
      // Full: it is opened again when one of its addresses is freed.
      own!.delete(block);
    }
    for (; this.#cursor < this.#count; this.#cursor++) {
      if (this.#held.has(this.#cursor) || this.#emptied.has(this.#cursor)) continue;
      const found = from(this.#cursor);
      if (found !== undefined) return found;
    }
    for (const block of this.#emptied) {
      const found = from(block);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  #openTo(group: string, block: number): void {
    const open = this.#open.get(group);
    if (open === undefined) this.#open.set(group, new Set([block]));
    else open.add(block);
  }
}

/** The one group of all; undefined if there are several. */
function ownerOf(held: ReadonlyMap<number, string>): string | undefined {
  let owner: string | undefined;
  for (const group of held.values()) {
    if (owner !== undefined && group !== owner) return undefined;
    owner = group;
  }
  return owner;
}
