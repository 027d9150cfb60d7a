/**
 * The keys `holder/<site>`: who holds which site, and how this machine takes a site, gives it up and hands it over. Each
 * write compares the version that this process has seen.
 * @module
 */
import { StoreConflictError } from '../errors.ts';
import type { Write } from '../store/index.ts';
import { type Followed, FollowedRecords } from './followed-records.ts';
import { HOLDERS, type OwnerRecord, OwnerSchema, WORKERS, type WorkerRecord } from './keys.ts';
import type { Member } from './member.ts';
import type { SiteEpoch } from './site-epoch.ts';

export interface Holder {
  readonly machine: string;
  readonly epoch: SiteEpoch;
  /** Whether it is this machine. */
  readonly isHere: boolean;
  /** Whether the key ends with the present lease of this machine. */
  readonly isCurrent: boolean;
}

export class HolderKeys {
  readonly #member: Member;
  readonly #records: FollowedRecords<OwnerRecord>;

  private constructor(member: Member, records: FollowedRecords<OwnerRecord>) {
    this.#member = member;
    this.#records = records;
  }

  /**
   * @param onChange called with the sites whose keys have changed
   * @throws {StoreError} if the store cannot be read.
   */
  static async open(
    member: Member,
    onChange: (sites: readonly string[]) => void
  ): Promise<HolderKeys> {
    const store = member.leasing;
    const records = await FollowedRecords.open(store, HOLDERS, OwnerSchema, onChange);
    return new HolderKeys(member, records);
  }

  get(site: string): Holder | undefined {
    const record = this.#records.get(site);
    if (record === undefined) return undefined;
    const { machine, lease } = record.value;
    const isHere = machine === this.#member.name;
    return {
      machine,
      epoch: { cluster: this.#member.leasing.clusterId, number: record.version },
      isHere,
      isCurrent: isHere && lease === this.#member.lease?.id,
    };
  }

  /** The sites whose keys name this machine. */
  *here(): Generator<string> {
    for (const [site, { value }] of this.#records) {
      if (value.machine === this.#member.name) yield site;
    }
  }

  /** The sites of a machine. */
  *sitesOf(machine: string): Generator<string> {
    for (const [site, { value }] of this.#records) if (value.machine === machine) yield site;
  }

  /**
   * Writes the keys of sites that nobody has, or that this machine has under an earlier lease, under its present one.
   * Sites that another machine has just taken are left out.
   *
   * @throws {StoreError} if this machine is detached, or the store does not answer.
   */
  async take(sites: readonly string[]): Promise<void> {
    const size = Math.min(MAX_TAKEN, this.#member.store.maxWrites ?? MAX_TAKEN);
    for (let at = 0; at < sites.length; at += size) {
      const some = sites.slice(at, at + size);
      if (await this.#commit(some.flatMap((site) => this.#takeWrite(site)))) continue;
      // One of them was taken by another.
      for (const site of some) await this.#commit(this.#takeWrite(site));
    }
  }

  /** Deletes the key of a site unless it has changed. Returns whether it was deleted. */
  drop(site: string, { epoch }: Holder): Promise<boolean> {
    return this.#commit([{ key: HOLDERS + site, value: undefined, expect: epoch.number }]);
  }

  /** Writes the key of a site under the lease of another machine. Returns whether neither had changed. */
  move(
    site: string,
    { epoch }: Holder,
    machine: string,
    worker: Followed<WorkerRecord>
  ): Promise<boolean> {
    const lease = { id: worker.value.lease };
    const value = { machine, lease: lease.id };
    const write = { key: HOLDERS + site, value, expect: epoch.number, lease };
    return this.#commit([write], WORKERS + machine, worker.version);
  }

  close(): void {
    this.#records.close();
  }

  #takeWrite(site: string): readonly Write[] {
    const lease = this.#member.lease;
    const record = this.#records.get(site);
    const isFree = record === undefined || record.value.machine === this.#member.name;
    if (lease === undefined || !isFree || record?.value.lease === lease.id) return [];
    const value = { machine: this.#member.name, lease: lease.id };
    return [{ key: HOLDERS + site, value, expect: record?.version ?? 0, lease }];
  }

  async #commit(writes: readonly Write[], guardKey?: string, version = 0): Promise<boolean> {
    if (writes.length === 0) return true;
    const guards = guardKey === undefined ? [] : [{ key: guardKey, version }];
    try {
      await this.#member.store.commit(writes, guards);
      return true;
    } catch (error) {
      if (error instanceof StoreConflictError) return false;
      throw error;
    }
  }
}

/** How many sites are taken by one commit. */
const MAX_TAKEN = 50;
