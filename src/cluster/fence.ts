/**
 * The fence of a machine: an entry that every transaction of the machine compares. It ends with the machine's lease, and
 * it is written anew before a commit in doubt is looked up. So no transaction is applied after its machine has stopped
 * waiting for it (rule of `test/model/doubt.ts`).
 * @module
 */
import * as v from 'valibot';
import type { Clock } from '../base/clock.ts';
import { StoreConflictError, StoreError, StoreUnavailableError } from '../errors.ts';
import type { Guard, LeasingStore, StoreLease, Write } from '../store/index.ts';
import { FENCES, FenceSchema } from './keys.ts';
import { pause } from './pause.ts';

/** Follows the fence of one machine. */
export class Fence {
  readonly key: string;
  readonly #store: LeasingStore;
  readonly #clock: Clock;
  readonly #unwatch: () => void;
  #lease: StoreLease | undefined;
  #version: number | undefined;
  /** Settles when the last look-up has written the fence, or cannot. */
  #raising: Promise<void> = Promise.resolve();
  /** The next such write, while it has not begun. */
  #next: Promise<void> | undefined;

  constructor(store: LeasingStore, machine: string, clock: Clock) {
    this.#store = store;
    this.#clock = clock;
    this.key = FENCES + machine;
    this.#unwatch = store.watch(this.key, (changes) => {
      for (const { key, value, version } of changes)
        if (key === this.key) this.#see(value, version);
    });
  }

  /** What a transaction compares; undefined while the machine has no lease, and may write nothing. */
  get guard(): Guard | undefined {
    const version = this.#lease?.ended.aborted === false ? this.#version : undefined;
    return version === undefined ? undefined : { key: this.key, version };
  }

  /** Takes a lease, and returns the write of the fence under it. The fence is valid when the store's watch shows it. */
  begin(lease: StoreLease, expect: number): Write {
    this.#lease = lease;
    this.#version = undefined;
    return { ...this.#write(lease), expect };
  }

  /** The machine has no lease any more. */
  end(): void {
    this.#lease = undefined;
    this.#version = undefined;
  }

  /**
   * Reads the fence, since the watch may be later than the answer to a commit.
   *
   * @throws {StoreError} if the store does not answer.
   */
  async read(): Promise<void> {
    const entry = await this.#store.get(this.key);
    this.#see(entry?.value, entry?.version ?? 0);
  }

  /**
   * Writes the fence anew. When it resolves, every transaction that compares an earlier one has been applied, and the
   * watchers have seen it, or it never will be.
   *
   * @throws {StoreUnavailableError} if the lease has ended before.
   */
  raise(): Promise<void> {
    if (this.#next !== undefined) return this.#next;
    const raised = this.#raising.then(() => {
      this.#next = undefined;
      return this.#raise();
    });
    this.#next = raised;
    this.#raising = raised.catch(() => {});
    return raised;
  }

  close(): void {
    this.end();
    this.#unwatch();
  }

  async #raise(): Promise<void> {
    for (;;) {
      const lease = this.#lease;
      const guard = this.guard;
      if (lease === undefined || guard === undefined) {
        throw new StoreUnavailableError('the lease of this machine has ended');
      }
      try {
        await this.#store.commit([{ ...this.#write(lease), expect: guard.version }]);
        return;
      } catch (error) {
        if (!(error instanceof StoreError || error instanceof StoreConflictError)) throw error;
      }
      // An earlier one of these writes may have been applied late.
      await this.read().catch(() => {});
      if (this.guard?.version === guard.version) await pause(this.#clock, RETRY_MS, lease.ended);
    }
  }

  #write(lease: StoreLease): Write {
    const value = { lease: lease.id, ttlMs: lease.ttlMs };
    return { key: this.key, value, lease };
  }

  #see(value: unknown, version: number): void {
    const read = v.safeParse(FenceSchema, value);
    const isOurs = read.success && read.output.lease === this.#lease?.id;
    if (!isOurs) this.#version = undefined;
    else if (version > (this.#version ?? 0)) this.#version = version;
  }
}

/** How long to wait until the store is asked again. */
const RETRY_MS = 100;
