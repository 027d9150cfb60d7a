/**
 * A plan, compiled: who stands for whom, and who may talk to whom. It answers the one question of the
 * slow path: what becomes of (source, destination) from this realm?
 * @module
 */
import { type Family, IpAddress, type IpPrefix } from '../address.ts';
import { ApiMisuseError, ConfigError } from '../errors.ts';
import { IntTable } from './int-table.ts';
import {
  type CompiledPresence,
  compilePermit,
  compilePrefix,
  compilePresence,
  containsWords,
  type Presence,
  type TranslationPlan,
} from './plan.ts';
import { NOTHING, type NumberedPermit, PolicyTable, REPLY, REQUEST } from './policy.ts';
import { Verdict } from './verdict.ts';

/** What `resolve` found; valid as its verdict says, and reused by the next call. */
export interface Resolution {
  /**
   * Forward and NeedsPresence, if `policy` lets the packet pass; DropNoPresence, DropSpoofed, or
   * DropNotPermitted when nothing may pass.
   */
  verdict: Verdict;
  /** Egress realm. Valid iff Forward or NeedsPresence. */
  egress: number;
  /** What may pass. Valid iff Forward or NeedsPresence. */
  policy: number;
  /** The source's presence in the egress realm. Valid iff Forward. */
  source: readonly number[];
  /** The real address behind the destination. Valid iff Forward or NeedsPresence. */
  destination: readonly number[];
}

/** Immutable but for `bind`, which adds presences. */
export class Bindings {
  readonly policies: PolicyTable = new PolicyTable();
  readonly #realmIndex: (name: string) => number;
  /** By realm index; absent: the realm is not in the plan. */
  readonly #realms = new Map<number, CompiledRealm>();
  /** Every real host that a presence or a permit names. */
  readonly #endpoints: Endpoint[] = [];
  /** (realm, real address) to index in `#endpoints`, by family. */
  readonly #byRealAddress: FamilyTables = familyTables();
  /** (realm, presence address) to index in `#endpoints`, by family. */
  readonly #byPresence: FamilyTables = familyTables();
  readonly #resolution: Resolution = {
    verdict: Verdict.DropNoPresence,
    egress: 0,
    policy: NOTHING,
    source: [],
    destination: [],
  };

  /** @throws {ConfigError} naming the place in the plan that is wrong. */
  constructor(plan: TranslationPlan, realmIndex: (name: string) => number) {
    this.#realmIndex = realmIndex;
    for (const [i, realm] of plan.realms.entries()) {
      const index = realmIndex(realm.name);
      if (this.#realms.has(index)) {
        throw new ConfigError(`realms[${i}].name`, `"${realm.name}" is there twice`);
      }
      const { sources, pools = [] } = realm;
      this.#realms.set(index, {
        name: realm.name,
        sources: sources.map((text, k) => compilePrefix(text, `realms[${i}].sources[${k}]`)),
        pools: pools.map((text, k) => compilePrefix(text, `realms[${i}].pools[${k}]`)),
      });
    }
    for (const [i, presence] of plan.presences.entries()) {
      const conflict = this.#bind(presence, `presences[${i}]`);
      if (conflict !== undefined) throw new ConfigError(`presences[${i}]`, conflict);
    }
    for (const [i, text] of plan.permits.entries()) {
      const permit = compilePermit(text, `permits[${i}]`);
      const realm = this.#indexOf(permit.realm, `permits[${i}].realm`);
      const home = this.#indexOf(permit.service.realm, `permits[${i}].service.realm`);
      const service = this.#endpoint(home, permit.service.address);
      const permits = service.permits.get(realm) ?? [];
      permits.push({ number: i, permit });
      service.permits.set(realm, permits);
    }
  }

  /**
   * Adds a presence; the same one again changes nothing.
   *
   * @throws {ApiMisuseError} if the address stands for another endpoint, or the endpoint has another.
   * @throws {ConfigError} if the presence is not one.
   */
  bind(presence: Presence): void {
    const conflict = this.#bind(presence, 'presence');
    if (conflict !== undefined) throw new ApiMisuseError(conflict);
  }

  /**
   * Returns what becomes of a packet whose key is given: the realm it enters from, its source and its
   * destination, as words.
   */
  resolve(family: Family, key: Int32Array): Readonly<Resolution> {
    const result = this.#resolution;
    const realm = key[0]!;
    const destinationAt = family === 4 ? 2 : 5;
    const target = this.#find(this.#byPresence, realm, family, key, destinationAt);
    if (target === undefined) {
      result.verdict = Verdict.DropNoPresence;
      return result;
    }
    if (!this.#isSource(realm, family, key, 1)) {
      result.verdict = Verdict.DropSpoofed;
      return result;
    }
    const origin = this.#find(this.#byRealAddress, realm, family, key, 1);
    const requests = this.#extend(NOTHING, REQUEST, realm, target, family, key, 1);
    const policy = this.#extend(requests, REPLY, target.realm, origin, family, target.words, 0);
    if (policy === NOTHING) {
      result.verdict = Verdict.DropNotPermitted;
      return result;
    }
    const presence = origin?.presences.get(target.realm);
    result.egress = target.realm;
    result.destination = target.words;
    result.policy = policy;
    if (presence === undefined) {
      result.verdict = Verdict.NeedsPresence;
    } else {
      result.verdict = Verdict.Forward;
      result.source = presence;
    }
    return result;
  }

  /**
   * Returns the policy, extended by the permits that let a client of the realm, the address
   * `words[at]` on, use the service.
   */
  #extend(
    policy: number,
    side: number,
    realm: number,
    service: Endpoint | undefined,
    family: Family,
    words: ArrayLike<number>,
    at: number
  ): number {
    const permits = service?.permits.get(realm);
    if (permits === undefined) return policy;
    for (let i = 0; i < permits.length; i++) {
      const { clients } = permits[i]!.permit;
      const isClient =
        clients === undefined
          ? this.#isSource(realm, family, words, at)
          : containsWords(clients, family, words, at);
      if (isClient) policy = this.policies.extend(policy, permits[i]!, side);
    }
    return policy;
  }

  #isSource(realm: number, family: Family, words: ArrayLike<number>, at: number): boolean {
    const { sources, pools } = this.#realms.get(realm)!;
    return containsWords(sources, family, words, at) && !containsWords(pools, family, words, at);
  }

  /** Returns what stands against it, if something does. */
  #bind(text: Presence, path: string): string | undefined {
    const presence: CompiledPresence = compilePresence(text, path);
    const realm = this.#indexOf(presence.realm, `${path}.realm`);
    const home = this.#indexOf(presence.of.realm, `${path}.of.realm`);
    const endpoint = this.#endpoint(home, presence.of.address);
    const { family, words } = presence.address;
    const bound = this.#find(this.#byPresence, realm, family, words, 0);
    const other = endpoint.presences.get(realm);
    if (bound === endpoint) return undefined;
    if (bound !== undefined) {
      const real = `${IpAddress.fromWords(bound.words)} of ${this.#realms.get(bound.realm)!.name}`;
      return `${presence.address} already stands for ${real} in ${presence.realm}`;
    }
    if (other !== undefined) {
      const real = `${presence.of.address} of ${presence.of.realm}`;
      return `${real} already has ${IpAddress.fromWords(other)} in ${presence.realm}`;
    }
    endpoint.presences.set(realm, words);
    this.#insert(this.#byPresence, realm, family, words, endpoint);
    return undefined;
  }

  #indexOf(name: string, path: string): number {
    const index = this.#realmIndex(name);
    if (!this.#realms.has(index)) {
      throw new ConfigError(path, `"${name}" is not one of the plan's realms`);
    }
    return index;
  }

  #endpoint(realm: number, address: IpAddress): Endpoint {
    const { family, words } = address;
    let endpoint = this.#find(this.#byRealAddress, realm, family, words, 0);
    if (endpoint === undefined) {
      endpoint = {
        number: this.#endpoints.length,
        realm,
        words,
        presences: new Map(),
        permits: new Map(),
      };
      this.#endpoints.push(endpoint);
      this.#insert(this.#byRealAddress, realm, family, words, endpoint);
    }
    return endpoint;
  }

  #find(
    tables: FamilyTables,
    realm: number,
    family: Family,
    words: ArrayLike<number>,
    at: number
  ): Endpoint | undefined {
    const table = tables[family];
    setKey(table, realm, words, at);
    const record = table.find();
    return record < 0
      ? undefined
      : this.#endpoints[table.words[record * table.stride + table.keyWords]!];
  }

  #insert(
    tables: FamilyTables,
    realm: number,
    family: Family,
    words: readonly number[],
    endpoint: Endpoint
  ): void {
    const table = tables[family];
    setKey(table, realm, words, 0);
    const record = table.insert();
    table.words[record * table.stride + table.keyWords] = endpoint.number;
  }
}

interface CompiledRealm {
  readonly name: string;
  readonly sources: readonly IpPrefix[];
  readonly pools: readonly IpPrefix[];
}

interface Endpoint {
  readonly number: number;
  /** Index of the realm it is at home in. */
  readonly realm: number;
  readonly words: readonly number[];
  /** Its presences, by the index of the realm they are in. */
  readonly presences: Map<number, readonly number[]>;
  /** The permits that name it as their service, by the index of the clients' realm. */
  readonly permits: Map<number, NumberedPermit[]>;
}

type FamilyTables = Readonly<Record<Family, IntTable>>;

function familyTables(): FamilyTables {
  return { 4: new IntTable(2, 1, MAX_BINDINGS), 6: new IntTable(5, 1, MAX_BINDINGS) };
}

/** The address is `words[at]` on. */
function setKey(table: IntTable, realm: number, words: ArrayLike<number>, at: number): void {
  table.key[0] = realm;
  for (let i = 1; i < table.keyWords; i++) table.key[i] = words[at + i - 1]!;
}

/** Plans are made by the host, which bounds them; this only keeps a record number a small integer. */
const MAX_BINDINGS = 2 ** 26;
