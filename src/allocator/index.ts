/**
 * Pools, sticky leases, quarantine, exhaustion, reservations.
 * @module
 */
export {
  AddressAllocator,
  type AddressAllocatorOptions,
  type AllocatorStats,
} from './address-allocator.ts';
export type { Lease } from './lease.ts';
