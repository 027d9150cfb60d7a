/**
 * One store as several machines reach it: each has watches of its own, which may lag behind, and may be cut off or crash.
 */
import { StoreConflictError, StoreError } from '../../src/errors.ts';
import type {
  Change,
  Entry,
  Guard,
  Json,
  Store,
  StoreLease,
  Write,
} from '../../src/store/index.ts';

export class SharedStore {
  readonly entries: Map<string, Entry> = new Map();
  readonly #leaseOf = new Map<string, string>();
  readonly #machines = new Set<MachineStore>();
  version = 0;
  /** Whether the conditions of commits are looked at; a test of the tests switches that off. */
  hasGuards = true;
  /** Is told of each commit before it is applied. */
  onCommit: (writes: readonly Write[], by: MachineStore) => void = () => {};

  machine(name: string, maxWrites?: number): MachineStore {
    const machine = new MachineStore(this, name, maxWrites);
    this.#machines.add(machine);
    return machine;
  }

  forget(machine: MachineStore): void {
    this.#machines.delete(machine);
    this.endLease(machine.name);
  }

  valueOf(key: string): Json | undefined {
    return this.entries.get(key)?.value;
  }

  endLease(id: string): void {
    const keys = [...this.#leaseOf].filter(([, lease]) => lease === id).map(([key]) => key);
    if (keys.length > 0) this.#apply(keys.map((key) => ({ key, value: undefined })));
  }

  apply(writes: readonly Write[], guards: readonly Guard[], by: MachineStore): number {
    const versionOf = (key: string): number => this.entries.get(key)?.version ?? 0;
    const expected = writes.map(({ key, expect = versionOf(key) }) => ({ key, version: expect }));
    for (const { key, version } of [...(this.hasGuards ? guards : []), ...expected]) {
      if (versionOf(key) !== version) throw new StoreConflictError(`${key} has changed`);
    }
    this.onCommit(writes, by);
    return this.#apply(writes);
  }

  #apply(writes: readonly Write[]): number {
    this.version++;
    const changes = writes.map(({ key, value, lease }): Change => {
      this.#leaseOf.delete(key);
      if (lease !== undefined) this.#leaseOf.set(key, lease.id);
      // As over a network, each machine gets a value of its own.
      const copy = value === undefined ? undefined : (JSON.parse(JSON.stringify(value)) as Json);
      if (copy === undefined) this.entries.delete(key);
      else this.entries.set(key, { key, value: copy, version: this.version });
      return { key, value: copy, version: this.version };
    });
    for (const machine of this.#machines) machine.arrive(changes);
    return this.version;
  }
}

export class MachineStore implements Store {
  readonly name: string;
  readonly maxWrites?: number;
  readonly lease: StoreLease;
  readonly #shared: SharedStore;
  readonly #watchers = new Set<{
    prefix: string;
    listener: (changes: readonly Change[]) => void;
  }>();
  #arrived: (readonly Change[])[] = [];
  #waiting: { version: number; resolve: () => void }[] = [];
  #isLagging = false;
  isFailing = false;
  #isDead = false;
  /** The version that its watches have shown. */
  version: number;

  constructor(shared: SharedStore, name: string, maxWrites: number | undefined) {
    this.#shared = shared;
    this.name = name;
    if (maxWrites !== undefined) this.maxWrites = maxWrites;
    this.version = shared.version;
    const ended = new AbortController();
    this.lease = { id: name, ttlMs: 1000, ended: ended.signal, revoke: async () => ended.abort() };
  }

  async get(key: string): Promise<Entry | undefined> {
    return this.#shared.entries.get(key);
  }

  async list(prefix: string): Promise<Entry[]> {
    const all = [...this.#shared.entries.values()];
    return all.filter(({ key }) => key.startsWith(prefix)).sort((a, b) => (a.key < b.key ? -1 : 1));
  }

  async commit(writes: readonly Write[], guards: readonly Guard[] = []): Promise<void> {
    if (this.#isDead || this.isFailing) throw new StoreError('the network is down');
    if (writes.length + guards.length > (this.maxWrites ?? Number.POSITIVE_INFINITY)) {
      throw new StoreError('too many operations in a transaction');
    }
    const version = this.#shared.apply(writes, guards, this);
    if (this.version < version) {
      await new Promise<void>((resolve) => this.#waiting.push({ version, resolve }));
    }
  }

  watch(prefix: string, listener: (changes: readonly Change[]) => void): () => void {
    const watcher = { prefix, listener };
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  async close(): Promise<void> {}

  arrive(changes: readonly Change[]): void {
    this.#arrived.push(changes);
    this.#deliver();
  }

  /** Whether its watches show nothing of what happens. */
  set isLagging(isLagging: boolean) {
    this.#isLagging = isLagging;
    this.#deliver();
  }

  /** Ends everything, as if the power was cut. */
  crash(): void {
    this.#isDead = true;
    this.#watchers.clear();
    this.#shared.forget(this);
  }

  #deliver(): void {
    while (!this.#isLagging && this.#arrived.length > 0) {
      const changes = this.#arrived.shift()!;
      for (const { prefix, listener } of [...this.#watchers]) {
        const seen = changes.filter(({ key }) => key.startsWith(prefix));
        if (seen.length > 0) listener(seen);
      }
      this.version = changes[0]!.version;
      const reached = this.#waiting.filter(({ version }) => version <= this.version);
      this.#waiting = this.#waiting.filter(({ version }) => version > this.version);
      for (const { resolve } of reached) resolve();
    }
  }
}
