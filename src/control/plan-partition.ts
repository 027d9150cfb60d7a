/**
 * One plan for several translators, each of which has its own sites, and all of them one realm, the
 * shared one: the cloud.
 *
 * A part has the shared realm and the translator's own sites. What is between these stays as it is. What
 * is between an own site and a foreign one, held by another translator, crosses the shared realm: there
 * both hosts are known by presences, and the kernel between the translators carries the packet from one
 * to the other.
 *
 * | plan | part of the clients' side | part of the service's side |
 * | --- | --- | --- |
 * | presence in A of (B, svc) | in A of (cloud, svc's presence there) | |
 * | presence in B of (A, client) | | in B of (cloud, client's presence there) |
 * | presences in the cloud of both | the client's | the service's |
 * | permit: A's clients to (B, svc) | A's clients to (cloud, svc's presence) | presences in the cloud to (B, svc) |
 *
 * The clients' side asks for the exact permit, in both directions. The other side lets in whoever has a
 * presence in the cloud and one in B, which only clients of B's services get.
 *
 * In each part the presences of foreign sites are hosts of the shared realm like others; its own hosts
 * stay out of what is meant for them, as permits name their prefixes.
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
  Presence,
  PresenceInput,
  Realm,
  TranslationPlan,
  TranslationPlanInput,
} from '../translator/index.ts';
import { compilePlan, compilePresence } from '../translator/plan.ts';
import type { PlanTarget } from './controller-options.ts';
import { without } from './prefixes.ts';
import { type RouteChange, SiteRoutes } from './site-routes.ts';
import { transitFamily } from './transit.ts';

export interface PlanPartitionOptions {
  /** The realm that all translators have. */
  readonly shared: string;
  readonly targets: readonly PlanTarget[];
  /** Index of the target that holds a site; it may change, see `reload`. */
  readonly holderOf: (site: string) => number;
  /** Told where presences in the shared realm lead to, before the targets know of them; default nobody. */
  readonly onRoutes?: (changes: readonly RouteChange[]) => void;
}

/** Itself what a controller tells its plan to. That controller's `transit` is the shared realm. */
export class PlanPartition implements PlanTarget {
  readonly #shared: string;
  readonly #targets: readonly PlanTarget[];
  readonly #holderOf: (site: string) => number;
  readonly #onRoutes: (changes: readonly RouteChange[]) => void;
  readonly #routes: SiteRoutes;
  #plan: TranslationPlan = { realms: [], presences: [], permits: [] };
  /** By the texts of realm and address. */
  #presences = new Map<string, Presence>();
  #pools: readonly IpPrefix[] = [];
  /** The shared realm's own hosts, as prefixes. */
  #hosts: readonly IpPrefix[] = [];
  /** Services that are open to other realms than the shared one. */
  #services: ReadonlySet<string> = new Set();
  /** By key of an endpoint and IP version: its address in the shared realm. */
  #inShared = new Map<string, IpAddress>();
  /** By key of an endpoint: its presences in other realms. */
  #elsewhere = new Map<string, Presence[]>();

  /** @throws {ApiMisuseError} naming the option that is wrong. */
  constructor(options: PlanPartitionOptions) {
    const { shared, targets, holderOf, onRoutes = () => {} } = checkObject('options', options);
    checkText('shared', shared);
    checkThat('targets', targets, Array.isArray(targets), 'a list');
    for (const [i, target] of targets.entries()) {
      checkMethods(`targets[${i}]`, target, ['load', 'bind']);
    }
    checkFunction('holderOf', holderOf);
    checkFunction('onRoutes', onRoutes);
    this.#shared = shared;
    this.#targets = targets;
    this.#holderOf = holderOf;
    this.#onRoutes = onRoutes;
    this.#routes = new SiteRoutes(shared);
  }

  /** The routes to the presences in the shared realm: site by prefix. */
  get routes(): ReadonlyMap<string, string> {
    return this.#routes.routes;
  }

  /** @throws {ConfigError} naming the place in the plan that is wrong; the old plan stays then. */
  load(input: TranslationPlanInput): void {
    const plan = compilePlan(input);
    this.#plan = plan;
    this.#presences = new Map();
    this.#inShared = new Map();
    this.#elsewhere = new Map();
    const shared = plan.realms.find(({ name }) => name === this.#shared);
    this.#pools = shared?.pools ?? [];
    this.#hosts = without(shared?.sources ?? [], this.#pools);
    const between = plan.permits.filter(({ realm }) => realm !== this.#shared);
    this.#services = new Set(between.map(({ service }) => service.key));
    for (const presence of plan.presences) this.#note(presence);
    this.#onRoutes(this.#routes.load(plan));
    this.#reloadAll();
  }

  /** @throws {ConfigError} if it is not a presence. */
  bind(input: PresenceInput): void {
    const presence = compilePresence(input, () => 'presence');
    const { realm, of } = presence;
    if (!this.#note(presence)) return;
    if (realm !== this.#shared) {
      this.#bindIn(this.#holderOf(realm), presence);
      return;
    }
    const changes = this.#routes.bind(presence);
    this.#onRoutes(changes);
    const isShared = changes.some(({ site }) => site === undefined);
    if (isShared || this.#services.has(of.key)) {
      // A block is no site's own any more; or permits name a service by this address.
      this.#reloadAll();
      return;
    }
    this.#bindIn(this.#holderOf(of.realm), presence);
    for (const other of this.#elsewhere.get(of.key) ?? []) {
      this.#bindIn(this.#holderOf(other.realm), other);
    }
  }

  /** Gives one target its part anew: sites have moved, or it has lost it. */
  reload(index: number): void {
    this.#targets[index]!.load(this.part(index));
  }

  /** What a target has to know, with all that was bound since the plan was loaded. */
  part(index: number): TranslationPlan {
    const { realms, permits } = this.#plan;
    return {
      realms: realms.flatMap((realm): Realm[] => {
        if (realm.name === this.#shared) return [this.#sharedRealm(realm, index)];
        return this.#holderOf(realm.name) === index ? [realm] : [];
      }),
      presences: [...this.#presences.values()].flatMap(
        (presence) => this.#presenceIn(index, presence) ?? []
      ),
      permits: permits.flatMap((permit) => this.#permitsIn(index, permit)),
    };
  }

  /** Returns false if it was known. */
  #note(presence: Presence): boolean {
    const { realm, address, of } = presence;
    const place = `${realm} ${address}`;
    if (this.#presences.has(place)) return false;
    this.#presences.set(place, presence);
    const { key } = of;
    const elsewhere = this.#elsewhere.get(key);
    if (realm === this.#shared) this.#inShared.set(`${key} IPv${address.family}`, address);
    else if (elsewhere === undefined) this.#elsewhere.set(key, [presence]);
    else elsewhere.push(presence);
    return true;
  }

  #reloadAll(): void {
    for (let index = 0; index < this.#targets.length; index++) this.reload(index);
  }

  #bindIn(index: number, presence: Presence): void {
    const part = this.#presenceIn(index, presence);
    if (part !== undefined) this.#targets[index]!.bind(part);
  }

  #isHere(index: number, realm: string): boolean {
    return realm === this.#shared || this.#holderOf(realm) === index;
  }

  /** Foreign presences may send from there; only the target's own are presences to it. */
  #sharedRealm(realm: Realm, index: number): Realm {
    const pools = [...this.#routes.list()].flatMap(({ prefix, site }) =>
      this.#holderOf(site) === index ? [prefix] : []
    );
    return { ...realm, sources: [...realm.sources, ...(realm.pools ?? [])], pools };
  }

  /** Undefined if the target has nothing to do with it, or what it needs is not there yet. */
  #presenceIn(index: number, presence: Presence): Presence | undefined {
    const { realm, address, of } = presence;
    if (realm === this.#shared) return this.#holderOf(of.realm) === index ? presence : undefined;
    if (this.#holderOf(realm) !== index) return undefined;
    if (this.#isHere(index, of.realm)) return presence;
    const family = transitFamily(of.address.family, address.family, this.#pools);
    const standIn = this.#inSharedAs(of, family);
    return standIn && { realm, address, of: standIn };
  }

  #permitsIn(index: number, permit: Permit): Permit[] {
    const { realm, service, ports, clients } = permit;
    if (realm === this.#shared) {
      if (this.#holderOf(service.realm) !== index) return [];
      return [{ ...permit, clients: clients ? without(clients, this.#pools) : this.#hosts }];
    }
    const isServiceHere = this.#isHere(index, service.realm);
    if (this.#holderOf(realm) === index) {
      if (isServiceHere) return [permit];
      // Whichever of its presences in the clients' realm they use.
      const standIns = FAMILIES.flatMap((family) => this.#inSharedAs(service, family) ?? []);
      return standIns.map((standIn) => ({ ...permit, service: standIn }));
    }
    if (!isServiceHere || service.realm === this.#shared) return [];
    return [{ realm: this.#shared, service, ports, clients: this.#pools }];
  }

  #inSharedAs(of: Endpoint, family: Family): Endpoint | undefined {
    const address = this.#inShared.get(`${of.key} IPv${family}`);
    return address && new Endpoint(this.#shared, address);
  }
}

const FAMILIES: readonly Family[] = [4, 6];
