/**
 * Pools, sticky leases, quarantine, exhaustion, reservations, fair shares.
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
