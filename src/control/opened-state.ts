/**
 * Opens what everything is derived from: the index of the desired state, which is empty until its first update, and the
 * leases of the store.
 * @module
 */
import type { ResolvedControllerOptions } from './controller-options.ts';
import { DesiredIndex } from './desired-index.ts';
import { LeaseTable } from './lease-table.ts';

export interface OpenedState {
  readonly desired: DesiredIndex;
  readonly leases: LeaseTable;
}

/** @throws {StoreError} if the store cannot be read, or an entry is not a lease. */
export async function openState(options: ResolvedControllerOptions): Promise<OpenedState> {
  const desired = new DesiredIndex(options.registry, options.transit);
  const storeUseMs = options.pressedIdleMs;
  return { desired, leases: await LeaseTable.open(desired, { ...options, storeUseMs }) };
}
