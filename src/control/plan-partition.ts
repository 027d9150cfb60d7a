/**
 * Divides one plan among several translators. Each of them has its own sites, and all of them have the shared realm,
 * the cloud. Sites that no translator here has are foreign to all of them: another machine holds these, or nobody.
 *
 * A part has the shared realm and the translator's own sites. Packets between these are translated as before. Packets
 * between an own site and a foreign site, which another translator holds, cross the shared realm. There both hosts are
 * known by their presences, and the kernel between the translators carries the packet from one to the other.
 *
 * | plan | part of the clients' side | part of the service's side |
 * | --- | --- | --- |
 * | presence in A of (B, svc) | in A of (cloud, svc's presence there) | |
 * | presence in B of (A, client) | | in B of (cloud, client's presence there) |
 * | presences in the cloud of both | the client's | the service's |
 * | permit: A's clients to (B, svc) | A's clients to (cloud, svc's presence) | presences in the cloud to (B, svc) |
 *
 * The clients' side checks the exact permit, in both directions. The service's side admits every host with presences
 * in the cloud and in B, which only clients of B's services get.
 *
 * In each part, the presences of foreign sites are hosts of the shared realm. Permits name their prefixes, so that the
 * shared realm's own hosts cannot use what is meant for them.
 *
 * A change is applied by keys. Those that it touches in the plan give those that it touches in the parts, before it and
 * after it, and each part gets what these are now:
 *
 * | touched | in the parts |
 * | --- | --- |
 * | a realm | the realm where it is held; for the shared realm all parts are loaded again |
 * | a presence | the same; of one in the shared realm also the presences and permits that name its host by it |
 * | the permits of a pair | the same on the clients' side, by the presences that the service has there; all permits of the service on its side |
 * @module
 */
import type { Family, IpAddress } from '../base/address.ts';
import { Endpoint } from '../base/endpoint.ts';
import {
  checkFunction,
  checkMethods,
  checkObject,
  checkText,
  checkThat,
} from '../base/option-check.ts';
import type { IpPrefix } from '../base/prefix.ts';
import type {
  Permit,
  PlanChanges,
  PlannedRealm,
  Presence,
  Realm,
  TranslationPlan,
  TranslationPlanInput,
} from '../translator/index.ts';
import { compilePlan } from '../translator/plan.ts';
import type { PlanTarget } from './controller-options.ts';
import { type Pair, PlanIndex, type PlanKeys } from './plan-index.ts';
import { PortUses } from './port-uses.ts';
import { without } from './prefixes.ts';
import { type RouteChange, SiteRoutes } from './site-routes.ts';
import { transitFamily } from './transit.ts';

export interface PlanPartitionOptions {
  /** The realm that all translators have. */
  readonly shared: string;
  readonly targets: readonly PlanTarget[];
  /**
   * Returns the index of the target that holds a site, or `ELSEWHERE`. When it has changed, `moved` must be called.
   */
  readonly holderOf: (site: string) => number;
  /** Is called with changed routes to presences in the shared realm, before the targets get these. Default: none. */
  readonly onRoutes?: (changes: readonly RouteChange[]) => void;
}

/** In place of the index of a target: none of them holds the site. */
export const ELSEWHERE: number = -1;

/** Receives the plan of a controller whose `transit` is the shared realm, and divides it. */
export class PlanPartition implements PlanTarget {
  readonly #shared: string;
  readonly #targets: readonly PlanTarget[];
  readonly #holderOf: (site: string) => number;
  readonly #onRoutes: (changes: readonly RouteChange[]) => void;
  readonly #routes: SiteRoutes;
  #plan: PlanIndex;
  /** The pools of the shared realm. */
  #pools: readonly IpPrefix[] = [];
  /** The shared realm's own hosts, as prefixes. */
  #hosts: readonly IpPrefix[] = [];
  /** The index of the target that held each site when it was last asked for. */
  readonly #holders = new Map<string, number>();
  /** Keyed by the key of a site's service: what the clients of other sites use of it. */
  readonly #uses = new Map<string, PortUses>();

  /** @throws {ApiMisuseError} naming the option that is wrong. */
  constructor(options: PlanPartitionOptions) {
    const { shared, targets, holderOf, onRoutes = () => {} } = checkObject('options', options);
    checkText('shared', shared);
    checkThat('targets', targets, Array.isArray(targets), 'a list');
    for (const [i, target] of targets.entries()) {
      checkMethods(`targets[${i}]`, target, ['load', 'apply']);
    }
    checkFunction('holderOf', holderOf);
    checkFunction('onRoutes', onRoutes);
    this.#shared = shared;
    this.#targets = targets;
    this.#holderOf = holderOf;
    this.#onRoutes = onRoutes;
    this.#routes = new SiteRoutes(shared);
    this.#plan = new PlanIndex(shared);
  }

  /** The routes to the presences in the shared realm: the site by the text of a prefix. */
  get routes(): ReadonlyMap<string, string> {
    return this.#routes.routes;
  }

  /** Returns what the plan has of a realm. It is for one look, not to be kept. */
  planned(realm: string): PlannedRealm | undefined {
    return this.#plan.planned(realm);
  }

  /** @throws {ConfigError} naming the place in the plan that is wrong; the old plan stays then. */
  load(input: TranslationPlanInput): void {
    const plan = compilePlan(input);
    this.#plan = new PlanIndex(this.#shared, plan);
    this.#holders.clear();
    this.#uses.clear();
    for (const pair of this.#plan.pairs()) this.#count(pair, 1);
    this.#readShared();
    this.#onRoutes(this.#routes.load(plan));
    this.#reloadAll();
  }

  /**
   * Applies changes, and sends each target what they change in its part.
   *
   * @throws {ConfigError} if a change names a realm that the plan does not have; nothing has changed then.
   */
  apply(changes: PlanChanges): void {
    const plan = this.#plan;
    const difference = plan.differenceOf(changes);
    const { realms, pairs } = difference;
    const touched = new TouchedParts();
    this.#touch(difference, touched);
    for (const { realm, service } of pairs) this.#count(plan.pair(realm, service), -1);
    plan.apply(difference);
    for (const { realm, service } of pairs) this.#count(plan.pair(realm, service), 1);
    this.#onRoutes(this.#routes.apply(changes));
    if (realms.has(this.#shared) || this.#hasMoved(changes)) {
      this.#readShared();
      this.#reloadAll();
    } else {
      this.#touch(difference, touched);
      this.#send(touched, touched.indexes);
    }
    for (const [name, realm] of realms) if (realm === undefined) this.#holders.delete(name);
  }

  /**
   * Gives a site to the target that holds it now. Must be called when the result of `holderOf` has changed. It costs what
   * the plan has of the site.
   *
   * @returns a function that takes it from the target that held it before, to be called when its packets go to the new
   *   one.
   */
  moved(site: string): () => void {
    const now = this.#holderOf(site);
    const all = this.#plan.keysOf(site);
    if (all === undefined || this.#holder(site) === now) return () => {};
    const touched = new TouchedParts();
    this.#touch(all, touched);
    this.#setHolder(site, now);
    this.#touch(all, touched);
    this.#send(touched, [now]);
    return () => this.#send(touched, touched.indexes);
  }

  /** Returns the part of a target, with all changes since the plan was loaded. */
  part(index: number): TranslationPlan {
    const plan = this.#plan;
    const touched = new TouchedParts();
    for (const pair of plan.pairs()) this.#touchPair(pair, touched);
    return {
      realms: [...plan.realms.keys()].flatMap((name) => this.#realmIn(index, name) ?? []),
      presences: [...plan.presences()].flatMap((each) => this.#presenceIn(index, each) ?? []),
      permits: [...touched.of(index).pairs.values()].flatMap((pair) =>
        this.#permitsIn(index, pair)
      ),
    };
  }

  #reloadAll(): void {
    for (const site of [...this.#holders.keys()]) this.#setHolder(site, this.#holderOf(site));
    for (const [index, target] of this.#targets.entries()) target.load(this.part(index));
  }

  #setHolder(site: string, now: number): void {
    if (this.#holders.get(site) === now) return;
    const pairs = [...this.#plan.pairsIn(site)];
    for (const pair of pairs) this.#count(pair, -1);
    this.#holders.set(site, now);
    for (const pair of pairs) this.#count(pair, 1);
  }

  /** Sends these targets what is touched in their parts. */
  #send(touched: TouchedParts, indexes: Iterable<number>): void {
    for (const index of indexes) {
      const part = touched.of(index);
      if (!part.isEmpty) this.#targets[index]?.apply(this.#changesIn(index, part));
    }
  }

  #readShared(): void {
    const shared = this.#plan.realms.get(this.#shared);
    this.#pools = shared?.pools ?? [];
    this.#hosts = without(shared?.sources ?? [], this.#pools);
  }

  /** Returns the index of the target that holds a site. A site that goes is not asked for again, which would place it. */
  #holder(site: string): number {
    let holder = this.#holders.get(site);
    if (holder === undefined) {
      holder = this.#holderOf(site);
      this.#holders.set(site, holder);
    }
    return holder;
  }

  #isHere(index: number, realm: string): boolean {
    return realm === this.#shared || this.#holder(realm) === index;
  }

  /** Returns whether a realm is there again, and held elsewhere than before it was gone. */
  #hasMoved({ realms = [] }: PlanChanges): boolean {
    return realms.some(({ name, realm }) => {
      const holder = realm && this.#holders.get(name);
      return name !== this.#shared && holder !== undefined && holder !== this.#holderOf(name);
    });
  }

  /** Counts the permits of a pair of two sites, once more or once less. */
  #count(pair: Pair | undefined, by: 1 | -1): void {
    if (pair === undefined) return;
    const { realm, service, permits } = pair;
    if (realm === this.#shared || service.realm === this.#shared) return;
    const uses = this.#uses.get(service.key) ?? new PortUses();
    uses.count(this.#holder(realm), permits, by);
    if (uses.isEmpty) this.#uses.delete(service.key);
    else this.#uses.set(service.key, uses);
  }

  /** Notes what a difference touches in the parts, by the plan as it is now. */
  #touch({ realms, presences, pairs }: PlanKeys, parts: TouchedParts): void {
    for (const name of realms.keys()) {
      if (name !== this.#shared) parts.of(this.#holder(name)).realms.add(name);
    }
    for (const { realm, address } of presences) {
      const presence = this.#plan.presence(realm, address);
      if (realm !== this.#shared) parts.of(this.#holder(realm)).addPresence(realm, address);
      else if (presence !== undefined) this.#touchInShared(presence, parts);
    }
    for (const pair of pairs) this.#touchPair(pair, parts);
  }

  /** Notes a presence in the shared realm, and what names its host by it. */
  #touchInShared({ realm, address, of }: Presence, parts: TouchedParts): void {
    const { elsewhere, pairs } = this.#plan.host(of);
    parts.of(this.#holder(of.realm)).addPresence(realm, address);
    for (const other of elsewhere.values()) {
      const holder = this.#holder(other.realm);
      if (!this.#isHere(holder, of.realm)) parts.of(holder).addPresence(other.realm, other.address);
    }
    const service = new Endpoint(realm, address);
    for (const pair of pairs.values()) {
      if (pair.realm === realm) continue;
      const holder = this.#holder(pair.realm);
      if (!this.#isHere(holder, of.realm)) parts.of(holder).addPair(pair.realm, service);
    }
  }

  #touchPair({ realm, service }: PairKey, parts: TouchedParts): void {
    if (realm === this.#shared) {
      parts.of(this.#holder(service.realm)).addPair(realm, service);
      return;
    }
    const holder = this.#holder(realm);
    if (this.#isHere(holder, service.realm)) {
      parts.of(holder).addPair(realm, service);
      return;
    }
    // Clients may use any of its presences in their realm.
    for (const { address } of this.#plan.host(service).inShared.values()) {
      parts.of(holder).addPair(realm, new Endpoint(this.#shared, address));
    }
    parts.of(this.#holder(service.realm)).addPair(this.#shared, service);
  }

  #changesIn(index: number, { realms, presences, pairs }: TouchedPart): PlanChanges {
    return {
      realms: [...realms].map((name) => ({ name, realm: this.#realmIn(index, name) })),
      presences: [...presences.values()].map(({ realm, address }) => {
        const presence = this.#plan.presence(realm, address);
        const inPart = presence && this.#presenceIn(index, presence);
        return inPart ?? { realm, address, of: undefined };
      }),
      permits: [...pairs.values()].map((pair) => ({
        ...pair,
        permits: this.#permitsIn(index, pair),
      })),
    };
  }

  /**
   * Returns a realm as a target knows it. Its own presences and those of the other targets are in the same pools of the
   * shared realm, from which packets of the others come.
   */
  #realmIn(index: number, name: string): Realm | undefined {
    const realm = this.#plan.realms.get(name);
    if (realm === undefined || !this.#isHere(index, name)) return undefined;
    if (name !== this.#shared) return realm;
    return { ...realm, sources: [...realm.sources, ...this.#pools], poolsMaySend: true };
  }

  /** Returns a presence as a target knows it; undefined if it does not need it, or a presence in transit is missing. */
  #presenceIn(index: number, presence: Presence): Presence | undefined {
    const { realm, address, of } = presence;
    if (realm === this.#shared) return this.#holder(of.realm) === index ? presence : undefined;
    if (this.#holder(realm) !== index) return undefined;
    if (this.#isHere(index, of.realm)) return presence;
    const family = transitFamily(of.address.family, address.family, this.#pools);
    const inShared = this.#inSharedAs(of, family);
    return inShared && { ...presence, of: inShared };
  }

  /** Returns the permits of a pair in a target's part, where the service may be a presence in the shared realm. */
  #permitsIn(index: number, { realm, service }: PairKey): readonly Permit[] {
    const plan = this.#plan;
    if (realm === this.#shared) {
      const ports = this.#uses.get(service.key)?.besides(index) ?? [];
      const ofOthers = ports.map((each) => ({ realm, service, ports: each, clients: this.#pools }));
      const own = plan.pair(realm, service)?.permits ?? [];
      return [...ofOthers, ...own.map((permit) => this.#withoutPools(permit))];
    }
    const behind =
      service.realm === this.#shared
        ? plan.presence(service.realm, service.address)?.of
        : undefined;
    if (behind === undefined || this.#isHere(index, behind.realm)) {
      return plan.pair(realm, service)?.permits ?? [];
    }
    const permits = plan.pair(realm, behind)?.permits ?? [];
    return permits.map((permit) => ({ ...permit, service }));
  }

  /** Returns a permit for the shared realm's own hosts alone. */
  #withoutPools(permit: Permit): Permit {
    const { clients } = permit;
    return { ...permit, clients: clients ? without(clients, this.#pools) : this.#hosts };
  }

  /**
   * Returns the presence of an IP version that the host has in the shared realm. Of several, it is the one that ends first:
   * the host's packets leave under that one.
   */
  #inSharedAs(of: Endpoint, family: Family): Endpoint | undefined {
    let first: Presence | undefined;
    for (const each of this.#plan.host(of).inShared.values()) {
      if (each.address.family !== family) continue;
      if (first === undefined || endOf(each) < endOf(first)) first = each;
    }
    return first && new Endpoint(this.#shared, first.address);
  }
}

function endOf({ formerUntil = Number.POSITIVE_INFINITY }: Presence): number {
  return formerUntil;
}

type PairKey = Pick<Pair, 'realm' | 'service'>;

/** What is touched in the parts, by the index of the target. */
class TouchedParts {
  readonly #parts = new Map<number, TouchedPart>();

  get indexes(): Iterable<number> {
    return this.#parts.keys();
  }

  of(index: number): TouchedPart {
    let part = this.#parts.get(index);
    if (part === undefined) {
      part = new TouchedPart();
      this.#parts.set(index, part);
    }
    return part;
  }
}

/** What is touched in a part. */
class TouchedPart {
  readonly realms = new Set<string>();
  readonly presences = new Map<string, { readonly realm: string; readonly address: IpAddress }>();
  readonly pairs = new Map<string, PairKey>();

  addPresence(realm: string, address: IpAddress): void {
    this.presences.set(`${realm} ${address}`, { realm, address });
  }

  addPair(realm: string, service: Endpoint): void {
    this.pairs.set(`${realm} ${service.key}`, { realm, service });
  }

  get isEmpty(): boolean {
    return this.realms.size + this.presences.size + this.pairs.size === 0;
  }
}
