/**
 * `Confirmations` says at which machines a revocation is in effect. Each machine writes as `confirm/<name>` up to which
 * version of the store it has put all revocations into effect; the machine that was asked to revoke waits for those that
 * are alive.
 *
 * A machine registers before it reads the store. So a machine that is not registered when the revocation is stored reads
 * it before it lets anybody in (rule of `test/model/revocation.ts`).
 * @module
 */
import { Emitter } from '../base/emitter.ts';
import { StoreError } from '../errors.ts';
import { FollowedRecords } from './followed-records.ts';
import { CONFIRMS, type VersionRecord, VersionSchema } from './keys.ts';
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
  readonly #waiting = new Set<AbortController>();
  /** Up to which version revocations are in effect here. */
  #version = 0;
  /** The version that is written under the present lease. */
  #written = 0;
  #records: FollowedRecords<VersionRecord> | undefined;
  #writing: Promise<void> | undefined;
  #closing: Promise<void> | undefined;

  private constructor(member: Member) {
    super();
    this.#member = member;
  }

  /** @throws {StoreError} if the store cannot be read. */
  static async open(member: Member): Promise<Confirmations> {
    const confirmations = new Confirmations(member);
    confirmations.#records = await FollowedRecords.open(
      member.leasing,
      CONFIRMS,
      VersionSchema,
      confirmations.#wake
    );
    member.on('machines', confirmations.#wake);
    member.on('state', confirmations.#onState);
    return confirmations;
  }

  /** The revocations that are stored up to this version are in effect at this machine. It is told to the others soon. */
  confirm(version: number): void {
    if (version <= this.#version) return;
    this.#version = version;
    this.#write();
  }

  /**
   * Waits until each machine that is alive has confirmed the revocations up to a version of the store, which are in effect
   * here. A machine that does not answer is waited for `timeoutMs`, by default 10 s.
   */
  async settled(
    version: number,
    options: { readonly timeoutMs?: number } = {}
  ): Promise<ConfirmationReport> {
    const { clock, machines } = this.#member;
    const endMs = clock.monotonicMs() + (options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
    const confirmed = new Set([this.#member.name]);
    for (;;) {
      const open = machines.list().filter(({ name }) => {
        if ((this.#records?.get(name)?.value.version ?? 0) >= version) confirmed.add(name);
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
      this.#waiting.add(changed);
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
    for (const waiting of this.#waiting) waiting.abort();
  };

  /** The confirmation has ended with the lease. */
  readonly #onState = ({ state }: { readonly state: MemberState }): void => {
    this.#written = 0;
    if (state === 'attached' && this.#version > 0) this.#write();
  };

  #write(): void {
    this.#writing ??= this.#writeAll();
  }

  async #writeAll(): Promise<void> {
    // Many may be confirmed at once.
    await Promise.resolve();
    const { name, store, clock } = this.#member;
    while (this.#written < this.#version && !this.#end.signal.aborted) {
      const lease = this.#member.lease;
      // It is written when this machine is attached again.
      if (lease === undefined) break;
      const version = this.#version;
      try {
        await store.commit([{ key: CONFIRMS + name, value: { version }, lease }]);
        if (this.#member.lease === lease) this.#written = version;
      } catch (error) {
        if (!(error instanceof StoreError)) throw error;
        this.emit('problem', { error });
        await pause(clock, RETRY_MS, this.#end.signal);
      }
    }
    // In the turn of the last look, so that what is confirmed after it is written.
    this.#writing = undefined;
  }
}

const DEFAULT_TIMEOUT_MS = 10_000;
/** How long to wait until the store is asked again. */
const RETRY_MS = 100;
