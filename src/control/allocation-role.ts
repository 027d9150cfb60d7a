/**
 * Whether this process allocates addresses or follows another one, and how it changes between both. It has what the
 * store shows of leases, overlaps and requests taken over in the order of the controller's work.
 *
 * Following, the leases in use are those that the store shows. When guards appear, what the store has shown by then is
 * fitted with allocation, and each commit carries the guards. When they are gone, or the store has refused them, what
 * was not stored is dropped and shown anew. A lease that changes by another hand while this process allocates has
 * everything derived anew.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { StoreConflictError } from '../errors.ts';
import type { Change, Entry, Guard, Store } from '../store/index.ts';
import { type Allocation, areSameGuards } from './allocation.ts';
import { AllocatorRequests } from './allocator-requests.ts';
import type { PresenceControllerOptions } from './controller-options.ts';
import type { LeaseTable } from './lease-table.ts';
import { OVERLAP_PREFIX } from './overlaps.ts';
import type { PresenceUse } from './presence-uses.ts';
import {
  type AskedAdmission,
  RELEASE_PREFIX,
  REQUEST_PREFIXES,
  ShownRequests,
  USES_PREFIX,
} from './shown-requests.ts';
import { LEASE_PREFIX } from './stored-lease.ts';

export interface AllocationRoleOptions {
  readonly store: Store;
  readonly allocation: Allocation;
  readonly clock: Clock;
  /** The time after which what has failed is tried again, in ms. */
  readonly retryMs: number;
}

/** What the controller does for its role. */
export interface AllocationWork {
  /** Returns the leases that are in force now. */
  readonly leases: () => LeaseTable;
  /** Runs work after all earlier work of the controller. */
  readonly enqueue: (work: () => Promise<void>) => Promise<void>;
  /** Fits all leases, with allocation, and stores them. */
  readonly fitAll: () => Promise<void>;
  /** Derives everything anew from the registry and the store. */
  readonly reopen: () => Promise<void>;
  /** Puts to use what has changed in memory. */
  readonly push: () => void;
  /** Stores what has changed in memory, and puts it to use. */
  readonly store: () => Promise<void>;
  /** Admits a client for another machine. @param end is called when that is done, false if it was put off */
  readonly admit: (asked: AskedAdmission, end: (isAnswered: boolean) => void) => void;
  readonly onError: (error: Error) => void;
}

export class AllocationRole {
  readonly requests: AllocatorRequests;
  readonly #options: AllocationRoleOptions;
  readonly #shown = new ShownRequests();
  readonly #unwatch: (() => void)[];
  #work: AllocationWork | undefined;
  /** What the store has shown and nobody has looked at. */
  #arrived: Change[] = [];
  /** What the store had at this version was read. */
  #openedVersion = 0;
  /** What the store had at this version is in force. */
  #shownVersion = 0;
  /** The guards with which this process allocates; undefined while it is following. */
  #guards: readonly Guard[] | undefined;
  /** The guards that the store has refused. */
  #refused: readonly Guard[] | undefined;
  /** The keys whose entries are to be read, because what was to be written there is dropped. */
  readonly #unread = new Set<string>();
  /** Whether leases have changed by another hand while this process allocated. */
  #isForeign = false;
  #isQueued = false;
  #endRetry: (() => void) | undefined;
  #isClosed = false;

  /** Returns undefined if this process always allocates. */
  static of({
    allocation,
    ...options
  }: Omit<AllocationRoleOptions, 'allocation'> & Pick<PresenceControllerOptions, 'allocation'>):
    | AllocationRole
    | undefined {
    return allocation && new AllocationRole({ ...options, allocation });
  }

  /** Watches the store from now on, before anything is read. */
  constructor(options: AllocationRoleOptions) {
    this.#options = options;
    this.requests = new AllocatorRequests(options);
    const prefixes = [LEASE_PREFIX, OVERLAP_PREFIX, ...REQUEST_PREFIXES];
    this.#unwatch = prefixes.map((prefix) => options.store.watch(prefix, this.#onShown));
  }

  /** Begins to follow or to allocate, after everything was derived. @throws {StoreError} if the store cannot be read. */
  async start(work: AllocationWork): Promise<void> {
    const { store, allocation } = this.#options;
    this.#work = work;
    for (const prefix of REQUEST_PREFIXES) {
      for (const entry of await store.list(prefix)) this.#shown.show(entry);
    }
    this.#unwatch.push(allocation.watch(() => void this.#later()));
    await this.#later();
  }

  /** Notes that leases were read: older changes are no news, and they are in the role that this process has. */
  opened(leases: LeaseTable): void {
    this.#openedVersion = leases.openedVersion;
    this.#shownVersion = Math.max(this.#shownVersion, leases.openedVersion);
    this.#arrived = this.#arrived.filter((change) => this.#isNews(change));
    this.#isForeign = false;
    this.#unread.clear();
    if (this.#guards !== undefined) leases.allocate(this.#guards);
  }

  /** Returns whether the watch has shown an entry of a lease as the store has it. What another process writes comes later. */
  hasTaken(entry: Entry | undefined): boolean {
    return entry !== undefined && entry.version <= this.#shownVersion;
  }

  /** Returns whether a commit has failed because another process allocates. Then this one is following. */
  async isLost(error: unknown): Promise<boolean> {
    if (!(error instanceof StoreConflictError) || this.#guards === undefined) return false;
    this.#refused = this.#guards;
    this.#follow();
    await this.#readAgain().catch((reason: Error) => this.#retryLater(reason));
    void this.#later();
    return true;
  }

  /** Asks for the end of the leases of a site's clients. @throws {AllocatorUnavailableError} if nobody answers. */
  release(site: string): Promise<void> {
    const { name } = this.#options.allocation;
    return this.requests.ask(`${RELEASE_PREFIX}${name}/${site}`, site, {});
  }

  /** Tells that presences were used. @throws {AllocatorUnavailableError} if nobody answers. */
  tell(used: readonly PresenceUse[]): Promise<void> {
    const uses = used.map(({ realm, address }) => ({ realm, address }));
    return this.requests.ask(`${USES_PREFIX}${this.#options.allocation.name}`, '', { uses });
  }

  close(): void {
    this.#isClosed = true;
    this.#endRetry?.();
    for (const unwatch of this.#unwatch) unwatch();
    this.requests.close();
  }

  readonly #onShown = (changes: readonly Change[]): void => {
    const leases = this.#work?.leases();
    const arrived = changes.filter((change) => {
      const isOwn = isOfLeases(change) && leases?.isOwn(change) === true;
      if (isOwn) this.#shownVersion = Math.max(this.#shownVersion, change.version);
      return this.#isNews(change) && !isOwn;
    });
    if (arrived.length === 0) return;
    this.#arrived.push(...arrived);
    if (leases !== undefined) void this.#later();
  };

  #isNews(change: Change): boolean {
    return !isOfLeases(change) || change.version > this.#openedVersion;
  }

  /** Takes over what has changed, after all earlier work. */
  #later(): Promise<void> {
    if (this.#isQueued || this.#isClosed) return Promise.resolve();
    this.#isQueued = true;
    return this.#work!.enqueue(async () => {
      this.#isQueued = false;
      try {
        if (!this.#isClosed) await this.#update();
      } catch (error) {
        this.#retryLater(error as Error);
      }
    });
  }

  #retryLater(reason: Error): void {
    this.#work!.onError(reason);
    if (this.#isClosed) return;
    const { clock, retryMs } = this.#options;
    this.#endRetry ??= clock.after(
      retryMs,
      () => {
        this.#endRetry = undefined;
        void this.#later();
      },
      true
    );
  }

  async #update(): Promise<void> {
    const { allocation } = this.#options;
    if (this.#guards !== undefined && !areSameGuards(this.#guards, allocation.guards)) {
      this.#follow();
    }
    const arrived = this.#arrived;
    this.#arrived = [];
    for (const { key } of arrived) this.#unread.delete(key);
    this.#show(arrived);
    await this.#readAgain();
    if (this.#isForeign) await this.#work!.reopen();
    const { guards } = allocation;
    const isNew = this.#guards === undefined && guards !== undefined;
    if (isNew && !areSameGuards(guards, this.#refused)) {
      this.#guards = guards;
      this.#work!.leases().allocate(guards);
      await this.#work!.fitAll();
    }
    if (this.#guards !== undefined) await this.#answer();
  }

  /** Drops what is not stored. */
  #follow(): void {
    this.#guards = undefined;
    for (const key of this.#work!.leases().follow()) this.#unread.add(key);
  }

  /** Reads what was dropped. */
  async #readAgain(): Promise<void> {
    const { store } = this.#options;
    while (this.#unread.size > 0) {
      const keys = [...this.#unread].slice(0, READ_AT_ONCE);
      const entries = await Promise.all(keys.map((key) => store.get(key)));
      const changes = keys.map((key, i): Change => {
        const { value, version = 0 } = entries[i] ?? {};
        return { key, value, version };
      });
      for (const key of keys) this.#unread.delete(key);
      this.#show(changes);
    }
  }

  #show(changes: readonly Change[]): void {
    if (changes.length === 0) return;
    const { leases, onError, push } = this.#work!;
    const ofLeases = changes.filter(isOfLeases);
    if (!leases().isFollowing) this.#isForeign ||= ofLeases.length > 0;
    else if (ofLeases.length > 0) {
      for (const error of leases().show(ofLeases)) onError(error);
      for (const { version } of ofLeases) {
        this.#shownVersion = Math.max(this.#shownVersion, version);
      }
      push();
    }
    const others = changes.filter(isRequest);
    for (const change of others) this.#shown.show(change);
    this.requests.show(others);
  }

  /** Does what other machines ask for. */
  async #answer(): Promise<void> {
    const { leases, admit, store } = this.#work!;
    let hasAnswered = false;
    for (const [key, work] of this.#shown.take()) {
      const end = (isAnswered: boolean): void => {
        this.#shown.end(key, isAnswered);
        if (isAnswered) leases().answer(key);
        // What waits to be derived comes first.
        else if (this.#guards !== undefined) void this.#later();
      };
      if (work !== undefined && 'admission' in work) {
        admit(work.admission, end);
        continue;
      }
      if (work !== undefined && 'release' in work) leases().releaseClients(work.release);
      else if (work !== undefined) leases().touch(work.uses);
      end(true);
      hasAnswered = true;
    }
    if (hasAnswered) await store();
  }
}

function isOfLeases({ key }: Change): boolean {
  return key.startsWith(LEASE_PREFIX) || key.startsWith(OVERLAP_PREFIX);
}

function isRequest({ key }: Change): boolean {
  return REQUEST_PREFIXES.some((prefix) => key.startsWith(prefix));
}

/** How many entries are read at once. */
const READ_AT_ONCE = 256;
