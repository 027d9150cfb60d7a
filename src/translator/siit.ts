/**
 * SIIT: translates packets between IPv4 and IPv6 as [RFC 7915](https://www.rfc-editor.org/rfc/rfc7915) says.
 * The addresses are those of presences, so RFC 6052 does not apply. `docs/translation.md` lists what becomes
 * of each field.
 *
 * The payload does not move: the new header ends where the old one ended, so a packet grows at its front.
 * In an ICMP error everything up to the transport header of the quote is written again, and the rest stays
 * in its place.
 * @module
 */
import { adjustChecksum, fold, foldDelta, sumView, wordDelta } from '../packet/checksum.ts';
import {
  FragmentPart,
  ICMP_CHECKSUM,
  ICMP_HEADER,
  ICMP_LENGTH_V4,
  ICMP_LENGTH_V6,
  IPV4_DESTINATION,
  IPV4_DONT_FRAGMENT,
  IPV4_IDENTIFICATION,
  IPV4_MIN_HEADER,
  IPV4_MORE_FRAGMENTS,
  IPV4_SOURCE,
  IPV4_TTL,
  IPV6_DESTINATION,
  IPV6_HEADER,
  IPV6_HOP_LIMIT,
  IPV6_PAYLOAD_LENGTH,
  IPV6_SOURCE,
  PacketKind,
  Protocol,
} from '../packet/fields.ts';
import type { PacketHeader } from '../packet/header.ts';
import { FRAGMENT_HEADER } from '../packet/ipv6-extensions.ts';
import { ErrorMapping, hasLengthAttribute } from './icmp-mapping.ts';
import { moveOffload } from './offload.ts';
import { updatedChecksum } from './rewrite.ts';
import { Verdict } from './verdict.ts';

/** How many bytes longer the IPv6 header is than an IPv4 header without options. */
export const VERSION_GROWTH: number = IPV6_HEADER - IPV4_MIN_HEADER;

/**
 * Returns whether an IPv6 packet that leaves as IPv4, `length` bytes long, has DF set. A small packet has
 * not, because an IPv6 sender does not go below 1280 bytes for a link with a smaller MTU (RFC 7915 section
 * 5.1).
 */
export function setsDontFragment(header: PacketHeader, length: number): boolean {
  return header.part === FragmentPart.Whole && length > MAX_WITHOUT_DF;
}

export class Siit {
  /** The IPv4 identification of the next packet without DF. */
  identification = 0;
  /** How many bytes an error grows at its front. Valid after `prepareError`. */
  errorGrowth = 0;
  /** The offset behind the translated error. Valid after `prepareError`. */
  errorEnd = 0;

  readonly #mapping = new ErrorMapping();
  /** The number of zero bytes that pad the quote of the error. */
  #padding = 0;
  /** The length attribute, in the units of the new version; 0 for none. */
  #lengthAttribute = 0;

  // Fields of the old header, which the new one overwrites.
  #trafficClass = 0;
  #hopLimit = 0;

  /** Returns how many bytes a packet (not an ICMP error) grows at its front; negative if it shrinks. */
  growthOf(header: PacketHeader): number {
    return newHeaderLength(header) - (header.transport - header.start);
  }

  /** Returns Forward, or the verdict on a packet that cannot be translated. */
  faultOf(view: DataView, header: PacketHeader, isPartial: boolean): Verdict {
    if (header.isAuthenticated || header.protocol === AUTHENTICATION) {
      return Verdict.DropUnsupported;
    }
    if (header.part === FragmentPart.Whole) return Verdict.Forward;
    const { protocol } = header;
    if (protocol === Protocol.Icmp || protocol === Protocol.Icmpv6) return Verdict.DropFragment;
    // Extension headers behind the fragment header would leave a gap in the datagram.
    if (header.transport !== header.fragmentPayload) return Verdict.DropUnsupported;
    const isWithoutChecksum =
      header.kind === PacketKind.Udp && !isPartial && view.getUint16(header.checksum) === 0;
    return isWithoutChecksum ? Verdict.DropUnsupported : Verdict.Forward;
  }

  /**
   * Writes the new header of a packet (not an ICMP error) and updates its transport checksum.
   *
   * @param addresses has the new source and the new destination from index `at` on, four words each
   * @param delta the checksum delta of both addresses
   * @param vnet offset of the virtio-net header, which moves as far as the packet grows; or -1
   */
  rewrite(
    view: DataView,
    header: PacketHeader,
    addresses: Int32Array,
    at: number,
    delta: number,
    isPartial: boolean,
    vnet: number
  ): void {
    const family = header.family === 4 ? 6 : 4;
    const growth = this.growthOf(header);
    const start = header.start - growth;
    const length = header.end - start;
    const isEcho = header.kind >= PacketKind.EchoRequest;
    if (isEcho) {
      this.#rewriteEcho(view, header, addresses, at, isPartial);
    } else if (header.part !== FragmentPart.Later && header.checksum >= 0) {
      const before = view.getUint16(header.checksum);
      const lacksChecksum = before === 0 && header.kind === PacketKind.Udp && !isPartial;
      view.setUint16(
        header.checksum,
        lacksChecksum
          ? udpChecksum(view, header, addresses, at)
          : updatedChecksum(header.kind, before, delta, isPartial)
      );
    }
    this.#readOld(view, header);
    if (vnet >= 0) moveOffload(view, vnet, growth, growth, family, isEcho && isPartial);
    if (family === 6) {
      this.#writeIpv6(view, start, header, length - IPV6_HEADER, addresses, at, at + 4);
    } else {
      const mayFragment = header.part === FragmentPart.Whole && length <= MAX_WITHOUT_DF;
      const identification = mayFragment ? this.nextIdentification() : -1;
      this.#writeIpv4(view, start, header, length, identification, addresses, at, at + 4);
    }
  }

  /** Computes what an ICMP error becomes. Returns Forward, or the verdict if it cannot be translated. */
  prepareError(view: DataView, header: PacketHeader, quote: PacketHeader): Verdict {
    if (!this.#map(view, header, quote)) return Verdict.DropUnsupported;
    const fault = this.faultOf(view, quote, true);
    if (fault !== Verdict.Forward) return fault;

    const family = header.family === 4 ? 6 : 4;
    const ipHeader = family === 6 ? IPV6_HEADER : IPV4_MIN_HEADER;
    const most = family === 6 ? MAX_IPV6_ERROR : MAX_IPV4_ERROR;
    const headers = ipHeader + ICMP_HEADER + newHeaderLength(quote);
    const quoteEnd = header.extensions > 0 ? header.extensions : header.end;
    const payload = quoteEnd - quote.transport;
    this.#padding = 0;
    this.#lengthAttribute = 0;
    if (header.extensions > 0 && hasLengthAttribute(family, this.#mapping.type)) {
      const unit = family === 6 ? 8 : 4;
      const quoted = newHeaderLength(quote) + payload;
      const filled = Math.max(Math.ceil(quoted / unit) * unit, MIN_EXTENDED_QUOTE);
      const length = ipHeader + ICMP_HEADER + filled + header.end - header.extensions;
      if (length <= most) {
        this.#padding = filled - quoted;
        this.#lengthAttribute = filled / unit;
        this.errorEnd = header.end;
        this.errorGrowth = length - (header.end - header.start);
        return Verdict.Forward;
      }
    }
    this.errorEnd = quote.transport + Math.min(payload, most - headers);
    this.errorGrowth = headers - (quote.transport - header.start);
    return Verdict.Forward;
  }

  /** Rewrites the error that was prepared. The parameters are those of `rewrite`. */
  rewriteError(
    view: DataView,
    header: PacketHeader,
    quote: PacketHeader,
    addresses: Int32Array,
    at: number,
    delta: number,
    vnet: number
  ): void {
    const family = header.family === 4 ? 6 : 4;
    const ipHeader = family === 6 ? IPV6_HEADER : IPV4_MIN_HEADER;
    const start = header.start - this.errorGrowth;
    const icmp = start + ipHeader;
    // The error of the old checksum: the new one keeps it, so a wrong checksum stays wrong.
    const residue = fold(
      sumView(view, header.transport, header.end, header.family === 6 ? pseudoSum(view, header) : 0)
    );

    const isFirst = quote.part === FragmentPart.First;
    const isQuotedChecksum = quote.checksum >= 0 && quote.checksum + 2 <= quote.end;
    if (quote.kind >= PacketKind.EchoRequest) {
      this.#rewriteEcho(view, quote, addresses, at, false);
    } else if (isQuotedChecksum) {
      const before = view.getUint16(quote.checksum);
      view.setUint16(quote.checksum, updatedChecksum(quote.kind, before, delta, false));
    }

    // Read the rest of the old headers before they are overwritten.
    const outerClass = trafficClassOf(view, header);
    const outerLimit = hopLimitOf(view, header);
    this.#readOld(view, quote);
    const headerGrowth = ipHeader - (header.transport - header.start);
    if (vnet >= 0) moveOffload(view, vnet, this.errorGrowth, headerGrowth, family, false);
    if (this.#padding > 0) this.#padQuote(view, header, quote);

    const quoteStart = quote.transport - this.#padding - newHeaderLength(quote);
    const quoteSource = at + 4;
    const extensionsOf = quote.transport - quote.start - (quote.family === 6 ? IPV6_HEADER : 0);
    if (family === 6) {
      const payload = quote.payloadLength + (isFirst ? FRAGMENT_HEADER : 0);
      this.#writeIpv6(view, quoteStart, quote, payload, addresses, quoteSource, at);
    } else {
      const length = Math.max(
        IPV4_MIN_HEADER,
        IPV4_MIN_HEADER + quote.payloadLength - extensionsOf
      );
      const total = Math.min(length, 0xffff);
      this.#writeIpv4(view, quoteStart, quote, total, -1, addresses, quoteSource, at);
    }

    const { type, code, rest } = this.#mapping;
    view.setUint16(icmp, (type << 8) | code);
    view.setUint16(icmp + ICMP_CHECKSUM, 0);
    view.setInt32(icmp + 4, rest);
    if (this.#lengthAttribute > 0) {
      view.setUint8(icmp + (family === 6 ? ICMP_LENGTH_V6 : ICMP_LENGTH_V4), this.#lengthAttribute);
    }
    this.#trafficClass = outerClass;
    this.#hopLimit = outerLimit;
    const length = this.errorEnd - start;
    let pseudo = 0;
    if (family === 6) {
      this.#writeIpv6(view, start, header, length - IPV6_HEADER, addresses, at, at + 4);
      pseudo = addressSum(addresses, at) + Protocol.Icmpv6 + length - IPV6_HEADER;
    } else {
      const identification = length <= MAX_WITHOUT_DF ? this.nextIdentification() : -1;
      this.#writeIpv4(view, start, header, length, identification, addresses, at, at + 4);
    }
    const sum = fold(sumView(view, icmp, this.errorEnd, pseudo));
    view.setUint16(icmp + ICMP_CHECKSUM, ~fold((~residue & 0xffff) + sum));
  }

  #map(view: DataView, header: PacketHeader, quote: PacketHeader): boolean {
    const { transport } = header;
    const type = view.getUint8(transport);
    const code = view.getUint8(transport + 1);
    if (header.family === 6) return this.#mapping.toIpv4(type, code, view.getInt32(transport + 4));
    const totalLength = quote.transport - quote.start + quote.payloadLength;
    return this.#mapping.toIpv6(
      type,
      code,
      view.getUint8(transport + 4),
      view.getUint16(transport + 6),
      totalLength
    );
  }

  /** Moves the quote's payload to the front and writes zeros between it and the extensions. */
  #padQuote(view: DataView, header: PacketHeader, quote: PacketHeader): void {
    const padding = this.#padding;
    for (let i = quote.transport; i < header.extensions; i++) {
      view.setUint8(i - padding, view.getUint8(i));
    }
    for (let i = header.extensions - padding; i < header.extensions; i++) view.setUint8(i, 0);
  }

  /** Changes the type and checksum of an echo, also of a quoted one. Only ICMPv6 has a pseudo-header. */
  #rewriteEcho(
    view: DataView,
    header: PacketHeader,
    addresses: Int32Array,
    at: number,
    isPartial: boolean
  ): void {
    const { transport } = header;
    const isRequest = header.kind === PacketKind.EchoRequest;
    const before = view.getUint16(transport);
    const type = header.family === 4 ? (isRequest ? 128 : 129) : isRequest ? 8 : 0;
    const after = (type << 8) | (before & 0xff);
    const checksum = view.getUint16(header.checksum);
    view.setUint16(transport, after);
    if (isPartial) {
      // A wrong partial sum makes an equally wrong checksum.
      const surplus = checksum + (~fold(pseudoSum(view, header)) & 0xffff);
      view.setUint16(header.checksum, 0);
      view.setUint16(header.checksum, ~fold(sumView(view, transport, header.end, surplus)));
      return;
    }
    let delta = wordDelta(before, after);
    if (header.family === 4) {
      delta += addressSum(addresses, at) + Protocol.Icmpv6 + transportLength(header);
    } else {
      delta += wordDelta(fold(pseudoSum(view, header)), 0);
    }
    view.setUint16(header.checksum, adjustChecksum(checksum, foldDelta(delta)));
  }

  #readOld(view: DataView, header: PacketHeader): void {
    this.#trafficClass = trafficClassOf(view, header);
    this.#hopLimit = hopLimitOf(view, header);
  }

  /** Writes the IPv6 header of the packet `old`, and a fragment header if it is a fragment. */
  #writeIpv6(
    view: DataView,
    start: number,
    old: PacketHeader,
    payloadLength: number,
    addresses: Int32Array,
    source: number,
    destination: number
  ): void {
    const isFragment = old.part !== FragmentPart.Whole;
    const protocol = old.protocol === Protocol.Icmp ? Protocol.Icmpv6 : old.protocol;
    const classAndLimit = (this.#trafficClass << 8) | this.#hopLimit;
    const next = isFragment ? FRAGMENT : protocol;
    writeIpv6(view, start, classAndLimit, payloadLength, next, addresses, source, destination);
    if (!isFragment) return;
    const at = start + IPV6_HEADER;
    view.setUint16(at, protocol << 8);
    view.setUint16(at + 2, old.fragmentOffset | (old.moreFragments ? 1 : 0));
    view.setInt32(at + 4, old.identification);
  }

  /**
   * Writes the IPv4 header of the packet `old`.
   *
   * @param identification the identification of a packet without DF; -1 for one with DF, whose
   *   identification is 0. Ignored for a fragment, which keeps its own
   */
  #writeIpv4(
    view: DataView,
    start: number,
    old: PacketHeader,
    totalLength: number,
    identification: number,
    addresses: Int32Array,
    source: number,
    destination: number
  ): void {
    let fragment = identification < 0 ? IPV4_DONT_FRAGMENT : identification << 16;
    if (old.part !== FragmentPart.Whole) {
      const more = old.moreFragments ? IPV4_MORE_FRAGMENTS : 0;
      fragment = (old.identification << 16) | (old.fragmentOffset >>> 3) | more;
    }
    const protocol = old.protocol === Protocol.Icmpv6 ? Protocol.Icmp : old.protocol;
    writeIpv4(
      view,
      start,
      (this.#trafficClass << 8) | this.#hopLimit,
      totalLength,
      fragment,
      protocol,
      addresses[source]!,
      addresses[destination]!
    );
  }

  /** Returns the identification for the next IPv4 packet without DF. */
  nextIdentification(): number {
    const identification = this.identification;
    this.identification = (identification + 1) & 0xffff;
    return identification;
  }
}

/**
 * Writes an IPv6 header without flow label.
 *
 * @param classAndLimit traffic class and hop limit, a byte each
 */
export function writeIpv6(
  view: DataView,
  start: number,
  classAndLimit: number,
  payloadLength: number,
  nextHeader: number,
  addresses: Int32Array,
  source: number,
  destination: number
): void {
  view.setInt32(start, 0x60000000 | ((classAndLimit >>> 8) << 20));
  view.setInt32(
    start + IPV6_PAYLOAD_LENGTH,
    (payloadLength << 16) | (nextHeader << 8) | (classAndLimit & 0xff)
  );
  for (let i = 0; i < 4; i++) {
    view.setInt32(start + IPV6_SOURCE + 4 * i, addresses[source + i]!);
    view.setInt32(start + IPV6_DESTINATION + 4 * i, addresses[destination + i]!);
  }
}

/**
 * Writes an IPv4 header without options.
 *
 * @param classAndLimit TOS and TTL, a byte each
 * @param fragment the second word of the header: identification, flags and fragment offset
 */
export function writeIpv4(
  view: DataView,
  start: number,
  classAndLimit: number,
  totalLength: number,
  fragment: number,
  protocol: number,
  source: number,
  destination: number
): void {
  const first = 0x45000000 | ((classAndLimit >>> 8) << 16) | totalLength;
  const third = ((classAndLimit & 0xff) << 8) | protocol;
  let sum = (first >>> 16) + totalLength + (fragment >>> 16) + (fragment & 0xffff) + third;
  sum += (source >>> 16) + (source & 0xffff) + (destination >>> 16) + (destination & 0xffff);
  view.setInt32(start, first);
  view.setInt32(start + IPV4_IDENTIFICATION, fragment);
  view.setInt32(start + IPV4_TTL, (third << 16) | (~fold(sum) & 0xffff));
  view.setInt32(start + IPV4_SOURCE, source);
  view.setInt32(start + IPV4_DESTINATION, destination);
}

/** Returns the length of the IP header in the other version, with the fragment header of a fragment. */
function newHeaderLength(header: PacketHeader): number {
  if (header.family === 6) return IPV4_MIN_HEADER;
  return header.part === FragmentPart.Whole ? IPV6_HEADER : IPV6_HEADER + FRAGMENT_HEADER;
}

function trafficClassOf(view: DataView, { family, start }: PacketHeader): number {
  return family === 4 ? view.getUint8(start + 1) : (view.getUint16(start) >>> 4) & 0xff;
}

function hopLimitOf(view: DataView, { family, start }: PacketHeader): number {
  return view.getUint8(start + (family === 4 ? IPV4_TTL : IPV6_HOP_LIMIT));
}

/** Returns the number of bytes from the transport header on, as the length fields give it. */
function transportLength(header: PacketHeader): number {
  const headers = header.transport - header.start - (header.family === 6 ? IPV6_HEADER : 0);
  return header.family === 4 ? header.payloadLength : header.payloadLength - headers;
}

/** Returns the pseudo-header sum of an IPv6 packet before its translation. */
function pseudoSum(view: DataView, header: PacketHeader): number {
  const { source } = header;
  return sumView(view, source, source + 32, header.protocol + transportLength(header));
}

function addressSum(addresses: Int32Array, at: number): number {
  let sum = 0;
  for (let i = at; i < at + 8; i++) sum += (addresses[i]! >>> 16) + (addresses[i]! & 0xffff);
  return sum;
}

/** Returns the checksum, with the new addresses, of an unfragmented datagram that had none. */
function udpChecksum(
  view: DataView,
  header: PacketHeader,
  addresses: Int32Array,
  at: number
): number {
  const length = header.end - header.transport;
  const pseudo = addressSum(addresses, at) + Protocol.Udp + length;
  const checksum = ~fold(sumView(view, header.transport, header.end, pseudo)) & 0xffff;
  return checksum === 0 ? 0xffff : checksum;
}

/** The length in bytes of the largest IPv4 packet that leaves without DF (RFC 7915 section 5.1). */
export const MAX_WITHOUT_DF = 1260;
/** The largest ICMP errors in bytes (RFC 1812 section 4.3.2.3, RFC 4443 section 2.4). */
const MAX_IPV4_ERROR = 576;
const MAX_IPV6_ERROR = 1280;
/** The least length in bytes of a quote with extensions (RFC 4884 section 4). */
const MIN_EXTENDED_QUOTE = 128;
const FRAGMENT = 44;
const AUTHENTICATION = 51;
