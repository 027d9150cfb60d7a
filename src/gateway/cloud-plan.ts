/**
 * What a plan of the translator permits at the cloud: whose presence an address is, and which connections may be.
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import { Endpoint } from '../base/endpoint.ts';
import type { PortRange } from '../base/port-range.ts';
import { CLOUD } from '../registry/index.ts';
import type { StackProtocol } from '../sockets/index.ts';
import type { Permit, PlanChanges, TranslationPlan } from '../translator/index.ts';

/** A connection or flow between an address of the cloud and a presence there. */
export interface CloudFlow {
  readonly local: IpAddress;
  readonly localPort: number;
  readonly remote: IpAddress;
  readonly remotePort: number;
}

/**
 * Returns why a connection that was possible before a change is not possible now, one sentence; undefined if it is
 * possible. Either end may be the service.
 */
export type ReasonOf = (protocol: StackProtocol, flow: CloudFlow) => string | undefined;

/** A change costs what it names, and what a site has that goes. */
export class CloudPlan {
  #now: Facts = { presences: new Map(), permits: new Map() };
  /** Keyed by site: the addresses of its presences in the cloud, and the keys of its permits. */
  readonly #sites = new Map<string, SiteKeys>();

  /** Replaces the plan. Returns why connections end; undefined if nothing is withdrawn. */
  load({ presences, permits }: TranslationPlan): ReasonOf | undefined {
    const before = this.#now;
    this.#now = { presences: new Map(), permits: new Map() };
    this.#sites.clear();
    for (const { realm, address, of } of presences) {
      if (realm === CLOUD) this.#setPresence(address.toString(), of);
    }
    const pairs = new Map<string, Permit[]>();
    for (const permit of permits) {
      const key = pairKey(permit.realm, permit.service);
      pairs.set(key, [...(pairs.get(key) ?? []), permit]);
    }
    for (const [key, all] of pairs) this.#setPermits(key, all);
    return this.#reasonsSince(before);
  }

  /** Applies changes of the plan. Returns the same as `load`. */
  apply({ realms = [], presences = [], permits = [] }: PlanChanges): ReasonOf | undefined {
    const { presences: of, permits: by } = this.#now;
    /** What the changed keys had. */
    const before: Facts = { presences: new Map(), permits: new Map() };
    const setPresence = (text: string, host: Endpoint | undefined): void => {
      if (!before.presences.has(text)) before.presences.set(text, of.get(text));
      this.#setPresence(text, host);
    };
    const setPermits = (key: string, all: readonly Permit[]): void => {
      if (!before.permits.has(key)) before.permits.set(key, by.get(key));
      this.#setPermits(key, all);
    };
    for (const { realm, address, of: host } of presences) {
      if (realm === CLOUD) setPresence(address.toString(), host);
    }
    for (const { realm, service, permits: all } of permits) {
      setPermits(pairKey(realm, service), all);
    }
    for (const { name, realm } of realms) {
      const gone = realm === undefined ? this.#sites.get(name) : undefined;
      for (const text of [...(gone?.presences ?? [])]) setPresence(text, undefined);
      for (const key of [...(gone?.permits ?? [])]) setPermits(key, []);
    }
    return this.#reasonsSince(before);
  }

  /** Returns the site whose host this presence in the cloud stands for. */
  siteOf(remote: IpAddress): string | undefined {
    return this.#now.presences.get(remote.toString())?.realm;
  }

  #setPresence(text: string, of: Endpoint | undefined): void {
    const { presences } = this.#now;
    const before = presences.get(text);
    if (before !== undefined) this.#keysOf(before.realm).presences.delete(text);
    if (before !== undefined) this.#forgetIfEmpty(before.realm);
    if (of === undefined) presences.delete(text);
    else presences.set(text, of);
    if (of !== undefined) this.#keysOf(of.realm).presences.add(text);
  }

  /** Permits between two other sites are left out. */
  #setPermits(key: string, all: readonly Permit[]): void {
    const { permits } = this.#now;
    const [first] = all.length > 0 ? all : (permits.get(key) ?? []);
    if (first === undefined) return;
    const { realm, service } = first;
    if (realm !== CLOUD && service.realm !== CLOUD) return;
    const site = realm === CLOUD ? service.realm : realm;
    if (all.length > 0) {
      permits.set(key, all);
      this.#keysOf(site).permits.add(key);
    } else {
      permits.delete(key);
      this.#keysOf(site).permits.delete(key);
      this.#forgetIfEmpty(site);
    }
  }

  #keysOf(site: string): SiteKeys {
    let keys = this.#sites.get(site);
    if (keys === undefined) {
      keys = { presences: new Set(), permits: new Set() };
      this.#sites.set(site, keys);
    }
    return keys;
  }

  #forgetIfEmpty(site: string): void {
    const { presences, permits } = this.#keysOf(site);
    if (presences.size + permits.size === 0) this.#sites.delete(site);
  }

  /** @param before what is different now; what it lacks is the same */
  #reasonsSince(before: Facts): ReasonOf | undefined {
    if (!isMissingSome(before, this.#now)) return undefined;
    return (protocol, { local, localPort, remote, remotePort }) => {
      const text = remote.toString();
      const now = this.#now.presences.get(text);
      const then = before.presences.get(text);
      if (now === undefined || (then !== undefined && then.key !== now.key)) {
        const whose = then === undefined ? '' : ` for ${then.address} of ${then.realm}`;
        return `${remote} no longer stands${whose}`;
      }
      const own = new Endpoint(CLOUD, local);
      const isService = allows(this.#now, own, protocol, localPort, now);
      if (isService || allows(this.#now, now, protocol, remotePort, own)) return undefined;
      const port = allows(before, own, protocol, localPort, now) ? localPort : remotePort;
      return `${protocol}/${port} is no longer exposed`;
    };
  }
}

interface Facts {
  /** The hosts behind the presences in the cloud, by the text of the address. */
  readonly presences: Map<string, Endpoint | undefined>;
  /** The permits for services of the cloud and for clients there, by the key of the pair. */
  readonly permits: Map<string, readonly Permit[] | undefined>;
}

interface SiteKeys {
  readonly presences: Set<string>;
  readonly permits: Set<string>;
}

/** Returns whether something of `before` is missing in `now`. */
function isMissingSome(before: Facts, now: Facts): boolean {
  for (const [text, of] of before.presences) {
    if (of !== undefined && now.presences.get(text)?.key !== of.key) return true;
  }
  for (const [key, permits = []] of before.permits) {
    const left = new Set((now.permits.get(key) ?? []).map(textOf));
    if (!permits.every((permit) => left.has(textOf(permit)))) return true;
  }
  return false;
}

function textOf({ ports, clients }: Permit): string {
  return `${ports.join()} ${clients?.join()}`;
}

function allows(
  { permits }: Facts,
  service: Endpoint,
  protocol: StackProtocol,
  port: number,
  client: Endpoint
): boolean {
  const all = permits.get(pairKey(client.realm, service)) ?? [];
  return all.some(
    ({ ports, clients }) =>
      ports.some((range) => contains(range, protocol, port)) &&
      (clients?.some((prefix) => prefix.contains(client.address)) ?? true)
  );
}

function pairKey(realm: string, service: Endpoint): string {
  return `${realm} ${service.key}`;
}

function contains(range: PortRange, protocol: StackProtocol, port: number): boolean {
  return range.protocol === protocol && range.first <= port && port <= range.last;
}
