/**
 * Builds the Ethernet frames with which a machine announces, unasked, that it has an address now: for IPv4 an ARP
 * announcement ([RFC 5227 section 3](https://www.rfc-editor.org/rfc/rfc5227#section-3)), which is called gratuitous ARP
 * too, and for IPv6 an unsolicited neighbour advertisement
 * ([RFC 4861 section 7.2.6](https://www.rfc-editor.org/rfc/rfc4861#section-7.2.6)). Hosts that know the address replace
 * the hardware address that they have for it; the others ignore the frame.
 * @module
 */
import { IpAddress } from '../base/address.ts';
import { fold, sumBytes } from './checksum.ts';
import { ICMP_CHECKSUM, IPV6_HOP_LIMIT, Protocol } from './fields.ts';
import {
  ipHeaderLength,
  pseudoHeaderSum,
  sourceOffset,
  writeAddresses,
  writeIpv6Header,
} from './ip-writer.ts';

/**
 * Returns an ARP announcement: a broadcast request whose sender and target are the same address.
 *
 * @param hardware the 6 bytes of the sender's Ethernet address
 * @param address of IPv4
 */
export function arpAnnouncement(hardware: Uint8Array, address: IpAddress): Buffer {
  const frame = Buffer.alloc(ETHERNET_HEADER + ARP_LENGTH);
  writeEthernet(frame, BROADCAST, hardware, ETHERTYPE_ARP);
  let at = ETHERNET_HEADER;
  at = frame.writeUInt16BE(ARP_ETHERNET, at);
  at = frame.writeUInt16BE(ETHERTYPE_IPV4, at);
  at = frame.writeUInt8(HARDWARE_LENGTH, at);
  at = frame.writeUInt8(4, at);
  at = frame.writeUInt16BE(ARP_REQUEST, at);
  frame.set(hardware, at);
  at = frame.writeInt32BE(address.words[0]!, at + HARDWARE_LENGTH);
  // The target's hardware address stays zero.
  frame.writeInt32BE(address.words[0]!, at + HARDWARE_LENGTH);
  return frame;
}

/**
 * Returns a neighbour advertisement to all nodes. It has the flag Override, so that it replaces the hardware address of
 * another machine, and the flag Router, because the sender forwards to the address.
 *
 * @param hardware the 6 bytes of the sender's Ethernet address
 * @param source a link-local address of the sender
 * @param target the address that is announced
 */
export function neighbourAdvertisement(
  hardware: Uint8Array,
  source: IpAddress,
  target: IpAddress
): Buffer {
  const start = ETHERNET_HEADER + ipHeaderLength(6);
  const frame = Buffer.alloc(start + ADVERTISEMENT_LENGTH);
  writeEthernet(frame, ALL_NODES_GROUP, hardware, ETHERTYPE_IPV6);
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  writeAddresses(view, ETHERNET_HEADER, source, ALL_NODES);
  writeIpv6Header(view, ETHERNET_HEADER, ADVERTISEMENT_LENGTH, Protocol.Icmpv6);
  // A receiver drops the message if a router may have forwarded it (RFC 4861 section 7.1.2).
  frame[ETHERNET_HEADER + IPV6_HOP_LIMIT] = 255;
  frame[start] = NEIGHBOUR_ADVERTISEMENT;
  frame[start + FLAGS] = FLAG_ROUTER | FLAG_OVERRIDE;
  for (const [i, word] of target.words.entries()) frame.writeInt32BE(word, start + TARGET + 4 * i);
  frame[start + OPTION] = OPTION_TARGET_HARDWARE;
  // In units of 8 bytes.
  frame[start + OPTION + 1] = 1;
  frame.set(hardware, start + OPTION + 2);
  const addresses = ETHERNET_HEADER + sourceOffset(6);
  const pseudo = pseudoHeaderSum(view, addresses, 6, Protocol.Icmpv6, ADVERTISEMENT_LENGTH);
  frame.writeUInt16BE(
    ~fold(sumBytes(frame, start, frame.length, pseudo)) & 0xffff,
    start + ICMP_CHECKSUM
  );
  return frame;
}

function writeEthernet(
  frame: Buffer,
  destination: readonly number[],
  source: Uint8Array,
  type: number
): void {
  frame.set(destination, 0);
  frame.set(source, HARDWARE_LENGTH);
  frame.writeUInt16BE(type, 2 * HARDWARE_LENGTH);
}

/** Ethernet: destination, source, type. */
const HARDWARE_LENGTH = 6;
const ETHERNET_HEADER: number = 2 * HARDWARE_LENGTH + 2;
const ETHERTYPE_IPV4 = 0x0800;
const ETHERTYPE_ARP = 0x0806;
const ETHERTYPE_IPV6 = 0x86dd;
const BROADCAST = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] as const;

/** ARP over Ethernet for IPv4 (RFC 826). */
const ARP_LENGTH: number = 8 + 2 * (HARDWARE_LENGTH + 4);
const ARP_ETHERNET = 1;
const ARP_REQUEST = 1;

/** ff02::1, and the Ethernet group that it has (RFC 2464 section 7). */
const ALL_NODES: IpAddress = /* @__PURE__ */ IpAddress.parse('ff02::1');
const ALL_NODES_GROUP = [0x33, 0x33, 0, 0, 0, 1] as const;

/** RFC 4861 sections 4.4 and 4.6.1; the offsets are those within the message. */
const NEIGHBOUR_ADVERTISEMENT = 136;
const FLAGS = 4;
const FLAG_ROUTER = 0x80;
const FLAG_OVERRIDE = 0x20;
const TARGET = 8;
const OPTION = 24;
const OPTION_TARGET_HARDWARE = 2;
const ADVERTISEMENT_LENGTH = 32;
