/**
 * What all handles of a `MemoryStore` share: the entries, the order of commits, and which entries end with which lease.
 * @module
 */
import { randomUUID } from 'node:crypto';
import { slicesOf } from '../base/slices.ts';
import { StoreError } from '../errors.ts';
import { CommitWrites } from './changes.ts';
import type { Change, LeaseReference } from './store.ts';
import { EntryTable } from './table.ts';

/** The entries of a store in memory, with the leases that are granted. */
export class MemoryData {
  readonly clusterId: string = randomUUID();
  readonly table: EntryTable = new EntryTable();
  /** The keys of each lease that has not ended, by its id. */
  readonly #keysOf = new Map<string, Set<string>>();
  /** The id of the lease of each entry that has one. */
  readonly #leaseOf = new Map<string, string>();
  readonly #versionOf = (key: string): number => this.table.versionOf(key);
  #leases = 0;
  /** Resolves when the commits so far have settled; undefined if they have. */
  #committing: Promise<void> | undefined;

  /** Resolves when the commits so far have settled. */
  async settled(): Promise<void> {
    await this.#committing;
  }

  async commit(given: CommitWrites): Promise<void> {
    if (this.#committing === undefined && !given.areMany) this.#applyAtOnce(given);
    else await this.#afterOthers(() => this.#apply(given));
  }

  /** Returns the id of a new lease. */
  grant(): string {
    const id = String(++this.#leases);
    this.#keysOf.set(id, new Set());
    return id;
  }

  /** Ends a lease, and deletes its entries in one commit. A lease may be ended twice. */
  async end(id: string): Promise<void> {
    await this.#afterOthers(() => {
      const keys = [...(this.#keysOf.get(id) ?? [])];
      this.#keysOf.delete(id);
      return this.#apply(new CommitWrites(keys.map((key) => ({ key, value: undefined }))));
    });
  }

  #afterOthers(work: () => Promise<void>): Promise<void> {
    const done = this.#committing === undefined ? work() : this.#committing.then(work);
    const settled = done
      .catch(() => {})
      .then(() => {
        if (this.#committing === settled) this.#committing = undefined;
      });
    this.#committing = settled;
    return done;
  }

  async #apply(given: CommitWrites): Promise<void> {
    if (!given.areMany) {
      this.#applyAtOnce(given);
      return;
    }
    const slices = slicesOf();
    const changes = await given.changes(this.table.version + 1, this.#versionOf, slices);
    this.#setLeases(changes, given.leases);
    await this.table.apply(changes, slices);
  }

  #applyAtOnce(given: CommitWrites): void {
    const changes = given.changesAtOnce(this.table.version + 1, this.#versionOf);
    this.#setLeases(changes, given.leases);
    this.table.applyAtOnce(changes);
  }

  /** @throws {StoreError} if a lease has ended; then nothing was changed. */
  #setLeases(changes: readonly Change[], leases: ReadonlyMap<string, LeaseReference>): void {
    if (leases.size === 0 && this.#leaseOf.size === 0) return;
    for (const [key, { id }] of leases) {
      if (!this.#keysOf.has(id))
        throw new StoreError(`"${key}" is not written: its lease ${id} has ended`);
    }
    for (const { key, value } of changes) {
      const before = this.#leaseOf.get(key);
      if (before !== undefined) this.#keysOf.get(before)?.delete(key);
      const id = value === undefined ? undefined : leases.get(key)?.id;
      if (id === undefined) this.#leaseOf.delete(key);
      else {
        this.#leaseOf.set(key, id);
        this.#keysOf.get(id)!.add(key);
      }
    }
  }
}
