/**
 * Makes sure that the data of the store is valid for it before a machine registers: where it was restored from a backup,
 * by a `Recall`, after which this process goes over to it.
 * @module
 */
import { StoreConflictError, StoreError } from '../errors.ts';
import type { LeasingStore, RestorableStore } from '../store/index.ts';
import type { ResolvedMemberOptions } from './member-options.ts';
import { isValid } from './meta.ts';
import { forgetRecalls, Recall, type RecallTimes, type RecallWait } from './recall.ts';

export interface RestoredStoreHooks {
  /** What this machine knew is in the restored store, which waits for other machines. */
  readonly onWait: (wait: RecallWait) => void;
  /** It is in force, and this process shows its data. */
  readonly onRestored: () => void;
}

export class RestoredStore {
  readonly #options: ResolvedMemberOptions;
  readonly #hooks: RestoredStoreHooks;
  readonly #signal: AbortSignal;
  #recall: Recall | undefined;
  #times: RecallTimes | undefined;

  constructor(options: ResolvedMemberOptions, hooks: RestoredStoreHooks, signal: AbortSignal) {
    this.#options = options;
    this.#hooks = hooks;
    this.#signal = signal;
  }

  /** The restore in which this machine takes part; undefined if there is none. */
  get recall(): Recall | undefined {
    return this.#recall;
  }

  /**
   * Resolves when the data is valid for the store.
   *
   * @param hasMemory whether this process has worked by the data that the store shows
   * @throws what `Recall.run` throws.
   */
  async settled(hasMemory: boolean): Promise<void> {
    const store: LeasingStore & Partial<RestorableStore> = this.#options.store;
    for (;;) {
      const isReplaced = store.isReplaced === true;
      if (!isReplaced && (await isValid(store, this.#options.cloud))) return;
      const restored = isReplaced ? await store.openRestored!() : store;
      try {
        await this.#run(restored, hasMemory && isReplaced ? store : undefined);
      } finally {
        if (restored !== store) await restored.close();
      }
      await store.goOver?.();
      this.#hooks.onRestored();
    }
  }

  /** Deletes what a restore has left in the store. What cannot be deleted now is deleted by the next call. */
  async forget(): Promise<void> {
    try {
      await forgetRecalls(this.#options.store);
    } catch (error) {
      if (!(error instanceof StoreError || error instanceof StoreConflictError)) throw error;
    }
  }

  async #run(store: LeasingStore, memory: LeasingStore | undefined): Promise<void> {
    const { machine, maxDetachedMs, ttlMs, dnsTtlMs, cloud, recalled, clock } = this.#options;
    const { clusterId: cluster } = store;
    if (this.#times?.cluster !== cluster) {
      const startMs = clock.monotonicMs();
      this.#times = { cluster, startMs, doneSinceMs: Number.POSITIVE_INFINITY };
    }
    this.#recall = new Recall({
      store,
      memory,
      machine,
      maxDetachedMs,
      ttlMs,
      dnsTtlMs,
      cloud,
      rules: recalled,
      times: this.#times,
      clock,
      signal: this.#signal,
      onWait: this.#hooks.onWait,
    });
    try {
      await this.#recall.run();
    } finally {
      this.#recall = undefined;
    }
  }
}
