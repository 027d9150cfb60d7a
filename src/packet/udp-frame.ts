/**
 * Builds and reads UDP datagrams ([RFC 768](https://www.rfc-editor.org/rfc/rfc768)) as frames of a packet device: a
 * virtio-net header, then an IPv4 or IPv6 packet. It serves programs that use UDP over a `MemoryDevice` or their own
 * device, and tests; gateways do not need it.
 * @module
 */
import { type AddressInput, IpAddress } from '../base/address.ts';
import { ApiMisuseError } from '../errors.ts';
import { fold, sumBytes } from './checksum.ts';
import {
  ipHeaderLength,
  pseudoHeaderSum,
  sourceOffset,
  writeAddresses,
  writeIpv4Header,
  writeIpv6Header,
} from './ip-writer.ts';
import { MAX_PACKET_LENGTH, VNET_HEADER_LENGTH } from './virtio.ts';

export interface UdpDatagram {
  /** The source IP address as text. */
  readonly source: string;
  readonly sourcePort: number;
  /** The destination IP address as text, of the same IP version. */
  readonly destination: string;
  readonly destinationPort: number;
  readonly payload: Uint8Array;
}

/** A datagram as a caller gives it: addresses are values or text. */
export interface UdpDatagramInput extends Omit<UdpDatagram, 'source' | 'destination'> {
  readonly source: AddressInput;
  readonly destination: AddressInput;
}

/**
 * Writes a datagram with all checksums and a hop limit of 64.
 *
 * @returns the virtio-net header (`VNET_HEADER_LENGTH` zero bytes) and the packet.
 * @throws {ApiMisuseError} if an address or a port is invalid, the addresses are not of the same IP version, or the
 *   packet would be longer than `MAX_PACKET_LENGTH`.
 */
export function udpFrame(datagram: UdpDatagramInput): Buffer {
  const { sourcePort, destinationPort, payload } = datagram;
  const source = IpAddress.from(datagram.source);
  const destination = IpAddress.from(datagram.destination);
  if (source.family !== destination.family) {
    throw new ApiMisuseError(`${source} and ${destination} are not of one IP version`);
  }
  checkPort(sourcePort);
  checkPort(destinationPort);
  const ipLength = ipHeaderLength(source.family);
  const udpLength = UDP_HEADER_LENGTH + payload.length;
  if (ipLength + udpLength > MAX_PACKET_LENGTH) {
    const most = MAX_PACKET_LENGTH - ipLength - UDP_HEADER_LENGTH;
    throw new ApiMisuseError(`a datagram has at most ${most} bytes, not ${payload.length}`);
  }
  const frame = Buffer.alloc(VNET_HEADER_LENGTH + ipLength + udpLength);
  const ip = frame.subarray(VNET_HEADER_LENGTH);
  const view = new DataView(ip.buffer, ip.byteOffset, ip.length);
  writeAddresses(view, 0, source, destination);
  if (source.family === 4) writeIpv4Header(view, 0, ip.length, UDP, 0, 0);
  else writeIpv6Header(view, 0, udpLength, UDP);
  const udp = ip.subarray(ipLength);
  udp.writeUInt16BE(sourcePort, 0);
  udp.writeUInt16BE(destinationPort, 2);
  udp.writeUInt16BE(udpLength, 4);
  udp.set(payload, UDP_HEADER_LENGTH);
  const { family } = source;
  const pseudoHeader = pseudoHeaderSum(view, sourceOffset(family), family, UDP, udpLength);
  const checksum = ~fold(sumBytes(udp, 0, udp.length, pseudoHeader)) & 0xffff;
  // RFC 768: zero means "no checksum", so a computed zero becomes 0xffff.
  udp.writeUInt16BE(checksum === 0 ? 0xffff : checksum, 6);
  return frame;
}

/**
 * Reads a frame as `udpFrame` writes it. It does not verify checksums, because a device may leave them partial.
 *
 * @returns undefined if the frame is not a UDP datagram, is a fragment or super-packet, or has IPv6 extension headers.
 */
export function readUdpFrame(frame: Uint8Array): UdpDatagram | undefined {
  const ip = Buffer.from(frame.buffer, frame.byteOffset, frame.length).subarray(VNET_HEADER_LENGTH);
  if (ip.length < IPV4_HEADER_LENGTH || frame[1] !== 0) return undefined;
  const family = ip[0]! >>> 4;
  const ipLength = family === 4 ? 4 * (ip[0]! & 0xf) : IPV6_HEADER_LENGTH;
  const isUdp =
    family === 4
      ? ipLength >= IPV4_HEADER_LENGTH && ip[9] === UDP && (ip.readUInt16BE(6) & 0x3fff) === 0
      : family === 6 && ip[6] === UDP;
  if (!isUdp || ip.length < ipLength + UDP_HEADER_LENGTH) return undefined;
  const udp = ip.subarray(ipLength);
  const length = udp.readUInt16BE(4);
  if (length < UDP_HEADER_LENGTH || length > udp.length) return undefined;
  const version = family === 4 ? 4 : 6;
  const [sourceAt, destinationAt] = version === 4 ? [12, 16] : [8, 24];
  return {
    source: IpAddress.fromBytes(version, ip, sourceAt).toString(),
    sourcePort: udp.readUInt16BE(0),
    destination: IpAddress.fromBytes(version, ip, destinationAt).toString(),
    destinationPort: udp.readUInt16BE(2),
    payload: udp.subarray(UDP_HEADER_LENGTH, length),
  };
}

function checkPort(port: number): void {
  if (Number.isInteger(port) && port >= 0 && port <= 65_535) return;
  throw new ApiMisuseError(`a port is a whole number from 0 to 65535, not ${port}`);
}

const UDP = 17;
const IPV4_HEADER_LENGTH = 20;
const IPV6_HEADER_LENGTH = 40;
const UDP_HEADER_LENGTH = 8;
