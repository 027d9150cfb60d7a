/**
 * Notes when the leases of a realm's clients were last used, by the clients' site, the longest unused first.
 * @module
 */
import type { Family } from '../base/address.ts';
import type { Endpoint } from '../base/endpoint.ts';
import { endpointKeyOf, familyOfKey, presenceKey, siteOfKey } from './presence-key.ts';

export interface ClientUse {
  /** The last use in ms of the lease clock, as exact as the data plane is asked. */
  readonly usedAtMs: number;
  /** The last use that is stored. */
  readonly storedAtMs: number;
}

export class ClientUses {
  /** Keyed by site and presence key, the longest unused first. */
  readonly #uses = new Map<string, Map<string, ClientUse>>();
  /** Keyed by site and IP version: the number of leases. */
  readonly #counts = new Map<string, Record<Family, number>>();
  /** Keyed by site: the hosts, each of which may have a presence of each IP version. */
  readonly #hosts = new Map<string, Set<string>>();

  /** The sites that have leases. They may change while they are read. */
  get sites(): Iterable<string> {
    return this.#uses.keys();
  }

  /** Returns the uses of the leases of a site's clients by presence key, the longest unused first. */
  of(site: string): ReadonlyMap<string, ClientUse> {
    return this.#uses.get(site) ?? NONE;
  }

  get(key: string): ClientUse | undefined {
    return this.#uses.get(siteOfKey(key))?.get(key);
  }

  count(site: string, family: Family): number {
    return this.#counts.get(site)?.[family] ?? 0;
  }

  hostCount(site: string): number {
    return this.#hosts.get(site)?.size ?? 0;
  }

  hasHost({ realm, key }: Endpoint): boolean {
    return this.#hosts.get(realm)?.has(key) ?? false;
  }

  /** Adds a lease, or notes that it is the one that was used last. */
  set(key: string, use: ClientUse): void {
    const site = siteOfKey(key);
    let uses = this.#uses.get(site);
    if (uses === undefined) {
      uses = new Map();
      this.#uses.set(site, uses);
      this.#hosts.set(site, new Set());
      this.#counts.set(site, { 4: 0, 6: 0 });
    }
    if (!uses.delete(key)) this.#counts.get(site)![familyOfKey(key)]++;
    uses.set(key, use);
    this.#hosts.get(site)!.add(endpointKeyOf(key));
  }

  delete(key: string): void {
    const site = siteOfKey(key);
    const uses = this.#uses.get(site);
    if (uses === undefined || !uses.delete(key)) return;
    this.#counts.get(site)![familyOfKey(key)]--;
    const endpoint = endpointKeyOf(key);
    const hasOther = FAMILIES.some((family) => uses.has(presenceKey(endpoint, family)));
    if (!hasOther) this.#hosts.get(site)!.delete(endpoint);
    if (uses.size > 0) return;
    this.#uses.delete(site);
    this.#hosts.delete(site);
    this.#counts.delete(site);
  }
}

const FAMILIES: readonly Family[] = [4, 6];
const NONE: ReadonlyMap<string, ClientUse> = new Map();
