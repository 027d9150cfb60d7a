/**
 * The names of the cloud's own site, for its DNS clients and for `lookup`. They never leave this process, so they follow
 * the plan and the desired state by keys: a change of a few names patches these in the zone, however many there are. A
 * change of many names is followed in slices: some of them come a moment after the presences.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { HostNames } from '../base/host-names.ts';
import { type Slices, slicesOf } from '../base/slices.ts';
import {
  NameIndex,
  type PlanTarget,
  type PresenceController,
  type Snapshot,
  type SnapshotHost,
  zoneDataOf,
  zonePatchOf,
} from '../control/index.ts';
import { type DnsServer, Zone } from '../dns/index.ts';
import { NotFoundError } from '../errors.ts';
import { CLOUD, type Registry } from '../registry/index.ts';
import { hostsNamed } from './site-names.ts';

export interface CloudNamesOptions {
  readonly registry: Registry;
  readonly ttlSeconds: number;
  /** Whether packets between sites cross the cloud. */
  readonly isTransit: boolean;
  /** Its wall clock begins the revisions, so that they grow across restarts. */
  readonly clock: Clock;
  /** Is called if names cannot be in the zone, because a set of records is too long for a message. */
  readonly onError: (error: Error) => void;
}

export class CloudNames {
  readonly #options: CloudNamesOptions;
  readonly #slices: Slices;
  readonly #index: NameIndex;
  #dns: DnsServer | undefined;
  #zone: Zone | undefined;
  /** The zone that replaces the present one when all names are in it. */
  #next: Zone | undefined;
  #isFollowing = false;
  #revision: number;
  /** Finds aliases and what wildcards cover; undefined until somebody asks after a change. */
  #finder: HostNames | undefined;

  /** It follows the registry until that is closed. */
  constructor(options: CloudNamesOptions) {
    const { registry, isTransit, clock } = options;
    this.#options = options;
    this.#slices = slicesOf(clock);
    this.#index = new NameIndex({ site: CLOUD, desired: registry, isTransit });
    this.#revision = Math.floor(clock.wallMs());
    registry.on('change', (touched) => {
      this.#index.touch(touched);
      if (touched.sites.has(CLOUD)) this.#setSources();
      this.#update();
    });
  }

  /** Returns a target that names presences after `target` has them. */
  after(target: PlanTarget): PlanTarget {
    return {
      ...(target.planned && { planned: (realm) => target.planned!(realm) }),
      load: (plan) => {
        target.load(plan);
        this.#index.load(plan);
        this.#updateAll();
      },
      apply: (changes) => {
        target.apply(changes);
        this.#index.apply(changes);
        this.#update();
      },
    };
  }

  /** Makes a server answer with these names from now on. */
  serve(dns: DnsServer): void {
    this.#dns = dns;
    this.#setSources();
    this.#updateAll();
    this.#zone = this.#compile(this.#index.all);
    if (this.#zone !== undefined) dns.setZone(this.#zone);
  }

  /**
   * Returns the hosts that a name resolves to.
   *
   * @param name a full domain name, or a name within the site's zone; it may be an alias, and one that only a wildcard
   *   covers must be full
   */
  lookup(name: string): readonly SnapshotHost[] {
    const zone = this.#options.registry.site(CLOUD)?.zone ?? '';
    this.#finder ??= new HostNames(zone, this.#index.all.hosts);
    const found = this.#finder.find(name);
    return found === undefined ? [] : this.#index.hostsNamed(found);
  }

  /** Follows what has changed: a few hosts at once, many in slices. */
  #update(): void {
    if (this.#isFollowing || this.#isDone(STEPS_AT_ONCE)) return;
    this.#isFollowing = true;
    this.#slices.later(this.#onSlice);
  }

  readonly #onSlice = (): void => {
    if (this.#isDone(1)) this.#isFollowing = false;
    else this.#slices.later(this.#onSlice);
  };

  #isDone(atLeast: number): boolean {
    try {
      return this.#slices.run(this.#follow(), atLeast);
    } catch (error) {
      // The names of a few hosts are missing; the others follow.
      this.#options.onError(error as Error);
      return false;
    }
  }

  *#follow(): Generator<void> {
    while (this.#index.isBehind) {
      this.#take(HOSTS_PER_STEP);
      yield;
    }
    if (this.#next !== undefined) this.#serveNext(this.#next);
  }

  /** Follows all that has changed at once. */
  #updateAll(): void {
    while (this.#index.isBehind) this.#take();
    if (this.#next !== undefined) this.#serveNext(this.#next);
  }

  #take(most?: number): void {
    const changed = this.#index.take(most);
    if (changed === undefined) return;
    this.#finder = undefined;
    this.#revision++;
    if (changed === 'everything') {
      this.#next = this.#compile({ hosts: [], pointers: [] });
      return;
    }
    const zone = this.#next ?? this.#zone;
    if (zone === undefined) return;
    // A new zone has no names of the former one.
    const names = changed.names.filter((name) => isWithin(`${name}.`, zone.origin));
    zone.patch(zonePatchOf({ revision: this.#revision, ...changed, names }));
  }

  #serveNext(zone: Zone): void {
    this.#next = undefined;
    this.#zone = zone;
    this.#dns!.setZone(zone);
  }

  /** Returns a zone with some names; undefined if there is no server for it, or no site. */
  #compile(names: Pick<Snapshot, 'hosts' | 'pointers'>): Zone | undefined {
    const { registry, ttlSeconds } = this.#options;
    const site = registry.site(CLOUD);
    if (site === undefined || this.#dns === undefined) return undefined;
    const { sources } = site;
    const pools = this.#index.pools ?? site.pools;
    const zone = site.zone.toLowerCase();
    const head = { revision: this.#revision, site: CLOUD, sources, pools, zone, ttlSeconds };
    return Zone.compile(zoneDataOf({ ...head, ...names }, [this.#dns.address.host]));
  }

  #setSources(): void {
    const site = this.#options.registry.site(CLOUD);
    if (site !== undefined) this.#dns?.setSources(site.sources);
  }
}

/**
 * Returns the hosts that a name resolves to at a site.
 *
 * @throws {NotFoundError} if there is no such site.
 */
export function lookupAt(
  { names, registry, controller }: LookupParts,
  name: string,
  site: string
): readonly SnapshotHost[] {
  if (site === CLOUD) return names.lookup(name);
  if (registry.site(site) === undefined) throw new NotFoundError(`"${site}" is not a site`);
  return hostsNamed(controller.snapshot(site), name);
}

interface LookupParts {
  readonly names: CloudNames;
  readonly registry: Registry;
  readonly controller: PresenceController;
}

/** Returns whether a name is an origin or a name within it, both with the trailing dot. */
function isWithin(name: string, origin: string): boolean {
  return name === origin || name.endsWith(`.${origin}`);
}

/** How many hosts are renamed without a look at the time, and after how many such steps it is looked at first. */
const HOSTS_PER_STEP = 8;
const STEPS_AT_ONCE = 4;
