/**
 * The identity of a connection: the addresses and ports of both ends.
 * @module
 */
import type { Family, IpAddress } from '../base/address.ts';

/** Both ends of a connection, as seen from this endpoint. */
export interface Flow {
  readonly family: Family;
  readonly local: IpAddress;
  readonly localPort: number;
  readonly remote: IpAddress;
  readonly remotePort: number;
  /** The keyed hash of the other fields (`SequenceNumbers.flowHash`), 30 bits: the key of tables. */
  readonly hash: number;
}

/** Returns whether two flows have the same ends. */
export function sameFlow(a: Flow, b: Flow): boolean {
  return (
    a.hash === b.hash &&
    a.localPort === b.localPort &&
    a.remotePort === b.remotePort &&
    a.remote.equals(b.remote) &&
    a.local.equals(b.local)
  );
}
