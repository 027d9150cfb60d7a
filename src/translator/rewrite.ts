/**
 * The bytes that change: addresses, and every checksum that covers them, by increment (RFC 1624).
 * All functions work in place on packets whose headers were checked.
 * @module
 */
import { adjustChecksum, adjustPartialChecksum, foldDelta, wordDelta } from '../packet/checksum.ts';
import {
  IPV4_CHECKSUM,
  IPV4_SOURCE,
  type PacketHeader,
  PacketKind,
  read16,
  write16,
  write32,
} from '../packet/header.ts';

/**
 * Where the new addresses are: `words[at]` on holds the new source, directly followed by the new
 * destination, one word each for IPv4 and four for IPv6.
 */
export function rewriteAddresses(
  buffer: Uint8Array,
  header: PacketHeader,
  words: Int32Array,
  at: number
): void {
  const count = header.family === 4 ? 2 : 8;
  for (let i = 0; i < count; i++) write32(buffer, header.source + 4 * i, words[at + i]!);
}

/** Changes the IPv4 header checksum; does nothing for IPv6, which has none. */
export function rewriteHeaderChecksum(
  buffer: Uint8Array,
  header: PacketHeader,
  delta: number
): void {
  if (header.family === 6) return;
  const offset = header.source - IPV4_SOURCE + IPV4_CHECKSUM;
  write16(buffer, offset, adjustChecksum(read16(buffer, offset), delta));
}

/** Changes the transport checksum, complete or partial; not for ICMP errors. */
export function rewriteTransportChecksum(
  buffer: Uint8Array,
  header: PacketHeader,
  delta: number,
  isPartial: boolean
): void {
  // ICMP over IPv4 has no pseudo-header.
  if (header.family === 4 && header.kind >= PacketKind.EchoRequest) return;
  const offset = header.checksum;
  const before = read16(buffer, offset);
  if (isPartial) {
    write16(buffer, offset, adjustPartialChecksum(before, delta));
    return;
  }
  let after = adjustChecksum(before, delta);
  if (header.kind === PacketKind.Udp) {
    // RFC 768: zero says "no checksum", so it stays, and a computed zero is sent as all ones.
    if (before === 0) return;
    if (after === 0) after = 0xffff;
  }
  write16(buffer, offset, after);
}

/**
 * Rewrites the packet that an ICMP error quotes. It went the other way, so its addresses are the new
 * ones in reverse: `words[at]` on holds the error's new source and destination, and `delta` is the
 * delta of both addresses. Then makes the ICMP checksum of the error follow, to which `outerDelta`,
 * the delta of the error's own addresses, counts for ICMPv6 alone.
 */
export function rewriteQuote(
  buffer: Uint8Array,
  error: PacketHeader,
  quote: PacketHeader,
  words: Int32Array,
  at: number,
  delta: number,
  outerDelta: number
): void {
  const count = quote.family === 4 ? 1 : 4;
  for (let i = 0; i < count; i++) {
    write32(buffer, quote.source + 4 * i, words[at + count + i]!);
    write32(buffer, quote.source + 4 * (count + i), words[at + i]!);
  }
  let change = delta;

  if (quote.family === 4) {
    const offset = quote.source - IPV4_SOURCE + IPV4_CHECKSUM;
    const before = read16(buffer, offset);
    rewriteHeaderChecksum(buffer, quote, delta);
    change += wordDelta(before, read16(buffer, offset));
  }
  if (quote.checksum + 2 <= quote.end) {
    const before = read16(buffer, quote.checksum);
    rewriteTransportChecksum(buffer, quote, delta, false);
    change += wordDelta(before, read16(buffer, quote.checksum));
  }
  if (error.family === 6) change += outerDelta;

  const checksum = read16(buffer, error.checksum);
  write16(buffer, error.checksum, adjustChecksum(checksum, foldDelta(change)));
}
