/**
 * `Recall` brings a store that was restored from a backup into force again. Machines whose processes live through the
 * restore have later data in memory: leases of addresses, revocations, certificates, the desired state. Until this ends,
 * no machine is attached, so nobody allocates, claims or changes anything, and tunnels go on.
 *
 * The rules are those of `test/model/restore.ts`:
 *
 * 1. Each machine writes `recall/<name>/...`: where its memory differs from the backup. One whose memory is not the newest
 *    writes nothing, and neither does a process that has just started. Then it writes `recalled/<name>`, which stays when
 *    the process ends (rules `recalls`, `complete`, `keeps`).
 * 2. All wait until each machine that the restored store or the newest memory knows has done so, or must have stopped, or
 *    was removed by an operator, and then for a TTL of names (rules `waits`, `ofMemory`, `ttl`).
 * 3. The newest memory counts as a whole, since all are states of one history (rule `newest`): `restored` names it. Its
 *    entries are written, what is void is deleted (rule `voids`), and then `meta` says that the data is valid.
 *
 * Each commit compares `meta`, so none is applied after the end. Each step may be repeated, by several machines at a time.
 * A machine that is known only to machines without a memory is not waited for.
 * @module
 */
import { isDeepStrictEqual } from 'node:util';
import * as v from 'valibot';
import type { Clock } from '../base/clock.ts';
import type { Schema } from '../base/schema.ts';
import { slicesOf } from '../base/slices.ts';
import {
  ConflictError,
  NotFoundError,
  StoreConflictError,
  StoreReplacedError,
  StoreUnavailableError,
} from '../errors.ts';
import type { Entry, Guard, LeasingStore, Store, Write } from '../store/index.ts';
import { META_KEY } from '../store/meta.ts';
import {
  MACHINES,
  type MachineRecord,
  MachineSchema,
  RECALLED,
  RECALLS,
  RESTORED_KEY,
  type RecalledRecord,
  RecalledSchema,
  RecallSchema,
  type RestoredRecord,
  RestoredSchema,
} from './keys.ts';
import { type FoundMeta, readMeta } from './meta.ts';
import { pause } from './pause.ts';
import { MachineRemovedError } from './registration.ts';

/** Which entries a restored store gets back from the memory of machines. */
export interface RecallRules {
  /** What the keys begin with whose entries stay when their machine ends. Those of machines are added. */
  readonly prefixes: readonly string[];
  /** What the keys begin with of entries that may be void. */
  readonly voidPrefix: string;
  /** Whether an entry of the restored store is void, because it may have been used since the backup. */
  readonly isVoid: (entry: Entry) => boolean;
}

/** What a restored store waits for before it comes into force. */
export interface RecallWait {
  /** The machines that have not recalled, in the order of their names. */
  readonly machines: readonly string[];
  /** For how long it waits in all, in ms from now, if nothing happens before; infinite without an end. */
  readonly leftMs: number;
}

/** When a restore was seen, by the monotonic clock. It outlives a `Recall` that has lost the restored store. */
export interface RecallTimes {
  /** The cluster id of the restored store. */
  readonly cluster: string;
  readonly startMs: number;
  /** Since when no machine is waited for; infinite while one is. */
  doneSinceMs: number;
}

export interface RecallOptions {
  /** The restored data. */
  readonly store: LeasingStore;
  /** What this process has seen before; undefined if it has just started. */
  readonly memory: LeasingStore | undefined;
  readonly machine: string;
  readonly maxDetachedMs: number;
  readonly ttlMs: number;
  readonly dnsTtlMs: number;
  readonly cloud: string | undefined;
  readonly rules: RecallRules;
  readonly times: RecallTimes;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** Called when this machine has recalled, and whenever other machines are waited for than before. */
  readonly onWait: (wait: RecallWait) => void;
}

export class Recall {
  readonly #options: RecallOptions;
  /** The machines that were said to be waited for. */
  #told: string | undefined;
  /** What every commit compares. */
  #guard: Guard | undefined;
  #changed = new AbortController();

  constructor(options: RecallOptions) {
    this.#options = options;
  }

  /**
   * Resolves when the restored data is in force.
   *
   * @throws {ConflictError} if the store has the data of another cloud.
   * @throws {StoreReplacedError} if it was restored without another cluster id.
   * @throws {MachineRemovedError} if an operator has said that this machine is off.
   * @throws {StoreError} if the store does not answer. All may then be tried again.
   */
  async run(): Promise<void> {
    const { store, clock, signal } = this.#options;
    // It ends when the store has not answered for a while.
    const contact = await store.grant(RECALL_CONTACT_MS);
    const wake = (): void => this.#changed.abort();
    const unwatch = [RECALLED, MACHINES, META_KEY].map((prefix) => store.watch(prefix, wake));
    contact.ended.addEventListener('abort', wake);
    signal.addEventListener('abort', wake);
    try {
      for (;;) {
        this.#changed = new AbortController();
        if (signal.aborted || contact.ended.aborted) throw lost();
        try {
          const found = await this.#found();
          if (found === undefined) return;
          await this.#tell();
          const waitMs = await this.#waitMs();
          if (waitMs <= 0) await this.#finish(found);
          else await pause(clock, Math.min(waitMs, MAX_WAIT_MS), this.#changed.signal);
        } catch (error) {
          if (!(error instanceof StoreConflictError)) throw error;
        }
      }
    } finally {
      for (const end of unwatch) end();
      signal.removeEventListener('abort', wake);
      await contact.revoke();
    }
  }

  /**
   * Says that a machine is off, on the operator's word: it is not waited for.
   *
   * @throws {NotFoundError} if no such machine is waited for.
   * @throws {ConflictError} if it has recalled, so that its process is alive or nothing is lost with it.
   * @throws {StoreConflictError} if it is just doing so.
   * @throws {StoreError} if the store does not answer.
   */
  async remove(machine: string): Promise<void> {
    const { store } = this.#options;
    // `run` may not have looked yet. Data that is in force has nothing to recall.
    if (this.#guard === undefined && (await this.#found()) === undefined) {
      throw new NotFoundError(`the restore does not wait for machine "${machine}" any more`);
    }
    const expect = await this.#versionOf(RECALLED + machine);
    if ((await this.#recalled()).get(machine)?.removed === false) {
      throw new ConflictError(
        `machine "${machine}" has recalled what it knew; remove it when the restore has ended`
      );
    }
    if (!(await this.#machines()).has(machine)) {
      throw new NotFoundError(`there is no machine "${machine}"`);
    }
    const value = { cluster: store.clusterId, seen: 0, version: 0, removed: true };
    await this.#commit([{ key: RECALLED + machine, value, expect }]);
  }

  /** Returns `meta`, which is about the data of before; undefined if the data is in force. */
  async #found(): Promise<FoundMeta | undefined> {
    const { store, memory, cloud } = this.#options;
    if (memory?.clusterId === store.clusterId) {
      throw new StoreReplacedError(
        'the store was restored and has the same cluster id as before: restore it again with another --initial-cluster-token'
      );
    }
    const found = await readMeta(store, cloud);
    const known = memory && (await readMeta(memory, cloud));
    if (found === undefined || (known !== undefined && found.meta.id !== known.meta.id)) {
      throw new ConflictError(
        'the store has other data than this cloud had: restore a backup of this cloud, or check the endpoints of the store'
      );
    }
    if (found.meta.cluster === store.clusterId) return undefined;
    this.#guard = { key: META_KEY, version: found.version };
    return found;
  }

  /** Writes what this machine has in memory, unless it has done so before. */
  async #tell(): Promise<void> {
    const { store, memory, machine, maxDetachedMs } = this.#options;
    const expect = await this.#versionOf(RECALLED + machine);
    const recalled = await this.#recalled();
    const own = recalled.get(machine);
    if (own?.removed === true && memory !== undefined) throw new MachineRemovedError(machine);
    if (own?.removed === false) return;
    const prefix = `${RECALLS}${machine}/`;
    const difference = await this.#difference(newestOf(recalled)?.[1].version ?? 0);
    const entries = difference ?? [];
    // An earlier process of this machine, or one before an earlier restore, may have left some.
    const keys = new Set(entries.map(({ key }) => prefix + key));
    const left = (await store.list(prefix)).filter(({ key }) => !keys.has(key));
    await this.#commit(left.map(({ key }) => ({ key, value: undefined })));
    await this.#commit(
      entries.map(({ key, value }) => ({
        key: prefix + key,
        value: value === undefined ? {} : { value },
      }))
    );
    const value: RecalledRecord = {
      cluster: store.clusterId,
      seen: memory?.version ?? 0,
      version: difference === undefined ? 0 : memory!.version,
      removed: false,
    };
    const writes: Write[] = [{ key: RECALLED + machine, value: { ...value }, expect }];
    if ((await store.get(MACHINES + machine)) === undefined) {
      const limit = Number.isFinite(maxDetachedMs) ? maxDetachedMs : null;
      writes.push({ key: MACHINES + machine, value: { maxDetachedMs: limit } });
    }
    await this.#commit(writes);
  }

  /**
   * Returns the entries in memory that the restored store has not, and the keys of those that memory has not. Undefined if
   * the restored store, or a memory of the version `known`, is not older.
   */
  async #difference(known: number): Promise<readonly Pick<Write, 'key' | 'value'>[] | undefined> {
    const { store, memory } = this.#options;
    if (memory === undefined || memory.version <= known) return undefined;
    const slices = slicesOf();
    const different: Pick<Write, 'key' | 'value'>[] = [];
    let backupVersion = 0;
    for (const prefix of this.#prefixes) {
      const before = new Map((await store.list(prefix)).map((entry) => [entry.key, entry]));
      for (const { key, value, version } of await memory.list(prefix)) {
        if (slices.isOver) await slices.next();
        const other = before.get(key);
        before.delete(key);
        backupVersion = Math.max(backupVersion, other?.version ?? 0);
        if (other?.version === version || isDeepStrictEqual(other?.value, value)) continue;
        different.push({ key, value });
      }
      for (const { key, version } of before.values()) {
        backupVersion = Math.max(backupVersion, version);
        different.push({ key, value: undefined });
      }
    }
    return memory.version < backupVersion ? undefined : different;
  }

  get #prefixes(): readonly string[] {
    return [MACHINES, ...this.#options.rules.prefixes];
  }

  /** Returns for how long it is to be waited; 0 or less if for nothing. */
  async #waitMs(): Promise<number> {
    const { clock, ttlMs, dnsTtlMs, times, onWait } = this.#options;
    const nowMs = clock.monotonicMs();
    const recalled = await this.#recalled();
    const pending: string[] = [];
    let stopMs = Number.NEGATIVE_INFINITY;
    for (const [name, { maxDetachedMs }] of await this.#machines()) {
      if (recalled.has(name)) continue;
      const endMs = times.startMs + ttlMs + (maxDetachedMs ?? Number.POSITIVE_INFINITY);
      if (endMs <= nowMs) continue;
      pending.push(name);
      stopMs = Math.max(stopMs, endMs);
    }
    times.doneSinceMs =
      pending.length > 0 ? Number.POSITIVE_INFINITY : Math.min(times.doneSinceMs, nowMs);
    const fromMs = pending.length > 0 ? stopMs : times.doneSinceMs;
    const leftMs = fromMs + dnsTtlMs - nowMs;
    const told = pending.sort().join();
    if (leftMs > 0 && told !== this.#told) onWait({ machines: pending, leftMs });
    this.#told = told;
    return pending.length > 0 ? stopMs - nowMs : leftMs;
  }

  /** The machines of the restored store and of the newest memory. */
  async #machines(): Promise<Map<string, MachineRecord>> {
    const { store } = this.#options;
    const machines = await this.#records(store, MACHINES, MachineSchema);
    const recalled = await this.#recalled();
    const newest = newestOf(recalled)?.[0];
    if (newest === undefined) return machines;
    const prefix = `${RECALLS}${newest}/${MACHINES}`;
    for (const [name, { value }] of await this.#records(store, prefix, RecallSchema)) {
      const machine = v.safeParse(MachineSchema, value);
      if (machine.success) machines.set(name, machine.output);
      else if (!recalled.has(name)) machines.delete(name);
    }
    return machines;
  }

  async #versionOf(key: string): Promise<number> {
    return (await this.#options.store.get(key))?.version ?? 0;
  }

  /** What machines have recalled for this restore, by their names. */
  async #recalled(): Promise<Map<string, RecalledRecord>> {
    const { store } = this.#options;
    const all = await this.#records(store, RECALLED, RecalledSchema);
    for (const [name, { cluster }] of all) if (cluster !== store.clusterId) all.delete(name);
    return all;
  }

  async #records<T>(store: Store, prefix: string, schema: Schema<T>): Promise<Map<string, T>> {
    const records = new Map<string, T>();
    for (const { key, value } of await store.list(prefix)) {
      const read = v.safeParse(schema, value);
      if (read.success) records.set(key.slice(prefix.length), read.output);
    }
    return records;
  }

  /** Writes what counts, and then that the data is valid. */
  async #finish({ value: before, version }: FoundMeta): Promise<void> {
    const { store, rules } = this.#options;
    const { machine, versionBase } = await this.#choice();
    const recalled = await this.#recalled();
    const writes: Write[] = [];
    for (const entry of machine === null ? [] : await store.list(`${RECALLS}${machine}/`)) {
      const key = entry.key.slice(RECALLS.length + machine!.length + 1);
      const value = (entry.value as { readonly value?: Write['value'] }).value;
      const name = key.startsWith(MACHINES) ? key.slice(MACHINES.length) : undefined;
      // It was removed before, and is back.
      const isBack = value === undefined && name !== undefined && recalled.has(name);
      if (!isBack) writes.push({ key, value });
    }
    await this.#commit(writes);
    const voided = (await store.list(rules.voidPrefix)).filter(rules.isVoid).map(({ key }) => key);
    const removed = [...recalled].flatMap(([name, each]) => (each.removed ? MACHINES + name : []));
    await this.#commit([...voided, ...removed].map((key) => ({ key, value: undefined })));
    const value = { ...before, cluster: store.clusterId, versionBase };
    await store.commit([{ key: META_KEY, value, expect: version }]);
  }

  /** Returns whose entries count, which is decided once. */
  async #choice(): Promise<RestoredRecord> {
    const { store } = this.#options;
    const entry = await store.get(RESTORED_KEY);
    const found = v.safeParse(RestoredSchema, entry?.value);
    if (found.success && found.output.cluster === store.clusterId) return found.output;
    const recalled = await this.#recalled();
    const seen = [...recalled.values()].map((each) => each.seen);
    const chosen: RestoredRecord = {
      cluster: store.clusterId,
      machine: newestOf(recalled)?.[0] ?? null,
      // So far above that a machine which comes later has not seen as much either.
      versionBase: Math.max(store.version, ...seen) + VERSION_STEP,
    };
    const expect = entry?.version ?? 0;
    await this.#commit([{ key: RESTORED_KEY, value: { ...chosen }, expect }]);
    return chosen;
  }

  /** Commits in parts. @throws {StoreConflictError} if the data is in force meanwhile. */
  #commit(writes: readonly Write[]): Promise<void> {
    return commitInParts(this.#options.store, writes, this.#guard!);
  }
}

/** Deletes what a restore has left, when its data is in force. @throws {StoreError} if the store does not answer. */
export async function forgetRecalls(store: LeasingStore): Promise<void> {
  const meta = await store.get(META_KEY);
  if (meta === undefined || (await store.get(RESTORED_KEY)) === undefined) return;
  const left = [...(await store.list(RECALLS)), ...(await store.list(RECALLED))];
  const guard = { key: META_KEY, version: meta.version };
  await commitInParts(
    store,
    left.map(({ key }) => ({ key, value: undefined })),
    guard
  );
  // Its absence says that nothing is left, so it goes when all the others are gone.
  await store.commit([{ key: RESTORED_KEY, value: undefined }], [guard]);
}

/** Commits in parts, some of them at a time: their order means nothing. */
async function commitInParts(store: Store, writes: readonly Write[], guard: Guard): Promise<void> {
  const size = Math.min(MAX_WRITES, (store.maxWrites ?? MAX_WRITES + 1) - 1);
  let parts: Promise<void>[] = [];
  for (let at = 0; at < writes.length; at += size) {
    parts.push(store.commit(writes.slice(at, at + size), [guard]));
    if (parts.length < MAX_UNDER_WAY && at + size < writes.length) continue;
    await Promise.all(parts);
    parts = [];
  }
}

/** Returns the machine with the newest memory; undefined if none has recalled anything. */
function newestOf(
  recalled: ReadonlyMap<string, RecalledRecord>
): readonly [name: string, record: RecalledRecord] | undefined {
  let newest: readonly [string, RecalledRecord] | undefined;
  for (const each of recalled) {
    if (each[1].version > (newest?.[1].version ?? 0)) newest = each;
  }
  return newest;
}

function lost(): StoreUnavailableError {
  return new StoreUnavailableError('the restored store does not answer any more');
}

/** After how long without an answer of the restored store a machine counts as cut off from it, in ms. */
export const RECALL_CONTACT_MS = 10_000;
/** Few enough that a commit on a store without a limit does not stop the event loop. */
const MAX_WRITES = 200;
/** A timer cannot wait longer than about 24 days. */
const MAX_WAIT_MS = 86_400_000;
/** How many parts are under way. */
const MAX_UNDER_WAY = 8;
const VERSION_STEP = 1_000_000;
