/**
 * Prefixes divided into smaller ones, and joined to larger ones.
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

/** Returns the fewest prefixes that cover exactly these addresses. */
export function coverOf(addresses: Iterable<IpAddress>): IpPrefix[] {
  const cover = new Map<string, IpPrefix>();
  for (const address of addresses) {
    let prefix = IpPrefix.around(address);
    while (prefix.length > 0) {
      const { base, family, length } = prefix;
      const bit = 1n << BigInt(bitsOf(family) - length);
      const other = IpPrefix.around(IpAddress.fromBigInt(family, base.toBigInt() ^ bit), length);
      if (!cover.delete(other.toString())) break;
      prefix = IpPrefix.around(base, length - 1);
    }
    cover.set(prefix.toString(), prefix);
  }
  return [...cover.values()];
}

function withoutOne(prefix: IpPrefix, hole: IpPrefix): IpPrefix[] {
  if (!prefix.overlaps(hole)) return [prefix];
  if (hole.length <= prefix.length) return [];
  const { base, family, length } = prefix;
  const half = 1n << BigInt(bitsOf(family) - length - 1);
  const upper = IpAddress.fromBigInt(family, base.toBigInt() + half);
  return [base, upper].flatMap((each) => withoutOne(IpPrefix.around(each, length + 1), hole));
}
