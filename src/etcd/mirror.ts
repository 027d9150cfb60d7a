/**
 * The entries of a store in memory, as etcd's watch shows them. It is listed once, and again when the watch has missed
 * something; then the difference is told as changes. It notices when etcd has other data than before.
 * @module
 */
import { Emitter } from '../base/emitter.ts';
import { slicesOf } from '../base/slices.ts';
import { StoreError, StoreReplacedError, StoreUnavailableError } from '../errors.ts';
import { areMany } from '../store/changes.ts';
import { differenceOf } from '../store/difference.ts';
import { META_KEY, versionBaseOf } from '../store/meta.ts';
import type { Change } from '../store/store.ts';
import { EntryTable } from '../store/table.ts';
import { CallError } from './call-error.ts';
import type { EtcdConnection } from './connection.ts';
import { EVENT_DELETE, type ResponseHeader, type WatchEvent } from './descriptor.ts';
import { Keyspace } from './keyspace.ts';
import { type Listing, listAll } from './listing.ts';
import type { EtcdSettings } from './options.ts';
import { WatchSession } from './watch-session.ts';

/** Whether an `EtcdStore` shows what etcd has. */
export type EtcdStoreState =
  /** The watch is there. */
  | 'connected'
  /** etcd cannot be reached; what was seen last is shown. */
  | 'disconnected'
  /** etcd has other data, and what was seen last before is shown until `goOver`. */
  | 'replaced'
  | 'closed';

export interface EtcdStoreEvents {
  /** `state` is new. */
  state: [change: { readonly state: EtcdStoreState; readonly previous: EtcdStoreState }];
  /** A key or a value under the prefix is not one of a store, etcd refuses to be watched, or it has other data. */
  problem: [problem: { readonly error: Error }];
}

interface Waiter {
  readonly isOver: () => boolean;
  readonly resolve: () => void;
}

export class Mirror extends Emitter<EtcdStoreEvents> {
  readonly table: EntryTable = new EntryTable();
  readonly #connection: EtcdConnection;
  readonly #settings: EtcdSettings;
  #keyspace: Keyspace;
  #state: EtcdStoreState = 'disconnected';
  #clusterId = '';
  /** The greatest raft term and revision of an answer that all members agree on. */
  #raftTerm = 0;
  #revision = 0;
  #freshAtMs: number;
  #session: WatchSession | undefined;
  /** What the watch has shown and is not applied yet. */
  readonly #work: (() => Promise<void> | void)[] = [];
  #isWorking = false;
  #working: Promise<void> = Promise.resolve();
  /** Why etcd refuses to be watched; undefined if it does not. */
  #fault: Error | undefined;
  readonly #waiters = new Set<Waiter>();
  #following: Promise<void> = Promise.resolve();
  #wake: () => void = () => {};

  constructor(connection: EtcdConnection, settings: EtcdSettings) {
    super();
    this.#connection = connection;
    this.#settings = settings;
    this.#keyspace = new Keyspace(settings.prefix);
    this.#freshAtMs = settings.clock.monotonicMs();
  }

  get state(): EtcdStoreState {
    return this.#state;
  }

  get clusterId(): string {
    return this.#clusterId;
  }

  /** It is another one after `goOver`. */
  get keyspace(): Keyspace {
    return this.#keyspace;
  }

  /** Up to when the entries are those of etcd, on the monotonic clock. */
  get freshAtMs(): number {
    return this.#freshAtMs;
  }

  /**
   * Lists the entries and begins to watch.
   *
   * @throws {CallError} if etcd does not answer in time, or refuses.
   * @throws {StoreError} if a key or a value is not one of a store.
   */
  async open(): Promise<void> {
    this.#freshAtMs = this.#settings.clock.monotonicMs();
    const { keyspace, listing } = await this.#listAnew((header) => this.check(header, true));
    const { entries, faults, version } = listing;
    const [fault] = faults;
    if (fault !== undefined) throw fault;
    this.#keyspace = keyspace;
    const slices = slicesOf();
    for (const entry of entries) {
      if (slices.isOver) await slices.next();
      this.table.load([entry]);
    }
    this.table.version = version;
    this.#following = this.#follow();
    await this.connected();
  }

  /**
   * Takes the data that etcd has now, tells the difference and watches again. If it rejects, the state is `replaced`.
   *
   * @throws {CallError} if etcd does not answer in time, or refuses.
   * @throws {StoreReplacedError} if the versions there are not later than those before, or etcd has changed again.
   */
  async goOver(): Promise<void> {
    this.#end('replaced');
    await this.#following;
    let data: ResponseHeader | undefined;
    const { keyspace, listing } = await this.#listAnew((header) => {
      if (data !== undefined && header.cluster_id !== data.cluster_id) {
        throw replaced('and has changed again while it was read');
      }
      data = header;
    });
    if (keyspace.base < this.table.version || this.#state === 'closed') {
      throw replaced(
        `with versions from ${keyspace.base} on, and this process has seen ${this.table.version}; start it again`
      );
    }
    this.#keyspace = keyspace;
    this.#clusterId = data!.cluster_id;
    this.#raftTerm = Number(data!.raft_term);
    this.#revision = Number(data!.revision);
    this.#fault = undefined;
    await this.#take(listing);
    // It may have been closed meanwhile.
    if (this.#state === 'replaced') this.#change('disconnected');
    this.#following = this.#follow();
    await this.connected();
  }

  /**
   * Resolves when the watch is there.
   *
   * @param timeoutMs default: the time of a request
   * @throws {StoreUnavailableError} if it is not in time.
   * @throws {StoreReplacedError} if etcd has other data.
   */
  async connected(timeoutMs: number = this.#settings.requestTimeoutMs): Promise<void> {
    if (this.#state === 'connected') return;
    await this.until(() => this.#state !== 'disconnected', timeoutMs);
    const state = this.#state as EtcdStoreState;
    if (state === 'connected') return;
    if (state === 'replaced') throw replaced('which this process does not show yet');
    throw new StoreUnavailableError(
      this.#fault === undefined
        ? `etcd at ${this.#connection.endpoint} cannot be reached: check it and the network`
        : `etcd cannot be watched: ${this.#fault.message}`
    );
  }

  /**
   * Waits until something holds, and returns whether it does.
   *
   * @param timeoutMs default: the time of a request
   */
  async until(
    isOver: () => boolean,
    timeoutMs: number = this.#settings.requestTimeoutMs
  ): Promise<boolean> {
    if (isOver()) return true;
    if (timeoutMs <= 0) return false;
    const { clock } = this.#settings;
    let cancel: () => void = () => {};
    let waiter: Waiter | undefined;
    await new Promise<void>((resolve) => {
      waiter = { isOver, resolve };
      this.#waiters.add(waiter);
      cancel = clock.after(timeoutMs, resolve);
    });
    cancel();
    this.#waiters.delete(waiter!);
    return isOver();
  }

  /**
   * Notes what an answer says about the data of etcd.
   *
   * @param isAgreed whether all members agree on the answer: one member may be behind
   * @throws {StoreReplacedError} if it is not the data of before.
   */
  check(header: ResponseHeader, isAgreed = false): void {
    const { cluster_id: clusterId } = header;
    if (this.#clusterId === '') this.#clusterId = clusterId;
    if (clusterId !== this.#clusterId) {
      this.#end('replaced');
      throw replaced(`its cluster id was ${this.#clusterId} and is ${clusterId}`);
    }
    if (!isAgreed) return;
    this.#raftTerm = Math.max(this.#raftTerm, Number(header.raft_term));
    this.#revision = Math.max(this.#revision, Number(header.revision));
  }

  /** Gives the watch up, because it has not shown a change. */
  restart(why: string): void {
    this.#session?.stop(why);
  }

  async close(): Promise<void> {
    this.#end('closed');
    await this.#following;
  }

  async #follow(): Promise<void> {
    while (!this.#isOver) {
      try {
        await this.#verify();
        const session = this.#newSession();
        this.#session = session;
        const end = await session.run(
          this.#keyspace,
          this.#keyspace.revisionOf(this.table.version) + 1
        );
        this.#session = undefined;
        await this.#working;
        this.#turn('disconnected');
        if (end !== 'compacted') throw end;
        await this.#catchUp();
      } catch (error) {
        if (!(error instanceof CallError) && !(error instanceof StoreReplacedError)) throw error;
        if (error instanceof StoreReplacedError || !error.isUnavailable) this.#report(error);
        await this.#pause();
      }
    }
  }

  #newSession(): WatchSession {
    return new WatchSession(this.#connection, this.#settings, {
      onCreated: () =>
        this.#do(() => {
          this.#fault = undefined;
          this.#turn('connected');
        }),
      onHeader: (header) => {
        try {
          this.check(header);
        } catch (error) {
          this.#report(error as Error);
        }
      },
      onEvents: (events) => {
        for (const revision of revisionsOf(events)) this.#do(() => this.#apply(revision));
      },
      onFresh: (atMs) =>
        this.#do(() => {
          this.#freshAtMs = atMs;
        }),
    });
  }

  /**
   * Asks etcd where it is. A watch from a revision that is to come would be silent until then.
   *
   * @throws {StoreReplacedError} if it is behind what it was.
   */
  async #verify(): Promise<void> {
    const { start } = this.#keyspace;
    const raftTerm = this.#raftTerm;
    const revision = Math.max(this.#revision, this.#keyspace.revisionOf(this.table.version));
    const { header } = await this.#connection.call(
      '/etcdserverpb.KV/Range',
      { key: start, count_only: true },
      { timeoutMs: this.#settings.requestTimeoutMs, isRepeatable: true }
    );
    this.check(header);
    if (Number(header.revision) < revision || Number(header.raft_term) < raftTerm) {
      this.#end('replaced');
      throw replaced(
        `its revision was ${revision} (raft term ${raftTerm}) and is ${header.revision} (raft term ${header.raft_term})`
      );
    }
    this.check(header, true);
  }

  #list(keyspace: Keyspace, onHeader: (header: ResponseHeader) => void): Promise<Listing> {
    const { requestTimeoutMs } = this.#settings;
    return listAll(this.#connection, keyspace, requestTimeoutMs, onHeader);
  }

  /** Lists the entries by the versions of the data that etcd has now. */
  async #listAnew(
    onHeader: (header: ResponseHeader) => void
  ): Promise<{ readonly keyspace: Keyspace; readonly listing: Listing }> {
    const plain = new Keyspace(this.#settings.prefix);
    const listing = await this.#list(plain, onHeader);
    const keyspace = new Keyspace(
      this.#settings.prefix,
      versionBaseOf(listing.entries.find(({ key }) => key === META_KEY)?.value)
    );
    if (keyspace.base === 0) return { keyspace, listing };
    const entries = listing.entries.map((entry) =>
      Object.freeze({ ...entry, version: keyspace.versionOf(entry.version) })
    );
    const version = keyspace.versionOf(listing.version);
    return { keyspace, listing: { ...listing, entries, version } };
  }

  /** Lists the entries again and tells the difference. */
  async #catchUp(): Promise<void> {
    await this.#take(await this.#list(this.#keyspace, (header) => this.check(header, true)));
  }

  /** Makes the entries those of a listing, and tells the difference. */
  async #take({ entries, faults, version }: Listing): Promise<void> {
    for (const error of faults) this.emit('problem', { error });
    const slices = slicesOf();
    const changes: Change[] = [];
    for (const change of differenceOf(this.table, entries, version)) {
      if (slices.isOver) await slices.next();
      if (change !== undefined) changes.push(change);
    }
    await this.table.apply(changes, slices);
    this.table.version = version;
    this.#tell();
  }

  /** Applies the events of one revision. */
  #apply(events: readonly WatchEvent[]): Promise<void> | void {
    const changes = events.flatMap((event) => this.#changeOf(event));
    const reach = (): void => {
      this.table.version = Math.max(
        this.table.version,
        this.#keyspace.versionOf(events[0]!.kv.mod_revision)
      );
      this.#tell();
    };
    if (areMany(changes)) return this.table.apply(changes).then(reach);
    this.table.applyAtOnce(changes);
    reach();
  }

  /** What cannot be read is reported, and is as if it did not exist. */
  #changeOf({ type, kv }: WatchEvent): readonly Change[] {
    const key = this.#keyspace.keyOf(kv);
    if (type !== EVENT_DELETE) {
      try {
        return [this.#keyspace.entryOf(kv)];
      } catch (error) {
        if (!(error instanceof StoreError)) throw error;
        this.emit('problem', { error });
      }
    }
    if (key === undefined || this.table.versionOf(key) === 0) return [];
    const version = this.#keyspace.versionOf(kv.mod_revision);
    return [Object.freeze({ key, value: undefined, version })];
  }

  #do(work: () => Promise<void> | void): void {
    this.#work.push(work);
    if (!this.#isWorking) this.#working = this.#workOn();
  }

  /** Does at once what can be done at once. */
  async #workOn(): Promise<void> {
    this.#isWorking = true;
    for (let work = this.#work.shift(); work !== undefined; work = this.#work.shift()) {
      const working = work();
      if (working !== undefined) await working;
    }
    this.#isWorking = false;
    this.#tell();
  }

  /** Reports what keeps the watch from beginning, once for each reason. */
  #report(error: Error): void {
    if (error.message === this.#fault?.message) return;
    this.#fault = error;
    this.emit('problem', { error });
  }

  #turn(state: EtcdStoreState): void {
    if (state !== this.#state && !this.#isOver) this.#change(state);
  }

  #change(state: EtcdStoreState): void {
    const previous = this.#state;
    this.#state = state;
    this.emit('state', { state, previous });
    this.#tell();
  }

  #end(state: 'replaced' | 'closed'): void {
    if (state === 'closed' && this.#state === 'replaced') this.#change(state);
    else this.#turn(state);
    this.#session?.stop(state);
    this.#wake();
  }

  get #isOver(): boolean {
    return this.#state === 'replaced' || this.#state === 'closed';
  }

  #tell(): void {
    for (const { isOver, resolve } of this.#waiters) if (isOver()) resolve();
  }

  async #pause(): Promise<void> {
    if (this.#isOver) return;
    const { clock } = this.#settings;
    let cancel: () => void = () => {};
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      cancel = clock.after(PAUSE_MS, resolve, true);
    });
    cancel();
  }
}

/** Divides events by their revisions. */
function* revisionsOf(events: readonly WatchEvent[]): Generator<readonly WatchEvent[]> {
  let revision: WatchEvent[] = [];
  for (const event of events) {
    if (revision.length > 0 && revision[0]!.kv.mod_revision !== event.kv.mod_revision) {
      yield revision;
      revision = [];
    }
    revision.push(event);
  }
  if (revision.length > 0) yield revision;
}

function replaced(how: string): StoreReplacedError {
  return new StoreReplacedError(
    `etcd has other data than before, ${how}: check whether it was restored from a backup`
  );
}

/** The time between two attempts to watch. */
const PAUSE_MS = 100;
