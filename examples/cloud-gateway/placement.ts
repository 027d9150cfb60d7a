/**
 * Which member holds which site: the one with the fewest, and then always the same until it is moved.
 * @module
 */
export class Placement {
  readonly #members: number;
  readonly #holders = new Map<string, number>();

  constructor(members: number) {
    this.#members = members;
  }

  /** A site that is asked for the first time is placed. */
  holderOf(site: string): number {
    const known = this.#holders.get(site);
    if (known !== undefined) return known;
    const counts = Array<number>(this.#members).fill(0);
    for (const member of this.#holders.values()) counts[member]!++;
    const member = counts.indexOf(Math.min(...counts));
    this.#holders.set(site, member);
    return member;
  }

  /** Sites by member. */
  sites(): string[][] {
    const sites = Array.from({ length: this.#members }, (): string[] => []);
    for (const [site, member] of this.#holders) sites[member]!.push(site);
    return sites;
  }

  move(site: string, member: number): void {
    this.#holders.set(site, member);
  }

  forget(site: string): void {
    this.#holders.delete(site);
  }
}
