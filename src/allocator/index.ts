/**
 * Pools, sticky leases, quarantine, exhaustion, reservations.
 * @module
 */
export {
  AddressAllocator,
  type AddressAllocatorOptions,
  type AllocatorStats,
  type Lease,
} from './address-allocator.ts';
