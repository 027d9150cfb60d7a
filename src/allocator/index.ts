/**
 * Leases of addresses: pools, quarantine, reservations, and fair shares of a pool.
 * @module
 */
export {
  ADDRESS_ALLOCATOR_DEFAULTS,
  AddressAllocator,
  type AddressAllocatorOptions,
  type AllocatorStats,
} from './address-allocator.ts';
export { FairShare, type FairShareRules } from './fair-share.ts';
export type { Lease, LeaseInput } from './lease.ts';
