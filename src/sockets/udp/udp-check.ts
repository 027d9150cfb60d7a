/**
 * Verifies a packet of UDP that has arrived: its checksum, and what its virtio-net header says of it.
 * @module
 */
import { UDP_CHECKSUM, UDP_HEADER } from '../../packet/fields.ts';
import type { PacketHeader } from '../../packet/header.ts';
import { makesTooManySegments } from '../../packet/segments.ts';
import { hasRightChecksum, isChecksumTrusted } from '../../packet/transport-checksum.ts';
import {
  VNET_F_NEEDS_CSUM,
  VNET_FLAGS,
  VNET_GSO_NONE,
  VNET_GSO_SIZE,
  VNET_GSO_TYPE,
  VNET_GSO_UDP_L4,
} from '../../packet/virtio.ts';

/** Why a packet is not valid. */
export const DatagramFault = {
  /** The virtio-net header contradicts it, or it is a super-packet of too many datagrams. */
  Malformed: -1,
  BadChecksum: -2,
} as const;

/**
 * Returns the payload bytes of each datagram of the packet but the last, which may be shorter: at least 1; or a
 * `DatagramFault`, which is less than 0.
 *
 * @param vnet the offset of its virtio-net header; -1 if it has none
 */
export function checkUdp(view: DataView, vnet: number, header: PacketHeader): number {
  const { family, transport, end } = header;
  const payload = end - transport - UDP_HEADER;
  let segment = Math.max(payload, 1);
  if (vnet >= 0 && view.getUint8(vnet + VNET_GSO_TYPE) !== VNET_GSO_NONE) {
    const type = view.getUint8(vnet + VNET_GSO_TYPE);
    const isPartial = (view.getUint8(vnet + VNET_FLAGS) & VNET_F_NEEDS_CSUM) !== 0;
    segment = view.getUint16(vnet + VNET_GSO_SIZE, true);
    const isOdd = type !== VNET_GSO_UDP_L4 || !isPartial || segment === 0;
    if (isOdd || makesTooManySegments(true, payload, segment)) return DatagramFault.Malformed;
  }
  if (isChecksumTrusted(view, vnet)) return segment;
  // RFC 768: over IPv4 a zero means that there is no checksum. RFC 8200 section 8.1: over IPv6 there must be one.
  const isAbsent = view.getUint16(transport + UDP_CHECKSUM) === 0;
  if (isAbsent && family === 4) return segment;
  if (!isAbsent && hasRightChecksum(view, header)) return segment;
  return DatagramFault.BadChecksum;
}
