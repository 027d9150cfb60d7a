/**
 * Gathers by keys what the translator's plan lacks, and makes the changes of the plan from the present state. A key may
 * be noted without a difference, and stays until the translator has it.
 * @module
 */
import type { Permit, PlanChanges, Realm } from '../translator/index.ts';
import type { DesiredIndex } from './desired-index.ts';
import { byService } from './exposed-service.ts';
import { type IndexChanges, type PermitPair, permitKey } from './index-changes.ts';
import type { Place, TouchedLeases } from './lease-state.ts';
import type { LeaseTable } from './lease-table.ts';
import { permitOf, realmOf } from './plan.ts';
import { presenceKey } from './presence-key.ts';

type RealmChange = NonNullable<PlanChanges['realms']>[number];
type PresenceChange = NonNullable<PlanChanges['presences']>[number];
type PermitChange = NonNullable<PlanChanges['permits']>[number];

export class PendingPlan {
  readonly #desired: DesiredIndex;
  readonly #leases: LeaseTable;
  /** Returns whether a site takes part. */
  readonly #isLive: (site: string) => boolean;
  /** The realms that the translator has. */
  #inPlan = new Map<string, Realm>();
  readonly #realms = new Set<string>();
  /** Keyed by realm and address. */
  readonly #places = new Map<string, Place>();
  /** Keyed by realm and endpoint. */
  readonly #permits = new Map<string, PermitPair>();

  constructor(desired: DesiredIndex, leases: LeaseTable, isLive: (site: string) => boolean) {
    this.#desired = desired;
    this.#leases = leases;
    this.#isLive = isLive;
  }

  /** Notes what has changed in the desired state. */
  noteDesired({ sites, permits }: IndexChanges): void {
    for (const name of sites) this.#realms.add(name);
    for (const [key, pair] of permits) this.#permits.set(key, pair);
  }

  /** Notes where presences may have come or gone, and realms whose prefixes of presences may have changed. */
  noteLeases({ places, realms }: Pick<TouchedLeases, 'places' | 'realms'>): void {
    for (const [key, place] of places) this.#places.set(key, place);
    for (const name of realms) this.#realms.add(name);
  }

  /**
   * Notes that a site has come into the plan or has left it, although nothing else has changed.
   *
   * @returns the sites that see a difference
   */
  noteSite(name: string): ReadonlySet<string> {
    const views = new Set([name]);
    this.#realms.add(name);
    for (const { realm, address } of this.#leases.presencesOf(name)) {
      this.#places.set(`${realm} ${address}`, { realm, address });
      views.add(realm);
    }
    for (const other of this.#desired.clientsOf(name)) {
      for (const { home } of this.#desired.exposedFrom(name, other)) {
        this.#permits.set(permitKey(other, home), { realm: other, service: home });
      }
    }
    return views;
  }

  /** Forgets everything: the translator has the whole plan. */
  loaded(): void {
    const live = [...this.#desired.sites.values()].filter(({ name }) => this.#isLive(name));
    this.#inPlan = new Map(
      live.map((site) => [site.name, realmOf(site, this.#leases.poolsOf(site))])
    );
    this.#clear();
  }

  /** Forgets what was noted, because the translator has the changes. */
  applied({ realms = [] }: PlanChanges): void {
    for (const { name, realm } of realms) {
      if (realm === undefined) this.#inPlan.delete(name);
      else this.#inPlan.set(name, realm);
    }
    this.#clear();
  }

  /** Returns the changes that make the plan equal to the present state; undefined if there are none. */
  changes(): PlanChanges | undefined {
    const realms = this.#realmChanges();
    const places = this.#places;
    const pairs = this.#permits;
    // A realm that comes into the plan brings everything that is in it.
    for (const { name, realm } of realms) {
      if (realm === undefined || this.#inPlan.has(name)) continue;
      for (const { address } of this.#leases.presencesIn(name)) {
        places.set(`${name} ${address}`, { realm: name, address });
      }
      for (const { home: service, exposed } of this.#desired.hostsIn(name).values()) {
        if (exposed.length > 0) pairs.set(permitKey(name, service), { realm: name, service });
      }
    }
    const presences = this.#presenceChanges(places.values());
    const permits = this.#permitChanges(pairs.values());
    if (realms.length + presences.length + permits.length === 0) return undefined;
    return { realms, presences, permits };
  }

  #realmChanges(): RealmChange[] {
    const changes: RealmChange[] = [];
    for (const name of this.#realms) {
      const site = this.#isLive(name) ? this.#desired.sites.get(name) : undefined;
      const realm: Realm | undefined = site && realmOf(site, this.#leases.poolsOf(site));
      if (textOf(realm) !== textOf(this.#inPlan.get(name))) changes.push({ name, realm });
    }
    return changes;
  }

  /** What is in a realm that does not take part has gone with it. */
  #presenceChanges(places: Iterable<Place>): PresenceChange[] {
    const changes: PresenceChange[] = [];
    for (const { realm, address } of places) {
      if (!this.#isLive(realm)) continue;
      const presence = this.#leases.presenceAt(realm, address);
      const isThere = presence !== undefined && this.#isLive(presence.of.realm);
      changes.push(isThere ? presence : { realm, address, of: undefined });
    }
    return changes;
  }

  #permitChanges(pairs: Iterable<PermitPair>): PermitChange[] {
    const changes: PermitChange[] = [];
    for (const { realm, service } of pairs) {
      if (!this.#isLive(realm)) continue;
      changes.push({ realm, service, permits: this.#permitsOf(realm, service) });
    }
    return changes;
  }

  #permitsOf(realm: string, service: PermitPair['service']): Permit[] {
    if (!this.#isLive(service.realm)) return [];
    return FAMILIES.flatMap((family) => {
      const host = this.#desired.hostIn(realm, presenceKey(service.key, family));
      return host === undefined ? [] : [...host.exposed].sort(byService).map(permitOf);
    });
  }

  #clear(): void {
    this.#realms.clear();
    this.#places.clear();
    this.#permits.clear();
  }
}

function textOf(realm: Realm | undefined): string | undefined {
  return realm && JSON.stringify(realm);
}

const FAMILIES = [4, 6] as const;
