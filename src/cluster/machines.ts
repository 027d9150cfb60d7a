/**
 * The machines of a cloud, as this process sees them: which ones there are, which ones are alive, and which ones must
 * have stopped. Times are those of the monotonic clock of this process, so the clocks of machines need not agree.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { Emitter } from '../base/emitter.ts';
import type { HostPort } from '../base/host-port.ts';
import type { LeasingStore } from '../store/index.ts';
import { type Followed, FollowedRecords } from './followed-records.ts';
import { MACHINES, MachineSchema, WORKERS, type WorkerRecord, WorkerSchema } from './keys.ts';

/** A machine of the cloud. */
export interface MachineStatus {
  readonly name: string;
  /** Whether its lease of the store is alive. */
  readonly isLive: boolean;
  /** Whether it takes no sites any more. */
  readonly isDraining: boolean;
  /** Where edges reach it; empty if it is not alive. */
  readonly endpoints: readonly HostPort[];
  /**
   * When it must have ended all its tunnels because it has not reached the store for so long, in ms of the monotonic
   * clock of this process. Infinity if it is alive, or may go on without the store for ever.
   */
  readonly stopsAtMs: number;
}

export interface MachinesEvents {
  /** Machines have been added or removed, or are alive or not any more. */
  change: [change: { readonly names: readonly string[] }];
}

/** Follows the machines of a cloud. */
export class Machines extends Emitter<MachinesEvents> {
  readonly #clock: Clock;
  readonly #records: FollowedRecords<{ readonly maxDetachedMs: number | null }>;
  readonly #workers: FollowedRecords<WorkerRecord>;
  /** When this process saw that a machine is not alive. */
  readonly #deadSinceMs = new Map<string, number>();

  private constructor(
    clock: Clock,
    records: FollowedRecords<{ readonly maxDetachedMs: number | null }>,
    workers: FollowedRecords<WorkerRecord>
  ) {
    super();
    this.#clock = clock;
    this.#records = records;
    this.#workers = workers;
    for (const [name] of records) this.#see(name);
  }

  /** @throws {StoreError} if the store cannot be read. */
  static async open(store: LeasingStore, clock: Clock): Promise<Machines> {
    let machines: Machines | undefined;
    const onChange = (names: readonly string[]): void => {
      // The constructor sees what comes before.
      if (machines !== undefined) machines.#onChange(names);
    };
    const records = await FollowedRecords.open(store, MACHINES, MachineSchema, onChange);
    try {
      const workers = await FollowedRecords.open(store, WORKERS, WorkerSchema, onChange);
      machines = new Machines(clock, records, workers);
      return machines;
    } catch (error) {
      records.close();
      throw error;
    }
  }

  /** All machines of the cloud, in the order of their names. */
  list(): readonly MachineStatus[] {
    const names = [...this.#records].map(([name]) => name).sort();
    return names.map((name) => this.get(name)!);
  }

  /** Returns a machine of the cloud; undefined if there is none of that name. */
  get(name: string): MachineStatus | undefined {
    const record = this.#records.get(name);
    if (record === undefined) return undefined;
    const worker = this.#workers.get(name)?.value;
    return {
      name,
      isLive: worker !== undefined,
      isDraining: worker?.draining ?? false,
      endpoints: worker?.endpoints ?? [],
      stopsAtMs: this.#stopsAtMs(name, record.value.maxDetachedMs),
    };
  }

  /** Returns what a live machine has written of itself. */
  worker(name: string): Followed<WorkerRecord> | undefined {
    return this.#workers.get(name);
  }

  /** Counts anew for how long each machine is not alive, because a restored store has just come into force. */
  restart(): void {
    const nowMs = this.#clock.monotonicMs();
    for (const name of this.#deadSinceMs.keys()) this.#deadSinceMs.set(name, nowMs);
  }

  close(): void {
    this.#records.close();
    this.#workers.close();
    this.removeAllListeners();
  }

  #onChange(names: readonly string[]): void {
    for (const name of names) this.#see(name);
    this.emit('change', { names });
  }

  #stopsAtMs(name: string, maxDetachedMs: number | null): number {
    const deadSinceMs = this.#deadSinceMs.get(name);
    if (deadSinceMs === undefined || maxDetachedMs === null) return Number.POSITIVE_INFINITY;
    return deadSinceMs + maxDetachedMs;
  }

  #see(name: string): void {
    const isDead = this.#records.get(name) !== undefined && this.#workers.get(name) === undefined;
    if (!isDead) this.#deadSinceMs.delete(name);
    else if (!this.#deadSinceMs.has(name)) {
      this.#deadSinceMs.set(name, this.#clock.monotonicMs());
    }
  }
}
