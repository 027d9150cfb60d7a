/**
 * Prefixes cut into smaller ones.
 * @module
 */
import { IpAddress, IpPrefix } from '../base/address.ts';

/** The prefix of this length that an address is in. */
export function prefixOf(address: IpAddress, length: number): IpPrefix {
  const bits = BigInt(bitsOf(address) - length);
  const base = IpAddress.fromBigInt(address.family, (address.toBigInt() >> bits) << bits);
  return IpPrefix.parse(`${base}/${length}`);
}

/** What is left of `prefixes` without `holes`. */
export function without(prefixes: readonly IpPrefix[], holes: readonly IpPrefix[]): IpPrefix[] {
  return holes.reduce<IpPrefix[]>(
    (left, hole) => left.flatMap((prefix) => cut(prefix, hole)),
    [...prefixes]
  );
}

function cut(prefix: IpPrefix, hole: IpPrefix): IpPrefix[] {
  if (!prefix.overlaps(hole)) return [prefix];
  if (hole.length <= prefix.length) return [];
  const { base, length } = prefix;
  const half = 1n << BigInt(bitsOf(base) - length - 1);
  const upper = IpAddress.fromBigInt(base.family, base.toBigInt() + half);
  return [base, upper].flatMap((each) => cut(IpPrefix.parse(`${each}/${length + 1}`), hole));
}

function bitsOf({ family }: IpAddress): number {
  return family === 4 ? 32 : 128;
}
