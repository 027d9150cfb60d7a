/**
 * `Election` decides which machine is the controller, the one that allocates addresses.
 *
 * The controller's key is written under a lease where there is none, and its version is the epoch. A write of the
 * controller compares it (`guards`), so that of an earlier controller fails. A controller begins when the watch of its
 * process has reached the epoch, so with all that an earlier one has stored (rules `epochGuard` and `caughtUp` of
 * `test/model/admissions.ts`; the rule `forgets` is up to who allocates, whenever `epoch` changes).
 * @module
 */
import { Emitter } from '../base/emitter.ts';
import { StoreConflictError, StoreError } from '../errors.ts';
import type { Guard } from '../store/index.ts';
import { FollowedRecords } from './followed-records.ts';
import { CONTROLLER_KEY, type OwnerRecord, OwnerSchema } from './keys.ts';
import type { Member } from './member.ts';
import { pause } from './pause.ts';

export interface ElectionEvents {
  /** Another machine is the controller, or nobody; or this one is, with another epoch. */
  change: [change: { readonly controller: string | undefined; readonly epoch: number | undefined }];
  /** This machine cannot stand for election, and tries again. */
  problem: [problem: { readonly error: Error }];
}

/** The election of the controller, in which this machine stands while it is attached and not draining. */
export class Election extends Emitter<ElectionEvents> implements AsyncDisposable {
  readonly #member: Member;
  readonly #end = new AbortController();
  #records: FollowedRecords<OwnerRecord> | undefined;
  #guards: readonly Guard[] | undefined;
  #told: string | undefined;
  #standing: Promise<void> | undefined;
  #closing: Promise<void> | undefined;

  private constructor(member: Member) {
    super();
    this.#member = member;
  }

  /** @throws {StoreError} if the store cannot be read. */
  static async open(member: Member): Promise<Election> {
    const election = new Election(member);
    election.#records = await FollowedRecords.open(
      member.leasing,
      CONTROLLER_KEY,
      OwnerSchema,
      election.#follow
    );
    member.on('state', election.#follow);
    // This machine may take sites again.
    member.on('machines', election.#follow);
    election.#follow();
    return election;
  }

  /** The name of the controller's machine; undefined while there is none. */
  get controller(): string | undefined {
    return this.#records?.get('')?.value.machine;
  }

  /** The epoch of this machine as controller; undefined while it is not. */
  get epoch(): number | undefined {
    return this.#guards?.[0]?.version;
  }

  /** What each write of the controller compares; undefined while this machine is not the controller. */
  get guards(): readonly Guard[] | undefined {
    return this.#guards;
  }

  /**
   * Gives the role up, for example when this machine drains. Another machine has it when that has seen it; if there is
   * none, this one stands again unless it is draining.
   *
   * @throws {StoreUnavailableError} if this machine is detached: then the role ends with its lease.
   */
  async resign(): Promise<void> {
    const version = this.epoch;
    if (version === undefined) return;
    try {
      const write = { key: CONTROLLER_KEY, value: undefined, expect: version };
      await this.#member.store.commit([write]);
    } catch (error) {
      // It has ended otherwise.
      if (!(error instanceof StoreConflictError)) throw error;
    }
  }

  /** Stands no more, and gives the role up. Safe to call twice. */
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
    this.#member.off('state', this.#follow);
    this.#member.off('machines', this.#follow);
    await this.#standing;
    try {
      await this.resign();
    } catch (error) {
      if (!(error instanceof StoreError)) throw error;
    }
    this.#records?.close();
    this.#guards = undefined;
    this.removeAllListeners();
  }

  /** Takes what the watch and the member say now. */
  readonly #follow = (): void => {
    const record = this.#records?.get('');
    const lease = this.#member.lease?.id;
    const isOurs = lease !== undefined && record?.value.lease === lease;
    const version = isOurs ? record?.version : undefined;
    if (this.epoch !== version) {
      this.#guards = version === undefined ? undefined : [{ key: CONTROLLER_KEY, version }];
    }
    if (this.#mayStand) this.#standing ??= this.#stand();
    const told = `${record?.version} ${version}`;
    if (told === this.#told) return;
    this.#told = told;
    this.emit('change', { controller: this.controller, epoch: this.epoch });
  };

  get #mayStand(): boolean {
    const isThere = this.#records?.get('') !== undefined;
    const { lease, isDraining } = this.#member;
    return !isThere && lease !== undefined && !isDraining && !this.#end.signal.aborted;
  }

  async #stand(): Promise<void> {
    // The watch may be in the middle of telling of one commit.
    await Promise.resolve();
    const { name, store, clock } = this.#member;
    while (this.#mayStand) {
      const lease = this.#member.lease!;
      const value = { machine: name, lease: lease.id };
      try {
        await store.commit([{ key: CONTROLLER_KEY, value, expect: 0, lease }]);
      } catch (error) {
        if (!(error instanceof StoreConflictError)) this.emit('problem', { error: error as Error });
      }
      // A conflict says that the watch is about to show another controller.
      if (this.#mayStand) await pause(clock, RETRY_MS, this.#end.signal);
    }
    this.#standing = undefined;
  }
}

/** How long to wait until the store is asked again. */
const RETRY_MS = 100;
