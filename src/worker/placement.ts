/**
 * Which worker holds which site: the worker with the fewest sites, and then always the same one until the site is
 * moved.
 * @module
 */
export class Placement {
  readonly #workers: number;
  readonly #holders = new Map<string, number>();

  /** @param workers how many there are */
  constructor(workers: number) {
    this.#workers = workers;
  }

  /** Returns the number of the worker that holds a site. A site that is asked for the first time is placed. */
  holderOf(site: string): number {
    const known = this.#holders.get(site);
    if (known !== undefined) return known;
    const counts = Array<number>(this.#workers).fill(0);
    for (const worker of this.#holders.values()) counts[worker]!++;
    const worker = counts.indexOf(Math.min(...counts));
    this.#holders.set(site, worker);
    return worker;
  }

  /** Sites by worker. */
  sites(): string[][] {
    const sites = Array.from({ length: this.#workers }, (): string[] => []);
    for (const [site, worker] of this.#holders) sites[worker]!.push(site);
    return sites;
  }

  move(site: string, worker: number): void {
    this.#holders.set(site, worker);
  }

  forget(site: string): void {
    this.#holders.delete(site);
  }
}
