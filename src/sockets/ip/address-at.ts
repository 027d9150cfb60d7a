/**
 * What the addresses in packets are.
 * @module
 */
import type { Family, IpAddress } from '../../base/address.ts';

/** Returns whether the packet has this address at `at`. The caller has checked that the IP versions agree. */
export function isAddressAt(view: DataView, at: number, { words }: IpAddress): boolean {
  for (let i = 0; i < words.length; i++) {
    if (view.getInt32(at + 4 * i) !== words[i]) return false;
  }
  return true;
}

/**
 * Returns whether the address at `at` may be that of one other host: it is not of `0.0.0.0/8`, `127.0.0.0/8` or a
 * multicast group (RFC 1122 section 3.2.1.3), not `::`, `::1` or of `ff00::/8` (RFC 4291 sections 2.5.2, 2.5.3, 2.7).
 */
export function isHostAt(view: DataView, at: number, family: Family): boolean {
  const first = view.getUint8(at);
  if (family === 4) return first !== 0 && first !== 127 && first < 224;
  if (first === 0xff) return false;
  const high = view.getInt32(at) | view.getInt32(at + 4) | view.getInt32(at + 8);
  return high !== 0 || view.getInt32(at + 12) >>> 1 !== 0;
}

/** Does the same as `isHostAt`, and takes addresses of loopback too. */
export function isUnicastAt(view: DataView, at: number, family: Family): boolean {
  const first = view.getUint8(at);
  if (family === 4) return first !== 0 && first < 224;
  if (first === 0xff) return false;
  for (let i = 0; i < 16; i += 4) if (view.getInt32(at + i) !== 0) return true;
  return false;
}
