/**
 * Whether a virtio-net header agrees with its packet. What passes here a kernel will accept; what an
 * edge claims is checked like everything else it says.
 * @module
 */
import { type PacketHeader, PacketKind, Parse } from '../packet/header.ts';
import {
  VNET_CSUM_OFFSET,
  VNET_CSUM_START,
  VNET_F_NEEDS_CSUM,
  VNET_FLAGS,
  VNET_GSO_ECN,
  VNET_GSO_NONE,
  VNET_GSO_SIZE,
  VNET_GSO_TCPV4,
  VNET_GSO_TCPV6,
  VNET_GSO_TYPE,
  VNET_GSO_UDP,
  VNET_GSO_UDP_L4,
  VNET_HEADER_LENGTH,
} from '../packet/virtio.ts';

/**
 * Checks the virtio-net header at `vnet`, which stands in front of the packet, against the packet
 * that `header` describes and that begins at `start`.
 */
export function checkOffload(
  buffer: Uint8Array,
  vnet: number,
  start: number,
  header: PacketHeader
): Parse {
  if (vnet + VNET_HEADER_LENGTH > start) return Parse.Malformed;
  const gsoType = buffer[vnet + VNET_GSO_TYPE]! & ~VNET_GSO_ECN;
  if (needsChecksum(buffer, vnet)) {
    const csumStart = readLittleEndian16(buffer, vnet + VNET_CSUM_START);
    const csumOffset = readLittleEndian16(buffer, vnet + VNET_CSUM_OFFSET);
    if (!coversAddresses(header)) return Parse.Malformed;
    if (start + csumStart !== header.transport) return Parse.Malformed;
    if (header.transport + csumOffset !== header.checksum) return Parse.Malformed;
  } else if (gsoType !== VNET_GSO_NONE) {
    return Parse.Malformed;
  }
  if (gsoType === VNET_GSO_NONE) return Parse.Ok;

  if (readLittleEndian16(buffer, vnet + VNET_GSO_SIZE) === 0) return Parse.Malformed;
  switch (gsoType) {
    case VNET_GSO_TCPV4:
    case VNET_GSO_TCPV6: {
      const family = gsoType === VNET_GSO_TCPV4 ? 4 : 6;
      const isThat = header.kind === PacketKind.Tcp && header.family === family;
      return isThat ? Parse.Ok : Parse.Malformed;
    }
    case VNET_GSO_UDP_L4:
      return header.kind === PacketKind.Udp ? Parse.Ok : Parse.Malformed;
    case VNET_GSO_UDP:
      return Parse.Unsupported;
    default:
      return Parse.Malformed;
  }
}

/** Whether the transport checksum is partial. */
export function needsChecksum(buffer: Uint8Array, vnet: number): boolean {
  return (buffer[vnet + VNET_FLAGS]! & VNET_F_NEEDS_CSUM) !== 0;
}

/** A pseudo-header sum makes sense only where there is a pseudo-header, and not for an error. */
function coversAddresses(header: PacketHeader): boolean {
  if (header.kind === PacketKind.IcmpError) return false;
  return header.family === 6 || header.kind === PacketKind.Tcp || header.kind === PacketKind.Udp;
}

function readLittleEndian16(buffer: Uint8Array, offset: number): number {
  return buffer[offset]! | (buffer[offset + 1]! << 8);
}
