/**
 * Warns when addresses get scarce, before a client is refused one. It gives each warning once, until its reason is gone.
 * @module
 */

import type { AllocatorStats } from '../allocator/index.ts';
import type { Family } from '../base/address.ts';
import type { DesiredIndex } from './desired-index.ts';
import type { LeaseTable } from './lease-table.ts';
import { QuotaWatch } from './quota-watch.ts';
import { FAMILIES, isNearly, RELIEVED } from './realm-leases.ts';

/** A warning for the operator. */
export interface PoolWarning {
  /**
   * `quotas`: the `maxClients` of the sites allow more clients than a pool has room for. `clientShare`: the option is
   * higher than what each site can have, so that it has no effect. `pool`: four fifths of a pool are used. `share`: a
   * site holds four fifths of what it can have in another one.
   */
  readonly kind: 'quotas' | 'clientShare' | 'pool' | 'share';
  /** The site that the pool belongs to. */
  readonly realm: string;
  /** The clients' site; for `share` only. */
  readonly site?: string;
  /** One sentence that says what is wrong and what to do. */
  readonly message: string;
}

/** The pools of a site. */
export interface PoolStatus extends AllocatorStats {
  /** One entry for each IP version of its pools. */
  readonly versions: readonly PoolVersionStatus[];
}

export interface PoolVersionStatus extends AllocatorStats {
  readonly family: Family;
  /** How many addresses all clients can have together, beside services and their reserve. */
  readonly room: number;
  /** How many of these each site is sure of. */
  readonly share: number;
  /** The sites that have, or can have, clients there. */
  readonly clients: readonly {
    readonly site: string;
    /** Addresses in use or in quarantine. */
    readonly held: number;
    /** How many addresses it could hold now if no other site took any. */
    readonly limit: number;
  }[];
}

export class PoolWatch {
  readonly #leases: LeaseTable;
  readonly #desired: DesiredIndex;
  /** Keyed by subject. */
  readonly #warnings = new Map<string, PoolWarning>();
  /** Keyed by realm: the subjects of its warnings, without that of the quotas. */
  readonly #subjects = new Map<string, Set<string>>();
  readonly #quotas = new QuotaWatch();
  /** Keyed by realm: the sites whose part of its pools may have changed since these were checked. */
  readonly #touched = new Map<string, Set<string>>();

  constructor(desired: DesiredIndex, leases: LeaseTable) {
    this.#desired = desired;
    this.#leases = leases;
  }

  /** The warnings whose reasons are not gone. */
  get warnings(): PoolWarning[] {
    // What a site can have also grows when others release addresses.
    for (const { kind, realm, site } of [...this.#warnings.values()]) {
      if (kind === 'pool') this.#checkPools(realm);
      if (kind === 'share') this.#checkSite(realm, site!);
    }
    return [...this.#warnings.values()];
  }

  status(realm: string): PoolStatus | undefined {
    const leases = this.#leases.realm(realm);
    if (leases === undefined) return undefined;
    const { allocator, shares } = leases;
    const versions = FAMILIES.flatMap((family): PoolVersionStatus[] => {
      const stats = allocator.statsOf(family);
      if (stats.capacity === 0) return [];
      const { room, share, parties } = shares[family];
      const clients = [...parties].sort().map((site) => ({
        site,
        held: shares[family].heldBy(site),
        limit: shares[family].limitOf(site),
      }));
      return [{ family, ...stats, room, share, clients }];
    });
    return { ...allocator.stats, versions };
  }

  /** Notes, by realm, the sites whose part of its pools may have changed. */
  note(pools: ReadonlyMap<string, ReadonlySet<string>>): void {
    for (const [realm, sites] of pools) {
      const known = this.#touched.get(realm);
      if (known === undefined) this.#touched.set(realm, new Set(sites));
      else for (const site of sites) known.add(site);
    }
  }

  /** Checks the pools that have changed since the last call, and returns the new warnings. */
  check(): PoolWarning[] {
    const touched = this.#touched;
    const found: PoolWarning[] = [];
    for (const realm of touched.keys()) this.#noteQuotas(realm);
    found.push(...this.#checkQuotas());
    for (const [realm, sites] of touched) {
      if (!this.#desired.sites.has(realm)) {
        for (const subject of [...(this.#subjects.get(realm) ?? [])]) this.#end(subject);
        continue;
      }
      for (const family of FAMILIES) found.push(...this.#checkClientShare(realm, family));
      found.push(...this.#checkPools(realm));
      for (const site of sites) found.push(...this.#checkSite(realm, site));
    }
    touched.clear();
    return found;
  }

  #noteQuotas(realm: string): void {
    const leases = this.#leases.realm(realm);
    if (leases === undefined) {
      this.#quotas.delete(realm);
      return;
    }
    for (const family of FAMILIES) {
      const quota = this.#desired.clientSitesOf(realm, family).total;
      this.#quotas.set({ realm, family, quota, room: leases.shares[family].room });
    }
  }

  /** Makes one warning for all pools, about the pool that is exceeded most. */
  #checkQuotas(): PoolWarning[] {
    const subject = 'quotas';
    const { worst } = this.#quotas;
    if (worst === undefined) {
      this.#warnings.delete(subject);
      return [];
    }
    const others = this.#quotas.count - 1;
    const { realm, family, quota, room } = worst;
    const { size } = this.#desired.clientSitesOf(realm, family).quotas;
    const { share } = this.#leases.realm(realm)!.shares[family];
    const who = size === 1 ? 'the maxClients of 1 site is' : `the maxClients of ${size} sites are`;
    const more = others === 0 ? '' : `, and so in ${others} other pool${others === 1 ? '' : 's'}`;
    const message = `${who} ${quota} in all, but the IPv${family} pools of "${realm}" have room for ${room} clients, of which each site is sure of ${share}${more}: enlarge the pools, lower maxClients, or set the clientShare of "${realm}"`;
    const isKnown = this.#warnings.get(subject)?.message === message;
    const warning: PoolWarning = { kind: 'quotas', realm, message };
    this.#warnings.set(subject, warning);
    return isKnown ? [] : [warning];
  }

  #checkClientShare(realm: string, family: Family): PoolWarning[] {
    const subject = `clientShare ${realm} IPv${family}`;
    const { allocator, shares } = this.#leases.realm(realm)!;
    const { room, share } = shares[family];
    const wanted = this.#desired.sites.get(realm)!.clientShare ?? 0;
    if (wanted <= share || allocator.statsOf(family).capacity === 0) {
      this.#end(subject);
      return [];
    }
    const { size } = this.#desired.clientSitesOf(realm, family).quotas;
    const message = `the clientShare of "${realm}" is ${wanted}, but its IPv${family} pools have room for ${room} clients, and with ${size} site${size === 1 ? '' : 's'} and one that may come each is sure of ${share}: enlarge the pools, or lower clientShare to ${share}`;
    // It is given again when its text has changed.
    const isKnown = this.#warnings.get(subject)?.message === message;
    const warning: PoolWarning = { kind: 'clientShare', realm, message };
    this.#begin(subject, warning);
    return isKnown ? [] : [warning];
  }

  #checkPools(realm: string): PoolWarning[] {
    const leases = this.#leases.realm(realm);
    return FAMILIES.flatMap((family) => {
      const stats = leases?.allocator.statsOf(family);
      if (stats === undefined) return [];
      const { capacity, leased, quarantined } = stats;
      const used = leased + quarantined;
      const message = `${used} of the ${capacity} IPv${family} addresses of "${realm}" are used: enlarge its pools, or release the clients of sites that need none any more`;
      const subject = `pool ${realm} IPv${family}`;
      return this.#judge(subject, used, capacity, { kind: 'pool', realm, message });
    });
  }

  #checkSite(realm: string, site: string): PoolWarning[] {
    return FAMILIES.flatMap((family) => this.#checkShare(realm, family, site));
  }

  #checkShare(realm: string, family: Family, site: string): PoolWarning[] {
    const leases = this.#leases.realm(realm);
    if (leases === undefined) return [];
    const ofShare = `share ${realm} IPv${family} ${site}`;
    const ofClients = `clients ${realm} ${site}`;
    const maxClients = this.#desired.clientSitesOf(realm, family).quotas.get(site);
    if (maxClients === undefined) {
      this.#end(ofShare);
      const other = this.#desired.clientSitesOf(realm, family === 4 ? 6 : 4).quotas;
      if (!other.has(site)) this.#end(ofClients);
      return [];
    }
    const shares = leases.shares[family];
    const held = shares.heldBy(site);
    const limit = held === 0 ? 0 : shares.limitOf(site);
    const hosts = leases.uses.hostCount(site);
    return [
      ...this.#judge(ofShare, held, limit, {
        kind: 'share',
        realm,
        site,
        message: `"${site}" holds ${held} of the ${limit} IPv${family} addresses that it can have in "${realm}": enlarge the pools of "${realm}", or set its clientShare`,
      }),
      ...this.#judge(ofClients, hosts, maxClients, {
        kind: 'share',
        realm,
        site,
        message: `"${site}" has ${hosts} clients in "${realm}", and its maxClients is ${maxClients}: raise it, or find out why there are so many`,
      }),
    ];
  }

  #judge(subject: string, held: number, limit: number, warning: PoolWarning): PoolWarning[] {
    if (isNearly(held, limit)) {
      const isKnown = this.#warnings.has(subject);
      this.#begin(subject, warning);
      return isKnown ? [] : [warning];
    }
    if (held <= RELIEVED * limit) this.#end(subject);
    return [];
  }

  #begin(subject: string, warning: PoolWarning): void {
    this.#warnings.set(subject, warning);
    const subjects = this.#subjects.get(warning.realm);
    if (subjects === undefined) this.#subjects.set(warning.realm, new Set([subject]));
    else subjects.add(subject);
  }

  #end(subject: string): void {
    const warning = this.#warnings.get(subject);
    if (warning === undefined) return;
    this.#warnings.delete(subject);
    const subjects = this.#subjects.get(warning.realm)!;
    subjects.delete(subject);
    if (subjects.size === 0) this.#subjects.delete(warning.realm);
  }
}
