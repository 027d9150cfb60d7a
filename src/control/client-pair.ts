/**
 * The exposures that make the hosts of one site clients in one realm, and who the clients are. The realm is the home of
 * the exposed services, or the transit realm on the way there.
 * @module
 */
import type { Family, IpAddress } from '../base/address.ts';
import type { IpPrefix } from '../base/prefix.ts';
import type { ExposedService } from './exposed-service.ts';

export class ClientPair {
  readonly #isTransit: boolean;
  readonly #exposed = new Set<ExposedService>();
  /** Keyed by both IP versions; undefined until somebody asks. */
  #prefixes: Map<number, ClientPrefixes> | undefined;

  /** @param isTransit whether the realm is the transit realm, and not the home of the services */
  constructor(isTransit: boolean) {
    this.#isTransit = isTransit;
  }

  get isEmpty(): boolean {
    return this.#exposed.size === 0;
  }

  exposed(): Iterable<ExposedService> {
    return this.#exposed.values();
  }

  has(entry: ExposedService): boolean {
    return this.#exposed.has(entry);
  }

  add(entry: ExposedService): void {
    this.#exposed.add(entry);
    this.#prefixes = undefined;
  }

  remove(entry: ExposedService): void {
    this.#exposed.delete(entry);
    this.#prefixes = undefined;
  }

  /** Returns whether an exposure makes all hosts clients that may have a presence of an IP version in the realm. */
  isOpen(own: Family, there: Family): boolean {
    for (const entry of this.#exposed.values()) {
      const isSame = entry.presenceFamily === own && this.#thereOf(entry) === there;
      if (isSame && entry.exposure.clients === undefined) return true;
    }
    return false;
  }

  /** Returns whether an exposure names a host that may then have a presence of this IP version in the realm. */
  admits(address: IpAddress, there: Family): boolean {
    this.#prefixes ??= this.#computePrefixes();
    const key = keyOf(address.family, there);
    if (!this.#prefixes.has(key)) return false;
    const prefixes = this.#prefixes.get(key);
    return prefixes === undefined || contains(prefixes.values(), address);
  }

  /** Returns the IP version of the clients' presences in the realm. */
  #thereOf({ home, transit }: ExposedService): Family {
    return this.#isTransit ? transit! : home.address.family;
  }

  #computePrefixes(): Map<number, ClientPrefixes> {
    const all = new Map<number, ClientPrefixes>();
    for (const entry of this.#exposed.values()) {
      const { exposure, presenceFamily } = entry;
      const key = keyOf(presenceFamily, this.#thereOf(entry));
      const isOpen = all.has(key) && all.get(key) === undefined;
      if (isOpen) continue;
      if (exposure.clients === undefined) {
        all.set(key, undefined);
        continue;
      }
      const prefixes = all.get(key) ?? new Map<string, IpPrefix>();
      for (const prefix of exposure.clients) prefixes.set(prefix.toString(), prefix);
      all.set(key, prefixes);
    }
    return all;
  }
}

/** Prefixes by their text; undefined for all sources. */
type ClientPrefixes = Map<string, IpPrefix> | undefined;

/** Returns whether one of the prefixes has the address. */
export function contains(prefixes: Iterable<IpPrefix>, address: IpAddress): boolean {
  for (const prefix of prefixes) {
    if (prefix.contains(address)) return true;
  }
  return false;
}

function keyOf(own: Family, there: Family): number {
  return 10 * own + there;
}
