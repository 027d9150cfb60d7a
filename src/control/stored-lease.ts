/**
 * A lease as the store has it. The entry `lease/<realm>/<address>` has the endpoint that the address belongs or belonged
 * to, and the time of the client's last use or of the release. Times are those of the lease clock.
 * @module
 */
import * as v from 'valibot';
import type { Lease } from '../allocator/index.ts';
import { IpAddress } from '../base/address.ts';
import { Endpoint } from '../base/endpoint.ts';
import { parseSchema, type Schema } from '../base/schema.ts';
import { StoreError } from '../errors.ts';
import type { Entry, Json } from '../store/index.ts';
import { endpointKeyOf, presenceKey } from './presence-key.ts';

/** The beginning of all keys. */
export const LEASE_PREFIX = 'lease/';

export interface FoundLease extends Lease {
  /** The endpoint that the address belongs to; undefined for a released lease. */
  readonly of?: Endpoint | undefined;
  /** Undefined if the store did not have it, and for a released lease. */
  readonly usedAtMs?: number | undefined;
}

/** Reads an entry of the store. @throws {StoreError} if it is not a lease. */
export function readLease({ key, value }: Entry): { realm: string; lease: FoundLease } {
  const [, realm, text] = LEASE_KEY.exec(key)!;
  let reason = `"${text}" is not an address`;
  try {
    const { endpoint, usedAt, releasedAt } = parseSchema(StoredLeaseSchema, value);
    const of = releasedAt === undefined ? parseCanonical(endpoint, Endpoint.parse) : undefined;
    const address = parseCanonical(text!, IpAddress.parse);
    if (releasedAt === undefined && of === undefined) {
      reason = `"${endpoint}" is not an endpoint`;
    } else if (realm !== '' && address !== undefined) {
      const lease = { key: presenceKey(of?.key ?? endpoint, address.family), address };
      const state = of === undefined ? { releasedAt: releasedAt! } : { of, usedAtMs: usedAt };
      return { realm: realm!, lease: { ...lease, ...state } };
    }
  } catch (error) {
    reason = (error as Error).message;
  }
  throw new StoreError(`${key} in the store is not a lease: ${reason}`);
}

/** Parses a text; returns undefined if it is not the text that the parsed value prints. */
function parseCanonical<T extends IpAddress | Endpoint>(
  text: string,
  parse: (text: string) => T
): T | undefined {
  try {
    const value = parse(text);
    return value.toString() === text ? value : undefined;
  } catch {
    return undefined;
  }
}

/** Returns whether an entry has a lease in use of the presence with this key, without a check of the rest of it. */
export function isLeaseOf(entry: Entry | undefined, key: string): boolean {
  const lease = entry?.value as Partial<StoredLease> | null | undefined;
  return lease?.endpoint === endpointKeyOf(key) && lease.releasedAt === undefined;
}

export function leaseKey(realm: string, address: IpAddress): string {
  return `${LEASE_PREFIX}${realm}/${address}`;
}

/** @param usedAtMs the last use of a client's lease in use */
export function leaseValue({ key, releasedAt }: Lease, usedAtMs?: number): Json {
  return {
    endpoint: endpointKeyOf(key),
    ...(usedAtMs === undefined ? {} : { usedAt: usedAtMs }),
    ...(releasedAt === undefined ? {} : { releasedAt }),
  };
}

/** Matches `lease/<realm>/<address>`. */
const LEASE_KEY = /^lease\/([^/]*)\/?(.*)$/s;

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
