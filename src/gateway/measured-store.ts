/**
 * `MeasuredStore`: the store of a gateway, with a clock beside it. It measures commits, and knows whether they succeed.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { StoreConflictError } from '../errors.ts';
import { Histogram, type HistogramSample } from '../observe/index.ts';
import type { Change, Entry, Guard, Store, Write } from '../store/index.ts';

export class MeasuredStore implements Store {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #seconds = new Histogram();
  /** When the commits in progress began, the oldest first. */
  readonly #begun = new Set<{ readonly atMs: number }>();
  /** Why the last commit that has ended failed. */
  #failure: Error | undefined;
  #isTrying = false;
  #triedMs = Number.NEGATIVE_INFINITY;

  constructor(store: Store, clock: Clock) {
    this.#store = store;
    this.#clock = clock;
  }

  /** The durations of all commits, in seconds. */
  get durations(): HistogramSample {
    return this.#seconds.sample();
  }

  /**
   * Returns why commits do not succeed now; undefined if they do. While the last commit has failed, each call may try
   * one that changes nothing, at most once a second: a gateway with nothing to store learns so that the store works
   * again.
   */
  fault(): string | undefined {
    const nowMs = this.#clock.monotonicMs();
    const [oldest] = this.#begun;
    const waitedMs = oldest === undefined ? 0 : nowMs - oldest.atMs;
    if (waitedMs > PATIENCE_MS) {
      const seconds = Math.floor(waitedMs / 1000);
      return `a commit to the store has not ended for ${seconds} s: check its disk or its server`;
    }
    if (this.#failure === undefined) return undefined;
    if (!this.#isTrying && nowMs - this.#triedMs >= TRY_INTERVAL_MS) this.#try(nowMs);
    return `the last commit to the store has failed, ${this.#failure.message}: check its disk or its server`;
  }

  get maxWrites(): number {
    return this.#store.maxWrites ?? Number.POSITIVE_INFINITY;
  }

  get(key: string): Promise<Entry | undefined> {
    return this.#store.get(key);
  }

  list(prefix: string): Promise<Entry[]> {
    return this.#store.list(prefix);
  }

  async commit(writes: readonly Write[], guards: readonly Guard[] = []): Promise<void> {
    const begun = { atMs: this.#clock.monotonicMs() };
    this.#begun.add(begun);
    try {
      await this.#store.commit(writes, guards);
      this.#failure = undefined;
    } catch (error) {
      // A conflict is an answer of a store that works.
      this.#failure = error instanceof StoreConflictError ? undefined : (error as Error);
      throw error;
    } finally {
      this.#begun.delete(begun);
      this.#seconds.record((this.#clock.monotonicMs() - begun.atMs) / 1000);
    }
  }

  watch(prefix: string, listener: (changes: readonly Change[]) => void): () => void {
    return this.#store.watch(prefix, listener);
  }

  close(): Promise<void> {
    return this.#store.close();
  }

  #try(nowMs: number): void {
    this.#isTrying = true;
    this.#triedMs = nowMs;
    this.commit([{ key: PROBE_KEY, value: undefined }])
      .catch(() => {})
      .finally(() => {
        this.#isTrying = false;
      });
  }
}

/** A key that is never written. */
const PROBE_KEY = 'health/probe';
const PATIENCE_MS = 10_000;
const TRY_INTERVAL_MS = 1000;
