/**
 * Which worker holds which site.
 * @module
 */

/** Places a site at the worker with the fewest sites, where it stays until it is moved. */
export class Placement {
  readonly #workers: number;
  readonly #holders = new Map<string, number>();

  /** @param workers the number of workers */
  constructor(workers: number) {
    this.#workers = workers;
  }

  /** Returns the number of the worker that holds a site. The first call for a site places it. */
  holderOf(site: string): number {
    const known = this.#holders.get(site);
    if (known !== undefined) return known;
    const counts = Array<number>(this.#workers).fill(0);
    for (const worker of this.#holders.values()) counts[worker]!++;
    const worker = counts.indexOf(Math.min(...counts));
    this.#holders.set(site, worker);
    return worker;
  }

  /** Returns the sites of each worker. */
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
