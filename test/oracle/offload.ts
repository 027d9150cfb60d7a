/**
 * The virtio-net header in front of a packet: reads it, checks it against the packet, and updates it when the
 * packet changes its IP version.
 * @module
 */
import type { VerdictName } from '../../src/translator/verdict.ts';
import { checksumOffset, ICMP, TCP, UDP } from '../support/packets.ts';
import { VNET } from '../support/vnet.ts';
import type { IpVersion } from './headers.ts';
import type { Packet } from './parse.ts';

/** Whether the virtio-net header says that the transport checksum is still partial. */
export function isPartial(frame: Uint8Array): boolean {
  return (frame[0]! & NEEDS_CHECKSUM) !== 0;
}

/** Payload of each segment of a super-packet; undefined if the frame is none. */
export function segmentSize(frame: Uint8Array): number | undefined {
  return gsoType(frame) === GSO_NONE ? undefined : viewOf(frame).getUint16(4, true);
}

/** What the virtio-net header and the packet disagree about. */
export function offloadFault(frame: Uint8Array, packet: Packet): VerdictName | undefined {
  const view = viewOf(frame);
  if (frame[0]! > 3) return 'DropMalformed';
  const type = gsoType(frame);
  const { version, protocol, length, fragment } = packet.ip;
  if (fragment !== undefined) {
    return isPartial(frame) || type !== GSO_NONE ? 'DropMalformed' : undefined;
  }
  if (isPartial(frame)) {
    if (packet.kind === 'error' || protocol === ICMP) return 'DropMalformed';
    if (!['tcp', 'udp', 'echo-request', 'echo-reply'].includes(packet.kind)) return 'DropMalformed';
    if (view.getUint16(6, true) !== length) return 'DropMalformed';
    if (view.getUint16(8, true) !== checksumOffset(protocol)) return 'DropMalformed';
  }
  if (type === GSO_NONE) return undefined;
  if (!isPartial(frame) || view.getUint16(4, true) === 0) return 'DropMalformed';
  if (type === GSO_UDP) return 'DropUnsupported';
  const isTcp = protocol === TCP;
  const fits =
    (type === GSO_TCPV4 && protocol === TCP && version === 4) ||
    (type === GSO_TCPV6 && protocol === TCP && version === 6) ||
    (type === GSO_UDP_L4 && protocol === UDP);
  if (!fits) return 'DropMalformed';
  const size = view.getUint16(4, true);
  const header = isTcp ? (frame[VNET + length + 12]! >> 4) * 4 : 8;
  const segments = Math.ceil((frame.length - VNET - length - header) / size);
  return segments > 128 && (!isTcp || size < 216) ? 'DropTooManySegments' : undefined;
}

/** The virtio-net header of a packet that is of `version` now, its transport header at `start`. */
export function translatedOffload(
  frame: Uint8Array,
  packet: Packet,
  version: IpVersion,
  start: number
): Uint8Array {
  const header = frame.slice(0, VNET);
  const view = viewOf(header);
  const headerLength = view.getUint16(2, true);
  const grown = headerLength + start - packet.ip.length;
  // A hint, and maybe a wrong one.
  if (headerLength !== 0) view.setUint16(2, Math.min(65_535, Math.max(0, grown)), true);
  if (isPartial(frame)) view.setUint16(6, start, true);
  if (isPartial(frame) && packet.kind.startsWith('echo') && version === 4) {
    // ICMP over IPv4 has no pseudo-header, so its checksum is complete.
    header[0]! &= ~NEEDS_CHECKSUM;
    view.setUint32(6, 0);
  }
  const type = gsoType(frame);
  if (type === GSO_TCPV4 || type === GSO_TCPV6) {
    header[1] = (header[1]! & GSO_ECN) | (version === 4 ? GSO_TCPV4 : GSO_TCPV6);
  }
  return header;
}

function gsoType(frame: Uint8Array): number {
  return frame[1]! & ~GSO_ECN;
}

function viewOf(frame: Uint8Array): DataView {
  return new DataView(frame.buffer, frame.byteOffset, VNET);
}

const NEEDS_CHECKSUM = 1;
const GSO_NONE = 0;
const GSO_TCPV4 = 1;
const GSO_UDP = 3;
const GSO_TCPV6 = 4;
const GSO_UDP_L4 = 5;
const GSO_ECN = 0x80;
