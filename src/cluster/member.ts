/**
 * `Member` makes this process one machine of a cloud of several, and says what it may write.
 *
 * - A machine registers, and only then what needs the store reads it (rule of `test/model/revocation.ts`): so whoever
 *   waits for all machines that are registered misses none.
 * - Each commit compares the machine's fence, and a commit in doubt is looked up (rule of `test/model/doubt.ts`).
 * - Before it registers, a store that was restored from a backup gets back what machines had in memory (`recall.ts`).
 * - When its lease may have ended, the machine is detached. It tries again, and registers again under a new lease. What
 *   else it had written under the lease, the others of this module write again.
 * @module
 */
import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '../base/clock.ts';
import { Emitter } from '../base/emitter.ts';
import type { HostPort } from '../base/host-port.ts';
import { ConflictError, NotFoundError, StoreError, StoreUnavailableError } from '../errors.ts';
import type { LeasingStore, Store, StoreLease, Write } from '../store/index.ts';
import { Fence } from './fence.ts';
import { FencedStore } from './fenced-store.ts';
import { APPLIED, MACHINES, WORKERS } from './keys.ts';
import { type MachineStatus, Machines } from './machines.ts';
import {
  checkEndpoints,
  checkMemberOptions,
  type MemberOptions,
  type ResolvedMemberOptions,
} from './member-options.ts';
import { pause } from './pause.ts';
import { RECALL_CONTACT_MS, type RecallWait } from './recall.ts';
import { MachineRemovedError, Registration } from './registration.ts';
import { RestoredStore } from './restored-store.ts';

/**
 * `attached`: the lease is alive. `detached`: it may have ended, and this machine claims and writes nothing. `removed`: an
 * operator has said that this machine is off; it must end all tunnels and does not come back. `closed`: by `close`.
 */
export type MemberState = 'attached' | 'detached' | 'removed' | 'closed';

export interface MemberEvents {
  state: [change: { readonly state: MemberState; readonly previous: MemberState }];
  /** Machines have been added or removed, or are alive or not any more. */
  machines: [change: { readonly names: readonly string[] }];
  /** This machine has been detached for `maxDetachedMs`, or was removed: it must end all tunnels now. */
  stop: [reason: { readonly detachedMs: number }];
  /** This machine cannot attach, and tries again. */
  problem: [problem: { readonly error: Error }];
}

/** One machine of a cloud. */
export class Member extends Emitter<MemberEvents> implements AsyncDisposable {
  readonly name: string;
  /** The store for all that this machine writes; see `FencedStore`. */
  readonly store: Store;
  /** The clock of the options. */
  readonly clock: Clock;
  readonly #options: ResolvedMemberOptions;
  readonly #fence: Fence;
  readonly #fenced: FencedStore;
  readonly #registration: Registration;
  readonly #restored: RestoredStore;
  readonly #end = new AbortController();
  #machines: Machines | undefined;
  #state: MemberState = 'detached';
  #lease: StoreLease | undefined;
  #detachedAtMs: number;
  /** When all tunnels have to end unless this machine attaches before. */
  #stopsAtMs: number;
  #stopTimer: () => void = () => {};
  #endpoints: readonly HostPort[];
  #isDraining = false;
  /** Whether the restored store has what this machine uses. */
  #isRecalled = false;
  /** What the last registration has written of this machine as a worker. */
  #written: Write | undefined;
  #applied = 0;
  #writtenApplied = 0;
  #writing: Promise<void> | undefined;
  #attaching: Promise<void> | undefined;
  #closing: Promise<void> | undefined;

  private constructor(options: ResolvedMemberOptions) {
    super();
    this.#options = options;
    this.name = options.machine;
    this.clock = options.clock;
    this.#fence = new Fence(options.store, options.machine, options.clock);
    this.#fenced = new FencedStore(options.store, this.#fence);
    this.store = this.#fenced;
    this.#registration = new Registration({
      ...options,
      fence: this.#fence,
      signal: this.#end.signal,
    });
    const hooks = { onWait: this.#onWait, onRestored: () => this.#machines?.restart() };
    this.#restored = new RestoredStore(options, hooks, this.#end.signal);
    this.#endpoints = options.endpoints;
    this.#detachedAtMs = options.clock.monotonicMs();
    this.#stopsAtMs = this.#detachedAtMs + options.maxDetachedMs;
  }

  /**
   * Registers this machine. If a process of the same machine was alive shortly before, it waits for the end of its lease.
   * If the store was restored from a backup, it waits for other machines, see `MemberOptions.onRecall`.
   *
   * @throws {ConflictError} if another process is this machine, or the store has the data of another cloud.
   * @throws the reason of `options.signal`, if that is aborted meanwhile.
   * @throws {StoreError} if the store does not answer.
   * @throws {ApiMisuseError | ConfigError} if an option is invalid; the message names it.
   */
  static async join(options: MemberOptions): Promise<Member> {
    const member = new Member(checkMemberOptions(options));
    const { signal } = options;
    const end = (): void => member.#end.abort();
    try {
      signal?.throwIfAborted();
      signal?.addEventListener('abort', end);
      await member.#restored.settled(false);
      await member.#attach();
      const machines = await Machines.open(member.leasing, member.clock);
      member.#machines = machines;
      machines.on('change', ({ names }) => member.#onMachines(names));
      return member;
    } catch (error) {
      await member.close();
      signal?.throwIfAborted();
      throw error;
    } finally {
      signal?.removeEventListener('abort', end);
    }
  }

  /** The store without the fence, to read and to follow. */
  get leasing(): LeasingStore {
    return this.#options.store;
  }

  get state(): MemberState {
    return this.#state;
  }

  /** The lease that ends when this process does; undefined while this machine is not attached. */
  get lease(): StoreLease | undefined {
    return this.#state === 'attached' ? this.#lease : undefined;
  }

  /**
   * Since when this machine is detached, and when it must have ended all its tunnels unless it attaches before
   * (Infinity: never), in ms of `clock.monotonicMs`; undefined while it is attached.
   */
  get detached(): { readonly sinceMs: number; readonly stopsAtMs: number } | undefined {
    if (this.#state === 'attached') return undefined;
    const sinceMs = this.#detachedAtMs;
    if (this.#state === 'removed') return { sinceMs, stopsAtMs: sinceMs };
    return { sinceMs, stopsAtMs: this.#isRecalled ? Number.POSITIVE_INFINITY : this.#stopsAtMs };
  }

  /** Whether this machine takes no sites any more. */
  get isDraining(): boolean {
    return this.#isDraining;
  }

  /** All machines of the cloud, this one included. */
  get machines(): Machines {
    return this.#machines!;
  }

  /** Returns where edges reach a machine; empty if it is not alive. */
  endpointsOf(machine: string): MachineStatus['endpoints'] {
    return this.machines.get(machine)?.endpoints ?? [];
  }

  /**
   * Says where edges reach this machine, instead of what the options say. While this machine is detached, the others see
   * it later.
   *
   * @throws {ApiMisuseError | ConfigError} if they are not a list of hosts with ports.
   * @throws {StoreError} if the store does not answer.
   */
  async setEndpoints(endpoints: readonly HostPort[]): Promise<void> {
    this.#endpoints = checkEndpoints(endpoints);
    await this.#writeWorker();
  }

  /**
   * Says whether this machine takes no sites any more. While this machine is detached, the others see it later.
   *
   * @throws {StoreError} if the store does not answer.
   */
  async setDraining(isDraining: boolean): Promise<void> {
    const before = this.#isDraining;
    this.#isDraining = isDraining;
    try {
      await this.#writeWorker();
    } catch (error) {
      // The others do not know, so this machine goes on as they expect.
      this.#isDraining = before;
      throw error;
    }
  }

  /**
   * This machine has applied all changes of address leases up to this version of the store, and uses no address that was
   * released up to there. It is written soon; see `appliedEveryMs`.
   */
  setApplied(version: number): void {
    if (version <= this.#applied) return;
    this.#applied = version;
    this.#writeAppliedSoon();
  }

  /**
   * Removes a machine from the cloud, on the operator's word that it is off: nobody waits for it any more, also not while
   * the store was restored.
   *
   * @throws {NotFoundError} if there is no such machine.
   * @throws {ConflictError} if it is alive.
   * @throws {StoreUnavailableError} if this machine is detached.
   */
  async remove(machine: string): Promise<void> {
    const { recall } = this.#restored;
    if (recall !== undefined) return recall.remove(machine);
    const status = this.machines.get(machine);
    if (status === undefined) throw new NotFoundError(`there is no machine "${machine}"`);
    if (status.isLive) {
      throw new ConflictError(`machine "${machine}" is alive; stop its gateway before removing it`);
    }
    const guards = [{ key: WORKERS + machine, version: 0 }];
    await this.store.commit([{ key: MACHINES + machine, value: undefined }], guards);
  }

  /**
   * Ends the lease, so that others see at once that this machine is not alive, and its sites are free. Close what was made
   * of this member before. Safe to call twice.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** The same as `close`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#end.abort();
    this.#stopTimer();
    const lease = this.#lease;
    this.#setState('closed');
    this.#fence.close();
    await this.#fenced.close();
    this.#machines?.close();
    await this.#attaching;
    await this.#writing;
    await lease?.revoke();
    this.removeAllListeners();
  }

  /** Takes a lease and registers. The watch has shown it when this resolves. */
  async #attach(): Promise<void> {
    const lease = await this.leasing.grant(this.#options.ttlMs);
    try {
      await this.#registration.write(lease, () => this.#others(lease));
      // What has changed while that commit was on its way is not a part of it.
      while (!isDeepStrictEqual(this.#written, this.#workerWrite(lease))) {
        this.#written = this.#workerWrite(lease);
        await this.store.commit([this.#written]);
      }
      // The lease may have ended meanwhile.
      if (this.#fence.guard === undefined || this.#end.signal.aborted) throw detachedError();
    } catch (error) {
      this.#fence.end();
      void lease.revoke();
      throw error;
    }
    this.#lease = lease;
    this.#stopTimer();
    lease.ended.addEventListener('abort', () => this.#onLeaseEnd(), { once: true });
    this.#setState('attached');
    this.#writeAppliedSoon();
    // Nobody waits for it.
    void this.#restored.forget();
  }

  #others(lease: StoreLease): readonly Write[] {
    const worker = this.#workerWrite(lease);
    this.#written = worker;
    this.#writtenApplied = this.#applied;
    return this.#applied === 0 ? [worker] : [worker, this.#appliedWrite(lease)];
  }

  /** While this machine is detached, the next registration writes it. */
  async #writeWorker(): Promise<void> {
    const lease = this.lease;
    if (lease !== undefined) await this.store.commit([this.#workerWrite(lease)]);
  }

  #workerWrite(lease: StoreLease): Write {
    const endpoints = this.#endpoints.map(({ host, port }) => ({ host, port }));
    const value = { lease: lease.id, endpoints, draining: this.#isDraining };
    return { key: WORKERS + this.name, value, lease };
  }

  #appliedWrite(lease: StoreLease): Write {
    return { key: APPLIED + this.name, value: { version: this.#applied }, lease };
  }

  #onLeaseEnd(): void {
    this.#fence.end();
    if (this.#state !== 'attached') return;
    const { maxDetachedMs } = this.#options;
    this.#stopIn(maxDetachedMs);
    this.#setState('detached');
    this.#attaching = this.#attachAgain();
  }

  /** All tunnels have to end in `ms` unless this machine attaches before. */
  #stopIn(ms: number): void {
    this.#stopTimer();
    this.#detachedAtMs = this.clock.monotonicMs();
    this.#stopsAtMs = this.#detachedAtMs + ms;
    if (Number.isFinite(ms)) this.#stopTimer = this.clock.after(ms, () => this.#emitStop(), true);
  }

  /** The restored store has what this machine uses, and nobody counts on its end while it reaches that store. */
  readonly #onWait = (wait: RecallWait): void => {
    this.#isRecalled = true;
    this.#stopTimer();
    this.#options.onRecall?.(wait);
  };

  /** Waits for the end of a restore. */
  async #settled(): Promise<void> {
    const { maxDetachedMs } = this.#options;
    // A process that fails may have lost the restored store that long ago.
    let leftMs = Math.max(0, maxDetachedMs - RECALL_CONTACT_MS);
    try {
      await this.#restored.settled(true);
      leftMs = maxDetachedMs;
    } finally {
      if (this.#isRecalled && this.#state === 'detached') this.#stopIn(leftMs);
      this.#isRecalled = false;
    }
  }

  async #attachAgain(): Promise<void> {
    const { signal } = this.#end;
    const previous = this.#attaching;
    await previous;
    let told: string | undefined;
    while (this.#state === 'detached') {
      try {
        await this.#settled();
        await this.#attach();
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof MachineRemovedError) {
          this.#onRemoved();
          return;
        }
        // An outage is told once.
        if (told !== String(error)) this.emit('problem', { error: error as Error });
        told = String(error);
        const isWrong = error instanceof ConflictError;
        await pause(this.clock, isWrong ? CONFLICT_RETRY_MS : this.#options.ttlMs / 4, signal);
      }
    }
  }

  #onMachines(names: readonly string[]): void {
    const isThere = this.#machines?.get(this.name) !== undefined;
    if (!isThere && this.#state === 'attached') this.#onRemoved();
    this.emit('machines', { names });
  }

  #onRemoved(): void {
    const lease = this.#lease;
    this.#detachedAtMs = this.clock.monotonicMs();
    this.#setState('removed');
    this.#stopTimer();
    void lease?.revoke();
    this.#emitStop();
  }

  #emitStop(): void {
    this.emit('stop', { detachedMs: this.clock.monotonicMs() - this.#detachedAtMs });
  }

  /** What is applied while this machine is detached is written when it is attached. */
  #writeAppliedSoon(): void {
    const isWritten = this.#writtenApplied >= this.#applied;
    if (this.#writing !== undefined || this.lease === undefined || isWritten) return;
    this.#writing = this.#writeApplied(this.lease).then(() => {
      this.#writing = undefined;
      if (!this.#end.signal.aborted) this.#writeAppliedSoon();
    });
  }

  async #writeApplied(lease: StoreLease): Promise<void> {
    const version = this.#applied;
    try {
      await this.store.commit([this.#appliedWrite(lease)]);
      this.#writtenApplied = version;
    } catch (error) {
      if (!(error instanceof StoreError)) throw error;
    }
    await pause(this.clock, this.#options.appliedEveryMs, this.#end.signal);
  }

  #setState(state: MemberState): void {
    const previous = this.#state;
    if (previous === state || previous === 'closed') return;
    this.#state = state;
    this.emit('state', { state, previous });
  }
}

/** How long to wait until a store with other data is looked at again. */
const CONFLICT_RETRY_MS = 5000;

function detachedError(): StoreUnavailableError {
  return new StoreUnavailableError('the lease of this machine ended while it registered');
}
