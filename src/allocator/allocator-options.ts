/**
 * The options of an allocator, and how what a caller gives is checked.
 * @module
 */
import { IpAddress } from '../base/address.ts';
import { type Clock, systemClock } from '../base/clock.ts';
import {
  checkFunction,
  checkMethods,
  checkObject,
  checkText,
  checkThat,
} from '../base/option-check.ts';
import { IpPrefix, type PrefixInput } from '../base/prefix.ts';
import { ApiMisuseError } from '../errors.ts';
import type { Lease, LeaseInput } from './lease.ts';
import type { LeaseSettings } from './pool-leases.ts';

export interface AddressAllocatorOptions {
  /** Prefixes of the addresses to lease, in order of preference within each IP version; they are disjoint. */
  readonly pools: readonly PrefixInput[];
  /** Addresses and prefixes within the pools that are never leased; default none. */
  readonly reserved?: readonly PrefixInput[];
  /** How long a released address stays in quarantine, in ms. */
  readonly quarantineMs: number;
  /**
   * The clock of `releasedAt`. Its wall clock must never go back, and must continue from one process to the next.
   * Default: the system's clock, which does so as long as nobody sets it.
   */
  readonly clock?: Pick<Clock, 'wallMs'>;
  /** Returns the group of a key, always the same one. Default: there are no groups. */
  readonly groupOf?: ((key: string) => string) | undefined;
  /** Addresses in a block of a group, a power of two; default 16, an IPv4 /28 or an IPv6 /124. */
  readonly blockSize?: number;
  /**
   * Is called when the quarantine of an address has ended and its key has not taken it back: within `allocate` or
   * `endRests`, whichever notices it first. Default: nothing is called.
   */
  readonly onRested?: ((lease: Lease) => void) | undefined;
  /**
   * Returns whether an address may leave the quarantine when its time is over. While the one that was released first may
   * not, those released later stay in quarantine too. Default: each may.
   */
  readonly mayRest?: ((lease: Lease) => boolean) | undefined;
}

/** What is used where an option is absent. */
export const ADDRESS_ALLOCATOR_DEFAULTS: Readonly<{
  reserved: readonly PrefixInput[];
  blockSize: number;
}> = Object.freeze({ reserved: Object.freeze([]), blockSize: 16 });

/** What a caller gives, with the defaults where it gives nothing. */
export interface ResolvedOptions extends LeaseSettings {
  readonly pools: readonly PrefixInput[];
  readonly reserved: readonly PrefixInput[];
}

/** Checks all but the prefixes, and fills in the defaults. */
export function resolveOptions(options: AddressAllocatorOptions): ResolvedOptions {
  const {
    pools,
    quarantineMs,
    groupOf,
    onRested,
    mayRest,
    reserved = ADDRESS_ALLOCATOR_DEFAULTS.reserved,
    blockSize = ADDRESS_ALLOCATOR_DEFAULTS.blockSize,
    clock = systemClock,
  } = checkObject('options', options);
  if (!(typeof quarantineMs === 'number' && quarantineMs >= 0)) {
    throw new ApiMisuseError(`quarantineMs must not be negative: ${quarantineMs}`);
  }
  if (!(Number.isSafeInteger(blockSize) && Number.isInteger(Math.log2(blockSize)))) {
    throw new ApiMisuseError(`blockSize must be a power of two: ${blockSize}`);
  }
  checkMethods('clock', clock, ['wallMs']);
  if (groupOf !== undefined) checkFunction('groupOf', groupOf);
  if (onRested !== undefined) checkFunction('onRested', onRested);
  if (mayRest !== undefined) checkFunction('mayRest', mayRest);
  return {
    pools,
    reserved,
    quarantineMs,
    clock,
    groupOf,
    onRested,
    mayRest,
    blockSize,
  };
}

function prefixesOf(name: string, inputs: readonly PrefixInput[]): IpPrefix[] {
  checkThat(name, inputs, Array.isArray(inputs), 'a list of IP prefixes');
  return inputs.map((input, i) => {
    if (!IpPrefix.isPrefix(input)) checkText(`${name}[${i}]`, input);
    try {
      return IpPrefix.from(input);
    } catch (error) {
      throw new ApiMisuseError(`${name}[${i}]: ${(error as Error).message}`, { cause: error });
    }
  });
}

/** @throws {ApiMisuseError} if one is not a prefix, or two overlap. */
export function disjointPools(inputs: readonly PrefixInput[]): IpPrefix[] {
  const prefixes = prefixesOf('pools', inputs);
  for (const [i, prefix] of prefixes.entries()) {
    const other = prefixes.slice(0, i).find((each) => each.overlaps(prefix));
    if (other) throw new ApiMisuseError(`pools ${other} and ${prefix} overlap`);
  }
  return prefixes;
}

/**
 * Returns the prefixes without those that another one contains: if two overlap, one contains the other.
 *
 * @throws {ApiMisuseError} if one is not a prefix.
 */
export function reservedParts(inputs: readonly PrefixInput[]): IpPrefix[] {
  const all = prefixesOf('reserved', inputs);
  return all.filter(
    (prefix, i) =>
      !all.some(
        (other, j) =>
          other.contains(prefix.base) &&
          (other.length < prefix.length || (other.length === prefix.length && j < i))
      )
  );
}

/** Returns leases with their addresses as values, those in use first, then in the order of their release. */
export function parseLeases(leases: readonly LeaseInput[]): Lease[] {
  const parsed = leases.map(({ key, address: input, releasedAt }): Lease => {
    const address = IpAddress.from(input).canonical();
    return releasedAt === undefined ? { key, address } : { key, address, releasedAt };
  });
  return parsed.sort((a, b) => (a.releasedAt ?? 0) - (b.releasedAt ?? 0));
}
