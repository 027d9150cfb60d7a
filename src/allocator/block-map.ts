/**
 * Says which blocks of a pool belong to which group. It works on numbers, and knows neither addresses nor time.
 *
 * A block is a run of addresses; all blocks have one size. A block belongs to a group as long as all of its held
 * addresses do, and to no group while none of its addresses is held.
 * @module
 */
export class BlockMap {
  readonly #size: number;
  /** How many blocks there are. */
  readonly #count: number;
  /** Keyed by block: the groups of its held addresses, by their indices. A block without held addresses is absent. */
  readonly #held = new Map<number, Map<number, string>>();
  /** Keyed by group: the blocks that belong to it and may have a free address. */
  readonly #open = new Map<string, Set<number>>();
  /** Blocks that belong to no group any more, the longest empty first. */
  readonly #emptied = new Set<number>();
  /** No address of the blocks from here on was ever held. */
  #cursor = 0;

  /**
   * @param size how many addresses a block has
   * @param last the index of the last address
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
   * Calls `take` for the group's own blocks and then for those that belong to no group, and returns its first result
   * that is not undefined.
   *
   * @param take looks for a free address among the indices from `first` to `last`
   */
  search<T>(group: string, take: (first: number, last: number) => T | undefined): T | undefined {
    const from = (block: number) => take(block * this.#size, (block + 1) * this.#size - 1);
    const own = this.#open.get(group);
    for (const block of own ?? []) {
      const found = from(block);
      if (found !== undefined) return found;
      // The block is full. `free` adds it again.
      own!.delete(block);
    }
    const isFull = this.#emptied.size > MAX_EMPTIED;
    for (; this.#cursor < this.#count && !isFull; this.#cursor++) {
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

/** Returns the group that holds all of these addresses; undefined if there are several. */
function ownerOf(held: ReadonlyMap<number, string>): string | undefined {
  let owner: string | undefined;
  for (const group of held.values()) {
    if (owner !== undefined && group !== owner) return undefined;
    owner = group;
  }
  return owner;
}

/** With so many empty blocks, they are used before new ones: a huge pool has millions of blocks. */
const MAX_EMPTIED = 65_536;
