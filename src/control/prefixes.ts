/**
 * Prefixes divided into smaller ones.
 * @module
 */
import { bitsOf, IpAddress } from '../base/address.ts';
import { IpPrefix } from '../base/prefix.ts';

/** Returns prefixes that cover the addresses of `prefixes` that are not in `holes`. */
export function without(prefixes: readonly IpPrefix[], holes: readonly IpPrefix[]): IpPrefix[] {
  return holes.reduce<IpPrefix[]>(
    (left, hole) => left.flatMap((prefix) => withoutOne(prefix, hole)),
    [...prefixes]
  );
}

function withoutOne(prefix: IpPrefix, hole: IpPrefix): IpPrefix[] {
  if (!prefix.overlaps(hole)) return [prefix];
  if (hole.length <= prefix.length) return [];
  const { base, family, length } = prefix;
  const half = 1n << BigInt(bitsOf(family) - length - 1);
  const upper = IpAddress.fromBigInt(family, base.toBigInt() + half);
  return [base, upper].flatMap((each) => withoutOne(IpPrefix.around(each, length + 1), hole));
}
