/**
 * `Horizon` says up to which version of the store released addresses may be leased again.
 *
 * A machine that is alive has stopped to use an address a DNS TTL after it has said that it has applied the release, as
 * an answer from before may be cached for so long. A machine that is not alive has stopped a TTL after it must have ended
 * its tunnels, or after an operator has removed it. Times are counted by the monotonic clock of this process from when it
 * saw these things (rule `rest` of `test/model/addresses.ts`).
 * @module
 */
import type { LeasingStore } from '../store/index.ts';
import { type Followed, FollowedRecords } from './followed-records.ts';
import { APPLIED, type VersionRecord, VersionSchema } from './keys.ts';
import type { Member } from './member.ts';

/** What a machine has said, and from when on it holds for caches too. */
interface Milestone {
  readonly version: number;
  readonly fromMs: number;
}

interface Progress {
  /** The version that holds for caches too. */
  settled: number;
  /** Later ones, the earliest first. */
  readonly milestones: Milestone[];
}

/** Follows what the machines of a cloud have applied. */
export class Horizon {
  readonly #member: Member;
  readonly #dnsTtlMs: number;
  readonly #progress = new Map<string, Progress>();
  /** Until when answers of machines that were removed may be cached. */
  readonly #removed = new Map<string, number>();
  readonly #listeners = new Set<() => void>();
  #records: FollowedRecords<VersionRecord> | undefined;
  #version = 0;
  #cancel: () => void = () => {};

  private constructor(member: Member, dnsTtlMs: number) {
    this.#member = member;
    this.#dnsTtlMs = dnsTtlMs;
  }

  /**
   * @param dnsTtlMs for how long an answer may be cached that names an address
   * @throws {StoreError} if the store cannot be read.
   */
  static async open(member: Member, dnsTtlMs: number): Promise<Horizon> {
    const horizon = new Horizon(member, dnsTtlMs);
    const store: LeasingStore = member.leasing;
    horizon.#records = await FollowedRecords.open(store, APPLIED, VersionSchema, (names) => {
      for (const name of names) horizon.#see(name);
      horizon.#update();
    });
    for (const [name, record] of horizon.#records) horizon.#take(name, record);
    member.on('machines', horizon.#onMachines);
    horizon.#onMachines({ names: member.machines.list().map(({ name }) => name) });
    return horizon;
  }

  /** An address that was released later than this version may still be in use. */
  get version(): number {
    return this.#version;
  }

  /** Calls `listener` when `version` has changed. Returns a function that ends this. */
  watch(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  close(): void {
    this.#cancel();
    this.#records?.close();
    this.#member.off('machines', this.#onMachines);
    this.#listeners.clear();
  }

  readonly #onMachines = ({ names }: { readonly names: readonly string[] }): void => {
    const nowMs = this.#member.clock.monotonicMs();
    for (const name of names) {
      if (this.#member.machines.get(name) !== undefined) {
        this.#removed.delete(name);
        if (!this.#progress.has(name)) this.#progress.set(name, { settled: 0, milestones: [] });
      } else if (this.#progress.has(name) && !this.#removed.has(name)) {
        this.#removed.set(name, nowMs + this.#dnsTtlMs);
      }
    }
    this.#update();
  };

  /** A machine that is detached has applied what it has said before. */
  #see(name: string): void {
    const record = this.#records?.get(name);
    if (record !== undefined) this.#take(name, record);
  }

  #take(name: string, { value }: Followed<VersionRecord>): void {
    const progress = this.#progress.get(name) ?? { settled: 0, milestones: [] };
    this.#progress.set(name, progress);
    const { milestones } = progress;
    if (value.version <= (milestones.at(-1)?.version ?? progress.settled)) return;
    // Without a milestone between, the later one holds for both.
    if (milestones.length >= MAX_MILESTONES) milestones.pop();
    const fromMs = this.#member.clock.monotonicMs() + this.#dnsTtlMs;
    milestones.push({ version: value.version, fromMs });
  }

  /** Computes the horizon, and sets a timer for when it changes by time alone. */
  #update(): void {
    this.#cancel();
    const nowMs = this.#member.clock.monotonicMs();
    let version = Number.POSITIVE_INFINITY;
    let nextMs = Number.POSITIVE_INFINITY;
    for (const [name, progress] of this.#progress) {
      const endMs = this.#endMs(name);
      if (endMs <= nowMs) {
        if (this.#removed.delete(name)) this.#progress.delete(name);
        continue;
      }
      const { milestones } = progress;
      while (milestones[0] !== undefined && milestones[0].fromMs <= nowMs) {
        progress.settled = milestones.shift()!.version;
      }
      version = Math.min(version, progress.settled);
      nextMs = Math.min(nextMs, endMs, milestones[0]?.fromMs ?? Number.POSITIVE_INFINITY);
    }
    if (nextMs < Number.POSITIVE_INFINITY) {
      const { clock } = this.#member;
      this.#cancel = clock.after(Math.min(nextMs - nowMs, MAX_WAIT_MS), () => this.#update(), true);
    }
    if (version === this.#version) return;
    this.#version = version;
    for (const listener of this.#listeners) listener();
  }

  /** Returns from when on a machine and what was cached of it use no address. */
  #endMs(name: string): number {
    const removedMs = this.#removed.get(name);
    if (removedMs !== undefined) return removedMs;
    const machine = this.#member.machines.get(name);
    if (machine === undefined) return Number.POSITIVE_INFINITY;
    return machine.stopsAtMs + this.#dnsTtlMs;
  }
}

/** How many versions of a machine are kept whose TTL has not passed. */
const MAX_MILESTONES = 256;
/** A timer cannot wait longer than about 24 days. */
const MAX_WAIT_MS = 86_400_000;
