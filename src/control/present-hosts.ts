/**
 * The hosts that need a presence in one realm because they offer services there.
 * @module
 */
import type { Family, IpAddress } from '../base/address.ts';
import type { Endpoint } from '../base/endpoint.ts';
import type { ExposedService } from './exposed-service.ts';

/** A host that has a presence in a realm for its services. */
export interface PresentHost {
  readonly key: string;
  readonly home: Endpoint;
  /** The IP version of the presence. */
  readonly family: Family;
  /** The services that are exposed in the realm itself. */
  readonly exposed: readonly ExposedService[];
}

export class PresentHosts {
  readonly #hosts = new Map<string, CountedHost>();

  get(key: string): PresentHost | undefined {
    return this.#hosts.get(key);
  }

  get isEmpty(): boolean {
    return this.#hosts.size === 0;
  }

  keys(): Iterable<string> {
    return this.#hosts.keys();
  }

  values(): Iterable<PresentHost> {
    return this.#hosts.values();
  }

  /** Adds a service that is exposed in the realm. */
  expose(entry: ExposedService): void {
    const { presenceKey: key, home, presenceFamily: family } = entry;
    const host = this.#hosts.get(key);
    // A list that grows keeps room for 17 entries, and nearly all have one.
    if (host === undefined) this.#add({ key, home, family, exposed: [entry], crossing: undefined });
    else host.exposed.push(entry);
  }

  /** Removes a service that was exposed in the realm. */
  unexpose(entry: ExposedService): void {
    const host = this.#hosts.get(entry.presenceKey)!;
    host.exposed.splice(host.exposed.indexOf(entry), 1);
    this.#drop(host);
  }

  /** Adds a service that is exposed in another realm, so that its packets cross this one. */
  cross(key: string, family: Family, { home, service }: ExposedService): void {
    const host =
      this.#hosts.get(key) ?? this.#add({ key, home, family, exposed: [], crossing: undefined });
    host.crossing ??= new Map();
    host.crossing.set(service.name, (host.crossing.get(service.name) ?? 0) + 1);
  }

  /** Removes a service whose packets crossed this realm. */
  uncross(key: string, { service: { name } }: ExposedService): void {
    const host = this.#hosts.get(key)!;
    const crossing = host.crossing!;
    const count = crossing.get(name)! - 1;
    if (count > 0) crossing.set(name, count);
    else crossing.delete(name);
    if (crossing.size === 0) host.crossing = undefined;
    this.#drop(host);
  }

  #add(host: CountedHost): CountedHost {
    this.#hosts.set(host.key, host);
    return host;
  }

  #drop({ key, exposed, crossing }: CountedHost): void {
    if (exposed.length === 0 && crossing === undefined) this.#hosts.delete(key);
  }
}

/** Returns the names of the services that a host has its presence for, in their order. */
export function servicesOf(host: PresentHost): string[] {
  const { exposed, crossing } = host as CountedHost;
  const names = exposed.map(({ service }) => service.name);
  return [...new Set([...names, ...(crossing?.keys() ?? [])])].sort();
}

/** Returns the address that an exposure asks for, the first one if several do; undefined if none does. */
export function wantedAddress({ exposed }: PresentHost): IpAddress | undefined {
  let first: ExposedService | undefined;
  for (const each of exposed) {
    if (each.exposure.address === undefined) continue;
    if (first === undefined || each.service.name < first.service.name) first = each;
  }
  return first?.exposure.address;
}

interface CountedHost extends PresentHost {
  readonly exposed: ExposedService[];
  /** Keyed by service: in how many other realms it is exposed. */
  crossing: Map<string, number> | undefined;
}
