/**
 * Checks virtio-net headers against their packets, and moves them for packets that change the IP version.
 * A kernel accepts every header that passes here. An edge site is not trusted, so its headers are checked
 * like the rest of its packets.
 *
 * With `NEEDS_CSUM`, `csum_start` must be the transport header and `csum_offset` the place of that
 * protocol's checksum: TCP 16, UDP 6, ICMPv6 echo 2, no other. With a `gso_type` other than none,
 * `NEEDS_CSUM` must be set, `gso_size` must not be 0, and the type must match the packet (TCPV4, TCPV6,
 * UDP_L4). `UDP` (fragmentation offload) is not supported.
 * @module
 */
import { FragmentPart, PacketKind, TCP_DATA_OFFSET, UDP_HEADER } from '../packet/fields.ts';
import type { PacketHeader } from '../packet/header.ts';
import { makesTooManySegments } from '../packet/segments.ts';
import {
  VNET_CSUM_OFFSET,
  VNET_CSUM_START,
  VNET_F_KNOWN,
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
  VNET_HDR_LEN,
} from '../packet/virtio.ts';
import { Verdict } from './verdict.ts';

/**
 * Checks the virtio-net header at `vnet` against the packet that `header` describes.
 *
 * @returns Forward if they agree; DropMalformed, DropUnsupported, or DropTooManySegments
 */
export function checkOffload(view: DataView, vnet: number, header: PacketHeader): Verdict {
  if ((view.getUint8(vnet + VNET_FLAGS) & ~VNET_F_KNOWN) !== 0) return Verdict.DropMalformed;
  const gsoType = gsoTypeOf(view, vnet);
  if (needsChecksum(view, vnet)) {
    const transport = header.start + view.getUint16(vnet + VNET_CSUM_START, true);
    if (!coversAddresses(header)) return Verdict.DropMalformed;
    if (transport !== header.transport) return Verdict.DropMalformed;
    if (transport + view.getUint16(vnet + VNET_CSUM_OFFSET, true) !== header.checksum) {
      return Verdict.DropMalformed;
    }
  } else if (gsoType !== VNET_GSO_NONE) {
    return Verdict.DropMalformed;
  }
  if (gsoType === VNET_GSO_NONE) return Verdict.Forward;

  const segment = view.getUint16(vnet + VNET_GSO_SIZE, true);
  if (segment === 0) return Verdict.DropMalformed;
  const payload = header.end - header.transport;
  switch (gsoType) {
    case VNET_GSO_TCPV4:
    case VNET_GSO_TCPV6: {
      const family = gsoType === VNET_GSO_TCPV4 ? 4 : 6;
      if (header.kind !== PacketKind.Tcp || header.family !== family) return Verdict.DropMalformed;
      const headerLength = (view.getUint8(header.transport + TCP_DATA_OFFSET) >>> 4) << 2;
      return boundSegments(false, payload - headerLength, segment);
    }
    case VNET_GSO_UDP_L4:
      if (header.kind !== PacketKind.Udp) return Verdict.DropMalformed;
      return boundSegments(true, payload - UDP_HEADER, segment);
    case VNET_GSO_UDP:
      return Verdict.DropUnsupported;
    default:
      return Verdict.DropMalformed;
  }
}

/** Returns whether the transport checksum is partial. */
export function needsChecksum(view: DataView, vnet: number): boolean {
  return (view.getUint8(vnet + VNET_FLAGS) & VNET_F_NEEDS_CSUM) !== 0;
}

/** Payload bytes of each segment of a super-packet; 0 if it is none. */
export function segmentPayload(view: DataView, vnet: number): number {
  if (gsoTypeOf(view, vnet) === VNET_GSO_NONE) return 0;
  return view.getUint16(vnet + VNET_GSO_SIZE, true);
}

/**
 * Moves the virtio-net header of a packet that changes its IP version, and updates its fields.
 *
 * @param growth how many bytes the packet grows, and the header moves, towards the front
 * @param headerGrowth how many bytes the headers in front of the transport header grow
 * @param isCompleted whether the partial checksum has become a complete one
 */
export function moveOffload(
  view: DataView,
  vnet: number,
  growth: number,
  headerGrowth: number,
  family: 4 | 6,
  isCompleted: boolean
): void {
  const first = view.getInt32(vnet);
  const second = view.getInt32(vnet + 4);
  const third = view.getUint16(vnet + 8);
  const to = vnet - growth;
  view.setInt32(to, first);
  view.setInt32(to + 4, second);
  view.setUint16(to + 8, third);
  if ((first | second | third) === 0) return; // a plain packet

  const flags = view.getUint8(to + VNET_FLAGS);
  const type = view.getUint8(to + VNET_GSO_TYPE);
  const headerLength = view.getUint16(to + VNET_HDR_LEN, true);
  const start = view.getUint16(to + VNET_CSUM_START, true);
  const isPartial = (flags & VNET_F_NEEDS_CSUM) !== 0;
  const kind = type & ~VNET_GSO_ECN;
  const isTcp = kind === VNET_GSO_TCPV4 || kind === VNET_GSO_TCPV6;
  const newKind = isTcp ? (family === 4 ? VNET_GSO_TCPV4 : VNET_GSO_TCPV6) : kind;
  view.setUint8(to + VNET_GSO_TYPE, (type & VNET_GSO_ECN) | newKind);
  if (headerLength !== 0) {
    view.setUint16(
      to + VNET_HDR_LEN,
      Math.min(Math.max(headerLength + headerGrowth, 0), 0xffff),
      true
    );
  }
  if (isCompleted) {
    view.setUint8(to + VNET_FLAGS, flags & ~VNET_F_NEEDS_CSUM);
    view.setInt32(to + VNET_CSUM_START, 0);
  } else if (isPartial) {
    view.setUint16(to + VNET_CSUM_START, start + headerGrowth, true);
  }
}

/** Returns whether the packet's checksum covers a pseudo-header and may be partial. */
function coversAddresses(header: PacketHeader): boolean {
  if (header.part !== FragmentPart.Whole) return false;
  switch (header.kind) {
    case PacketKind.Tcp:
    case PacketKind.Udp:
      return true;
    case PacketKind.EchoRequest:
    case PacketKind.EchoReply:
      return header.family === 6;
    default:
      return false;
  }
}

function boundSegments(isUdp: boolean, payload: number, segment: number): Verdict {
  const isTooMany = makesTooManySegments(isUdp, payload, segment);
  return isTooMany ? Verdict.DropTooManySegments : Verdict.Forward;
}

function gsoTypeOf(view: DataView, vnet: number): number {
  return view.getUint8(vnet + VNET_GSO_TYPE) & ~VNET_GSO_ECN;
}
