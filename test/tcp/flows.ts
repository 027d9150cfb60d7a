/**
 * Flows for the tests of tables.
 * @module
 */
import { IpAddress } from '../../src/base/address.ts';
import type { Flow } from '../../src/tcp/flow.ts';
import { Random } from '../support/random.ts';

/** A flow of a remote end. The hash is that of the ends unless it is given. */
export function flowOf(remote: string, remotePort: number, localPort = 80, hash?: number): Flow {
  const address = IpAddress.parse(remote);
  const local = IpAddress.parse(address.family === 4 ? '10.0.0.1' : '2001:db8::1');
  let mixed = new Random(Math.imul(remotePort, 65_599) ^ localPort).next() * 2 ** 30;
  for (const word of address.words) mixed = new Random(word ^ mixed).next() * 2 ** 30;
  return {
    family: address.family,
    local,
    localPort,
    remote: address,
    remotePort,
    hash: hash ?? Math.floor(mixed),
  };
}
