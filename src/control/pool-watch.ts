/**
 * Warns when addresses get scarce, before a client is refused one. It gives each warning once, until its reason is gone.
 * @module
 */

import type { AllocatorStats } from '../allocator/index.ts';
import type { Family } from '../base/address.ts';
import type { DesiredIndex } from './desired-index.ts';
import type { LeaseTable } from './lease-table.ts';
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
  /** Keyed by subject. */
  readonly #warnings = new Map<string, PoolWarning>();

  constructor(leases: LeaseTable) {
    this.#leases = leases;
  }

  /** The warnings whose reasons are not gone. */
  get warnings(): PoolWarning[] {
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
      const clients = [...parties].map((site) => ({
        site,
        held: shares[family].heldBy(site),
        limit: shares[family].limitOf(site),
      }));
      return [{ family, ...stats, room, share, clients }];
    });
    return { ...allocator.stats, versions };
  }

  /** Checks everything, and returns the new warnings. */
  checkAll(desired: DesiredIndex): PoolWarning[] {
    for (const [key, { realm, site }] of this.#warnings) {
      const isThere = desired.sites.has(realm) && (site === undefined || desired.sites.has(site));
      if (!isThere) this.#warnings.delete(key);
    }
    const found = this.#checkQuotas(desired);
    for (const realm of desired.sites.keys()) {
      for (const family of FAMILIES) {
        found.push(...this.#checkClientShare(desired, realm, family));
        found.push(...this.#checkPool(realm, family));
        for (const [site, maxClients] of desired.clientSitesOf(realm, family)) {
          found.push(...this.#checkShare(realm, family, site, maxClients));
        }
      }
    }
    return found;
  }

  /** Checks what a site has in a realm, and the realm's pool; returns the new warnings. */
  check(realm: string, family: Family, site: string, maxClients: number): PoolWarning[] {
    return [
      ...this.#checkPool(realm, family),
      ...this.#checkShare(realm, family, site, maxClients),
    ];
  }

  /** Makes one warning for all pools, about the pool that is exceeded most. */
  #checkQuotas(desired: DesiredIndex): PoolWarning[] {
    let worst: { realm: string; family: Family; quota: number; room: number } | undefined;
    let others = 0;
    for (const realm of desired.sites.keys()) {
      for (const family of FAMILIES) {
        const sites = desired.clientSitesOf(realm, family);
        const quota = [...sites.values()].reduce((sum, maxClients) => sum + maxClients, 0);
        const room = this.#leases.realm(realm)?.shares[family].room ?? 0;
        if (quota <= room) continue;
        if (worst !== undefined) others++;
        if (worst === undefined || quota - room > worst.quota - worst.room) {
          worst = { realm, family, quota, room };
        }
      }
    }
    const key = 'quotas';
    if (worst === undefined) {
      this.#warnings.delete(key);
      return [];
    }
    const { realm, family, quota, room } = worst;
    const { size } = desired.clientSitesOf(realm, family);
    const { share } = this.#leases.realm(realm)!.shares[family];
    const who = size === 1 ? 'the maxClients of 1 site is' : `the maxClients of ${size} sites are`;
    const more = others === 0 ? '' : `, and so in ${others} other pool${others === 1 ? '' : 's'}`;
    const message = `${who} ${quota} in all, but the IPv${family} pools of "${realm}" have room for ${room} clients, of which each site is sure of ${share}${more}: enlarge the pools, lower maxClients, or set the clientShare of "${realm}"`;
    return this.#warn(key, { kind: 'quotas', realm, message });
  }

  #checkClientShare(desired: DesiredIndex, realm: string, family: Family): PoolWarning[] {
    const key = `clientShare ${realm} IPv${family}`;
    const { allocator, shares } = this.#leases.realm(realm)!;
    const { room, share } = shares[family];
    const wanted = desired.sites.get(realm)!.clientShare ?? 0;
    if (wanted <= share || allocator.statsOf(family).capacity === 0) {
      this.#warnings.delete(key);
      return [];
    }
    const { size } = desired.clientSitesOf(realm, family);
    const message = `the clientShare of "${realm}" is ${wanted}, but its IPv${family} pools have room for ${room} clients, and with ${size} site${size === 1 ? '' : 's'} and one that may come each is sure of ${share}: enlarge the pools, or lower clientShare to ${share}`;
    return this.#warn(key, { kind: 'clientShare', realm, message });
  }

  #checkPool(realm: string, family: Family): PoolWarning[] {
    const stats = this.#leases.realm(realm)?.allocator.statsOf(family);
    if (stats === undefined) return [];
    const { capacity, leased, quarantined } = stats;
    const used = leased + quarantined;
    const message = `${used} of the ${capacity} IPv${family} addresses of "${realm}" are used: enlarge its pools, or release the clients of sites that need none any more`;
    const key = `pool ${realm} IPv${family}`;
    return this.#judge(key, used, capacity, { kind: 'pool', realm, message });
  }

  #checkShare(realm: string, family: Family, site: string, maxClients: number): PoolWarning[] {
    const leases = this.#leases.realm(realm);
    if (leases === undefined) return [];
    const shares = leases.shares[family];
    const held = shares.heldBy(site);
    const limit = shares.limitOf(site);
    const hosts = leases.uses.hostCount(site);
    return [
      ...this.#judge(`share ${realm} IPv${family} ${site}`, held, limit, {
        kind: 'share',
        realm,
        site,
        message: `"${site}" holds ${held} of the ${limit} IPv${family} addresses that it can have in "${realm}": enlarge the pools of "${realm}", or set its clientShare`,
      }),
      ...this.#judge(`clients ${realm} ${site}`, hosts, maxClients, {
        kind: 'share',
        realm,
        site,
        message: `"${site}" has ${hosts} clients in "${realm}", and its maxClients is ${maxClients}: raise it, or find out why there are so many`,
      }),
    ];
  }

  #judge(key: string, held: number, limit: number, warning: PoolWarning): PoolWarning[] {
    if (isNearly(held, limit)) {
      const isKnown = this.#warnings.has(key);
      this.#warnings.set(key, warning);
      return isKnown ? [] : [warning];
    }
    if (held <= RELIEVED * limit) this.#warnings.delete(key);
    return [];
  }

  /** Gives a warning again when its text has changed. */
  #warn(key: string, warning: PoolWarning): PoolWarning[] {
    const isKnown = this.#warnings.get(key)?.message === warning.message;
    this.#warnings.set(key, warning);
    return isKnown ? [] : [warning];
  }
}
