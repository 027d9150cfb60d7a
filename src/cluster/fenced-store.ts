/**
 * The store of one machine of several: each commit also compares the machine's fence, and a commit in doubt is looked up.
 *
 * `test/model/doubt.ts` checks the rule: the fence is written anew before the commit is looked up.
 * @module
 */
import { isDeepStrictEqual } from 'node:util';
import { StoreConflictError, StoreDoubtError, StoreUnavailableError } from '../errors.ts';
import type { Change, Entry, Guard, LeasingStore, Store, Write } from '../store/index.ts';
import type { Fence } from './fence.ts';

/** The writes of a commit that has not been answered, by key; those are deleted whose changes the watch has shown. */
type Unseen = Map<string, Write>;

/**
 * A store for all that a machine writes. A machine that is detached writes nothing, and no write is applied after its
 * commit has failed, unless that is a `StoreDoubtError`.
 */
export class FencedStore implements Store {
  readonly maxWrites?: number;
  readonly #store: LeasingStore;
  readonly #fence: Fence;
  readonly #unseen = new Set<Unseen>();
  readonly #unwatch: () => void;

  constructor(store: LeasingStore, fence: Fence) {
    this.#store = store;
    this.#fence = fence;
    // The guard takes the place of a write.
    if (store.maxWrites !== undefined) this.maxWrites = store.maxWrites - 1;
    this.#unwatch = store.watch('', (changes) => this.#see(changes));
  }

  get(key: string): Promise<Entry | undefined> {
    return this.#store.get(key);
  }

  list(prefix: string): Promise<Entry[]> {
    return this.#store.list(prefix);
  }

  watch(prefix: string, listener: (changes: readonly Change[]) => void): () => void {
    return this.#store.watch(prefix, listener);
  }

  /**
   * Commits while this machine is attached.
   *
   * @throws {StoreConflictError} if an entry does not have the version in `expect` or in a guard.
   * @throws {StoreUnavailableError} if this machine is detached, or the commit got no answer and was not applied.
   * @throws {StoreDoubtError} if the commit got no answer and could not be looked up before the lease ended.
   */
  async commit(writes: readonly Write[], guards: readonly Guard[] = []): Promise<void> {
    for (;;) {
      const fence = this.#fence.guard;
      if (fence === undefined) throw detached();
      const unseen: Unseen = new Map(writes.map((write) => [write.key, write]));
      this.#unseen.add(unseen);
      try {
        await this.#store.commit(writes, [...guards, fence]);
        return;
      } catch (error) {
        if (error instanceof StoreConflictError) {
          await this.#fence.read();
          // The look-up of another commit has written the fence anew.
          if (this.#fence.guard !== undefined && this.#fence.guard.version !== fence.version)
            continue;
          if (this.#fence.guard === undefined) throw detached();
          throw error;
        }
        if (!(error instanceof StoreDoubtError)) throw error;
        if (await this.#wasApplied(unseen, error)) return;
        throw new StoreUnavailableError('the commit got no answer, and was not applied', {
          cause: error,
        });
      } finally {
        this.#unseen.delete(unseen);
      }
    }
  }

  /** Ends the look-up of commits; the store below stays open. */
  close(): Promise<void> {
    this.#unwatch();
    return Promise.resolve();
  }

  /** Returns whether a commit in doubt was applied. Its writes count as applied if others make the same ones. */
  async #wasApplied(unseen: Unseen, doubt: StoreDoubtError): Promise<boolean> {
    try {
      await this.#fence.raise();
    } catch (error) {
      if (error instanceof StoreUnavailableError) throw doubt;
      throw error;
    }
    // The deletion of an entry that does not exist is no change.
    for (const [key, { value }] of unseen) {
      if (value !== undefined || (await this.#store.get(key)) !== undefined) return false;
    }
    return true;
  }

  #see(changes: readonly Change[]): void {
    for (const unseen of this.#unseen) {
      for (const { key, value } of changes) {
        const write = unseen.get(key);
        if (write !== undefined && isDeepStrictEqual(write.value, value)) unseen.delete(key);
      }
    }
  }
}

function detached(): StoreUnavailableError {
  return new StoreUnavailableError(
    'this machine is detached from the store of the cloud; it writes again when it is attached'
  );
}
