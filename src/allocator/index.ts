/**
 * Leases of addresses: pools, quarantine, reservations, and fair shares of a pool.
 * @module
 */
export { AddressAllocator, type AllocatorStats } from './address-allocator.ts';
export { ADDRESS_ALLOCATOR_DEFAULTS, type AddressAllocatorOptions } from './allocator-options.ts';
export { FairShare, type FairShareRules } from './fair-share.ts';
export type { Lease, LeaseInput } from './lease.ts';
