/**
 * The transport checksum of a packet: verifies it in one that has arrived whole, and leaves it partial in one that is
 * sent (`VNET_F_NEEDS_CSUM`).
 * @module
 */
import { fold, sumView } from './checksum.ts';
import { copySum } from './copy-sum.ts';
import { Protocol } from './fields.ts';
import type { PacketHeader } from './header.ts';
import { pseudoHeaderSum } from './ip-writer.ts';
import {
  VNET_CSUM_OFFSET,
  VNET_CSUM_START,
  VNET_F_DATA_VALID,
  VNET_F_NEEDS_CSUM,
  VNET_FLAGS,
} from './virtio.ts';

/**
 * Returns whether the virtio-net header at `vnet` says that the checksum is partial, or that it was verified. It need
 * not be computed then: a peer that lies there could as well send the right sum.
 *
 * @param vnet -1 if there is no virtio-net header
 */
export function isChecksumTrusted(view: DataView, vnet: number): boolean {
  if (vnet < 0) return false;
  return (view.getUint8(vnet + VNET_FLAGS) & (VNET_F_NEEDS_CSUM | VNET_F_DATA_VALID)) !== 0;
}

/** Computes whether the checksum of the packet is right. */
export function hasRightChecksum(view: DataView, header: PacketHeader): boolean {
  const { family, protocol, source, transport, end } = header;
  // ICMP of IPv4 has no pseudo-header (RFC 792).
  const pseudo =
    protocol === Protocol.Icmp
      ? 0
      : pseudoHeaderSum(view, source, family, protocol, end - transport);
  return fold(pseudo + transportSum(view, transport, end)) === 0xffff;
}

/** Returns the sum of up to 64 KiB, folded, in a third of the time of `sumView` where there is much to sum. */
export function transportSum(view: DataView, start: number, end: number): number {
  if (end - start < WORTH_COPYING) return fold(sumView(view, start, end, 0));
  // Nobody reads what is copied.
  copied ??= new Int32Array(COPIED_WORDS);
  return copySum(view, start, copied, 0, end - start);
}

/**
 * Says in the virtio-net header at `vnet` that the checksum holds only the sum of the pseudo-header.
 *
 * @param start where the transport header begins in the packet
 * @param offset where the checksum is in the transport header
 */
export function markPartial(view: DataView, vnet: number, start: number, offset: number): void {
  view.setUint8(vnet + VNET_FLAGS, VNET_F_NEEDS_CSUM);
  view.setUint16(vnet + VNET_CSUM_START, start, true);
  view.setUint16(vnet + VNET_CSUM_OFFSET, offset, true);
}

let copied: Int32Array | undefined;
const COPIED_WORDS = 16_400;
const WORTH_COPYING = 64;
