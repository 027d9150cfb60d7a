/**
 * The compiled plan: which endpoint a presence stands for, and what may pass between two hosts. `resolve` answers what a
 * packet (source, destination) from a realm becomes. `apply` changes the plan by keys, and says between which realms
 * paths may have changed.
 * @module
 */

import type { Family, IpAddress } from '../base/address.ts';
import { Endpoint } from '../base/endpoint.ts';
import { ApiMisuseError, ConfigError } from '../errors.ts';
import { addressAt } from './address-table.ts';
import { type CompiledRealm, changedPrefixes, compiledRealmOf } from './compiled-realm.ts';
import { familyOf, type Host, Hosts } from './hosts.ts';
import { NOTHING, REPLY, REQUEST } from './layout.ts';
import { Permits } from './permits.ts';
import {
  compileChanges,
  compilePermit,
  compilePresence,
  compileRealm,
  containsWords,
  type PlanChanges,
  type PlanChangesInput,
  type PlannedRealm,
  type PresenceInput,
  type Realm,
  type TranslationPlanInput,
} from './plan.ts';
import { PolicyTable } from './policy.ts';
import { Presences } from './presences.ts';
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
  /** The policy, which says what may pass. Valid iff Forward or NeedsPresence; the caller has to drop it then. */
  policy: number;
  /** The source's presence in the egress realm. Valid iff Forward. */
  readonly source: Int32Array;
  /** The real address behind the destination. Valid iff Forward or NeedsPresence. */
  readonly destination: Int32Array;
  /**
   * Whether the destination's host has several addresses in the ingress realm, or the source has in the egress realm,
   * because one of them is renumbered. Then not every packet leaves under `source`; see `Flows`. Valid iff Forward or
   * NeedsPresence.
   */
  isOverlapping: boolean;
}

/** What applied changes may have changed: realms, by index. */
export interface Effects {
  /** Realms that are gone. */
  readonly gone: readonly number[];
  /** Realms that have another MTU. */
  readonly resized: readonly number[];
  /** Realms whose paths may all have changed. */
  readonly realms: readonly number[];
  /** Pairs of realms between which paths may have changed. */
  readonly pairs: readonly (readonly [number, number])[];
}

/** A compiled plan. */
export class Bindings {
  readonly policies: PolicyTable = new PolicyTable();
  readonly #indexOf: (name: string) => number;
  /** The realms of the plan, by index. */
  readonly #realms = new Map<number, CompiledRealm>();
  /** The indexes of the realms of the plan, by name. */
  readonly #indexes = new Map<string, number>();
  readonly #hosts = new Hosts();
  readonly #presences = new Presences(this.#hosts);
  readonly #permits = new Permits(this.#hosts);
  readonly #resolution: Resolution = {
    verdict: Verdict.DropNoPresence,
    egress: 0,
    family: 4,
    policy: NOTHING,
    source: new Int32Array(4),
    destination: new Int32Array(4),
    isOverlapping: false,
  };

  /**
   * @param indexOf returns the index of a realm, and gives it one if it has none
   * @throws {ConfigError} naming the place in the plan that is wrong.
   */
  constructor(plan: TranslationPlanInput, indexOf: (name: string) => number) {
    this.#indexOf = indexOf;
    for (const [i, input] of plan.realms.entries()) {
      const realm = compileRealm(input, `realms[${i}]`);
      if (this.#indexes.has(realm.name)) {
        throw new ConfigError(`realms[${i}].name`, `"${realm.name}" is there twice`);
      }
      this.#setRealm(realm);
    }
    for (let i = 0; i < plan.presences.length; i++) {
      const conflict = this.#bind(plan.presences[i]!, () => `presences[${i}]`);
      if (conflict !== undefined) throw new ConfigError(`presences[${i}]`, conflict);
    }
    for (let i = 0; i < plan.permits.length; i++) {
      const permit = compilePermit(plan.permits[i]!, () => `permits[${i}]`);
      const realm = this.#known(permit.realm, () => `permits[${i}].realm`);
      const home = this.#known(permit.service.realm, () => `permits[${i}].service.realm`);
      this.#permits.add(realm, home, permit.service.address, permit);
    }
  }

  /**
   * Adds a presence, which is not a former one. Adding the same presence twice changes nothing. No path changes: none was
   * to the address, and none from the host to the realm.
   *
   * @throws {ApiMisuseError} if the address stands for another host, or the host has another.
   * @throws {ConfigError} if the presence is not one.
   */
  bind(presence: PresenceInput): void {
    const conflict = this.#bind(presence, () => 'presence');
    if (conflict !== undefined) throw new ApiMisuseError(conflict);
  }

  /**
   * Changes the plan.
   *
   * @throws {ConfigError} naming the place in the changes that is wrong. Nothing has changed then.
   */
  apply(input: PlanChangesInput): Effects {
    const changes = compileChanges(input);
    this.#check(changes);
    const resized: number[] = [];
    const realms: number[] = [];
    const pairs = new Map<number, readonly [number, number]>();
    const touch = (a: number, b: number): void => {
      pairs.set(Math.min(a, b) * 2 ** 26 + Math.max(a, b), [a, b]);
    };
    for (const { realm } of changes.realms) {
      if (realm === undefined) continue;
      const index = this.#indexOf(realm.name);
      const before = this.#realms.get(index);
      const after = this.#setRealm(realm);
      if (before === undefined) continue;
      if (before.mtu !== after.mtu) resized.push(index);
      const changed = changedPrefixes(before, after);
      if (changed.length > 0 && this.#hosts.isAnyIn(index, changed)) realms.push(index);
    }
    const presences = [...lastByPlace(changes.presences).values()];
    this.#setPresences(presences, touch);
    for (const { realm, address, of } of presences) {
      const index = this.#indexes.get(realm);
      if (index === undefined || of === undefined) continue;
      // Packets came from the address while another translator had it: there are paths if it is a host of the plan.
      const mayHavePaths = this.#realms.get(index)!.poolsMaySend;
      const { family, words } = address;
      if (mayHavePaths && this.#hosts.find(index, family, words, 0) >= 0) realms.push(index);
    }
    for (const { realm, service, permits } of changes.permits) {
      const from = this.#indexes.get(realm);
      const to = this.#indexes.get(service.realm);
      if (from === undefined || to === undefined) continue;
      if (this.#permits.set(from, to, service.address, permits)) touch(from, to);
    }
    const leaving = new Map(changes.realms.map(({ name, realm }) => [name, realm]));
    const gone = [...leaving].flatMap(([name, realm]) => {
      return realm === undefined ? this.#removeRealm(name) : [];
    });
    return { gone, resized, realms, pairs: [...pairs.values()] };
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
    const target = this.#presences.hostAt(realm, family, key, 1 + width);
    if (target < 0) {
      result.verdict = Verdict.DropNoPresence;
      return result;
    }
    if (!this.isSource(realm, family, key, 1)) {
      result.verdict = Verdict.DropSpoofed;
      return result;
    }
    const targetFamily = familyOf(target);
    const targets = this.#hosts.table(targetFamily);
    const targetAt = (target >>> 1) * targets.stride;
    const egress = targets.words[targetAt]!;
    const origin = this.#hosts.find(realm, family, key, 1);
    const replies = this.#extend(
      NOTHING,
      REPLY,
      egress,
      origin,
      targetFamily,
      targets.words,
      targetAt + 1
    );
    const policy = this.#extend(replies, REQUEST, realm, target, family, key, 1);
    if (policy === NOTHING) {
      result.verdict = Verdict.DropNotPermitted;
      return result;
    }
    this.policies.hold(policy);
    result.egress = egress;
    result.family = targetFamily;
    result.policy = policy;
    const words = targetFamily === 4 ? 1 : 4;
    for (let i = 0; i < words; i++) result.destination[i] = targets.words[targetAt + 1 + i]!;
    result.isOverlapping =
      this.#presences.isOverlapping &&
      (this.#presences.several(target, realm, family) !== undefined ||
        this.#presences.several(origin, egress, targetFamily) !== undefined);
    const standIn = origin < 0 ? -1 : this.#presences.find(origin, egress, targetFamily);
    if (standIn < 0) {
      result.verdict = Verdict.NeedsPresence;
      return result;
    }
    result.verdict = Verdict.Forward;
    const presences = this.#presences.table(targetFamily);
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
    const host = this.#presences.hostAt(realm, family, words, at);
    if (host < 0) return undefined;
    return new Endpoint(this.#realms.get(this.#hosts.realmOf(host))!.name, this.#addressOf(host));
  }

  /** Returns what there is of a realm; undefined if the plan does not have it. */
  planned(name: string): PlannedRealm | undefined {
    const realm = this.#indexes.get(name);
    if (realm === undefined) return undefined;
    return {
      pools: this.#realms.get(realm)!.pools,
      presences: this.#presences.countIn(realm),
      services: this.#permits.countFrom(realm),
      at: (address) => {
        const of = this.endpointOf(realm, address.family, address.words, 0);
        return of && { of, formerUntil: this.#presences.formerUntil(realm, address) };
      },
    };
  }

  /** Whether any host has several addresses of one IP version in a realm. */
  get isOverlapping(): boolean {
    return this.#presences.isOverlapping;
  }

  /** Returns the addresses in `realm` of the host at `words[at]` of its home, if it has several there; else none. */
  addressesIn(
    realm: number,
    family: Family,
    home: number,
    homeFamily: Family,
    words: ArrayLike<number>,
    at: number
  ): IpAddress[] {
    const host = this.#hosts.find(home, homeFamily, words, at);
    const records = host < 0 ? undefined : this.#presences.several(host, realm, family);
    return (records ?? []).map((record) => addressAt(this.#presences.table(family), record));
  }

  /** Returns whether packets of the realm may come from the address at `words[at]`. */
  isSource(realm: number, family: Family, words: ArrayLike<number>, at: number): boolean {
    const { sources, pools, poolsMaySend } = this.#realms.get(realm)!;
    if (!containsWords(sources, family, words, at)) return false;
    if (!containsWords(pools, family, words, at)) return true;
    return poolsMaySend && this.#presences.hostAt(realm, family, words, at) < 0;
  }

  /** Returns whether the address at `words[at]` is in a pool of the realm. */
  isPooled(realm: number, family: Family, words: ArrayLike<number>, at: number): boolean {
    const { pools } = this.#realms.get(realm)!;
    return containsWords(pools, family, words, at);
  }

  /** The memory of the tables in bytes. */
  get byteLength(): number {
    return this.#hosts.byteLength + this.#presences.byteLength + this.#permits.byteLength;
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
    const permits = this.#permits.of(service, realm);
    for (let i = permits.length - 1; i >= 0; i--) {
      const { clients, ports } = permits[i]!;
      const isClient =
        clients === undefined
          ? this.isSource(realm, family, words, at)
          : containsWords(clients, family, words, at);
      if (isClient) policy = this.policies.extend(policy, ports, side);
    }
    return policy;
  }

  #setRealm(input: Realm): CompiledRealm {
    const realm = compiledRealmOf(input);
    const index = this.#indexOf(realm.name);
    this.#indexes.set(realm.name, index);
    this.#realms.set(index, realm);
    return realm;
  }

  /** Removes a realm with all its presences and permits. Returns its index, if the plan had it. */
  #removeRealm(name: string): number[] {
    const index = this.#indexes.get(name);
    if (index === undefined) return [];
    this.#presences.removeRealm(index);
    this.#permits.removeRealm(index);
    this.#realms.delete(index);
    this.#indexes.delete(name);
    return [index];
  }

  /** Adds a presence, unless it is there. Returns what stands against it, if something does. */
  #bind(input: PresenceInput, path: () => string): string | undefined {
    const { realm, address, of, formerUntil } = compilePresence(input, path);
    const index = this.#known(realm, () => `${path()}.realm`);
    const home = this.#known(of.realm, () => `${path()}.of.realm`);
    const { family, words } = address;
    const host = this.#hosts.find(home, of.address.family, of.address.words, 0);
    const bound = this.#presences.hostAt(index, family, words, 0);
    if (bound >= 0) {
      if (bound === host) return undefined;
      const real = `${this.#addressOf(bound)} of ${this.#realms.get(this.#hosts.realmOf(bound))!.name}`;
      return `${address} already stands for ${real} in ${realm}`;
    }
    const other = this.#presences.addressOf(host, index, family);
    if (other !== undefined && formerUntil === undefined) return alreadyHas(of, other, realm);
    this.#presences.add(index, address, home, of.address, formerUntil);
    return undefined;
  }

  /** Gives addresses their hosts. First all are taken from their present ones, because hosts may change places. */
  #setPresences(
    changes: Required<PlanChanges>['presences'],
    touch: (a: number, b: number) => void
  ): void {
    const added: (() => void)[] = [];
    for (const { realm, address, of, formerUntil } of changes) {
      const index = this.#indexes.get(realm);
      if (index === undefined) continue;
      const home = of && this.#indexes.get(of.realm);
      const before = this.#presences.hostAt(index, address.family, address.words, 0);
      if (before >= 0) {
        const beforeHome = this.#hosts.realmOf(before);
        const isSameHost = home === beforeHome && of!.address.equals(this.#addressOf(before));
        if (isSameHost && formerUntil === this.#presences.formerUntil(index, address)) continue;
        this.#presences.remove(index, address);
        touch(index, beforeHome);
      }
      if (home !== undefined) {
        added.push(() => {
          if (this.#presences.add(index, address, home, of!.address, formerUntil)) {
            touch(index, home);
          }
        });
      }
    }
    for (const add of added) add();
  }

  /** @throws {ConfigError} if the changes contradict each other or the plan. */
  #check({ realms, presences, permits }: Required<PlanChanges>): void {
    // Also a realm that goes may be named, and need not be there any more.
    const named = new Set(realms.map(({ name }) => name));
    const check = (name: string, path: string): void => {
      if (!named.has(name)) this.#known(name, () => path);
    };
    const places = lastByPlace(presences);
    /** The addresses that hosts get. */
    const addresses = new Map<string, IpAddress>();
    for (const [i, { realm, address, of, formerUntil }] of presences.entries()) {
      if (of === undefined) continue;
      check(realm, `presences[${i}].realm`);
      check(of.realm, `presences[${i}].of.realm`);
      if (formerUntil !== undefined || places.get(placeOf(realm, address))!.of !== of) continue;
      const holder = `${realm.length} ${realm} IPv${address.family} ${of.key}`;
      const other = addresses.get(holder) ?? this.#keptAddress(realm, address.family, of, places);
      if (other !== undefined && !other.equals(address)) {
        throw new ConfigError(`presences[${i}]`, alreadyHas(of, other, realm));
      }
      addresses.set(holder, address);
    }
    for (const [i, { realm, service, permits: list }] of permits.entries()) {
      if (list.length === 0) continue;
      check(realm, `permits[${i}].realm`);
      check(service.realm, `permits[${i}].service.realm`);
    }
  }

  /** Returns the present address of a host in a realm, unless it is one of the places that change. */
  #keptAddress(
    realm: string,
    family: Family,
    of: Endpoint,
    places: ReadonlyMap<string, unknown>
  ): IpAddress | undefined {
    const index = this.#indexes.get(realm);
    const home = this.#indexes.get(of.realm);
    if (index === undefined || home === undefined) return undefined;
    const host = this.#hosts.find(home, of.address.family, of.address.words, 0);
    const address = this.#presences.addressOf(host, index, family);
    return address && !places.has(placeOf(realm, address)) ? address : undefined;
  }

  /** Returns the index of a realm of the plan. */
  #known(name: string, path: () => string): number {
    const index = this.#indexes.get(name);
    if (index === undefined) {
      throw new ConfigError(path(), `"${name}" is not one of the plan's realms`);
    }
    return index;
  }

  #addressOf(host: Host): IpAddress {
    return this.#hosts.addressOf(host);
  }
}

function alreadyHas({ address, realm }: Endpoint, other: IpAddress, where: string): string {
  return `${address} of ${realm} already has ${other} in ${where}`;
}

/** Returns the last entry for each address in a realm. */
function lastByPlace<T extends { readonly realm: string; readonly address: IpAddress }>(
  presences: readonly T[]
): Map<string, T> {
  return new Map(presences.map((each) => [placeOf(each.realm, each.address), each]));
}

function placeOf(realm: string, address: IpAddress): string {
  return `${address} ${realm}`;
}
