/**
 * A lease as the store has it: `lease/<realm>/<address>` is whose the address is, when a client has used it
 * last, and since when it is nobody's any more. Times are by the lease clock.
 * @module
 */
import * as v from 'valibot';
import type { Lease } from '../allocator/index.ts';
import { parseSchema, type Schema } from '../base/schema.ts';
import { StoreError } from '../errors.ts';
import type { Entry, Json } from '../store/index.ts';
import {
  endpointOf,
  isCanonicalAddress,
  parseEndpoint,
  presenceKey,
  splitAtSlash,
} from './endpoint.ts';
import { familyOf } from './realm-leases.ts';

/** What all keys begin with. */
export const LEASE_PREFIX = 'lease/';

export interface FoundLease extends Lease {
  /** Undefined: the store did not say, or it is nobody's any more. */
  readonly usedAtMs?: number | undefined;
}

/** @throws {StoreError} if the entry is not a lease. */
export function readLease({ key, value }: Entry): { realm: string; lease: FoundLease } {
  const [realm, address] = splitAtSlash(key.slice(LEASE_PREFIX.length));
  let reason = `"${address}" is not an address`;
  try {
    const { endpoint, usedAt, releasedAt } = parseSchema(StoredLeaseSchema, value);
    const isFree = releasedAt !== undefined;
    if (!isFree && !isCanonicalAddress(parseEndpoint(endpoint).address)) {
      reason = `"${endpoint}" is not an endpoint`;
    } else if (realm !== '' && isCanonicalAddress(address)) {
      const lease = { key: presenceKey(endpoint, familyOf(address)), address };
      return { realm, lease: isFree ? { ...lease, releasedAt } : { ...lease, usedAtMs: usedAt } };
    }
  } catch (error) {
    reason = (error as Error).message;
  }
  throw new StoreError(`${key} in the store is not a lease: ${reason}`);
}

export function leaseKey(realm: string, address: string): string {
  return `${LEASE_PREFIX}${realm}/${address}`;
}

/** @param usedAtMs of a client's lease in use */
export function leaseValue({ key, releasedAt }: Lease, usedAtMs?: number): Json {
  return {
    endpoint: endpointOf(key),
    ...(usedAtMs === undefined ? {} : { usedAt: usedAtMs }),
    ...(releasedAt === undefined ? {} : { releasedAt }),
  };
}

interface StoredLease {
  readonly endpoint: string;
  readonly usedAt?: number | undefined;
  readonly releasedAt?: number | undefined;
}

const StoredLeaseSchema: Schema<StoredLease> = v.strictObject({
  endpoint: v.string(),
  usedAt: v.optional(v.number()),
  releasedAt: v.optional(v.number()),
}) as Schema<StoredLease>;
