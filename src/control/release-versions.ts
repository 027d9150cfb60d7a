/**
 * Says which released addresses every machine has stopped to use: those whose release has a version of the store that is
 * not beyond the horizon of the allocation.
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import { leaseKey } from './stored-lease.ts';

export class ReleaseVersions {
  readonly #horizon: () => number;
  /** Keyed by the key in the store: the version of a release, infinite while it is not stored. */
  readonly #versions = new Map<string, number>();

  /** @param horizon returns the version that every machine has applied */
  constructor(horizon: () => number) {
    this.#horizon = horizon;
  }

  /**
   * Notes a release, unless every machine has applied it. Returns whether it is noted.
   *
   * @param version that of the entry that has released the address; infinite while it is not stored
   */
  note(key: string, version: number): boolean {
    if (version <= this.#horizon()) {
      this.#versions.delete(key);
      return false;
    }
    this.#versions.set(key, version);
    return true;
  }

  /** Forgets a release, because the address is in use again. */
  delete(key: string): void {
    this.#versions.delete(key);
  }

  /** Returns whether no machine uses a released address any more. */
  isApplied(realm: string, address: IpAddress): boolean {
    if (this.#versions.size === 0) return true;
    const key = leaseKey(realm, address);
    const version = this.#versions.get(key);
    if (version === undefined) return true;
    if (version > this.#horizon()) return false;
    this.#versions.delete(key);
    return true;
  }
}
