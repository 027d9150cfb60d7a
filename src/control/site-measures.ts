/**
 * Numbers about the sites that a monitoring system wants to know, as they are now.
 * @module
 */
import type { Family } from '../base/address.ts';
import type { AdmissionCounters } from './admissions.ts';
import type { DerivedState } from './derivation-check.ts';
import { FAMILIES } from './realm-leases.ts';

export interface SiteMeasures {
  /** Whether the site takes part: it is not suspended. */
  readonly isLive: boolean;
  /** The revision of the site's last snapshot; undefined if it has none, or a new one is about to be made. */
  readonly revision: number | undefined;
  /** How many services are exposed to the site. */
  readonly exposures: number;
  /** How many of these have a presence there. */
  readonly allocated: number;
  /** One entry for each IP version of its pools. */
  readonly pools: readonly PoolMeasures[];
}

export interface PoolMeasures {
  readonly family: Family;
  readonly leased: number;
  readonly quarantined: number;
  readonly free: number;
  /** Addresses that are never leased: reserved ones, network and broadcast addresses. */
  readonly reserved: number;
}

export interface ControlMeasures {
  /** Clients that asked for a presence; cumulative. */
  readonly admissions: Readonly<AdmissionCounters>;
  /** The time that it takes grows with the exposures only while one of them has no address. */
  of(site: string): SiteMeasures;
}

export class MeasuredState implements ControlMeasures {
  readonly admissions: Readonly<AdmissionCounters>;
  readonly #state: () => DerivedState;

  constructor(state: () => DerivedState, admissions: Readonly<AdmissionCounters>) {
    this.#state = state;
    this.admissions = admissions;
  }

  of(site: string): SiteMeasures {
    const { desired, leases, snapshots, isLive } = this.#state();
    const entries = desired.entriesIn(site);
    return {
      isLive: isLive(site),
      revision: snapshots.revisionOf(site),
      exposures: entries.size,
      allocated: entries.size - this.#lackingIn(site),
      pools: FAMILIES.flatMap((family): PoolMeasures[] => {
        const allocator = leases.realm(site)?.allocator;
        const stats = allocator?.statsOf(family);
        if (stats === undefined || stats.capacity === 0) return [];
        const { capacity, leased, quarantined } = stats;
        // Leases of former pools count too while they overlap.
        const free = Math.max(0, capacity - leased - quarantined);
        return [{ family, leased, quarantined, free, reserved: allocator!.reservedOf(family) }];
      }),
    };
  }

  #lackingIn(site: string): number {
    const { desired, leases } = this.#state();
    if (!leases.hasFailures(site)) return 0;
    let lacking = 0;
    for (const { presenceKey } of desired.entriesIn(site).values()) {
      if (leases.hasFailed(site, presenceKey)) lacking++;
    }
    return lacking;
  }
}
