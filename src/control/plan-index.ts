/**
 * A plan by its keys: realms, presences, the permits of each pair of clients' realm and service, and what there is of
 * each host. A change costs what it touches.
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import type { Endpoint } from '../base/endpoint.ts';
import { ConfigError } from '../errors.ts';
import type {
  Permit,
  PlanChanges,
  PlannedRealm,
  Presence,
  Realm,
  TranslationPlan,
} from '../translator/index.ts';

/** All permits of one pair of clients' realm and service. */
export interface Pair {
  readonly realm: string;
  readonly service: Endpoint;
  readonly permits: readonly Permit[];
}

/** What the plan has of one endpoint. */
export interface PlannedHost {
  /** Its presences in the shared realm, by the texts of their addresses, in the order in which they came. */
  readonly inShared: Map<string, Presence>;
  /** Its presences in other realms, by realm and address. */
  readonly elsewhere: Map<string, Presence>;
  /** Its permits, by the clients' realm. */
  readonly pairs: Map<string, Pair>;
}

/** What changes do, with all that goes because its realm goes. What they leave as it is, is absent. */
export interface PlanDifference {
  /** The realms by their names; undefined for a realm that goes. */
  readonly realms: ReadonlyMap<string, Realm | undefined>;
  readonly presences: readonly {
    readonly realm: string;
    readonly address: IpAddress;
    readonly of: Endpoint | undefined;
    readonly formerUntil?: number | undefined;
  }[];
  /** Without permits: the pair goes. */
  readonly pairs: readonly Pair[];
}

/** The keys of a part of a plan. */
export interface PlanKeys {
  readonly realms: ReadonlyMap<string, unknown>;
  readonly presences: Iterable<Pick<Presence, 'realm' | 'address'>>;
  readonly pairs: Iterable<Pick<Pair, 'realm' | 'service'>>;
}

export class PlanIndex {
  readonly #shared: string;
  readonly #realms = new Map<string, Realm>();
  /** Keyed by realm and the text of the address. */
  readonly #presences = new Map<string, Map<string, Presence>>();
  /** Keyed by the clients' realm and the key of the service. */
  readonly #pairs = new Map<string, Map<string, Pair>>();
  /** Keyed by home and the key of the endpoint. */
  readonly #hosts = new Map<string, Map<string, PlannedHost>>();

  /** @param shared the realm in which the presences of a host are listed apart */
  constructor(shared: string, { realms, presences, permits }: TranslationPlan = NO_PLAN) {
    this.#shared = shared;
    for (const realm of realms) this.#realms.set(realm.name, realm);
    for (const each of presences) this.#setPresence(each);
    const pairs = new Map<string, { realm: string; service: Endpoint; permits: Permit[] }>();
    for (const permit of permits) {
      const { realm, service } = permit;
      const key = `${realm} ${service.key}`;
      const pair = pairs.get(key);
      if (pair === undefined) pairs.set(key, { realm, service, permits: [permit] });
      else pair.permits.push(permit);
    }
    for (const pair of pairs.values()) this.#setPair(pair);
  }

  get realms(): ReadonlyMap<string, Realm> {
    return this.#realms;
  }

  /** Returns what there is of a realm; undefined if the plan does not have it. */
  planned(realm: string): PlannedRealm | undefined {
    const known = this.#realms.get(realm);
    if (known === undefined) return undefined;
    return {
      pools: known.pools ?? [],
      presences: this.#presences.get(realm)?.size ?? 0,
      services: this.#pairs.get(realm)?.size ?? 0,
      at: (address) => this.presence(realm, address),
    };
  }

  presence(realm: string, address: IpAddress): Presence | undefined {
    return this.#presences.get(realm)?.get(address.toString());
  }

  pair(realm: string, service: Endpoint): Pair | undefined {
    return this.#pairs.get(realm)?.get(service.key);
  }

  host(endpoint: Endpoint): PlannedHost {
    return this.#hosts.get(endpoint.realm)?.get(endpoint.key) ?? NOTHING;
  }

  *presences(): Generator<Presence> {
    for (const presences of this.#presences.values()) yield* presences.values();
  }

  *pairs(): Generator<Pair> {
    for (const pairs of this.#pairs.values()) yield* pairs.values();
  }

  /** Returns the pairs of the clients of a realm. */
  pairsIn(realm: string): Iterable<Pair> {
    return this.#pairs.get(realm)?.values() ?? [];
  }

  /** Returns the keys of all that there is of a realm and of its hosts; undefined if the plan does not have it. */
  keysOf(name: string): PlanKeys | undefined {
    const realm = this.#realms.get(name);
    if (realm === undefined) return undefined;
    const all: Removals = { presences: new Map(), pairs: new Map() };
    this.#addAllOf(name, all);
    return {
      realms: new Map([[name, realm]]),
      presences: [...all.presences.values()],
      pairs: [...all.pairs.values()],
    };
  }

  /**
   * Returns what the changes would do to this plan.
   *
   * @throws {ConfigError} if one names a realm that the plan does not have.
   */
  differenceOf({ realms = [], presences = [], permits = [] }: PlanChanges): PlanDifference {
    const named = new Map(realms.map(({ name, realm }) => [name, realm]));
    const check = (path: string, name: string): void => {
      if (this.#realms.has(name) || named.has(name)) return;
      throw new ConfigError(path, `"${name}" is not one of the plan's realms`);
    };
    const isGone = (name: string): boolean => named.has(name) && named.get(name) === undefined;
    const changed: Removals = { presences: new Map(), pairs: new Map() };
    for (const [i, { realm, address, of, formerUntil }] of presences.entries()) {
      if (of !== undefined) check(`presences[${i}].realm`, realm);
      if (of !== undefined) check(`presences[${i}].of.realm`, of.realm);
      const left = of === undefined || isGone(realm) || isGone(of.realm) ? undefined : of;
      changed.presences.set(`${realm} ${address}`, { realm, address, of: left, formerUntil });
    }
    for (const [i, { realm, service, permits: all }] of permits.entries()) {
      if (all.length > 0) check(`permits[${i}].realm`, realm);
      if (all.length > 0) check(`permits[${i}].service.realm`, service.realm);
      const left = isGone(realm) || isGone(service.realm) ? [] : all;
      changed.pairs.set(`${realm} ${service.key}`, { realm, service, permits: left });
    }
    for (const name of [...named.keys()].filter(isGone)) this.#addAllOf(name, changed);
    return {
      realms: new Map(
        [...named].filter(
          ([name, realm]) => JSON.stringify(realm) !== JSON.stringify(this.#realms.get(name))
        )
      ),
      presences: [...changed.presences.values()].filter(({ realm, address, of, formerUntil }) => {
        const before = this.presence(realm, address);
        return before?.of.key !== of?.key || before?.formerUntil !== formerUntil;
      }),
      pairs: [...changed.pairs.values()].filter(
        (pair) => pair.permits.length > 0 || this.pair(pair.realm, pair.service) !== undefined
      ),
    };
  }

  /** Applies what `differenceOf` has returned. */
  apply({ realms, presences, pairs }: PlanDifference): void {
    for (const [name, realm] of realms) {
      if (realm === undefined) this.#realms.delete(name);
      else this.#realms.set(name, realm);
    }
    for (const each of presences) this.#setPresence(each);
    for (const pair of pairs) this.#setPair(pair);
  }

  /** Adds the removal of all that a realm has, and of all that its hosts have in others. */
  #addAllOf(name: string, changed: Removals): void {
    const remove = ({ realm, address }: Presence): void => {
      changed.presences.set(`${realm} ${address}`, { realm, address, of: undefined });
    };
    const removePair = ({ realm, service }: Pair): void => {
      changed.pairs.set(`${realm} ${service.key}`, { realm, service, permits: [] });
    };
    for (const presence of this.#presences.get(name)?.values() ?? []) remove(presence);
    for (const pair of this.pairsIn(name)) removePair(pair);
    for (const { inShared, elsewhere, pairs } of this.#hosts.get(name)?.values() ?? []) {
      for (const presence of inShared.values()) remove(presence);
      for (const presence of elsewhere.values()) remove(presence);
      for (const pair of pairs.values()) removePair(pair);
    }
  }

  #setPresence(change: PlanDifference['presences'][number]): void {
    const { realm, address, of, formerUntil } = change;
    const before = this.presence(realm, address);
    const text = address.toString();
    const place = realm === this.#shared ? text : `${realm} ${text}`;
    const list = realm === this.#shared ? 'inShared' : 'elsewhere';
    if (before !== undefined) {
      remove(this.#presences, realm, text);
      this.host(before.of)[list].delete(place);
      this.#forgetHost(before.of);
    }
    if (of === undefined) return;
    const presence = { realm, address, of, ...(formerUntil !== undefined && { formerUntil }) };
    entriesOf(this.#presences, realm).set(text, presence);
    this.#hostOf(of)[list].set(place, presence);
  }

  #setPair(pair: Pair): void {
    const { realm, service, permits } = pair;
    if (permits.length > 0) {
      entriesOf(this.#pairs, realm).set(service.key, pair);
      this.#hostOf(service).pairs.set(realm, pair);
    } else {
      remove(this.#pairs, realm, service.key);
      this.host(service).pairs.delete(realm);
      this.#forgetHost(service);
    }
  }

  #hostOf(endpoint: Endpoint): PlannedHost {
    const hosts = entriesOf(this.#hosts, endpoint.realm);
    let host = hosts.get(endpoint.key);
    if (host === undefined) {
      host = { inShared: new Map(), elsewhere: new Map(), pairs: new Map() };
      hosts.set(endpoint.key, host);
    }
    return host;
  }

  #forgetHost(endpoint: Endpoint): void {
    const { inShared, elsewhere, pairs } = this.host(endpoint);
    if (inShared.size + elsewhere.size + pairs.size > 0) return;
    remove(this.#hosts, endpoint.realm, endpoint.key);
  }
}

interface Removals {
  /** Keyed by realm and address. */
  readonly presences: Map<string, PlanDifference['presences'][number]>;
  /** Keyed by realm and the key of the service. */
  readonly pairs: Map<string, Pair>;
}

function entriesOf<T>(table: Map<string, Map<string, T>>, realm: string): Map<string, T> {
  let entries = table.get(realm);
  if (entries === undefined) {
    entries = new Map();
    table.set(realm, entries);
  }
  return entries;
}

function remove<T>(table: Map<string, Map<string, T>>, realm: string, key: string): void {
  const entries = table.get(realm);
  entries?.delete(key);
  if (entries?.size === 0) table.delete(realm);
}

const NO_PLAN: TranslationPlan = { realms: [], presences: [], permits: [] };
/** Stays empty. */
const NOTHING: PlannedHost = { inShared: new Map(), elsewhere: new Map(), pairs: new Map() };
