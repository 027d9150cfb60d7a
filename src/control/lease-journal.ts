/**
 * The changes of leases that are not stored yet. What a failed commit has not stored goes with the next one. While
 * another process allocates, the journal is closed and takes nothing.
 *
 * Where the store limits commits, a large one is divided: releases come first, then the overlaps of replaced pools, then
 * leases, then the rest. So what each part leaves in the store is valid, and no host has two addresses there.
 * @module
 */
import type { Lease } from '../allocator/index.ts';
import type { IpAddress } from '../base/address.ts';
import type { Change, Guard, Json, Store, Write } from '../store/index.ts';
import type { HeldLease } from './held-lease.ts';
import { OVERLAP_PREFIX } from './overlaps.ts';
import type { ReleaseVersions } from './release-versions.ts';
import { LEASE_PREFIX, leaseKey, leaseValue } from './stored-lease.ts';

export class LeaseJournal {
  readonly #store: Store;
  readonly #releases: ReleaseVersions | undefined;
  /** Keyed by the key in the store: the writes of the next commit. */
  readonly #pending = new Map<string, PendingWrite>();
  /** The writes of the commit under way, which the watch may show before it resolves. */
  readonly #flying = new Map<string, PendingWrite>();
  /** The conditions of each commit; undefined if there are none. */
  #guards: readonly Guard[] | undefined;
  #isOpen: boolean;

  /** @param releases undefined if this process always allocates; else the journal is closed at first */
  constructor(store: Store, releases: ReleaseVersions | undefined) {
    this.#store = store;
    this.#releases = releases;
    this.#isOpen = releases === undefined;
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  get isEmpty(): boolean {
    return this.#pending.size === 0;
  }

  /** Takes changes from now on. @param guards the conditions of each commit */
  open(guards: readonly Guard[]): void {
    this.#guards = guards;
    this.#isOpen = true;
  }

  /** Takes no changes any more. Returns those that were not stored, which are dropped. */
  close(): DroppedWrite[] {
    const dropped = Array.from(this.#pending, ([key, { held }]) => ({ key, held }));
    this.#pending.clear();
    this.#isOpen = false;
    return dropped;
  }

  /** @param usedAtMs the last use of a client's lease */
  hold(held: HeldLease, usedAtMs?: number): void {
    if (!this.#isOpen) return;
    const key = leaseKey(held.realm, held.address);
    this.#releases?.delete(key);
    this.#pending.set(key, { held, value: leaseValue(held, usedAtMs) });
  }

  release(realm: string, lease: Lease): void {
    if (!this.#isOpen) return;
    const key = leaseKey(realm, lease.address);
    this.#releases?.note(key, Number.POSITIVE_INFINITY);
    this.write({ key, value: leaseValue(lease) });
  }

  erase(realm: string, address: IpAddress): void {
    this.write({ key: leaseKey(realm, address), value: undefined });
  }

  write({ key, value }: Write): void {
    if (this.#isOpen) this.#pending.set(key, { held: undefined, value });
  }

  /** Returns whether a lease in use is among the changes. */
  has({ realm, address }: HeldLease): boolean {
    return this.#pending.has(leaseKey(realm, address));
  }

  /** Returns whether the store shows what this process has written, and notes the versions of releases. */
  isOwn({ key, value, version }: Change): boolean {
    const write = this.#flying.get(key) ?? this.#pending.get(key);
    if (write === undefined || JSON.stringify(write.value) !== JSON.stringify(value)) return false;
    const last = this.#pending.get(key) ?? write;
    // The address may be in use again, or released once more, by a change that is not stored.
    if (last !== write || write.held !== undefined || !key.startsWith(LEASE_PREFIX)) return true;
    if (value === undefined) this.#releases?.delete(key);
    else this.#releases?.note(key, version);
    return true;
  }

  /**
   * Stores all changes, in one commit unless the store limits it.
   *
   * @param onStored is called with the leases in use of each commit when that has stored them
   * @throws {StoreConflictError} if another process allocates now.
   * @throws {StoreError} if that fails; what is not stored then goes with the next commit.
   */
  async commit(onStored: (held: readonly HeldLease[]) => void): Promise<void> {
    for (const part of this.#parts()) {
      await this.#commit(part);
      for (const [key, write] of part) {
        if (this.#pending.get(key) === write) this.#pending.delete(key);
      }
      onStored(part.flatMap(([, { held }]) => held ?? []));
    }
  }

  async #commit(part: readonly PendingEntry[]): Promise<void> {
    const writes = part.map(([key, { value }]) => ({ key, value }));
    if (this.#guards === undefined) {
      await this.#store.commit(writes);
      return;
    }
    for (const [key, write] of part) this.#flying.set(key, write);
    try {
      await this.#store.commit(writes, this.#guards);
    } finally {
      this.#flying.clear();
    }
  }

  #parts(): PendingEntry[][] {
    const all = [...this.#pending];
    const most = (this.#store.maxWrites ?? Number.POSITIVE_INFINITY) - (this.#guards?.length ?? 0);
    if (all.length === 0) return [];
    if (all.length <= most) return [all];
    all.sort((a, b) => rankOf(a) - rankOf(b));
    const parts: PendingEntry[][] = [];
    for (let at = 0; at < all.length; at += most) parts.push(all.slice(at, at + most));
    return parts;
  }
}

/** A change that is not stored and never will be. */
export interface DroppedWrite {
  readonly key: string;
  /** Undefined for what is not a lease in use. */
  readonly held: HeldLease | undefined;
}

interface PendingWrite {
  /** Undefined for what is not a lease in use. */
  readonly held: HeldLease | undefined;
  readonly value: Json | undefined;
}

type PendingEntry = readonly [key: string, write: PendingWrite];

function rankOf([key, { held }]: PendingEntry): number {
  if (held !== undefined) return 2;
  if (key.startsWith(LEASE_PREFIX)) return 0;
  return key.startsWith(OVERLAP_PREFIX) ? 1 : 3;
}
