/**
 * Parses and checks the headers of a packet once; reading its fields afterwards cannot fail.
 *
 * Packets are read through a `DataView`, which is faster than byte by byte. Offsets count from its first
 * byte.
 * @module
 */
import { fold, sumView } from './checksum.ts';
import {
  FragmentPart,
  ICMP_CHECKSUM,
  ICMP_HEADER,
  ICMP_LENGTH_V4,
  ICMP_LENGTH_V6,
  IPV4_DESTINATION,
  IPV4_DONT_FRAGMENT,
  IPV4_FRAGMENT_OFFSET,
  IPV4_IDENTIFICATION,
  IPV4_MIN_HEADER,
  IPV4_MORE_FRAGMENTS,
  IPV4_SOURCE,
  IPV4_TTL,
  IPV6_HEADER,
  IPV6_NEXT_HEADER,
  IPV6_PAYLOAD_LENGTH,
  IPV6_SOURCE,
  PacketKind,
  Parse,
  Protocol,
  SCTP_CHUNK_INIT,
  SCTP_HEADER,
  TCP_CHECKSUM,
  TCP_DATA_OFFSET,
  TCP_FLAG_ACK,
  TCP_FLAG_SYN,
  TCP_FLAGS,
  TCP_MIN_HEADER,
  UDP_CHECKSUM,
  UDP_HEADER,
  UDP_LENGTH,
} from './fields.ts';
import { walkExtensions } from './ipv6-extensions.ts';

/**
 * The headers of one packet. The caller reuses one object for all packets. The fields are valid iff the
 * last `parse` or `parseQuote` returned `Parse.Ok`.
 */
export class PacketHeader {
  family: 4 | 6 = 4;
  kind: PacketKind = PacketKind.None;
  /** The protocol number of the transport header; in a fragment, that of its datagram. */
  protocol = 0;
  /** The offset of the IP header. */
  start = 0;
  /** The offset of the source address. The destination follows it directly. */
  source = 0;
  /** The offset of the transport header; in a later fragment, that of the payload. */
  transport = 0;
  /**
   * The offset of the transport checksum; -1 if it does not cover the addresses. In a quote it may be behind
   * the end.
   */
  checksum = 0;
  /** The source port; 0 for ICMP, the protocol's number for other protocols without ports. */
  sourcePort = 0;
  /** The destination port; see `sourcePort` for protocols without ports. */
  destinationPort = 0;
  /** Whether this is a TCP segment with SYN and without ACK, or an SCTP packet whose first chunk is INIT. */
  opensSession = false;
  /** The offset behind the last byte of the packet or quote. */
  end = 0;
  /** The length behind the IPv4 header or the fixed IPv6 header, as the length field gives it. */
  payloadLength = 0;
  /** Whether DF is set; always true for IPv6. */
  dontFragment = false;
  part: FragmentPart = FragmentPart.Whole;
  /** The offset of the IPv6 fragment header, also in an unfragmented packet; -1 if there is none. */
  fragmentHeader = -1;
  /** The identification, signed. Valid iff a fragment, or with an IPv6 fragment header. */
  identification = 0;
  /** The offset in bytes of this fragment in its datagram. Valid iff a fragment. */
  fragmentOffset = 0;
  /** The offset of the first byte of the fragment's payload. Valid iff a fragment. */
  fragmentPayload = 0;
  /** Valid iff a fragment. */
  moreFragments = false;
  /** Whether the packet has an authentication header. */
  isAuthenticated = false;
  /** The offset of the extensions of an ICMP error, behind its quote (RFC 4884); 0 if there are none. */
  extensions = 0;

  #isQuote = false;

  /**
   * Checks the packet `view[start .. end)`. Its length fields must describe exactly these bytes, so link
   * padding is not allowed. A range outside of the view is malformed.
   *
   * @param length the length of the view, if the caller knows it: reading `byteLength` is slow
   */
  parse(view: DataView, start: number, end: number, length: number = view.byteLength): Parse {
    if (!(start >= 0 && end - start >= IPV4_MIN_HEADER && end <= length)) {
      return Parse.Malformed;
    }
    this.#isQuote = false;
    const first = view.getInt32(start);
    const version = first >>> 28;
    if (version === 4) {
      const outcome = this.#parseIpv4(view, first, start, end);
      if (outcome !== Parse.Ok) return outcome;
    } else if (version === 6) {
      if (end - start < IPV6_HEADER) return Parse.Malformed;
      this.payloadLength = view.getUint16(start + IPV6_PAYLOAD_LENGTH);
      if (IPV6_HEADER + this.payloadLength !== end - start) return Parse.Malformed;
      this.end = end;
      const outcome = this.#parseIpv6(view, start);
      if (outcome !== Parse.Ok) return outcome;
    } else {
      return Parse.Malformed;
    }
    return this.part === FragmentPart.Whole
      ? this.#parseTransport(view)
      : this.#parseFragment(view);
  }

  /**
   * Checks the packet that an ICMP error quotes in `view[start .. end)`. The quote may end anywhere behind
   * the first eight bytes of the transport header (RFC 792), and padding or extensions may follow it (RFC
   * 4884), so its length fields may describe more or fewer bytes.
   */
  parseQuote(view: DataView, start: number, end: number): Parse {
    if (end - start < IPV4_MIN_HEADER) return Parse.Malformed;
    this.#isQuote = true;
    const first = view.getInt32(start);
    const version = first >>> 28;
    if (version === 4) {
      const outcome = this.#quoteIpv4(view, first, start, end);
      if (outcome !== Parse.Ok) return outcome;
    } else if (version === 6) {
      if (end - start < IPV6_HEADER) return Parse.Malformed;
      this.payloadLength = view.getUint16(start + IPV6_PAYLOAD_LENGTH);
      this.end = Math.min(end, start + IPV6_HEADER + this.payloadLength);
      const outcome = this.#parseIpv6(view, start);
      if (outcome !== Parse.Ok) return outcome;
    } else {
      return Parse.Malformed;
    }
    if (this.part === FragmentPart.Later) return Parse.BadFragment;
    return this.end - this.transport < QUOTED_TRANSPORT ? Parse.Malformed : this.#classify(view);
  }

  /**
   * Returns the offset behind the quote of an ICMP error: the end of the packet, or what the length attribute
   * says ([RFC 4884 section 4](https://www.rfc-editor.org/rfc/rfc4884#section-4)); then it also sets
   * `extensions`. Returns -1 if the attribute points behind the end.
   */
  findQuoteEnd(view: DataView): number {
    const type = view.getUint8(this.transport);
    let length = 0;
    if (this.family === 4) {
      length = view.getUint8(this.transport + ICMP_LENGTH_V4) << 2;
    } else if (type === ICMPV6_UNREACHABLE || type === ICMPV6_TIME_EXCEEDED) {
      length = view.getUint8(this.transport + ICMP_LENGTH_V6) << 3;
    }
    this.extensions = 0;
    if (length === 0) return this.end;
    const quoteEnd = this.transport + ICMP_HEADER + length;
    if (quoteEnd > this.end) return -1;
    this.extensions = quoteEnd;
    return quoteEnd;
  }

  #parseIpv4(view: DataView, first: number, start: number, end: number): Parse {
    const length = end - start;
    const headerLength = (first >>> 22) & 0x3c;
    if (headerLength < IPV4_MIN_HEADER || headerLength > length) return Parse.Malformed;
    if ((first & 0xffff) !== length) return Parse.Malformed;
    const second = view.getInt32(start + IPV4_IDENTIFICATION);
    const third = view.getInt32(start + IPV4_TTL);
    const source = view.getInt32(start + IPV4_SOURCE);
    const destination = view.getInt32(start + IPV4_DESTINATION);
    let sum = (first >>> 16) + length + (second >>> 16) + (second & 0xffff);
    sum += (third >>> 16) + (third & 0xffff);
    sum += (source >>> 16) + (source & 0xffff) + (destination >>> 16) + (destination & 0xffff);
    if (headerLength > IPV4_MIN_HEADER) {
      sum = sumView(view, start + IPV4_MIN_HEADER, start + headerLength, sum);
    }
    if (fold(sum) !== 0xffff) return Parse.Malformed;
    this.payloadLength = length - headerLength;
    this.end = end;
    this.#setIpv4(start, headerLength, second, third);
    if (this.part !== FragmentPart.Whole && !this.isPlaced()) return Parse.Malformed;
    return headerLength > IPV4_MIN_HEADER
      ? checkOptions(view, start + IPV4_MIN_HEADER, start + headerLength)
      : Parse.Ok;
  }

  /** Does not check the header checksum: a router may have changed the TTL without updating it. */
  #quoteIpv4(view: DataView, first: number, start: number, end: number): Parse {
    const headerLength = (first >>> 22) & 0x3c;
    const totalLength = first & 0xffff;
    if (headerLength < IPV4_MIN_HEADER || headerLength > end - start) return Parse.Malformed;
    if (totalLength < headerLength) return Parse.Malformed;
    if (headerLength > IPV4_MIN_HEADER) {
      const outcome = checkOptions(view, start + IPV4_MIN_HEADER, start + headerLength);
      if (outcome !== Parse.Ok) return outcome;
    }
    this.payloadLength = totalLength - headerLength;
    this.end = Math.min(end, start + totalLength);
    const second = view.getInt32(start + IPV4_IDENTIFICATION);
    this.#setIpv4(start, headerLength, second, view.getInt32(start + IPV4_TTL));
    return Parse.Ok;
  }

  #setIpv4(start: number, headerLength: number, second: number, third: number): void {
    this.family = 4;
    this.start = start;
    this.source = start + IPV4_SOURCE;
    this.transport = start + headerLength;
    this.protocol = (third >>> 16) & 0xff;
    this.dontFragment = (second & IPV4_DONT_FRAGMENT) !== 0;
    this.part = FragmentPart.Whole;
    this.fragmentHeader = -1;
    this.isAuthenticated = false;
    const bits = second & (IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET);
    if (bits !== 0) this.setFragment(bits, second >>> 16, start + headerLength);
  }

  /** `payloadLength` and `end` must be set. */
  #parseIpv6(view: DataView, start: number): Parse {
    this.family = 6;
    this.start = start;
    this.source = start + IPV6_SOURCE;
    this.transport = start + IPV6_HEADER;
    this.protocol = view.getUint8(start + IPV6_NEXT_HEADER);
    this.dontFragment = true;
    this.part = FragmentPart.Whole;
    this.fragmentHeader = -1;
    this.isAuthenticated = false;
    return isPlainIpv6(this.protocol) ? Parse.Ok : walkExtensions(view, this);
  }

  /**
   * Sets the fields of a fragment.
   *
   * @param bits the IPv4 flag "more fragments", and the fragment offset in units of 8 bytes
   */
  setFragment(bits: number, identification: number, payload: number): void {
    this.fragmentOffset = (bits & IPV4_FRAGMENT_OFFSET) << 3;
    this.moreFragments = (bits & IPV4_MORE_FRAGMENTS) !== 0;
    this.identification = identification;
    this.fragmentPayload = payload;
    this.part = this.fragmentOffset === 0 ? FragmentPart.First : FragmentPart.Later;
  }

  /** Checks that the transport header is complete, then classifies the packet. */
  #parseTransport(view: DataView): Parse {
    const transport = this.transport;
    const length = this.end - transport;
    if (this.protocol === Protocol.Tcp) {
      if (length < TCP_MIN_HEADER) return Parse.Malformed;
      const headerLength = (view.getUint8(transport + TCP_DATA_OFFSET) >>> 4) << 2;
      if (headerLength < TCP_MIN_HEADER || headerLength > length) return Parse.Malformed;
    } else if (this.protocol === Protocol.Udp) {
      if (length < UDP_HEADER) return Parse.Malformed;
      // The length must be exactly the payload's: no bytes may follow the datagram.
      if (view.getUint16(transport + UDP_LENGTH) !== length) return Parse.Malformed;
    } else if (this.protocol === Protocol.UdpLite) {
      if (length < UDP_HEADER) return Parse.Malformed;
      const coverage = view.getUint16(transport + UDP_LENGTH);
      if (coverage !== 0 && (coverage < UDP_HEADER || coverage > length)) return Parse.Malformed;
      if (view.getUint16(transport + UDP_CHECKSUM) === 0) return Parse.Malformed;
    } else if (this.protocol === Protocol.Sctp) {
      if (length < SCTP_HEADER) return Parse.Malformed;
    } else if (this.#isIcmp() && length < ICMP_HEADER) {
      return Parse.Malformed;
    }
    return this.#classify(view);
  }

  /** Returns whether the fragment's length is valid for its offset; always true for a quote. */
  isPlaced(): boolean {
    if (this.#isQuote) return true;
    const length = this.end - this.fragmentPayload;
    if (length === 0 || (this.moreFragments && (length & 7) !== 0)) return false;
    return this.fragmentOffset + length <= MAX_DATAGRAM;
  }

  /** Checks a fragment. A first one must contain the complete transport header. */
  #parseFragment(view: DataView): Parse {
    if (this.part === FragmentPart.First) return this.#parseFirstFragment(view);
    this.kind = PacketKind.None;
    const isTinyOffset = this.protocol === Protocol.Tcp && this.fragmentOffset === 8; // RFC 3128
    return isTinyOffset ? Parse.BadFragment : Parse.Ok;
  }

  #parseFirstFragment(view: DataView): Parse {
    const transport = this.transport;
    const length = this.end - transport;
    switch (this.protocol) {
      case Protocol.Tcp: {
        if (length < TCP_MIN_HEADER) return Parse.BadFragment;
        const headerLength = (view.getUint8(transport + TCP_DATA_OFFSET) >>> 4) << 2;
        if (headerLength < TCP_MIN_HEADER) return Parse.Malformed;
        if (headerLength > length) return Parse.BadFragment;
        break;
      }
      case Protocol.Udp:
        if (length < UDP_HEADER) return Parse.BadFragment;
        if (view.getUint16(transport + UDP_LENGTH) <= length) return Parse.Malformed;
        break;
      case Protocol.UdpLite:
        if (length < UDP_HEADER) return Parse.BadFragment;
        if (view.getUint16(transport + UDP_CHECKSUM) === 0) return Parse.Malformed;
        break;
      case Protocol.Sctp:
        if (length < SCTP_HEADER) return Parse.BadFragment;
        break;
      default:
        if (this.#isIcmp() && length < ICMP_HEADER) return Parse.BadFragment;
    }
    const outcome = this.#classify(view);
    if (outcome !== Parse.Ok) return outcome;
    return this.kind === PacketKind.IcmpError ? Parse.BadFragment : Parse.Ok;
  }

  /** Sets the kind and the ports. At least eight bytes of the transport header must be there. */
  #classify(view: DataView): Parse {
    const transport = this.transport;
    this.opensSession = false;
    switch (this.protocol) {
      case Protocol.Tcp:
        this.kind = PacketKind.Tcp;
        this.checksum = transport + TCP_CHECKSUM;
        if (transport + TCP_FLAGS < this.end) {
          const flags = view.getUint8(transport + TCP_FLAGS);
          this.opensSession = (flags & (TCP_FLAG_SYN | TCP_FLAG_ACK)) === TCP_FLAG_SYN;
        }
        break;
      case Protocol.Udp:
        this.kind = PacketKind.Udp;
        this.checksum = transport + UDP_CHECKSUM;
        break;
      case Protocol.UdpLite:
        this.kind = PacketKind.UdpLite;
        this.checksum = transport + UDP_CHECKSUM;
        break;
      case Protocol.Sctp:
        this.kind = PacketKind.Sctp;
        this.checksum = -1;
        this.opensSession =
          transport + SCTP_HEADER < this.end &&
          view.getUint8(transport + SCTP_HEADER) === SCTP_CHUNK_INIT;
        break;
      default:
        return this.#classifyOther(view);
    }
    const ports = view.getInt32(transport);
    this.sourcePort = ports >>> 16;
    this.destinationPort = ports & 0xffff;
    return Parse.Ok;
  }

  #classifyOther(view: DataView): Parse {
    const { protocol } = this;
    if (this.#isIcmp()) {
      const kinds = this.family === 4 ? ICMP_KINDS : ICMPV6_KINDS;
      this.kind = kinds[view.getUint8(this.transport)] as PacketKind;
      this.checksum = this.transport + ICMP_CHECKSUM;
      this.sourcePort = 0;
      this.destinationPort = 0;
      return this.kind === PacketKind.None ? Parse.Unsupported : Parse.Ok;
    }
    if (UNSUPPORTED_PROTOCOLS.includes(protocol)) return Parse.Unsupported;
    this.kind = PacketKind.Other;
    this.checksum = -1;
    this.sourcePort = protocol;
    this.destinationPort = protocol;
    return Parse.Ok;
  }

  #isIcmp(): boolean {
    return this.protocol === (this.family === 4 ? Protocol.Icmp : Protocol.Icmpv6);
  }
}

/** Returns whether an IPv6 packet with this next header has no extension headers. */
function isPlainIpv6(protocol: number): boolean {
  return protocol === Protocol.Tcp || protocol === Protocol.Udp || protocol === Protocol.Icmpv6;
}

/**
 * Checks the IPv4 options. Source route, record route and timestamp are not supported, because they would
 * carry addresses of one realm into another. Other options pass unchanged.
 */
function checkOptions(view: DataView, start: number, end: number): Parse {
  let outcome: Parse = Parse.Ok;
  let at = start;
  while (at < end) {
    const type = view.getUint8(at);
    if (type === OPTION_END) return outcome;
    if (type === OPTION_NOP) {
      at++;
      continue;
    }
    if (at + 1 >= end) return Parse.Malformed;
    const length = view.getUint8(at + 1);
    if (length < 2 || at + length > end) return Parse.Malformed;
    if (
      type === OPTION_RECORD_ROUTE ||
      type === OPTION_TIMESTAMP ||
      type === OPTION_LOOSE_ROUTE ||
      type === OPTION_STRICT_ROUTE
    ) {
      outcome = Parse.Unsupported;
    }
    at += length;
  }
  return outcome;
}

/** The least number of bytes of the transport header in a quote (RFC 792). */
const QUOTED_TRANSPORT = 8;
/** A datagram that ends behind this offset is an attack ("ping of death"). */
const MAX_DATAGRAM = 65_535;

const ICMPV6_UNREACHABLE = 1;
const ICMPV6_TIME_EXCEEDED = 3;

/** ICMP of the other IP version is invalid here; the checksum of DCCP covers the addresses. */
const UNSUPPORTED_PROTOCOLS: readonly number[] = [Protocol.Icmp, Protocol.Icmpv6, Protocol.Dccp];

const OPTION_END = 0;
const OPTION_NOP = 1;
const OPTION_RECORD_ROUTE = 7;
const OPTION_TIMESTAMP = 68;
const OPTION_LOOSE_ROUTE = 131;
const OPTION_STRICT_ROUTE = 137;

/** The kind by ICMP type. Redirects, source quench and queries other than echo have none. */
const ICMP_KINDS: Uint8Array = /* @__PURE__ */ kindTable(8, 0, [3, 11, 12]);
/** The kind by ICMPv6 type. Neighbour discovery and multicast listener discovery never leave their link. */
const ICMPV6_KINDS: Uint8Array = /* @__PURE__ */ kindTable(128, 129, [1, 2, 3, 4]);

function kindTable(echoRequest: number, echoReply: number, errors: readonly number[]): Uint8Array {
  const kinds = new Uint8Array(256);
  kinds[echoRequest] = PacketKind.EchoRequest;
  kinds[echoReply] = PacketKind.EchoReply;
  for (const type of errors) kinds[type] = PacketKind.IcmpError;
  return kinds;
}
