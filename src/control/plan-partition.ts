/**
 * Divides one plan among several translators. Each of them has its own sites, and all of them have the shared realm,
 * the cloud.
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
  /** Returns the index of the target that holds a site. It may change; see `reload`. */
  readonly holderOf: (site: string) => number;
  /** Is called with changed routes to presences in the shared realm, before the targets get these. Default: none. */
  readonly onRoutes?: (changes: readonly RouteChange[]) => void;
}

/** Receives the plan of a controller whose `transit` is the shared realm, and divides it. */
export class PlanPartition implements PlanTarget {
  readonly #shared: string;
  readonly #targets: readonly PlanTarget[];
  readonly #holderOf: (site: string) => number;
  readonly #onRoutes: (changes: readonly RouteChange[]) => void;
  readonly #routes: SiteRoutes;
  #plan: TranslationPlan = { realms: [], presences: [], permits: [] };
  /** Keyed by the texts of realm and address. */
  #presences = new Map<string, Presence>();
  #pools: readonly IpPrefix[] = [];
  /** The shared realm's own hosts, as prefixes. */
  #hosts: readonly IpPrefix[] = [];
  /** The keys of services that other realms than the shared one may use. */
  #services: ReadonlySet<string> = new Set();
  /** Keyed by the key of an endpoint and IP version: its address in the shared realm. */
  #inShared = new Map<string, IpAddress>();
  /** Keyed by the key of an endpoint: its presences in other realms. */
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

  /** The routes to the presences in the shared realm: the site by the text of a prefix. */
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
      // A block does not belong to one site any more, or permits name a service by this address.
      this.#reloadAll();
      return;
    }
    this.#bindIn(this.#holderOf(of.realm), presence);
    for (const other of this.#elsewhere.get(of.key) ?? []) {
      this.#bindIn(this.#holderOf(other.realm), other);
    }
  }

  /** Loads a target's part again, because sites have moved or the target has lost it. */
  reload(index: number): void {
    this.#targets[index]!.load(this.part(index));
  }

  /** Returns the part of a target, with the presences that were bound since the plan was loaded. */
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

  /** Notes a presence. Returns false if it is known already. */
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

  /** Returns the shared realm with the pools as sources too: only the target's own presences are presences to it. */
  #sharedRealm(realm: Realm, index: number): Realm {
    const pools = [...this.#routes.list()].flatMap(({ prefix, site }) =>
      this.#holderOf(site) === index ? [prefix] : []
    );
    return { ...realm, sources: [...realm.sources, ...(realm.pools ?? [])], pools };
  }

  /** Returns a presence as a target knows it; undefined if it does not need it, or a presence in transit is missing. */
  #presenceIn(index: number, presence: Presence): Presence | undefined {
    const { realm, address, of } = presence;
    if (realm === this.#shared) return this.#holderOf(of.realm) === index ? presence : undefined;
    if (this.#holderOf(realm) !== index) return undefined;
    if (this.#isHere(index, of.realm)) return presence;
    const family = transitFamily(of.address.family, address.family, this.#pools);
    const inShared = this.#inSharedAs(of, family);
    return inShared && { realm, address, of: inShared };
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
      // Clients may use any of its presences in their realm.
      const inShared = FAMILIES.flatMap((family) => this.#inSharedAs(service, family) ?? []);
      return inShared.map((endpoint) => ({ ...permit, service: endpoint }));
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
