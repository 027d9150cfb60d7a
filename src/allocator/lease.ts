/**
 * A lease: what an allocator returns, and takes back after a restart.
 * @module
 */

import type { AddressInput, IpAddress } from '../base/address.ts';

/** A lease of one address to a key. */
export interface Lease {
  readonly key: string;
  readonly address: IpAddress;
  /** When it was released, in ms of the wall clock; absent while it is in use. */
  readonly releasedAt?: number;
}

/** A lease as a host gives it back: its address is a value or text. */
export interface LeaseInput extends Omit<Lease, 'address'> {
  readonly address: AddressInput;
}
