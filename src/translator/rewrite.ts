/**
 * Rewrites packets that keep their IP version: the addresses, and every checksum that covers them, updated
 * incrementally (RFC 1624). All functions work in place on packets whose headers were checked.
 *
 * A correct checksum stays correct and a wrong one stays wrong, so damage in transit is never hidden. UDP
 * over IPv4 without a checksum (0) stays without one. A partial checksum (`VNET_F_NEEDS_CSUM`) holds the
 * pseudo-header sum and gets the delta added. ICMP over IPv4 and SCTP do not cover the addresses; ICMPv6
 * does. Behind the IP header of `ip/N` nothing changes.
 * @module
 */
import { adjustChecksum, adjustPartialChecksum, foldDelta, wordDelta } from '../packet/checksum.ts';
import { IPV4_CHECKSUM, PacketKind } from '../packet/fields.ts';
import type { PacketHeader } from '../packet/header.ts';

/**
 * Writes the new addresses. `words` has the new source at index `at`, directly followed by the new
 * destination; an address has one word (IPv4) or four (IPv6).
 */
export function rewriteAddresses(
  view: DataView,
  header: PacketHeader,
  words: Int32Array,
  at: number
): void {
  const { source } = header;
  view.setInt32(source, words[at]!);
  view.setInt32(source + 4, words[at + 1]!);
  if (header.family === 4) return;
  for (let i = 2; i < 8; i++) view.setInt32(source + 4 * i, words[at + i]!);
}

/** Updates the IPv4 header checksum. IPv6 has none. */
export function rewriteHeaderChecksum(view: DataView, header: PacketHeader, delta: number): void {
  if (header.family === 6) return;
  const offset = header.start + IPV4_CHECKSUM;
  view.setUint16(offset, adjustChecksum(view.getUint16(offset), delta));
}

/** Updates the transport checksum, complete or partial, of a packet that is no ICMP error. */
export function rewriteTransportChecksum(
  view: DataView,
  header: PacketHeader,
  delta: number,
  isPartial: boolean
): void {
  const offset = header.checksum;
  if (offset < 0) return;
  // ICMP over IPv4 has no pseudo-header.
  if (header.family === 4 && header.kind >= PacketKind.EchoRequest) return;
  const before = view.getUint16(offset);
  view.setUint16(offset, updatedChecksum(header.kind, before, delta, isPartial));
}

/** Returns the transport checksum after a change of the pseudo-header. */
export function updatedChecksum(
  kind: PacketKind,
  before: number,
  delta: number,
  isPartial: boolean
): number {
  if (isPartial) return adjustPartialChecksum(before, delta);
  const after = adjustChecksum(before, delta);
  if (kind !== PacketKind.Udp && kind !== PacketKind.UdpLite) return after;
  // RFC 768: zero means "no checksum", so it stays, and a computed zero is sent as 0xffff.
  return before === 0 ? 0 : after === 0 ? 0xffff : after;
}

/**
 * Rewrites the packet that an ICMP error quotes, then updates the ICMP checksum of the error. The quoted
 * packet went in the opposite direction, so its addresses are the new ones in reverse.
 *
 * @param words has the error's new source and destination from index `at` on
 * @param delta the delta of both quoted addresses
 * @param outerDelta the delta of the error's own addresses, which only ICMPv6 covers
 */
export function rewriteQuote(
  view: DataView,
  error: PacketHeader,
  quote: PacketHeader,
  words: Int32Array,
  at: number,
  delta: number,
  outerDelta: number
): void {
  const width = quote.family === 4 ? 1 : 4;
  for (let i = 0; i < width; i++) {
    view.setInt32(quote.source + 4 * i, words[at + width + i]!);
    view.setInt32(quote.source + 4 * (width + i), words[at + i]!);
  }
  let change = delta;

  if (quote.family === 4) {
    const offset = quote.start + IPV4_CHECKSUM;
    const before = view.getUint16(offset);
    rewriteHeaderChecksum(view, quote, delta);
    change += wordDelta(before, view.getUint16(offset));
  }
  if (quote.checksum >= 0 && quote.checksum + 2 <= quote.end) {
    const before = view.getUint16(quote.checksum);
    rewriteTransportChecksum(view, quote, delta, false);
    change += wordDelta(before, view.getUint16(quote.checksum));
  }
  if (error.family === 6) change += outerDelta;

  const checksum = view.getUint16(error.checksum);
  view.setUint16(error.checksum, adjustChecksum(checksum, foldDelta(change)));
}
