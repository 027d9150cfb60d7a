/**
 * IP packets as bytes: where the fields are, and one check of a packet's headers after which reading
 * them cannot fail. IPv4 ([RFC 791](https://www.rfc-editor.org/rfc/rfc791)), IPv6
 * ([RFC 8200](https://www.rfc-editor.org/rfc/rfc8200)), TCP
 * ([RFC 9293](https://www.rfc-editor.org/rfc/rfc9293)), UDP
 * ([RFC 768](https://www.rfc-editor.org/rfc/rfc768)), ICMP
 * ([RFC 792](https://www.rfc-editor.org/rfc/rfc792)) and ICMPv6
 * ([RFC 4443](https://www.rfc-editor.org/rfc/rfc4443)).
 *
 * Offsets named `IPV4_`, `TCP_` and so on count from the first byte of that header, in bytes.
 * @module
 */
import { fold, sumBytes } from './checksum.ts';

export const IPV4_MIN_HEADER = 20;
export const IPV4_TOTAL_LENGTH = 2;
export const IPV4_FRAGMENT = 6;
export const IPV4_TTL = 8;
export const IPV4_PROTOCOL = 9;
export const IPV4_CHECKSUM = 10;
export const IPV4_SOURCE = 12;
export const IPV4_DESTINATION = 16;

export const IPV6_HEADER = 40;
export const IPV6_PAYLOAD_LENGTH = 4;
export const IPV6_NEXT_HEADER = 6;
export const IPV6_HOP_LIMIT = 7;
export const IPV6_SOURCE = 8;
export const IPV6_DESTINATION = 24;

export const TCP_MIN_HEADER = 20;
export const TCP_DATA_OFFSET = 12;
export const TCP_FLAGS = 13;
export const TCP_CHECKSUM = 16;
export const TCP_FLAG_SYN = 0x02;
export const TCP_FLAG_ACK = 0x10;

export const UDP_HEADER = 8;
export const UDP_LENGTH = 4;
export const UDP_CHECKSUM = 6;

export const ICMP_HEADER = 8;
export const ICMP_CHECKSUM = 2;

/** Protocol numbers of the IPv4 `protocol` and the IPv6 `next header` field. */
export const Protocol = {
  Icmp: 1,
  Tcp: 6,
  Udp: 17,
  Icmpv6: 58,
} as const;

/** What a packet is to the translator, apart from its addresses. */
export const PacketKind = {
  /** Not parsed yet, or not valid. */
  None: 0,
  Tcp: 1,
  Udp: 2,
  EchoRequest: 3,
  EchoReply: 4,
  /** An ICMP or ICMPv6 error, which quotes the packet it is about. */
  IcmpError: 5,
} as const;
export type PacketKind = (typeof PacketKind)[keyof typeof PacketKind];

/** Outcome of a header check. */
export const Parse = {
  Ok: 0,
  /** Lengths, versions or checksums contradict each other, or the packet is cut. */
  Malformed: 1,
  /** Valid, as far as can be seen, but of a protocol that is not handled. */
  Unsupported: 2,
  /** A fragment; its transport header is incomplete or absent. */
  Fragment: 3,
} as const;
export type Parse = (typeof Parse)[keyof typeof Parse];

/**
 * The headers of one packet. The caller owns it and reuses it for every packet; the fields are valid
 * iff the last `parse` or `parseQuote` returned `Parse.Ok`.
 */
export class PacketHeader {
  family: 4 | 6 = 4;
  kind: PacketKind = PacketKind.None;
  /** Offset of the source address in the buffer; the destination follows it directly. */
  source = 0;
  /** Offset of the transport header in the buffer. */
  transport = 0;
  /** Offset of the transport checksum in the buffer; of a quote it may lie behind the end. */
  checksum = 0;
  /** 0 for ICMP. */
  sourcePort = 0;
  /** 0 for ICMP. */
  destinationPort = 0;
  /** Offset behind the packet's last byte; of a quote, behind the last byte that was quoted. */
  end = 0;

  #protocol = 0;

  /**
   * Checks the packet `buffer[start .. end)`, which has no link padding: its length fields must name
   * exactly these bytes. A range that is not inside the buffer is malformed too.
   */
  parse(buffer: Uint8Array, start: number, end: number): Parse {
    const outcome = this.#parseIp(buffer, start, end, false);
    return outcome === Parse.Ok ? this.#parseTransport(buffer) : outcome;
  }

  /**
   * Checks the packet that an ICMP error quotes in `buffer[start .. end)`. It may be cut anywhere
   * behind the first eight bytes of its transport header (RFC 792), and padding or extensions may
   * follow it (RFC 4884), so its length fields may name more or fewer bytes than there are.
   */
  parseQuote(buffer: Uint8Array, start: number, end: number): Parse {
    const outcome = this.#parseIp(buffer, start, end, true);
    if (outcome !== Parse.Ok) return outcome;
    return this.end - this.transport < QUOTED_TRANSPORT ? Parse.Malformed : this.#classify(buffer);
  }

  #parseIp(buffer: Uint8Array, start: number, end: number, isQuote: boolean): Parse {
    const length = end - start;
    if (length < IPV4_MIN_HEADER || end > buffer.length) return Parse.Malformed;
    const version = buffer[start]! >>> 4;

    if (version === 4) {
      const headerLength = (buffer[start]! & 15) << 2;
      const totalLength = read16(buffer, start + IPV4_TOTAL_LENGTH);
      if (headerLength < IPV4_MIN_HEADER || headerLength > length) return Parse.Malformed;
      if (totalLength < headerLength) return Parse.Malformed;
      if (!isQuote && totalLength !== length) return Parse.Malformed;
      // A quoted header may have been changed on its way (TTL) without its checksum.
      if (!isQuote && fold(sumBytes(buffer, start, start + headerLength, 0)) !== 0xffff) {
        return Parse.Malformed;
      }
      if (headerLength > IPV4_MIN_HEADER) {
        const outcome = checkOptions(buffer, start + IPV4_MIN_HEADER, start + headerLength);
        if (outcome !== Parse.Ok) return outcome;
      }
      if ((read16(buffer, start + IPV4_FRAGMENT) & IPV4_FRAGMENT_BITS) !== 0) return Parse.Fragment;
      this.family = 4;
      this.source = start + IPV4_SOURCE;
      this.transport = start + headerLength;
      this.end = Math.min(end, start + totalLength);
      this.#protocol = buffer[start + IPV4_PROTOCOL]!;
      return Parse.Ok;
    }

    if (version === 6) {
      if (length < IPV6_HEADER) return Parse.Malformed;
      const totalLength = IPV6_HEADER + read16(buffer, start + IPV6_PAYLOAD_LENGTH);
      if (!isQuote && totalLength !== length) return Parse.Malformed;
      this.#protocol = buffer[start + IPV6_NEXT_HEADER]!;
      if (this.#protocol === IPV6_FRAGMENT_HEADER) return Parse.Fragment;
      this.family = 6;
      this.source = start + IPV6_SOURCE;
      this.transport = start + IPV6_HEADER;
      this.end = Math.min(end, start + totalLength);
      return Parse.Ok;
    }

    return Parse.Malformed;
  }

  /** Checks that a whole transport header is there, then says what it is. */
  #parseTransport(buffer: Uint8Array): Parse {
    const transport = this.transport;
    const length = this.end - transport;
    if (this.#protocol === Protocol.Tcp) {
      if (length < TCP_MIN_HEADER) return Parse.Malformed;
      const headerLength = (buffer[transport + TCP_DATA_OFFSET]! >>> 4) << 2;
      if (headerLength < TCP_MIN_HEADER || headerLength > length) return Parse.Malformed;
    } else if (this.#protocol === Protocol.Udp) {
      if (length < UDP_HEADER) return Parse.Malformed;
      // Nothing may hide behind the datagram: the whole payload is what the length says.
      if (read16(buffer, transport + UDP_LENGTH) !== length) return Parse.Malformed;
    } else if (length < ICMP_HEADER) {
      return this.#isIcmp() ? Parse.Malformed : Parse.Unsupported;
    }
    return this.#classify(buffer);
  }

  #classify(buffer: Uint8Array): Parse {
    const transport = this.transport;
    switch (this.#protocol) {
      case Protocol.Tcp:
        this.kind = PacketKind.Tcp;
        this.checksum = transport + TCP_CHECKSUM;
        break;
      case Protocol.Udp:
        this.kind = PacketKind.Udp;
        this.checksum = transport + UDP_CHECKSUM;
        break;
      default: {
        if (!this.#isIcmp()) return Parse.Unsupported;
        const kind = this.family === 4 ? ICMP_KINDS : ICMPV6_KINDS;
        this.kind = kind[buffer[transport]!] as PacketKind;
        this.checksum = transport + ICMP_CHECKSUM;
        this.sourcePort = 0;
        this.destinationPort = 0;
        return this.kind === PacketKind.None ? Parse.Unsupported : Parse.Ok;
      }
    }
    this.sourcePort = read16(buffer, transport);
    this.destinationPort = read16(buffer, transport + 2);
    return Parse.Ok;
  }

  #isIcmp(): boolean {
    return this.#protocol === (this.family === 4 ? Protocol.Icmp : Protocol.Icmpv6);
  }
}

export function read16(buffer: Uint8Array, offset: number): number {
  return (buffer[offset]! << 8) | buffer[offset + 1]!;
}

/** Signed, as all 32-bit words here are. */
export function read32(buffer: Uint8Array, offset: number): number {
  return (
    (buffer[offset]! << 24) |
    (buffer[offset + 1]! << 16) |
    (buffer[offset + 2]! << 8) |
    buffer[offset + 3]!
  );
}

export function write16(buffer: Uint8Array, offset: number, value: number): void {
  buffer[offset] = value >>> 8;
  buffer[offset + 1] = value;
}

export function write32(buffer: Uint8Array, offset: number, value: number): void {
  buffer[offset] = value >>> 24;
  buffer[offset + 1] = value >>> 16;
  buffer[offset + 2] = value >>> 8;
  buffer[offset + 3] = value;
}

/**
 * Options that hold addresses would carry one realm's addresses into another, so a packet with a
 * source route, a recorded route or recorded timestamps is not supported; others pass untouched.
 */
function checkOptions(buffer: Uint8Array, start: number, end: number): Parse {
  let at = start;
  while (at < end) {
    const type = buffer[at]!;
    if (type === OPTION_END) return Parse.Ok;
    if (type === OPTION_NOP) {
      at++;
      continue;
    }
    if (at + 1 >= end) return Parse.Malformed;
    const length = buffer[at + 1]!;
    if (length < 2 || at + length > end) return Parse.Malformed;
    if (
      type === OPTION_RECORD_ROUTE ||
      type === OPTION_TIMESTAMP ||
      type === OPTION_LOOSE_ROUTE ||
      type === OPTION_STRICT_ROUTE
    ) {
      return Parse.Unsupported;
    }
    at += length;
  }
  return Parse.Ok;
}

/** Bytes of its transport header that a quote holds at least (RFC 792). */
const QUOTED_TRANSPORT = 8;

/** More-fragments flag and fragment offset. */
const IPV4_FRAGMENT_BITS = 0x3fff;
const IPV6_FRAGMENT_HEADER = 44;

const OPTION_END = 0;
const OPTION_NOP = 1;
const OPTION_RECORD_ROUTE = 7;
const OPTION_TIMESTAMP = 68;
const OPTION_LOOSE_ROUTE = 131;
const OPTION_STRICT_ROUTE = 137;

/** Kind by ICMP type; redirects, source quench and queries other than echo have none. */
const ICMP_KINDS: Uint8Array = /* @__PURE__ */ kindTable(8, 0, [3, 11, 12]);
/** Kind by ICMPv6 type; neighbour discovery and multicast listening never leave their link. */
const ICMPV6_KINDS: Uint8Array = /* @__PURE__ */ kindTable(128, 129, [1, 2, 3, 4]);

function kindTable(echoRequest: number, echoReply: number, errors: readonly number[]): Uint8Array {
  const kinds = new Uint8Array(256);
  kinds[echoRequest] = PacketKind.EchoRequest;
  kinds[echoReply] = PacketKind.EchoReply;
  for (const type of errors) kinds[type] = PacketKind.IcmpError;
  return kinds;
}
