/**
 * Released leases that no pool has any more, because their pool or their site is gone. Each stays in the store for its
 * quarantine, so that the address rests if the pool or the site comes back meanwhile.
 * @module
 */
import type { Lease } from '../allocator/index.ts';
import type { IpAddress } from '../base/address.ts';
import type { ReleaseVersions } from './release-versions.ts';

export class RetiredLeases {
  readonly #quarantineMs: number;
  readonly #releases: ReleaseVersions | undefined;
  /** Keyed by realm and then by the text of the address. */
  readonly #realms = new Map<string, Map<string, Lease>>();
  /** In the order of their release, unless `#isSorted` is false. One that was taken back is still here. */
  readonly #queue: Retired[] = [];
  #isSorted = true;

  /** @param releases says which addresses other machines do not use any more; undefined if there are none */
  constructor(quarantineMs: number, releases: ReleaseVersions | undefined) {
    this.#quarantineMs = quarantineMs;
    this.#releases = releases;
  }

  get isEmpty(): boolean {
    return this.#realms.size === 0;
  }

  /** Adds a released lease. */
  add(realm: string, lease: Lease): void {
    const leases = this.#realms.get(realm) ?? new Map<string, Lease>();
    leases.set(lease.address.toString(), lease);
    this.#realms.set(realm, leases);
    const last = this.#queue.at(-1);
    // Only leases from before come in another order.
    if (last !== undefined && releaseOf(last) > lease.releasedAt!) this.#isSorted = false;
    this.#queue.push({ realm, lease });
  }

  /** Removes and returns the leases of a realm. */
  take(realm: string): Lease[] {
    const leases = this.#realms.get(realm);
    this.#realms.delete(realm);
    return leases === undefined ? [] : [...leases.values()];
  }

  /** Removes the lease of an address. */
  remove(realm: string, address: IpAddress): void {
    const leases = this.#realms.get(realm);
    if (leases?.delete(address.toString()) && leases.size === 0) this.#realms.delete(realm);
  }

  /** Removes and returns the leases whose quarantine has ended. */
  takeRested(nowMs: number): Retired[] {
    if (!this.#isSorted) this.#queue.sort((a, b) => releaseOf(a) - releaseOf(b));
    this.#isSorted = true;
    const rested: Retired[] = [];
    const end = this.#queue.findIndex((each) => !this.#isRested(each, nowMs));
    const due = this.#queue.splice(0, end < 0 ? this.#queue.length : end);
    for (const { realm, lease } of due) {
      const leases = this.#realms.get(realm);
      const text = lease.address.toString();
      if (leases?.get(text) !== lease) continue;
      leases.delete(text);
      if (leases.size === 0) this.#realms.delete(realm);
      rested.push({ realm, lease });
    }
    return rested;
  }

  #isRested(retired: Retired, nowMs: number): boolean {
    if (releaseOf(retired) + this.#quarantineMs > nowMs) return false;
    return this.#releases?.isApplied(retired.realm, retired.lease.address) !== false;
  }
}

export interface Retired {
  readonly realm: string;
  readonly lease: Lease;
}

function releaseOf({ lease }: Retired): number {
  return lease.releasedAt!;
}
