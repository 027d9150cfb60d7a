/**
 * Finds the pool whose room the `maxClients` of its client sites exceed most.
 * @module
 */
import type { Family } from '../base/address.ts';

/** A pool with less room than the sites may have clients there. */
export interface ExceededPool {
  readonly realm: string;
  readonly family: Family;
  /** The sum of the `maxClients` of all sites. */
  readonly quota: number;
  readonly room: number;
}

export class QuotaWatch {
  /** Keyed by realm and IP version. */
  readonly #exceeded = new Map<string, ExceededPool>();
  /** Undefined also if it is to be found again. */
  #worst: ExceededPool | undefined;

  /** How many pools are exceeded. */
  get count(): number {
    return this.#exceeded.size;
  }

  /** The pool that is exceeded most. */
  get worst(): ExceededPool | undefined {
    if (this.#worst === undefined) {
      for (const each of this.#exceeded.values()) this.#consider(each);
    }
    return this.#worst;
  }

  /** Notes the state of a pool. */
  set(pool: ExceededPool): void {
    const { realm, family, quota, room } = pool;
    const key = `${realm} IPv${family}`;
    const worst = this.#worst;
    const wasWorst = worst !== undefined && worst === this.#exceeded.get(key);
    if (quota > room) this.#exceeded.set(key, pool);
    else this.#exceeded.delete(key);
    // While the worst one only gets worse, no other needs to be looked at.
    if (wasWorst) this.#worst = quota - room >= worst.quota - worst.room ? pool : undefined;
    else if (worst !== undefined && quota > room) this.#consider(pool);
  }

  /** Forgets the pools of a realm. */
  delete(realm: string): void {
    for (const family of FAMILIES) this.set({ realm, family, quota: 0, room: 0 });
  }

  #consider(pool: ExceededPool): void {
    if (this.#worst === undefined || isWorse(pool, this.#worst)) this.#worst = pool;
  }
}

/** The first pool is the worst among those that are exceeded by the same number. */
function isWorse(one: ExceededPool, other: ExceededPool): boolean {
  const difference = one.quota - one.room - (other.quota - other.room);
  if (difference !== 0) return difference > 0;
  if (one.realm !== other.realm) return one.realm < other.realm;
  return one.family < other.family;
}

const FAMILIES: readonly Family[] = [4, 6];
