/**
 * `Confirmations` says at which machines a revocation is in effect. Each machine writes `confirm/<revocation>/<name>` when
 * it has put a revocation into effect; the machine that was asked to revoke waits for those that are alive.
 *
 * A machine registers before it reads the store. So a machine that is not registered when the revocation is stored reads
 * it before it lets anybody in (rule of `test/model/revocation.ts`).
 * @module
 */
import { Emitter } from '../base/emitter.ts';
import { StoreError } from '../errors.ts';
import { FollowedRecords } from './followed-records.ts';
import { CONFIRMS, MarkSchema, splitName } from './keys.ts';
import type { Member, MemberState } from './member.ts';
import { pause } from './pause.ts';

/** A machine at which a revocation may not be in effect yet. */
export interface UnconfirmedMachine {
  readonly machine: string;
  /**
   * When the machine ends all its tunnels at the latest, as it has not reached the store for so long. Undefined if it
   * may go on for ever, or is alive and has not answered: stop it, and remove it.
   */
  readonly fencedBy: Date | undefined;
}

export interface ConfirmationReport {
  /** The machines at which the revocation is in effect, in the order of their names. */
  readonly confirmed: readonly string[];
  readonly unconfirmed: readonly UnconfirmedMachine[];
}

export interface ConfirmationsEvents {
  /** Confirmations could not be written; it is tried again. */
  problem: [problem: { readonly error: Error }];
}

/** Confirms revocations, and waits for the confirmations of others. */
export class Confirmations extends Emitter<ConfirmationsEvents> implements AsyncDisposable {
  readonly #member: Member;
  readonly #end = new AbortController();
  /** The revocations that this machine has confirmed, while somebody may wait for it; and when it forgets each. */
  readonly #ours = new Map<string, number>();
  /** Those that are to be written or deleted. */
  readonly #unwritten = new Set<string>();
  readonly #waiting = new Map<AbortController, string>();
  #records: FollowedRecords<object> | undefined;
  #writing: Promise<void> | undefined;
  #cancel: (() => void) | undefined;
  #closing: Promise<void> | undefined;

  private constructor(member: Member) {
    super();
    this.#member = member;
  }

  /** @throws {StoreError} if the store cannot be read. */
  static async open(member: Member): Promise<Confirmations> {
    const confirmations = new Confirmations(member);
    const store = member.leasing;
    confirmations.#records = await FollowedRecords.open(store, CONFIRMS, MarkSchema, (names) => {
      const revocations = new Set(names.map((name) => splitName(name)[0]));
      for (const [waiting, id] of confirmations.#waiting) {
        if (revocations.has(id)) waiting.abort();
      }
    });
    member.on('machines', confirmations.#wake);
    member.on('state', confirmations.#onState);
    return confirmations;
  }

  /** The revocation is in effect at this machine. It is told to the others soon. */
  confirm(revocation: string): void {
    const forgetAtMs = this.#member.clock.monotonicMs() + KEPT_MS;
    this.#ours.delete(revocation);
    this.#ours.set(revocation, forgetAtMs);
    this.#write(revocation);
    this.#cancel ??= this.#member.clock.after(KEPT_MS, () => this.#forget(), true);
  }

  /**
   * Waits until each machine that is alive has confirmed a revocation, which is stored and in effect here. A machine that
   * does not answer is waited for `timeoutMs`, by default 10 s.
   */
  async settled(
    revocation: string,
    options: { readonly timeoutMs?: number } = {}
  ): Promise<ConfirmationReport> {
    const { clock, machines } = this.#member;
    const endMs = clock.monotonicMs() + (options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
    const confirmed = new Set([this.#member.name]);
    for (;;) {
      const open = machines.list().filter(({ name }) => {
        if (this.#records?.get(`${revocation}/${name}`) !== undefined) confirmed.add(name);
        return !confirmed.has(name);
      });
      const leftMs = endMs - clock.monotonicMs();
      const isDone = !open.some(({ isLive }) => isLive) || leftMs <= 0;
      if (isDone || this.#end.signal.aborted) {
        const unconfirmed = open.map(({ name, stopsAtMs }) => ({
          machine: name,
          fencedBy: this.#dateOf(stopsAtMs),
        }));
        return { confirmed: [...confirmed].sort(), unconfirmed };
      }
      const changed = new AbortController();
      this.#waiting.set(changed, revocation);
      await pause(clock, leftMs, changed.signal);
      this.#waiting.delete(changed);
    }
  }

  /** Ends all waits. Safe to call twice. */
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
    this.#cancel?.();
    this.#member.off('machines', this.#wake);
    this.#member.off('state', this.#onState);
    this.#wake();
    await this.#writing;
    this.#records?.close();
    this.removeAllListeners();
  }

  #dateOf(atMs: number): Date | undefined {
    const { clock } = this.#member;
    const wallMs = clock.wallMs() + atMs - clock.monotonicMs();
    return Number.isFinite(wallMs) ? new Date(wallMs) : undefined;
  }

  readonly #wake = (): void => {
    for (const waiting of this.#waiting.keys()) waiting.abort();
  };

  /** The confirmations have ended with the lease. */
  readonly #onState = ({ state }: { readonly state: MemberState }): void => {
    if (state === 'attached') for (const revocation of this.#ours.keys()) this.#write(revocation);
  };

  /** Deletes confirmations for which nobody waits any more. */
  #forget(): void {
    const nowMs = this.#member.clock.monotonicMs();
    let nextMs: number | undefined;
    for (const [revocation, atMs] of this.#ours) {
      if (atMs > nowMs) {
        nextMs = atMs - nowMs;
        break;
      }
      this.#ours.delete(revocation);
      this.#write(revocation);
    }
    const isOver = nextMs === undefined;
    this.#cancel = isOver
      ? undefined
      : this.#member.clock.after(nextMs!, () => this.#forget(), true);
  }

  #write(revocation: string): void {
    this.#unwritten.add(revocation);
    this.#writing ??= this.#writeAll().finally(() => {
      this.#writing = undefined;
    });
  }

  async #writeAll(): Promise<void> {
    // Many may be confirmed at once.
    await Promise.resolve();
    const { name, store, clock } = this.#member;
    while (this.#unwritten.size > 0 && !this.#end.signal.aborted) {
      const lease = this.#member.lease;
      // They are written when this machine is attached again.
      if (lease === undefined) return;
      const some = [...this.#unwritten].slice(0, store.maxWrites ?? MAX_WRITES);
      for (const revocation of some) this.#unwritten.delete(revocation);
      try {
        await store.commit(
          some.map((revocation) => {
            const key = `${CONFIRMS}${revocation}/${name}`;
            return this.#ours.has(revocation)
              ? { key, value: {}, lease }
              : { key, value: undefined };
          })
        );
      } catch (error) {
        for (const revocation of some) this.#unwritten.add(revocation);
        if (!(error instanceof StoreError)) throw error;
        this.emit('problem', { error });
        await pause(clock, RETRY_MS, this.#end.signal);
      }
    }
  }
}

/** For how long a confirmation is kept: longer than anybody waits for it. */
const KEPT_MS = 60_000;
const DEFAULT_TIMEOUT_MS = 10_000;
const MAX_WRITES = 100;
/** How long to wait until the store is asked again. */
const RETRY_MS = 100;
