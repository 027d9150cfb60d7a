/**
 * Makes the writes of a registry, one after the other: each is checked against the tables, and stored if nobody else has
 * changed the desired state meanwhile. Otherwise it is made anew from the state that there is then.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import type { SliceQueue, Slices } from '../base/slices.ts';
import { StoreConflictError, StoreError } from '../errors.ts';
import type { Change, Store, Write } from '../store/index.ts';
import { ChangeParts } from './change-parts.ts';
import { ChangePlan, writeOf } from './change-plan.ts';
import { Generation } from './generation.ts';
import type { Owner } from './model.ts';
import type { DesiredTables, RecordChange } from './tables.ts';

export interface RecordWriterOptions {
  readonly store: Store;
  readonly tables: DesiredTables;
  readonly clock: Clock;
  readonly slices: Slices;
  /** What the watch of the store brings is taken into the tables here. */
  readonly taking: SliceQueue;
}

export class RecordWriter {
  readonly #options: RecordWriterOptions;
  readonly #generation: Generation;
  #writes: Promise<unknown> = Promise.resolve();

  constructor(options: RecordWriterOptions) {
    this.#options = options;
    this.#generation = new Generation(options.clock);
  }

  /** Tells that the tables have all of these changes. */
  taken(changes: readonly Change[]): void {
    this.#generation.take(changes);
  }

  /**
   * Makes a write after all earlier ones. On a store with `maxWrites` a large one is stored in parts, see `ChangeParts`.
   *
   * @param make says what changes; it is called again if the state has changed meanwhile
   * @throws {StoreConflictError} if the state has changed in each of 20 attempts.
   * @throws {StoreError} if it cannot be stored, or another process has changed the state and the store does not tell
   *   what has changed.
   * @throws {ConflictError} if it cannot be divided.
   * @throws what `make` and the check of the records throw.
   */
  write(owner: Owner, make: (plan: ChangePlan) => void | Promise<void>): Promise<void> {
    const written = this.#writes.then(() => this.#write(owner, make));
    this.#writes = written.catch(() => {});
    return written;
  }

  /** Resolves when the writes so far have settled. */
  async idle(): Promise<void> {
    await this.#writes;
  }

  async #write(owner: Owner, make: (plan: ChangePlan) => void | Promise<void>): Promise<void> {
    const { taking } = this.#options;
    for (let left = MAX_ATTEMPTS; ; ) {
      await taking.idle();
      const attempt = { version: this.#generation.version, parts: 0 };
      try {
        const plan = new ChangePlan(this.#options.tables, owner);
        await make(plan);
        if (await this.#store(plan, attempt)) return;
      } catch (error) {
        if (!(await this.#isOvertaken(error, attempt.version))) throw error;
        left--;
        if (left === 0) throw overtaken();
      }
      if (attempt.parts > 0) left = MAX_ATTEMPTS;
    }
  }

  /** Checks and stores a plan. Returns whether all of it is stored; if not, others have changed the state meanwhile. */
  async #store(plan: ChangePlan, attempt: { version: number; parts: number }): Promise<boolean> {
    const { store, tables, slices, taking } = this.#options;
    await slices.all(plan.check());
    const { changes } = plan;
    const limit = (store.maxWrites ?? Number.POSITIVE_INFINITY) - 1;
    if (changes.length <= limit) {
      if (changes.length > 0) await this.#commit(changes, attempt.version);
      await taking.idle();
      return true;
    }
    const fits = (some: readonly RecordChange[]) => plan.fits(some, slices);
    const parts = new ChangeParts(tables, limit, fits);
    await slices.all(parts.prepare(changes));
    for (let part = await parts.next(); part !== undefined; part = await parts.next()) {
      const { count } = this.#generation;
      await this.#commit(part, attempt.version);
      attempt.parts++;
      await taking.idle();
      attempt.version = this.#generation.version;
      if (this.#generation.count !== count + 1) return false;
    }
    return true;
  }

  async #commit(changes: readonly RecordChange[], version: number): Promise<void> {
    const writes: Write[] = [];
    await this.#options.slices.all(
      (function* () {
        for (const change of changes) {
          writes.push(writeOf(change));
          yield;
        }
      })()
    );
    if (this.#generation.version !== version) throw overtaken();
    writes.push(this.#generation.write);
    await this.#options.store.commit(writes);
  }

  /** Whether an error may come from what others have changed since a version, and the tables have that now. */
  async #isOvertaken(error: unknown, version: number): Promise<boolean> {
    await this.#options.taking.idle();
    if (!(error instanceof StoreConflictError)) return this.#generation.version !== version;
    if (await this.#generation.after(version)) return true;
    throw new StoreError(
      'the desired state was changed by another machine, and the store has not told what has changed: look whether the store is reached, and try again',
      { cause: error }
    );
  }
}

function overtaken(): StoreConflictError {
  return new StoreConflictError(
    'others have changed the desired state again and again meanwhile: try again'
  );
}

const MAX_ATTEMPTS = 20;
