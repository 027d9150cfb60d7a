/**
 * Writes what a live machine has in the store, under its lease.
 * @module
 */
import * as v from 'valibot';
import type { Clock } from '../base/clock.ts';
import { ConflictError, StoreConflictError } from '../errors.ts';
import type { LeasingStore, StoreLease, Write } from '../store/index.ts';
import type { Fence } from './fence.ts';
import { FenceSchema, MACHINES } from './keys.ts';
import { pause } from './pause.ts';

export interface RegistrationOptions {
  readonly store: LeasingStore;
  readonly clock: Clock;
  readonly fence: Fence;
  readonly machine: string;
  readonly maxDetachedMs: number;
  /** Ends the wait for another process. */
  readonly signal: AbortSignal;
}

/** An operator has removed the machine while it was detached. */
export class MachineRemovedError extends ConflictError {
  constructor(machine: string) {
    super(
      `machine "${machine}" was removed from the cloud; start its gateway again to have it back`
    );
  }
}

/** Registers one machine, again under each new lease. */
export class Registration {
  readonly #options: RegistrationOptions;
  /** The last lease of this process, whose entries it may replace. */
  #former: string | undefined;
  #isRegistered = false;

  constructor(options: RegistrationOptions) {
    this.#options = options;
  }

  /**
   * Registers the machine. When it resolves, the store's watch has shown it. If an earlier process of the machine is
   * alive by its lease, it waits for the end of that lease.
   *
   * @param others returns what else is written in the same commit
   * @throws {ConflictError} if another process is this machine and stays alive.
   * @throws {MachineRemovedError} if the machine was removed since this process has registered it.
   * @throws {StoreError} if the store does not answer.
   */
  async write(lease: StoreLease, others: () => readonly Write[]): Promise<void> {
    const { store, clock, fence, machine, maxDetachedMs, signal } = this.#options;
    const former = this.#former;
    this.#former = lease.id;
    const key = MACHINES + machine;
    const value = { maxDetachedMs: Number.isFinite(maxDetachedMs) ? maxDetachedMs : null };
    const startMs = clock.monotonicMs();
    while (!lease.ended.aborted && !signal.aborted) {
      const found = await store.get(fence.key);
      const other = v.safeParse(FenceSchema, found?.value);
      if (other.success && other.output.lease !== former && other.output.lease !== lease.id) {
        // Its lease has ended by then, if the process has.
        if (clock.monotonicMs() - startMs > 3 * other.output.ttlMs) throw alreadyRuns(machine);
        await pause(clock, other.output.ttlMs / 4, signal);
        continue;
      }
      const registered = await store.get(key);
      if (this.#isRegistered && registered === undefined) throw new MachineRemovedError(machine);
      const expect = registered?.version ?? 0;
      const writes = [{ key, value, expect }, fence.begin(lease, found?.version ?? 0), ...others()];
      try {
        await store.commit(writes);
        this.#isRegistered = true;
        return;
      } catch (error) {
        if (!(error instanceof StoreConflictError)) throw error;
      }
    }
  }
}

function alreadyRuns(machine: string): ConflictError {
  return new ConflictError(
    `another process is machine "${machine}" and is alive; give each machine a name of its own`
  );
}
