/**
 * The realms in which the hosts of a site have leases as clients, and which of these need one in the transit realm.
 * @module
 */

export class ClientRealms {
  /** Keyed by site. */
  readonly #realms = new Map<string, Set<string>>();
  /** Keyed by the key of a presence in the transit realm: how many leases in other realms need it. */
  readonly #needs = new Map<string, number>();

  /** Returns the realms in which a site has clients. */
  of(site: string): Iterable<string> {
    return this.#realms.get(site) ?? [];
  }

  has(site: string, realm: string): boolean {
    return this.#realms.get(site)?.has(realm) ?? false;
  }

  add(site: string, realm: string): void {
    const realms = this.#realms.get(site);
    if (realms === undefined) this.#realms.set(site, new Set([realm]));
    else realms.add(realm);
  }

  remove(site: string, realm: string): void {
    const realms = this.#realms.get(site);
    if (realms?.delete(realm) && realms.size === 0) this.#realms.delete(site);
  }

  /** Returns whether a presence in the transit realm is needed by a lease in another one. */
  isNeeded(transitKey: string): boolean {
    return this.#needs.has(transitKey);
  }

  need(transitKey: string): void {
    this.#needs.set(transitKey, (this.#needs.get(transitKey) ?? 0) + 1);
  }

  unneed(transitKey: string): void {
    const count = this.#needs.get(transitKey)! - 1;
    if (count > 0) this.#needs.set(transitKey, count);
    else this.#needs.delete(transitKey);
  }

  /** Forgets what is needed in the transit realm. */
  clearNeeds(): void {
    this.#needs.clear();
  }
}
