/**
 * Which worker holds which site.
 * @module
 */

/** Places a site at the worker with the fewest sites, where it stays until it is moved. */
export class Placement {
  readonly #holders = new Map<string, number>();
  /** How many sites each worker holds. */
  readonly #counts: number[];

  /** @param workers the number of workers */
  constructor(workers: number) {
    this.#counts = Array<number>(workers).fill(0);
  }

  /** Returns the number of the worker that holds a site. The first call for a site places it. */
  holderOf(site: string): number {
    const known = this.#holders.get(site);
    if (known !== undefined) return known;
    const worker = this.#counts.indexOf(Math.min(...this.#counts));
    this.move(site, worker);
    return worker;
  }

  /** Returns the sites of each worker. */
  sites(): string[][] {
    const sites = this.#counts.map((): string[] => []);
    for (const [site, worker] of this.#holders) sites[worker]!.push(site);
    return sites;
  }

  move(site: string, worker: number): void {
    this.forget(site);
    this.#holders.set(site, worker);
    this.#counts[worker]!++;
  }

  forget(site: string): void {
    const worker = this.#holders.get(site);
    if (worker === undefined) return;
    this.#holders.delete(site);
    this.#counts[worker]!--;
  }
}
