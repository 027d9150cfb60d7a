/**
 * Which process allocates addresses, where several run on one store: each derives presences, the plan and snapshots
 * itself, and one of them leases and releases addresses for all.
 * @module
 */
import { checkMethods, checkText } from '../base/option-check.ts';
import { PresenceError } from '../errors.ts';
import type { Guard, StoreLease } from '../store/index.ts';

/**
 * Says which process allocates addresses where several processes run on one store. The store has to settle a commit
 * that got no answer before it reports it as failed.
 */
export interface Allocation {
  /** The name of this process among them: that of its machine. It has no slash. */
  readonly name: string;
  /**
   * The guards with which this process may write leases of addresses; undefined while another one allocates, or nobody.
   * They appear when the watches of this process have seen the commit from which on they are valid.
   */
  readonly guards: readonly Guard[] | undefined;
  /** The lease of the store that ends when this process ends, for requests to the one that allocates; undefined while it is detached. */
  readonly lease: StoreLease | undefined;
  /**
   * The store's version that every machine has applied for at least a DNS TTL, or that its machine cannot use any more.
   * An address that was released later is not leased to another host.
   */
  readonly horizon: number;
  /** Calls `listener` when any of these has changed. Returns a function that ends this. */
  watch(listener: () => void): () => void;
}

/** No process allocates addresses now, or it has not answered: try it again later. */
export class AllocatorUnavailableError extends PresenceError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_PRESENCE_ALLOCATOR_UNAVAILABLE', message, options);
  }
}

/** @throws {ApiMisuseError} if it is not an allocation. */
export function checkAllocation(allocation: Allocation): void {
  checkMethods('allocation', allocation, ['watch']);
  checkText('allocation.name', allocation.name);
}

/** Returns whether the conditions are the same. */
export function areSameGuards(
  one: readonly Guard[] | undefined,
  other: readonly Guard[] | undefined
): boolean {
  if (one === undefined || other === undefined) return one === other;
  return (
    one.length === other.length &&
    one.every(({ key, version }, i) => key === other[i]!.key && version === other[i]!.version)
  );
}
