/**
 * Reads what ICMP errors ([RFC 792](https://www.rfc-editor.org/rfc/rfc792)) and ICMPv6 errors
 * ([RFC 4443](https://www.rfc-editor.org/rfc/rfc4443)) say about a packet of this stack.
 *
 * Anybody who can guess addresses and ports can forge one, so each protocol checks the quote before it believes it
 * ([RFC 5927 section 4](https://www.rfc-editor.org/rfc/rfc5927#section-4)).
 * @module
 */
import { type Family, IpAddress } from '../../base/address.ts';
import {
  ICMP_HEADER,
  ICMP_IDENTIFIER,
  PacketKind,
  Parse,
  TCP_SEQUENCE,
} from '../../packet/fields.ts';
import { PacketHeader } from '../../packet/header.ts';
import type { IcmpErrorKind, IcmpError as TcpIcmpError } from '../../tcp/index.ts';
import { plateauBelow } from '../ip/path-mtu.ts';

/** An error about a packet that this stack has sent, if its quote is true. The ports of an echo are 0. */
export interface IcmpError extends TcpIcmpError {
  readonly family: Family;
  readonly protocol: 'tcp' | 'udp' | 'echo';
  /** The sequence number of the quoted TCP segment, a signed 32-bit integer; the identifier of a quoted echo. */
  readonly sequence: number;
  /** For `too-big`: the longest packet in bytes, as reported; else 0. */
  readonly mtu: number;
}

/** Reads errors. One object is used for all of them. */
export class IcmpErrorReader {
  readonly #quote: PacketHeader = new PacketHeader();

  /**
   * Returns what a packet says whose kind is `PacketKind.IcmpError`; undefined if its quote cannot be read, is not of a
   * packet from the address that the error came to, or has another protocol, and for errors that say nothing about a
   * path (parameter problem).
   */
  read(buffer: Uint8Array, view: DataView, header: PacketHeader): IcmpError | undefined {
    const { family, transport, source } = header;
    const quote = this.#quote;
    const end = header.findQuoteEnd(view);
    if (end < 0) return undefined;
    if (quote.parseQuote(view, transport + ICMP_HEADER, end) !== Parse.Ok) return undefined;
    const size = family === 4 ? 4 : 16;
    if (quote.family !== family) return undefined;
    for (let i = 0; i < size; i += 4) {
      if (view.getInt32(quote.source + i) !== view.getInt32(source + size + i)) return undefined;
    }
    const type = view.getUint8(transport);
    const code = view.getUint8(transport + 1);
    const kind = family === 4 ? kindOfIcmp(type, code) : kindOfIcmpv6(type, code);
    const protocol = protocolOf(quote.kind);
    if (kind === undefined || protocol === undefined) return undefined;
    return {
      kind,
      family,
      protocol,
      local: IpAddress.fromBytes(family, buffer, quote.source),
      localPort: quote.sourcePort,
      remote: IpAddress.fromBytes(family, buffer, quote.source + size),
      remotePort: quote.destinationPort,
      sequence: sequenceOf(view, protocol, quote.transport),
      mtu: kind === 'too-big' ? mtuOf(view, transport, quote) : 0,
    };
  }
}

function protocolOf(kind: PacketKind): IcmpError['protocol'] | undefined {
  if (kind === PacketKind.Tcp) return 'tcp';
  if (kind === PacketKind.Udp) return 'udp';
  return kind === PacketKind.EchoRequest ? 'echo' : undefined;
}

function sequenceOf(view: DataView, protocol: IcmpError['protocol'], transport: number): number {
  if (protocol === 'tcp') return view.getInt32(transport + TCP_SEQUENCE);
  return protocol === 'echo' ? view.getUint16(transport + ICMP_IDENTIFIER) : 0;
}

/** The next-hop MTU of RFC 1191 section 4 has 16 bits, that of ICMPv6 has 32. */
function mtuOf(view: DataView, transport: number, quote: PacketHeader): number {
  if (quote.family === 6) return view.getUint32(transport + 4);
  const reported = view.getUint16(transport + 6);
  if (reported !== 0) return reported;
  return plateauBelow(quote.transport - quote.start + quote.payloadLength);
}

function kindOfIcmp(type: number, code: number): IcmpErrorKind | undefined {
  if (type === 3) return ICMP_UNREACHABLE[code];
  return type === 11 ? 'time-exceeded' : undefined;
}

function kindOfIcmpv6(type: number, code: number): IcmpErrorKind | undefined {
  switch (type) {
    case 1:
      return ICMPV6_UNREACHABLE[code];
    case 2:
      return 'too-big';
    case 3:
      return 'time-exceeded';
    default:
      return code === UNKNOWN_NEXT_HEADER ? 'protocol-unreachable' : undefined;
  }
}

/** The kinds by code: RFC 792 and [RFC 1812 section 5.2.7.1](https://www.rfc-editor.org/rfc/rfc1812#section-5.2.7.1). */
const ICMP_UNREACHABLE: readonly IcmpErrorKind[] = [
  'network-unreachable',
  'host-unreachable',
  'protocol-unreachable',
  'port-unreachable',
  'too-big',
  'host-unreachable', // the source route failed
  'network-unreachable', // the network is unknown
  'host-unreachable', // the host is unknown
  'host-unreachable', // the source is isolated
  'prohibited', // the network
  'prohibited', // the host
  'network-unreachable', // for this type of service
  'host-unreachable', // for this type of service
  'prohibited', // by a filter
  'prohibited', // this precedence
  'prohibited', // precedence cut off
];

/** The kinds by code (RFC 4443 section 3.1). */
const ICMPV6_UNREACHABLE: readonly IcmpErrorKind[] = [
  'network-unreachable', // no route
  'prohibited',
  'host-unreachable', // beyond the scope of the source address
  'host-unreachable', // the address
  'port-unreachable',
  'prohibited', // the source address failed the ingress policy
  'prohibited', // the route rejects
];

/** The code of parameter problem, RFC 4443 section 3.4. */
const UNKNOWN_NEXT_HEADER = 1;
