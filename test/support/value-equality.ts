/**
 * Lets `toEqual` compare an address, a prefix or a port range with its text, so that expectations can be written as
 * what a user reads and writes.
 */
import { expect } from 'vitest';
import { IpAddress } from '../../src/base/address.ts';
import { PortRange } from '../../src/base/port-range.ts';
import { IpPrefix } from '../../src/base/prefix.ts';

function isValue(value: unknown): value is IpAddress | IpPrefix | PortRange {
  return value instanceof IpAddress || value instanceof IpPrefix || value instanceof PortRange;
}

expect.addEqualityTesters([
  (a, b) => {
    if (isValue(a) && typeof b === 'string') return a.toJSON() === b;
    if (isValue(b) && typeof a === 'string') return b.toJSON() === a;
    return undefined;
  },
]);
