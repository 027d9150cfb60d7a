/**
 * The leases of an allocator in its pools and outside of them: which are in use, which are in quarantine, which are
 * free again, and which one is the lease of a key. The allocator chooses addresses; nothing here does.
 * @module
 */
import type { Family, IpAddress } from '../base/address.ts';
import type { Clock } from '../base/clock.ts';
import type { IpPrefix } from '../base/prefix.ts';
import { BlockMap } from './block-map.ts';
import type { Lease } from './lease.ts';
import { InUse, LeaseRecords, type Place, Rested, Resting, type State } from './lease-records.ts';
import { Outside } from './outside.ts';
import { Pool } from './pool.ts';

/** What `AddressAllocatorOptions` says of leases. */
export interface LeaseSettings {
  readonly quarantineMs: number;
  readonly clock: Pick<Clock, 'wallMs'>;
  readonly groupOf: ((key: string) => string) | undefined;
  readonly blockSize: number;
  readonly onRested: ((lease: Lease) => void) | undefined;
  readonly mayRest: ((lease: Lease) => boolean) | undefined;
}

export class PoolLeases {
  readonly records: LeaseRecords = new LeaseRecords();
  /** Keyed by key: the address that is kept for it. */
  readonly kept: Map<string, IpAddress> = new Map();
  readonly outside: Outside = new Outside(this.records);
  readonly #settings: LeaseSettings;
  /** The pools by IP version, in order of preference. */
  #pools: Readonly<Record<Family, readonly Pool[]>> = { 4: [], 6: [] };
  /** The leases in use of a key beside the one that `records.find` returns. */
  readonly #former = new Map<string, Set<number>>();
  /** How many addresses of the pools are in each state. */
  readonly #counts: Readonly<Record<Family, number[]>> = { 4: [0, 0, 0], 6: [0, 0, 0] };

  constructor(settings: LeaseSettings) {
    this.#settings = settings;
  }

  /** Returns the group of a key; only where keys have groups. */
  groupOf(key: string): string {
    return this.#settings.groupOf!(key);
  }

  /** Returns the address that is kept for a key. */
  keptFor(key: string): IpAddress | undefined {
    // Even an empty `Map` computes a hash of the whole key.
    return this.kept.size === 0 ? undefined : this.kept.get(key);
  }

  poolsOf(family: Family): readonly Pool[] {
    return this.#pools[family];
  }

  countOf(family: Family, state: State): number {
    return this.#counts[family][state]!;
  }

  /** @param reserved prefixes that do not overlap */
  setPools(prefixes: readonly IpPrefix[], reserved: readonly IpPrefix[]): void {
    const { groupOf, blockSize } = this.#settings;
    const blocksTo = (last: number) =>
      groupOf === undefined ? undefined : new BlockMap(blockSize, last);
    const before = [...this.#pools[4], ...this.#pools[6]];
    const after = prefixes.map(
      (prefix) =>
        before.find((pool) => pool.isSame(prefix, reserved)) ??
        new Pool(prefix, reserved, this.records, blocksTo)
    );
    const gone = before.filter((pool) => !after.includes(pool));
    const touched = [...gone.flatMap((pool) => [...pool.records()]), ...this.outside.records()];
    for (const record of touched) this.#count(record, -1);
    this.#pools = {
      4: after.filter(({ prefix }) => prefix.family === 4),
      6: after.filter(({ prefix }) => prefix.family === 6),
    };
    for (const [key, address] of this.kept) {
      const pool = this.poolOf(address);
      pool?.kept.set(pool.indexOf(address), key);
    }
    const moved = this.#inOrder(touched).filter((record) => this.#move(record));
    for (const record of moved) this.#arrange(record);
    for (const pool of gone) {
      this.records.removePlace(pool);
      this.records.removeList(pool.rested);
    }
  }

  /** Returns the leases in use of a key beside the one that `records.find` returns. */
  former(key: string): Lease[] {
    return Array.from(this.#former.get(key) ?? [], (record) => this.lease(record));
  }

  /** Notes which addresses have left the quarantine by now. */
  endAllRests(): void {
    for (const pool of this.#pools[4]) this.endRests(pool);
    for (const pool of this.#pools[6]) this.endRests(pool);
    this.endRests(this.outside);
  }

  /** Leases an address of a pool to a key, whoever had it. The key's lease in use becomes a former one. */
  use(key: string, pool: Pool, index: number): Lease {
    const known = pool.recordAt(index);
    if (known !== 0) return this.reuse(key, known);
    const record = this.records.add(key, pool, index);
    this.#count(record, 1);
    this.#give(key, record);
    return this.lease(record, key);
  }

  /** Does the same with an address of a pool that has a record. */
  reuse(key: string, record: number): Lease {
    this.#count(record, -1);
    this.records.unlink(record);
    this.records.setState(record, InUse);
    this.#count(record, 1);
    this.#notFormer(record);
    this.#give(key, record);
    return this.lease(record, key);
  }

  #give(key: string, record: number): void {
    const records = this.records;
    const present = records.find(key);
    if (present !== record) {
      if (present !== 0) this.#isFormer(present);
      records.rename(record, key, present);
    }
    const { blocks } = records.place(record) as Pool;
    blocks?.hold(records.index(record), this.groupOf(key));
  }

  /**
   * Ends a lease. Returns undefined for a record that is none in use.
   *
   * @param key that of the record, if the caller knows it
   */
  release(record: number, key?: string): Lease | undefined {
    const records = this.records;
    if (record === 0 || records.state(record) !== InUse) return undefined;
    this.#count(record, -1);
    this.#notFormer(record);
    records.setState(record, Resting);
    records.setReleasedAt(record, this.#settings.clock.wallMs());
    records.append(records.place(record).resting, record);
    this.#count(record, 1);
    return this.lease(record, key);
  }

  /** Takes a lease of an earlier process, in place of what there is at its address. */
  restore({ key, address, releasedAt }: Lease): void {
    const before = this.recordOf(address);
    if (before !== 0) this.#forget(before);
    const pool = this.poolOf(address);
    const place = pool ?? this.outside;
    const record = this.records.add(
      key,
      place,
      pool?.indexOf(address) ?? this.outside.add(address)
    );
    if (releasedAt !== undefined) {
      this.records.setState(record, Resting);
      this.records.setReleasedAt(record, releasedAt);
    }
    this.#arrange(record, key);
  }

  /** Moves a record to the place where its address is now. Returns false if it is gone: nobody needs it any more. */
  #move(record: number): boolean {
    const address = this.addressOf(record);
    const pool = this.poolOf(address);
    if (pool === undefined && this.records.state(record) === Rested) {
      this.records.remove(record);
      return false;
    }
    const index = pool?.indexOf(address) ?? this.outside.add(address);
    this.records.move(record, pool ?? this.outside, index);
    return true;
  }

  /** Counts a record that is new in its place, and puts it into the list that it belongs to. */
  #arrange(record: number, key: string = this.records.key(record)): void {
    const records = this.records;
    const place = records.place(record);
    const state = records.state(record);
    this.#count(record, 1);
    this.#nameBest(key, record);
    if (place instanceof Pool && state !== Rested) {
      place.blocks?.hold(records.index(record), this.groupOf(key));
    }
    if (state === Resting) records.append(place.resting, record);
    if (state === Rested) this.rest(place as Pool, record);
  }

  /** Makes the best one of a key's records its record. */
  #nameBest(key: string, record: number): void {
    const records = this.records;
    const present = records.find(key);
    let best = present === 0 ? record : present;
    for (const other of [record, ...(this.#former.get(key) ?? [])]) {
      if (this.#isBetter(other, best)) best = other;
    }
    if (record !== best) this.#isFormer(record);
    if (present === best) return;
    this.#notFormer(best);
    if (present !== 0) this.#isFormer(present);
    records.name(best, key);
  }

  /** Returns whether a record is a better one for their key: in use, in the pools, released later. */
  #isBetter(record: number, present: number): boolean {
    const records = this.records;
    const isInUse = records.state(record) === InUse;
    if (isInUse !== (records.state(present) === InUse)) return isInUse;
    const isInPool = records.place(record) !== this.outside;
    if (isInPool !== (records.place(present) !== this.outside)) return isInPool;
    return !isInUse && records.releasedAt(record) > records.releasedAt(present);
  }

  /** Sorts records by the time of their release, those in use first. */
  #inOrder(found: readonly number[]): number[] {
    const records = this.records;
    const timeOf = (record: number) =>
      records.state(record) === InUse ? 0 : records.releasedAt(record);
    return [...found].sort((a, b) => timeOf(a) - timeOf(b));
  }

  /** Notes which addresses of a place have left the quarantine by now. */
  endRests(place: Place): void {
    const records = this.records;
    let record = records.first(place.resting);
    if (record === 0) return;
    const before = this.#settings.clock.wallMs() - this.#settings.quarantineMs;
    for (
      ;
      record !== 0 && records.releasedAt(record) <= before;
      record = records.first(place.resting)
    ) {
      const { onRested, mayRest } = this.#settings;
      const lease =
        onRested === undefined && mayRest === undefined ? undefined : this.lease(record);
      if (mayRest?.(lease!) === false) return;
      this.#count(record, -1);
      records.setState(record, Rested);
      this.#count(record, 1);
      if (place instanceof Pool) {
        place.blocks?.free(records.index(record));
        this.rest(place, record);
      } else {
        this.#forget(record);
      }
      if (lease !== undefined) onRested?.(lease);
    }
  }

  /** Puts a record whose quarantine has ended where whoever may have its address finds it. */
  rest(pool: Pool, record: number): void {
    this.records.unlink(record);
    const keeper = pool.kept.get(this.records.index(record));
    if (keeper === undefined) this.records.append(pool.rested, record);
    else if (keeper !== this.records.key(record)) this.#forget(record);
  }

  #forget(record: number): void {
    this.#notFormer(record);
    this.#count(record, -1);
    this.records.remove(record);
  }

  /** Notes that a record is not the one of its key any more; it counts while it is in use. */
  #isFormer(record: number): void {
    if (this.records.state(record) !== InUse) return;
    const key = this.records.key(record);
    const former = this.#former.get(key);
    if (former === undefined) this.#former.set(key, new Set([record]));
    else former.add(record);
  }

  #notFormer(record: number): void {
    if (this.#former.size === 0) return;
    const key = this.records.key(record);
    const former = this.#former.get(key);
    if (former?.delete(record) && former.size === 0) this.#former.delete(key);
  }

  #count(record: number, by: 1 | -1): void {
    const place = this.records.place(record);
    if (place instanceof Pool) {
      this.#counts[place.prefix.family][this.records.state(record)]! += by;
    }
  }

  /** @param key that of the record, if the caller knows it */
  lease(record: number, key: string = this.records.key(record)): Lease {
    const address = this.addressOf(record);
    if (this.records.state(record) === InUse) return { key, address };
    return { key, address, releasedAt: this.records.releasedAt(record) };
  }

  /** Returns the lease of a record if it is in use. */
  inUse(record: number, key?: string): Lease | undefined {
    const isInUse = record !== 0 && this.records.state(record) === InUse;
    return isInUse ? this.lease(record, key) : undefined;
  }

  addressOf(record: number): IpAddress {
    return this.records.place(record).at(this.records.index(record));
  }

  /** Returns the record of an address; 0: none. */
  recordOf(address: IpAddress): number {
    for (const pool of this.#pools[address.family]) {
      const index = pool.indexOf(address);
      if (index >= 0) return pool.recordAt(index);
    }
    return this.outside.recordOf(address);
  }

  /** Returns the pool that may lease an address. */
  poolOf(address: IpAddress): Pool | undefined {
    return this.#pools[address.family].find((pool) => pool.indexOf(address) >= 0);
  }
}
