/**
 * The compiled plan: which endpoint a presence stands for, and what may pass between two hosts. `resolve`
 * answers what a packet (source, destination) from a realm becomes. Hosts and presences are records in
 * tables, not objects, because a plan may have a million of them.
 * @module
 */

import { type Family, IpAddress } from '../base/address.ts';
import { Endpoint } from '../base/endpoint.ts';
import type { IpPrefix } from '../base/prefix.ts';
import { ApiMisuseError, ConfigError } from '../errors.ts';
import { IntTable } from './int-table.ts';
import { REPLY, REQUEST } from './layout.ts';
import {
  compilePermit,
  compilePresence,
  compileRealm,
  containsWords,
  type PresenceInput,
  type Reject,
  type TranslationPlanInput,
} from './plan.ts';
import { NOTHING, type NumberedPermit, PolicyTable } from './policy.ts';
import { Verdict } from './verdict.ts';

/** The result of `resolve`. The next call overwrites it. */
export interface Resolution {
  /**
   * Forward or NeedsPresence, for packets that `policy` allows; or DropNoPresence, DropSpoofed or
   * DropNotPermitted, for all packets.
   */
  verdict: Verdict;
  /** The egress realm. Valid iff Forward or NeedsPresence. */
  egress: number;
  /** The IP version of both addresses in the egress realm. Valid iff Forward or NeedsPresence. */
  family: Family;
  /** The policy, which says what may pass. Valid iff Forward or NeedsPresence. */
  policy: number;
  /** The source's presence in the egress realm. Valid iff Forward. */
  readonly source: Int32Array;
  /** The real address behind the destination. Valid iff Forward or NeedsPresence. */
  readonly destination: Int32Array;
}

/** A realm of the plan. */
export interface CompiledRealm {
  readonly name: string;
  readonly sources: readonly IpPrefix[];
  readonly pools: readonly IpPrefix[];
  readonly poolsMaySend: boolean;
  /** The largest packet in bytes; infinite if there is no limit. */
  readonly mtu: number;
  readonly reject: Reject;
}

/** A compiled plan. Only `bind` changes it, by adding a presence. */
export class Bindings {
  readonly policies: PolicyTable = new PolicyTable();
  readonly #realmIndex: (name: string) => number;
  /** The realms of the plan, by index. */
  readonly #realms = new Map<number, CompiledRealm>();
  /** The real hosts that presences and permits name. Key: (realm, address). */
  readonly #hosts: FamilyTables = familyTables(0);
  /** The presences. Key: (realm, address). Value: the host that it stands for. */
  readonly #presences: FamilyTables = familyTables(1);
  /** The presences of a host. Key: (host, realm, IP version). Value: the record number of the presence. */
  readonly #presencesOf = new IntTable(3, 1, MAX_RECORDS);
  /** The permits that name a host as their service, by host and the index of the clients' realm. */
  readonly #permits = new Map<Host, Map<number, NumberedPermit[]>>();
  readonly #resolution: Resolution = {
    verdict: Verdict.DropNoPresence,
    egress: 0,
    family: 4,
    policy: NOTHING,
    source: new Int32Array(4),
    destination: new Int32Array(4),
  };

  /** @throws {ConfigError} naming the place in the plan that is wrong. */
  constructor(plan: TranslationPlanInput, realmIndex: (name: string) => number) {
    this.#realmIndex = realmIndex;
    for (const [i, realm] of plan.realms.entries()) {
      const index = realmIndex(realm.name);
      if (this.#realms.has(index)) {
        throw new ConfigError(`realms[${i}].name`, `"${realm.name}" is there twice`);
      }
      const { name, mtu, reject = 'drop', poolsMaySend = false } = realm;
      if (mtu !== undefined && !(Number.isInteger(mtu) && mtu >= MIN_MTU && mtu <= MAX_MTU)) {
        const range = `a whole number from ${MIN_MTU} to ${MAX_MTU}`;
        throw new ConfigError(`realms[${i}].mtu`, `${mtu} is not ${range}`);
      }
      if (!REJECTS.includes(reject)) {
        const words = REJECTS.map((word) => `"${word}"`).join(', ');
        throw new ConfigError(`realms[${i}].reject`, `"${reject}" is none of ${words}`);
      }
      const { sources, pools = [] } = compileRealm(realm, `realms[${i}]`);
      this.#realms.set(index, {
        name,
        sources,
        pools,
        poolsMaySend,
        mtu: mtu ?? Number.POSITIVE_INFINITY,
        reject,
      });
    }
    for (let i = 0; i < plan.presences.length; i++) {
      const conflict = this.#bind(plan.presences[i]!, () => `presences[${i}]`);
      if (conflict !== undefined) throw new ConfigError(`presences[${i}]`, conflict);
    }
    for (const [i, input] of plan.permits.entries()) {
      const permit = compilePermit(input, `permits[${i}]`);
      const realm = this.#indexOf(permit.realm, () => `permits[${i}].realm`);
      const home = this.#indexOf(permit.service.realm, () => `permits[${i}].service.realm`);
      const service = this.#host(home, permit.service.address);
      const byRealm = this.#permits.get(service) ?? new Map<number, NumberedPermit[]>();
      this.#permits.set(service, byRealm);
      const permits = byRealm.get(realm) ?? [];
      permits.push({ number: i, permit });
      byRealm.set(realm, permits);
    }
  }

  /**
   * Adds a presence. Adding the same presence twice changes nothing.
   *
   * @throws {ApiMisuseError} if the address stands for another host, or the host has another.
   * @throws {ConfigError} if the presence is not one.
   */
  bind(presence: PresenceInput): void {
    const conflict = this.#bind(presence, () => 'presence');
    if (conflict !== undefined) throw new ApiMisuseError(conflict);
  }

  get realmCount(): number {
    return this.#realms.size;
  }

  realm(index: number): CompiledRealm | undefined {
    return this.#realms.get(index);
  }

  /**
   * Returns what a packet becomes. `key` has its ingress realm, its source and its destination, as words.
   */
  resolve(family: Family, key: Int32Array): Readonly<Resolution> {
    const result = this.#resolution;
    const realm = key[0]!;
    const width = family === 4 ? 1 : 4;
    const presence = find(this.#presences[family], realm, key, 1 + width);
    if (presence < 0) {
      result.verdict = Verdict.DropNoPresence;
      return result;
    }
    if (!this.isSource(realm, family, key, 1)) {
      result.verdict = Verdict.DropSpoofed;
      return result;
    }
    const target = firstValue(this.#presences[family], presence);
    const targetFamily = familyOf(target);
    const targets = this.#hosts[targetFamily];
    const targetAt = (target >>> 1) * targets.stride;
    const egress = targets.words[targetAt]!;
    const origin = hostOf(find(this.#hosts[family], realm, key, 1), family);
    const requests = this.#extend(NOTHING, REQUEST, realm, target, family, key, 1);
    const policy = this.#extend(
      requests,
      REPLY,
      egress,
      origin,
      targetFamily,
      targets.words,
      targetAt + 1
    );
    if (policy === NOTHING) {
      result.verdict = Verdict.DropNotPermitted;
      return result;
    }
    result.egress = egress;
    result.family = targetFamily;
    result.policy = policy;
    const words = targetFamily === 4 ? 1 : 4;
    for (let i = 0; i < words; i++) result.destination[i] = targets.words[targetAt + 1 + i]!;
    const standIn = origin < 0 ? -1 : this.#presenceOf(origin, egress, targetFamily);
    if (standIn < 0) {
      result.verdict = Verdict.NeedsPresence;
      return result;
    }
    result.verdict = Verdict.Forward;
    const presences = this.#presences[targetFamily];
    for (let i = 0; i < words; i++) {
      result.source[i] = presences.words[standIn * presences.stride + 1 + i]!;
    }
    return result;
  }

  /** Returns the endpoint that the address at `words[at]` stands for in the realm. */
  endpointOf(
    realm: number,
    family: Family,
    words: ArrayLike<number>,
    at: number
  ): Endpoint | undefined {
    const presence = find(this.#presences[family], realm, words, at);
    if (presence < 0) return undefined;
    const host = firstValue(this.#presences[family], presence);
    return new Endpoint(this.#realms.get(this.#realmOf(host))!.name, this.#addressOf(host));
  }

  /** Returns whether packets of the realm may come from the address at `words[at]`. */
  isSource(realm: number, family: Family, words: ArrayLike<number>, at: number): boolean {
    const { sources, pools, poolsMaySend } = this.#realms.get(realm)!;
    if (!containsWords(sources, family, words, at)) return false;
    return poolsMaySend || !containsWords(pools, family, words, at);
  }

  /** Returns whether the address at `words[at]` is in a pool of the realm. */
  isPooled(realm: number, family: Family, words: ArrayLike<number>, at: number): boolean {
    const { pools } = this.#realms.get(realm)!;
    return containsWords(pools, family, words, at);
  }

  /** The memory of the tables in bytes. */
  get byteLength(): number {
    const tables = [this.#hosts[4], this.#hosts[6], this.#presences[4], this.#presences[6]];
    return [...tables, this.#presencesOf].reduce((sum, table) => sum + table.byteLength, 0);
  }

  /**
   * Returns the policy, extended by the permits that allow the client of the realm with the address at
   * `words[at]` to use the service.
   */
  #extend(
    policy: number,
    side: number,
    realm: number,
    service: Host,
    family: Family,
    words: ArrayLike<number>,
    at: number
  ): number {
    const permits = this.#permits.get(service)?.get(realm);
    if (permits === undefined) return policy;
    for (let i = 0; i < permits.length; i++) {
      const { clients } = permits[i]!.permit;
      const isClient =
        clients === undefined
          ? this.isSource(realm, family, words, at)
          : containsWords(clients, family, words, at);
      if (isClient) policy = this.policies.extend(policy, permits[i]!, side);
    }
    return policy;
  }

  /** Returns what stands against it, if something does. */
  #bind(input: PresenceInput, path: () => string): string | undefined {
    const presence = compilePresence(input, path);
    const realm = this.#indexOf(presence.realm, () => `${path()}.realm`);
    const home = this.#indexOf(presence.of.realm, () => `${path()}.of.realm`);
    const host = this.#host(home, presence.of.address);
    const { family, words } = presence.address;
    const presences = this.#presences[family];
    const bound = find(presences, realm, words, 0);
    if (bound >= 0) {
      const other = firstValue(presences, bound);
      if (other === host) return undefined;
      const real = `${this.#addressOf(other)} of ${this.#realms.get(this.#realmOf(other))!.name}`;
      return `${presence.address} already stands for ${real} in ${presence.realm}`;
    }
    const other = this.#presenceOf(host, realm, family);
    if (other >= 0) {
      const real = `${presence.of.address} of ${presence.of.realm}`;
      return `${real} already has ${addressOf(presences, other)} in ${presence.realm}`;
    }
    const number = insert(presences, realm, words);
    presences.words[number * presences.stride + presences.keyWords] = host;
    setKey3(this.#presencesOf, host, realm, family);
    const record = this.#presencesOf.insert();
    this.#presencesOf.words[record * this.#presencesOf.stride + 3] = number;
    return undefined;
  }

  #indexOf(name: string, path: () => string): number {
    const index = this.#realmIndex(name);
    if (!this.#realms.has(index)) {
      throw new ConfigError(path(), `"${name}" is not one of the plan's realms`);
    }
    return index;
  }

  #host(realm: number, { family, words }: IpAddress): Host {
    const hosts = this.#hosts[family];
    const known = find(hosts, realm, words, 0);
    return hostOf(known >= 0 ? known : insert(hosts, realm, words), family);
  }

  #presenceOf(host: Host, realm: number, family: Family): number {
    const record = this.#presencesOf.find3(host, realm, family);
    return record < 0 ? -1 : firstValue(this.#presencesOf, record);
  }

  #realmOf(host: Host): number {
    const hosts = this.#hosts[familyOf(host)];
    return hosts.words[(host >>> 1) * hosts.stride]!;
  }

  #addressOf(host: Host): IpAddress {
    return addressOf(this.#hosts[familyOf(host)], host >>> 1);
  }
}

/** A host: twice its record number in the table of its IP version, plus 1 for IPv6; -1 for none. */
type Host = number;

function hostOf(record: number, family: Family): Host {
  return record < 0 ? -1 : 2 * record + (family === 6 ? 1 : 0);
}

function familyOf(host: Host): Family {
  return (host & 1) === 1 ? 6 : 4;
}

type FamilyTables = Readonly<Record<Family, IntTable>>;

/** Creates tables with the key (realm, address). */
function familyTables(valueWords: number): FamilyTables {
  return {
    4: new IntTable(2, valueWords, MAX_RECORDS),
    6: new IntTable(5, valueWords, MAX_RECORDS),
  };
}

/** Finds the record of the address at `words[at]`. */
function find(table: IntTable, realm: number, words: ArrayLike<number>, at: number): number {
  setKey(table, realm, words, at);
  return table.find();
}

function insert(table: IntTable, realm: number, words: ArrayLike<number>): number {
  setKey(table, realm, words, 0);
  return table.insert();
}

function setKey(table: IntTable, realm: number, words: ArrayLike<number>, at: number): void {
  table.key[0] = realm;
  for (let i = 1; i < table.keyWords; i++) table.key[i] = words[at + i - 1]!;
}

function setKey3(table: IntTable, a: number, b: number, c: number): void {
  table.key[0] = a;
  table.key[1] = b;
  table.key[2] = c;
}

/** Returns the first word of a record's value. */
function firstValue(table: IntTable, record: number): number {
  return table.words[record * table.stride + table.keyWords]!;
}

/** Returns the address in a record's key, which follows the realm. */
function addressOf(table: IntTable, record: number): IpAddress {
  const at = record * table.stride;
  return IpAddress.fromWords(Array.from(table.words.subarray(at + 1, at + table.keyWords)));
}

/** The host bounds its plans; this limit only keeps a record number a small integer. */
const MAX_RECORDS = 2 ** 26;
/** Every host accepts packets of 576 bytes (RFC 791 section 3.1). */
const MIN_MTU = 576;
const MAX_MTU = 65_535;
const REJECTS: readonly Reject[] = ['drop', 'unreachable', 'reset'];
