/**
 * The changes of leases that are not stored yet. What a failed commit has not stored goes with the next one.
 * @module
 */
import type { Lease } from '../allocator/index.ts';
import type { IpAddress } from '../base/address.ts';
import type { Json, Store, Write } from '../store/index.ts';
import type { HeldLease } from './held-lease.ts';
import { leaseKey, leaseValue } from './stored-lease.ts';

export class LeaseJournal {
  readonly #store: Store;
  /** Keyed by the key in the store: the writes of the next commit. */
  readonly #pending = new Map<string, PendingWrite>();

  constructor(store: Store) {
    this.#store = store;
  }

  get isEmpty(): boolean {
    return this.#pending.size === 0;
  }

  /** @param usedAtMs the last use of a client's lease */
  hold(held: HeldLease, usedAtMs?: number): void {
    const value = leaseValue(held, usedAtMs);
    this.#pending.set(leaseKey(held.realm, held.address), { held, value });
  }

  release(realm: string, lease: Lease): void {
    this.write({ key: leaseKey(realm, lease.address), value: leaseValue(lease) });
  }

  erase(realm: string, address: IpAddress): void {
    this.write({ key: leaseKey(realm, address), value: undefined });
  }

  write({ key, value }: Write): void {
    this.#pending.set(key, { held: undefined, value });
  }

  /**
   * Stores all changes in one commit, and returns the leases in use among them.
   *
   * @throws {StoreError} if that fails; the changes then go with the next commit.
   */
  async commit(): Promise<HeldLease[]> {
    const batch = [...this.#pending];
    if (batch.length === 0) return [];
    await this.#store.commit(batch.map(([key, { value }]) => ({ key, value })));
    for (const [key, write] of batch) {
      if (this.#pending.get(key) === write) this.#pending.delete(key);
    }
    return batch.flatMap(([, { held }]) => held ?? []);
  }
}

interface PendingWrite {
  /** Undefined for what is not a lease in use. */
  readonly held: HeldLease | undefined;
  readonly value: Json | undefined;
}
