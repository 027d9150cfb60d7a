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

/**
 * Reads the leases of a store. Leases of the same endpoint, or of the same address in several realms, share it: many
 * sites have the same pools and see the same services.
 */
export class LeaseReader {
  readonly #endpoints = new Map<string, Endpoint | undefined>();
  readonly #addresses = new Map<string, IpAddress | undefined>();

  /** @throws {StoreError} if the entry is not a lease. */
  read({ key, value }: Entry): { readonly realm: string; readonly lease: FoundLease } {
    const slash = key.indexOf('/', LEASE_PREFIX.length);
    const realm = key.slice(LEASE_PREFIX.length, slash < 0 ? key.length : slash);
    const text = slash < 0 ? '' : key.slice(slash + 1);
    let reason = `"${text}" is not an address`;
    try {
      const { endpoint, usedAt, releasedAt } = parseSchema(StoredLeaseSchema, value);
      const isInUse = releasedAt === undefined;
      const of = isInUse ? parseOnce(this.#endpoints, endpoint, Endpoint.parse) : undefined;
      const address = parseOnce(this.#addresses, text, IpAddress.parse);
      if (isInUse && of === undefined) {
        reason = `"${endpoint}" is not an endpoint`;
      } else if (realm !== '' && address !== undefined) {
        const holder = presenceKey(of?.key ?? endpoint, address.family);
        const lease = isInUse
          ? { key: holder, address, of, usedAtMs: usedAt }
          : { key: holder, address, releasedAt };
        return { realm, lease };
      }
    } catch (error) {
      reason = (error as Error).message;
    }
    throw new StoreError(`${key} in the store is not a lease: ${reason}`);
  }
}

/**
 * Parses a text unless that was done before. Returns undefined if it is not the text that the parsed value prints.
 *
 * @param known what was parsed, by text
 */
function parseOnce<T extends IpAddress | Endpoint>(
  known: Map<string, T | undefined>,
  text: string,
  parse: (text: string) => T
): T | undefined {
  let value = known.get(text);
  if (value === undefined && !known.has(text)) {
    value = parseCanonical(text, parse);
    known.set(text, value);
  }
  return value;
}

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
