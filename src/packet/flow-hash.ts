/**
 * Hashes the flow of a packet. Flow steering uses it to spread packets over several connections without
 * changing their order within a flow.
 * @module
 */
import {
  IPV4_FRAGMENT,
  IPV4_FRAGMENT_OFFSET,
  IPV4_MIN_HEADER,
  IPV4_MORE_FRAGMENTS,
  IPV4_PROTOCOL,
  IPV4_SOURCE,
  IPV6_HEADER,
  IPV6_NEXT_HEADER,
  IPV6_SOURCE,
  Protocol,
} from './fields.ts';

/**
 * Returns a 32-bit hash of the addresses, the protocol and, if there are no fragments and extension headers,
 * the ports of the packet `bytes[start .. end)`. The bytes need not be valid. All fragments of a datagram have the
 * same hash, and so have all packets of a protocol without ports between two hosts. The two directions of a
 * flow have different hashes.
 */
export function flowHash(bytes: Uint8Array, start: number, end: number): number {
  const version = end > start ? bytes[start]! >>> 4 : 0;
  if (version === 4 && end - start >= IPV4_MIN_HEADER) {
    const header = (bytes[start]! & 0x0f) * 4;
    const protocol = bytes[start + IPV4_PROTOCOL]!;
    const fragment = (bytes[start + IPV4_FRAGMENT]! << 8) | bytes[start + IPV4_FRAGMENT + 1]!;
    const isWhole = (fragment & (IPV4_FRAGMENT_OFFSET | IPV4_MORE_FRAGMENTS)) === 0;
    let hash = hashWords(protocol, bytes, start + IPV4_SOURCE, start + IPV4_MIN_HEADER);
    const ports = start + header;
    if (isWhole && ports + PORTS <= end && hasPorts(protocol)) {
      hash = hashWords(hash, bytes, ports, ports + PORTS);
    }
    return finish(hash);
  }
  if (version === 6 && end - start >= IPV6_HEADER) {
    const protocol = bytes[start + IPV6_NEXT_HEADER]!;
    const ports = start + IPV6_HEADER;
    const isPlain = hasPorts(protocol) && ports + PORTS <= end;
    // With extension headers, and so in fragments, hash only the addresses.
    const last = isPlain ? ports + PORTS : ports;
    return finish(hashWords(isPlain ? protocol : 0, bytes, start + IPV6_SOURCE, last));
  }
  return 0;
}

function hasPorts(protocol: number): boolean {
  return (
    protocol === Protocol.Tcp ||
    protocol === Protocol.Udp ||
    protocol === Protocol.Sctp ||
    protocol === Protocol.UdpLite ||
    protocol === Protocol.Dccp
  );
}

/** Mixes 32-bit words into a hash as murmur3 does. */
function hashWords(hash: number, bytes: Uint8Array, from: number, to: number): number {
  for (let at = from; at < to; at += 4) {
    const word =
      (bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!;
    let mixed = Math.imul(word, 0xcc9e2d51);
    mixed = Math.imul((mixed << 15) | (mixed >>> 17), 0x1b873593);
    hash ^= mixed;
    hash = (Math.imul((hash << 13) | (hash >>> 19), 5) + 0xe6546b64) | 0;
  }
  return hash;
}

function finish(hash: number): number {
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}

/** The bytes of both ports, which come first in every protocol with ports. */
const PORTS = 4;
