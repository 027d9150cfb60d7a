/**
 * Opens what everything is derived from: the index of the desired state, which is empty until its first update, and the
 * leases of the store.
 * @module
 */
import type { AllocationRole } from './allocation-role.ts';
import type { ResolvedControllerOptions } from './controller-options.ts';
import { DesiredIndex } from './desired-index.ts';
import { LeaseTable } from './lease-table.ts';

export interface OpenedState {
  readonly desired: DesiredIndex;
  readonly leases: LeaseTable;
}

/**
 * @param role absent if this process always allocates
 * @throws {StoreError} if the store cannot be read, or an entry is not a lease.
 */
export async function openState(
  options: ResolvedControllerOptions,
  role?: AllocationRole
): Promise<OpenedState> {
  const desired = new DesiredIndex(options.registry, options.transit);
  const storeUseMs = options.pressedIdleMs;
  const leases = await LeaseTable.open(desired, { ...options, storeUseMs });
  role?.opened(leases);
  return { desired, leases };
}
