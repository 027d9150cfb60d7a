/**
 * Writes the packet that an ICMP error quotes, when the packet itself is gone: the service side learns of a refusal
 * when it has only the ends of the flow and the data.
 *
 * Whoever gets the error finds its connection by the addresses and ports, and for TCP by the sequence number, so these
 * must be right. Fields that nobody can know any more (identification, lifetime) are those of a new packet.
 * @module
 */
import type { IpAddress } from '../../base/address.ts';
import { fold, sumBytes } from '../../packet/checksum.ts';
import { IPV4_MIN_HEADER, IPV6_HEADER, Protocol, UDP_HEADER } from '../../packet/fields.ts';
import {
  ipHeaderLength,
  pseudoHeaderSum,
  sourceOffset,
  writeAddresses,
  writeIpv4Header,
  writeIpv6Header,
} from '../../packet/ip-writer.ts';

export interface QuotedPacket {
  readonly source: IpAddress;
  readonly destination: IpAddress;
  /** The protocol number of the IP header. */
  readonly protocol: number;
  /** The transport header and what follows it, as far as it is known: 8 bytes at least. */
  readonly transport: Uint8Array;
  /** How many bytes the packet had from the transport header on. */
  readonly length: number;
}

/** Returns the packet, from its IP header on to the end of `transport`. */
export function quotePacket(packet: QuotedPacket): Buffer {
  const { source, destination, protocol, transport, length } = packet;
  const header = ipHeaderLength(source.family);
  const bytes = Buffer.alloc(header + transport.length);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  writeAddresses(view, 0, source, destination);
  if (source.family === 4) writeIpv4Header(view, 0, IPV4_MIN_HEADER + length, protocol, 0, 0);
  else writeIpv6Header(view, 0, length, protocol);
  bytes.set(transport, header);
  return bytes;
}

export interface QuotedDatagram {
  readonly source: IpAddress;
  readonly sourcePort: number;
  readonly destination: IpAddress;
  readonly destinationPort: number;
  /** The payload, or its first bytes. */
  readonly payload: Uint8Array;
  /** The length of the whole payload in bytes. */
  readonly length: number;
}

/** Returns a packet of UDP. Its checksum is 0, which means none, if the payload is not whole. */
export function quoteDatagram(datagram: QuotedDatagram): Buffer {
  const { source, sourcePort, destination, destinationPort, payload } = datagram;
  const length = UDP_HEADER + datagram.length;
  const transport = Buffer.alloc(UDP_HEADER + payload.length);
  transport.writeUInt16BE(sourcePort, 0);
  transport.writeUInt16BE(destinationPort, 2);
  transport.writeUInt16BE(length, 4);
  transport.set(payload, UDP_HEADER);
  const quote = quotePacket({ source, destination, protocol: Protocol.Udp, transport, length });
  if (payload.length === datagram.length) {
    const { family } = source;
    const view = new DataView(quote.buffer, quote.byteOffset, quote.length);
    const pseudo = pseudoHeaderSum(view, sourceOffset(family), family, Protocol.Udp, length);
    const checksum = ~fold(sumBytes(transport, 0, transport.length, pseudo)) & 0xffff;
    quote.writeUInt16BE(checksum || 0xffff, ipHeaderLength(family) + 6);
  }
  return quote;
}

/** How much of the payload of a datagram an ICMP error can quote at most, in bytes (RFC 4443 section 2.4). */
export const MAX_QUOTED_PAYLOAD: number = 1280 - IPV6_HEADER - 8 - IPV6_HEADER - UDP_HEADER;
