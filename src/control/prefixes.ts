/**
 * Prefixes cut into smaller ones.
 * @module
 */
import { IpAddress } from '../base/address.ts';
import { IpPrefix } from '../base/prefix.ts';

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
  const { base, family, length } = prefix;
  const half = 1n << BigInt((family === 4 ? 32 : 128) - length - 1);
  const upper = IpAddress.fromBigInt(family, base.toBigInt() + half);
  return [base, upper].flatMap((each) => cut(IpPrefix.around(each, length + 1), hole));
}
