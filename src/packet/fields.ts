/**
 * Offsets of the fields of IP packets, and the numbers in them: IPv4
 * ([RFC 791](https://www.rfc-editor.org/rfc/rfc791)), IPv6
 * ([RFC 8200](https://www.rfc-editor.org/rfc/rfc8200)), TCP
 * ([RFC 9293](https://www.rfc-editor.org/rfc/rfc9293)), UDP
 * ([RFC 768](https://www.rfc-editor.org/rfc/rfc768)), UDP-Lite
 * ([RFC 3828](https://www.rfc-editor.org/rfc/rfc3828)), SCTP
 * ([RFC 9260](https://www.rfc-editor.org/rfc/rfc9260)), ICMP
 * ([RFC 792](https://www.rfc-editor.org/rfc/rfc792)) and ICMPv6
 * ([RFC 4443](https://www.rfc-editor.org/rfc/rfc4443)).
 *
 * The offsets `IPV4_...`, `TCP_...` and so on count in bytes from the first byte of that header.
 * @module
 */
export const IPV4_MIN_HEADER = 20;
export const IPV4_TOTAL_LENGTH = 2;
export const IPV4_IDENTIFICATION = 4;
export const IPV4_FRAGMENT = 6;
export const IPV4_TTL = 8;
export const IPV4_PROTOCOL = 9;
export const IPV4_CHECKSUM = 10;
export const IPV4_SOURCE = 12;
export const IPV4_DESTINATION = 16;
export const IPV4_DONT_FRAGMENT = 0x4000;
export const IPV4_MORE_FRAGMENTS = 0x2000;
export const IPV4_FRAGMENT_OFFSET = 0x1fff;

export const IPV6_HEADER = 40;
export const IPV6_PAYLOAD_LENGTH = 4;
export const IPV6_NEXT_HEADER = 6;
export const IPV6_HOP_LIMIT = 7;
export const IPV6_SOURCE = 8;
export const IPV6_DESTINATION = 24;

export const TCP_MIN_HEADER = 20;
export const TCP_SEQUENCE = 4;
export const TCP_ACKNOWLEDGEMENT = 8;
export const TCP_DATA_OFFSET = 12;
export const TCP_FLAGS = 13;
export const TCP_CHECKSUM = 16;
export const TCP_FLAG_FIN = 0x01;
export const TCP_FLAG_SYN = 0x02;
export const TCP_FLAG_RST = 0x04;
export const TCP_FLAG_ACK = 0x10;

export const UDP_HEADER = 8;
/** In UDP-Lite this field is the checksum coverage. */
export const UDP_LENGTH = 4;
export const UDP_CHECKSUM = 6;

export const SCTP_HEADER = 12;
export const SCTP_CHUNK_INIT = 1;
export const SCTP_CHUNK_ABORT = 6;

export const ICMP_HEADER = 8;
export const ICMP_CHECKSUM = 2;
/** The identifier of an echo. */
export const ICMP_IDENTIFIER = 4;

/** The offset of the length attribute in ICMP and ICMPv6 errors (RFC 4884 section 4). */
export const ICMP_LENGTH_V4 = 5;
export const ICMP_LENGTH_V6 = 4;

/** Protocol numbers for the fast path, as constants that a bundler can inline. */
export const PROTOCOL_ICMP = 1;
export const PROTOCOL_TCP = 6;
export const PROTOCOL_UDP = 17;

/** Numbers in the IPv4 `protocol` and the IPv6 `next header` field. */
export const Protocol = {
  Icmp: 1,
  Tcp: 6,
  Udp: 17,
  Dccp: 33,
  Icmpv6: 58,
  Sctp: 132,
  UdpLite: 136,
} as const;

/** Kinds of packets for the fast path, as constants that a bundler can inline. */
export const KIND_TCP = 1;
export const KIND_UDP = 2;
/** An echo request. The kinds from here on are ICMP. */
export const KIND_ECHO = 6;

/** How the translator treats a packet. */
export const PacketKind = {
  /** The packet is not parsed or not valid, or is a later fragment, which has no transport header. */
  None: 0,
  Tcp: 1,
  Udp: 2,
  UdpLite: 3,
  Sctp: 4,
  /** A protocol without ports and without a checksum that covers the addresses. */
  Other: 5,
  EchoRequest: 6,
  EchoReply: 7,
  /** An ICMP or ICMPv6 error, which quotes the packet that caused it. */
  IcmpError: 8,
} as const;
export type PacketKind = (typeof PacketKind)[keyof typeof PacketKind];

/** The part of a datagram that a packet carries. */
export const FragmentPart = { Whole: 0, First: 1, Later: 2 } as const;
export type FragmentPart = (typeof FragmentPart)[keyof typeof FragmentPart];

/** The outcome of a header check. */
export const Parse = {
  Ok: 0,
  /** Lengths, versions or checksums contradict each other, or the packet is truncated. */
  Malformed: 1,
  /** The headers are valid but not supported. */
  Unsupported: 2,
  /** A first fragment has not the complete transport header, or the fragment is otherwise dangerous. */
  BadFragment: 3,
} as const;
export type Parse = (typeof Parse)[keyof typeof Parse];
