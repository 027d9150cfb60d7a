/**
 * A store whose commits get no answer when a test says so: they are applied before, later, or never. A slow one is applied
 * later, and answered then.
 * @module
 */
import { StoreDoubtError } from '../../src/errors.ts';
import type {
  Change,
  Entry,
  Guard,
  LeasingStore,
  MemoryStore,
  StoreLease,
  Write,
} from '../../src/store/index.ts';

export type Fault = 'applied' | 'late' | 'never' | 'slow';

export class FaultyStore implements LeasingStore {
  readonly inner: MemoryStore;
  readonly maxWrites?: number;
  /** What happens to the next commits that write a key with this prefix. */
  readonly #faults: { readonly prefix: string; readonly fault: Fault }[] = [];
  readonly #late: (() => Promise<void>)[] = [];

  constructor(inner: MemoryStore, maxWrites?: number) {
    this.inner = inner;
    if (maxWrites !== undefined) this.maxWrites = maxWrites;
  }

  get clusterId(): string {
    return this.inner.clusterId;
  }

  get version(): number {
    return this.inner.version;
  }

  /** What happens to the next commit that writes a key with this prefix. */
  fail(prefix: string, fault: Fault): void {
    this.#faults.push({ prefix, fault });
  }

  /** The commits that are late or slow are applied now, if their conditions are met. */
  async deliver(): Promise<void> {
    for (const commit of this.#late.splice(0)) await commit().catch(() => {});
  }

  async commit(writes: readonly Write[], guards: readonly Guard[] = []): Promise<void> {
    const at = this.#faults.findIndex(({ prefix }) =>
      writes.some(({ key }) => key.startsWith(prefix))
    );
    if (at === -1) return this.inner.commit(writes, guards);
    const { fault } = this.#faults.splice(at, 1)[0]!;
    if (fault === 'applied') await this.inner.commit(writes, guards);
    if (fault === 'slow') {
      return new Promise((resolve, reject) => {
        this.#late.push(() => this.inner.commit(writes, guards).then(resolve, reject));
      });
    }
    if (fault === 'late') this.#late.push(() => this.inner.commit(writes, guards));
    throw new StoreDoubtError('the store has not answered');
  }

  get(key: string): Promise<Entry | undefined> {
    return this.inner.get(key);
  }

  list(prefix: string): Promise<Entry[]> {
    return this.inner.list(prefix);
  }

  watch(prefix: string, listener: (changes: readonly Change[]) => void): () => void {
    return this.inner.watch(prefix, listener);
  }

  grant(ttlMs: number): Promise<StoreLease> {
    return this.inner.grant(ttlMs);
  }

  close(): Promise<void> {
    return this.inner.close();
  }
}
