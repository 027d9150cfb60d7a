/**
 * `ClusterAllocation` tells a presence controller of several whether it allocates addresses. It is an `Allocation` of the
 * module `control`.
 * @module
 */
import type { Guard, StoreLease } from '../store/index.ts';
import type { Election } from './election.ts';
import type { Horizon } from './horizon.ts';
import type { Member } from './member.ts';

/** What the election, the horizon and the lease of this machine say together. */
export class ClusterAllocation {
  readonly name: string;
  readonly #member: Member;
  readonly #election: Election;
  readonly #horizon: Horizon;

  constructor(member: Member, election: Election, horizon: Horizon) {
    this.name = member.name;
    this.#member = member;
    this.#election = election;
    this.#horizon = horizon;
  }

  /** The guards with which this machine may write leases of addresses; undefined while it is not the controller. */
  get guards(): readonly Guard[] | undefined {
    return this.#election.guards;
  }

  /** The lease that ends when this process does; undefined while this machine is detached. */
  get lease(): StoreLease | undefined {
    return this.#member.lease;
  }

  /** An address that was released later than this version of the store may still be in use. */
  get horizon(): number {
    return this.#horizon.version;
  }

  /** Calls `listener` when any of these has changed. Returns a function that ends this. */
  watch(listener: () => void): () => void {
    // A listener of its own for each call, since an emitter knows listeners by identity.
    const call = (): void => listener();
    this.#member.on('state', call);
    this.#election.on('change', call);
    const unwatch = this.#horizon.watch(call);
    return () => {
      this.#member.off('state', call);
      this.#election.off('change', call);
      unwatch();
    };
  }
}
