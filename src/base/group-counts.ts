/**
 * Counts what each of several groups holds of a table, so that one group cannot take all of it. The groups of a gateway
 * are its sites: a site can have any number of client addresses, so that a bound for each address does not isolate it.
 * @module
 */

/** Returns the part of a table that one group may hold: a quarter, but at least one entry. */
export function quarterOf(limit: number): number {
  return Math.max(1, limit >> 2);
}

export class GroupCounts {
  /** The most that one group may hold. */
  readonly limit: number;
  readonly #counts = new Map<string, number>();

  constructor(limit: number) {
    this.limit = limit;
  }

  /** How many groups hold something. */
  get size(): number {
    return this.#counts.size;
  }

  count(group: string): number {
    return this.#counts.get(group) ?? 0;
  }

  /** Whether the group may hold one more; undefined stands for no group, which has no bound of its own. */
  hasRoom(group: string | undefined): boolean {
    return group === undefined || this.count(group) < this.limit;
  }

  add(group: string | undefined): void {
    if (group !== undefined) this.#counts.set(group, this.count(group) + 1);
  }

  remove(group: string | undefined): void {
    if (group === undefined) return;
    const left = this.count(group) - 1;
    if (left > 0) this.#counts.set(group, left);
    else this.#counts.delete(group);
  }
}
