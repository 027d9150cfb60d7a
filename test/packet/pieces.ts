/**
 * A slow counterpart of `PacketSegmenter`: parses packets, reassembles fragments, and computes every checksum
 * in full.
 * @module
 */
import { PacketSegmenter, SegmentResult } from '../../src/packet/index.ts';
import { checksumOf, isRight, pseudoHeader, wordsOf } from '../support/checksum.ts';
import {
  AUTHENTICATION,
  CWR,
  DESTINATION,
  FIN,
  FRAGMENT,
  HOP_BY_HOP,
  ICMP,
  ICMPV6,
  type IpOptions,
  PSH,
  ROUTING,
  repairIpv4Checksum,
  TCP,
  UDP,
} from '../support/packets.ts';
import { framed, type VnetHeader } from '../support/vnet.ts';

/** A parsed packet. */
export interface Piece {
  readonly packet: Uint8Array;
  /** The IPv4 header with its options; the IPv6 header with all extension headers. */
  readonly headers: Uint8Array;
  readonly protocol: number;
  /** What follows the headers. */
  readonly payload: Uint8Array;
  readonly identification: number;
  readonly offset: number;
  readonly moreFragments: boolean;
}

/** Parses a packet. Throws for a wrong length or IPv4 header checksum. */
export function pieceOf(packet: Uint8Array): Piece {
  const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
  if (packet[0]! >> 4 === 4) {
    const length = (packet[0]! & 15) * 4;
    const headers = packet.subarray(0, length);
    equal('total length', view.getUint16(2), packet.length);
    equal('header checksum', isRight(wordsOf(headers), 0), true);
    return {
      packet,
      headers,
      protocol: packet[9]!,
      payload: packet.subarray(length),
      identification: view.getUint16(4),
      offset: (view.getUint16(6) & 0x1fff) * 8,
      moreFragments: (view.getUint16(6) & 0x2000) !== 0,
    };
  }
  equal('payload length', view.getUint16(4), packet.length - 40);
  let [protocol, at, identification, offset, moreFragments] = [packet[6]!, 40, -1, 0, false];
  while ([HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION].includes(protocol)) {
    if (offset > 0) break;
    const extension = protocol;
    protocol = packet[at]!;
    if (extension === FRAGMENT) {
      identification = view.getUint32(at + 4);
      offset = view.getUint16(at + 2) & 0xfff8;
      moreFragments = (view.getUint16(at + 2) & 1) !== 0;
      at += 8;
    } else {
      at += extension === AUTHENTICATION ? (packet[at + 1]! + 2) * 4 : (packet[at + 1]! + 1) * 8;
    }
  }
  const [headers, payload] = [packet.subarray(0, at), packet.subarray(at)];
  return { packet, headers, protocol, payload, identification, offset, moreFragments };
}

/** Returns whether the transport checksum of an unfragmented packet is correct; UDP must have one. */
export function isTransportRight(packet: Uint8Array): boolean {
  const { protocol, payload } = pieceOf(packet);
  if (protocol === UDP && payload[6] === 0 && payload[7] === 0) return false;
  return isRight([...pseudoOf(packet, protocol, payload.length), ...wordsOf(payload)], 0);
}

/** Returns the packet with a complete transport checksum, as a sender without offload sends it. */
export function completed(packet: Uint8Array): Uint8Array {
  const copy = packet.slice();
  const { protocol, payload } = pieceOf(copy);
  const at = checksumOffset(protocol);
  payload.fill(0, at, at + 2);
  const words = [...pseudoOf(copy, protocol, payload.length), ...wordsOf(payload)];
  const checksum = checksumOf(words);
  const sent = checksum === 0 && protocol === UDP ? 0xffff : checksum;
  payload.set([sent >> 8, sent & 255], at);
  return copy;
}

/** Where a transport header has its checksum. */
export function checksumOffset(protocol: number): number {
  return { [TCP]: 16, [UDP]: 6, [ICMPV6]: 2, [ICMP]: 2 }[protocol]!;
}

/**
 * Returns the segments of a super-packet, each built as its own packet.
 */
export function naiveSegments(packet: Uint8Array, size: number): Uint8Array[] {
  const { headers, protocol, payload } = pieceOf(packet);
  const transport = headers.length;
  const header = protocol === TCP ? (payload[12]! >> 4) * 4 : 8;
  const data = payload.subarray(header);
  const segments: Uint8Array[] = [];
  for (let at = 0; at === 0 || at < data.length; at += size) {
    const part = data.subarray(at, at + size);
    const segment = new Uint8Array(transport + header + part.length);
    segment.set(packet.subarray(0, transport + header));
    segment.set(part, transport + header);
    const view = new DataView(segment.buffer);
    if (packet[0]! >> 4 === 4) {
      view.setUint16(2, segment.length);
      view.setUint16(4, (view.getUint16(4) + segments.length) % 0x10000);
      repairIpv4Checksum(segment);
    } else {
      view.setUint16(4, segment.length - 40);
    }
    if (protocol === UDP) {
      view.setUint16(transport + 4, header + part.length);
    } else {
      view.setUint32(transport + 4, (view.getUint32(transport + 4) + at) % 2 ** 32);
      if (at + size < data.length) segment[transport + 13]! &= 0xff - FIN - PSH;
      if (at > 0) segment[transport + 13]! &= 0xff - CWR;
    }
    segments.push(completed(segment));
  }
  return segments;
}

/**
 * Reassembles the payload of a datagram from fragments in any order. Throws if they overlap, leave a hole, or
 * are not of one datagram.
 */
export function reassembled(packets: readonly Uint8Array[], from = 0): Uint8Array {
  const pieces = packets.map(pieceOf).sort((a, b) => a.offset - b.offset);
  let at = from;
  for (const [i, piece] of pieces.entries()) {
    equal('fragment offset', piece.offset, at);
    equal('identification', piece.identification, pieces[0]!.identification);
    const payload = fragmentPayload(piece.packet);
    if (i < pieces.length - 1) {
      equal('more fragments', piece.moreFragments, true);
      equal('rest of 8', payload.length % 8, 0);
    }
    at += payload.length;
  }
  return Buffer.concat(pieces.map(({ packet }) => fragmentPayload(packet)));
}

/** What the fragment carries of its datagram, with the extension headers that are part of it. */
export function fragmentPayload(packet: Uint8Array): Uint8Array {
  if (packet[0]! >> 4 === 4) return pieceOf(packet).payload;
  return packet.subarray(fragmentHeaderStart(packet) + 8);
}

export function fragmentHeaderStart(packet: Uint8Array): number {
  let [protocol, at] = [packet[6]!, 40];
  while (protocol !== FRAGMENT) {
    protocol = packet[at]!;
    at += (packet[at + 1]! + 1) * 8;
  }
  return at;
}

/** An IPv6 packet with extension headers, each a next header number and the bytes behind its first two. */
export function extended(
  packet: Uint8Array,
  extensions: readonly (readonly [number, Uint8Array])[]
): Uint8Array {
  const chain: Uint8Array[] = [];
  let next = packet[6]!;
  for (const [protocol, body] of [...extensions].reverse()) {
    const header = new Uint8Array(2 + body.length);
    const isFragment = protocol === FRAGMENT;
    const units = protocol === AUTHENTICATION ? header.length / 4 - 2 : header.length / 8 - 1;
    header.set([next, isFragment ? 0 : units]);
    header.set(body, 2);
    chain.unshift(header);
    next = protocol;
  }
  const all = Buffer.concat([packet.subarray(0, 40), ...chain, packet.subarray(40)]);
  all[6] = next;
  all.writeUInt16BE(all.length - 40, 4);
  return new Uint8Array(all);
}

/** The virtio-net header of a packet whose checksum is partial. */
export function partialHeader(packet: Uint8Array, more: VnetHeader = {}): VnetHeader {
  const { headers, protocol } = pieceOf(packet);
  return {
    flags: 1,
    checksumStart: headers.length,
    checksumOffset: checksumOffset(protocol),
    ...more,
  };
}

export interface SplitResult {
  readonly outcome: SegmentResult;
  /** The packets without their virtio-net headers, which were zeros. */
  readonly packets: Uint8Array[];
}

/**
 * Splits a packet that is between bytes that must not change, with the virtio-net header separate from it.
 */
export function split(
  packet: Uint8Array,
  size: number,
  header: VnetHeader = {},
  segmenter: PacketSegmenter = new PacketSegmenter(1)
): SplitResult {
  const gap = 3;
  const start = gap + 10 + gap;
  const buffer = new Uint8Array(start + packet.length + gap).fill(0xa5);
  buffer.set(framed(packet, header).subarray(0, 10), gap);
  buffer.set(packet, start);
  const before = buffer.slice();
  const outcome = segmenter.begin(buffer, gap, start, start + packet.length, size);
  const packets: Uint8Array[] = [];
  for (let length = segmenter.next(); length > 0; length = segmenter.next()) {
    const frame = segmenter.frame.subarray(0, length);
    equal('virtio-net header', Buffer.alloc(10).equals(frame.subarray(0, 10)), true);
    packets.push(new Uint8Array(frame.subarray(10)));
  }
  equal('bytes of the buffer', Buffer.compare(buffer, before), 0);
  equal('frames', packets.length > 0, outcome === SegmentResult.Ready);
  return { outcome, packets };
}

/** Returns the packets of one that must be splittable. */
export function pieces(
  packet: Uint8Array,
  size: number,
  header: VnetHeader = {},
  segmenter?: PacketSegmenter
): Uint8Array[] {
  const { outcome, packets } = split(packet, size, header, segmenter);
  equal('outcome', outcome, SegmentResult.Ready);
  for (const piece of packets) equal('fits', piece.length <= size, true);
  return packets;
}

/** An IPv4 option that all fragments have. */
export const ROUTER_ALERT: Uint8Array = Uint8Array.of(148, 4, 0, 0);
/** An IPv4 option that only the first fragment has (number 10, obsolete). */
export const UNCOPIED_OPTION: Uint8Array = Uint8Array.of(10, 6, 1, 2, 3, 4);

export const MAY_FRAGMENT: IpOptions = { fragment: 0 };

function pseudoOf(packet: Uint8Array, protocol: number, length: number): number[] {
  if (protocol === ICMP) return [];
  const [source, destination] = packet[0]! >> 4 === 4 ? [12, 16] : [8, 24];
  const bytes = destination - source;
  return pseudoHeader(
    packet.subarray(source, destination),
    packet.subarray(destination, destination + bytes),
    protocol,
    length
  );
}

function equal(what: string, actual: unknown, expected: unknown): void {
  if (actual !== expected) throw new Error(`${what}: ${actual}, not ${expected}`);
}
