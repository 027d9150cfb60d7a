/**
 * Writes the IP headers of packets that this library makes itself: IPv4 without options
 * ([RFC 791 section 3.1](https://www.rfc-editor.org/rfc/rfc791#section-3.1)) and the fixed header of IPv6
 * ([RFC 8200 section 3](https://www.rfc-editor.org/rfc/rfc8200#section-3)), and the sum of the pseudo-header that
 * checksums cover. The addresses come first: the other functions read them from the packet.
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import { fold } from './checksum.ts';
import {
  IPV4_IDENTIFICATION,
  IPV4_MIN_HEADER,
  IPV4_SOURCE,
  IPV4_TTL,
  IPV6_HEADER,
  IPV6_PAYLOAD_LENGTH,
  IPV6_SOURCE,
} from './fields.ts';

/** Writes the addresses of the header that begins at `at`. Both are of one IP version. */
export function writeAddresses(
  view: DataView,
  at: number,
  source: IpAddress,
  destination: IpAddress
): void {
  const { family, words } = source;
  const first = at + (family === 4 ? IPV4_SOURCE : IPV6_SOURCE);
  const width = 4 * words.length;
  for (let i = 0; i < words.length; i++) {
    view.setInt32(first + 4 * i, words[i]!);
    view.setInt32(first + width + 4 * i, destination.words[i]!);
  }
}

/**
 * Writes the rest of an IPv4 header, with its checksum.
 *
 * @param length that of the packet in bytes
 * @param identification 16 bits
 * @param fragment the flags and the offset in units of 8 bytes
 */
export function writeIpv4Header(
  view: DataView,
  at: number,
  length: number,
  protocol: number,
  identification: number,
  fragment: number
): void {
  // Whole words: TCP writes a header with every segment.
  const lifetime = (HOP_LIMIT << 8) | protocol;
  const addresses = sumWords(view, at + IPV4_SOURCE, 2);
  const sum = VERSION_4 + length + identification + fragment + lifetime + addresses;
  view.setInt32(at, (VERSION_4 << 16) | length);
  view.setInt32(at + IPV4_IDENTIFICATION, (identification << 16) | fragment);
  view.setInt32(at + IPV4_TTL, (lifetime << 16) | (~fold(sum) & 0xffff));
}

/**
 * Writes the rest of an IPv6 header, with traffic class and flow label 0.
 *
 * @param length the bytes that follow the header
 */
export function writeIpv6Header(
  view: DataView,
  at: number,
  length: number,
  nextHeader: number
): void {
  view.setInt32(at, 0x60000000);
  view.setInt32(at + IPV6_PAYLOAD_LENGTH, (length << 16) | (nextHeader << 8) | HOP_LIMIT);
}

/**
 * Returns the sum of the pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1), not folded.
 *
 * @param length that of the transport header and the payload in bytes
 */
export function pseudoHeaderSum(
  view: DataView,
  source: number,
  family: 4 | 6,
  protocol: number,
  length: number
): number {
  return protocol + length + sumWords(view, source, family === 4 ? 2 : 8);
}

/** The offset of the source address in the IP header. */
export function sourceOffset(family: 4 | 6): number {
  return family === 4 ? IPV4_SOURCE : IPV6_SOURCE;
}

/** The bytes of an IP header without options and extension headers. */
export function ipHeaderLength(family: 4 | 6): number {
  return family === 4 ? IPV4_MIN_HEADER : IPV6_HEADER;
}

/** Returns the sum of the halves of `count` words of 32 bits. */
function sumWords(view: DataView, at: number, count: number): number {
  let sum = 0;
  for (let i = 0; i < count; i++) {
    const word = view.getInt32(at + 4 * i);
    sum += (word >>> 16) + (word & 0xffff);
  }
  return sum;
}

/** Version 4, a header of 20 bytes, type of service 0. */
const VERSION_4 = 0x4500;
/** RFC 1122 section 3.2.1.7 leaves the value to the host; 64 is the default of most systems. */
const HOP_LIMIT = 64;
