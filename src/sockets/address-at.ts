/**
 * Compares addresses in packets with addresses as values.
 * @module
 */
import type { IpAddress } from '../base/address.ts';

/** Returns whether the packet has this address at `at`. The caller has checked that the IP versions agree. */
export function isAddressAt(view: DataView, at: number, { words }: IpAddress): boolean {
  for (let i = 0; i < words.length; i++) {
    if (view.getInt32(at + 4 * i) !== words[i]) return false;
  }
  return true;
}
