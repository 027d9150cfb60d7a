/**
 * The names of the cloud's own site, for its DNS clients and for `lookup`. They never leave this process, so they follow
 * the plan and the desired state by keys: a change of a few names patches these in the zone, however many there are.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { HostNames } from '../base/host-names.ts';
import {
  NameIndex,
  type PlanTarget,
  type SnapshotHost,
  zoneDataOf,
  zonePatchOf,
} from '../control/index.ts';
import { type DnsServer, Zone } from '../dns/index.ts';
import { CLOUD, type Registry } from '../registry/index.ts';

export interface CloudNamesOptions {
  readonly registry: Registry;
  readonly ttlSeconds: number;
  /** Whether packets between sites cross the cloud. */
  readonly isTransit: boolean;
  /** Its wall clock begins the revisions, so that they grow across restarts. */
  readonly clock: Clock;
}

export class CloudNames {
  readonly #options: CloudNamesOptions;
  readonly #index: NameIndex;
  #dns: DnsServer | undefined;
  #zone: Zone | undefined;
  #revision: number;
  /** Finds aliases and what wildcards cover; undefined until somebody asks after a change. */
  #finder: HostNames | undefined;

  /** It follows the registry until that is closed. */
  constructor(options: CloudNamesOptions) {
    const { registry, isTransit, clock } = options;
    this.#options = options;
    this.#index = new NameIndex({ site: CLOUD, desired: registry, isTransit });
    this.#revision = Math.floor(clock.wallMs());
    registry.on('change', (touched) => {
      this.#index.touch(touched);
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
        this.#update();
      },
      bind: (presence) => {
        target.bind(presence);
        this.#index.apply({ presences: [presence] });
        this.#update();
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
    this.#compile(dns);
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

  #update(): void {
    const changed = this.#index.take();
    if (changed === undefined) return;
    this.#finder = undefined;
    this.#revision++;
    if (this.#dns === undefined) return;
    if (changed === 'everything') this.#compile(this.#dns);
    else this.#zone?.patch(zonePatchOf({ revision: this.#revision, ...changed }));
  }

  #compile(dns: DnsServer): void {
    const { registry, ttlSeconds } = this.#options;
    const site = registry.site(CLOUD);
    if (site === undefined) return;
    const { sources, pools } = site;
    const zone = site.zone.toLowerCase();
    const head = { revision: this.#revision, site: CLOUD, sources, pools, zone, ttlSeconds };
    this.#zone = Zone.compile(zoneDataOf({ ...head, ...this.#index.all }, [dns.address.host]));
    dns.setSources(sources);
    dns.setZone(this.#zone);
  }
}
