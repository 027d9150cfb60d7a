/**
 * The sites whose hosts may have presences of one IP version in a realm.
 * @module
 */

export class ClientSites {
  /** Keyed by site: its `maxClients`. The map is the same one for ever and follows all changes. */
  readonly quotas: ReadonlyMap<string, number>;
  readonly #quotas = new Map<string, number>();
  /** Keyed by site: how many exposures make its hosts clients. */
  readonly #counts = new Map<string, number>();
  #total = 0;
  #revision = 0;

  constructor() {
    this.quotas = this.#quotas;
  }

  /** The sum of the `maxClients` of all sites. */
  get total(): number {
    return this.#total;
  }

  /** Grows when a site comes or goes, or has another `maxClients`. */
  get revision(): number {
    return this.#revision;
  }

  /** Returns how many exposures make the hosts of a site clients. */
  countOf(site: string): number {
    return this.#counts.get(site) ?? 0;
  }

  /** Adds an exposure. */
  add(site: string, maxClients: number): void {
    this.#counts.set(site, (this.#counts.get(site) ?? 0) + 1);
    this.#set(site, maxClients);
  }

  /** Changes the `maxClients` of a site, if its hosts are clients. */
  adapt(site: string, maxClients: number): void {
    if (this.#quotas.has(site)) this.#set(site, maxClients);
  }

  /** Removes an exposure. */
  remove(site: string): void {
    const count = this.#counts.get(site)! - 1;
    if (count > 0) {
      this.#counts.set(site, count);
      return;
    }
    this.#counts.delete(site);
    this.#total -= this.#quotas.get(site)!;
    this.#quotas.delete(site);
    this.#revision++;
  }

  #set(site: string, maxClients: number): void {
    const before = this.#quotas.get(site);
    if (before === maxClients) return;
    this.#total += maxClients - (before ?? 0);
    this.#quotas.set(site, maxClients);
    this.#revision++;
  }
}
