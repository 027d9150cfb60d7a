/**
 * Finds the IP packet in a captured frame, by the [link type](https://www.tcpdump.org/linktypes.html) of its interface:
 * Ethernet with any VLAN tags, raw IP, Linux "cooked" (SLL and SLL2), and the loopback of BSD.
 * @module
 */
import type { CapturedPacket } from './captured-packet.ts';

export class LinkLayer {
  /** What the frame carries instead of an IP packet. Valid iff `findIp` returned -1. */
  reason = '';
  /** Whether the frame went to several hosts: broadcast or multicast. Link types without such a mark never say so. */
  isToGroup = false;

  /** Returns the offset of the IP header in `packet.bytes`, or -1 if there is none. */
  findIp(packet: CapturedPacket): number {
    const { linkType, start, end, bytes } = packet;
    this.isToGroup = false;
    switch (linkType) {
      case LINKTYPE_ETHERNET:
        this.isToGroup = start < end && (bytes[start]! & ETHERNET_GROUP) !== 0;
        return this.#byEtherType(packet, start + ETHERNET_TYPE);
      case LINKTYPE_LINUX_SLL:
        this.isToGroup = start + 1 < end && SLL_GROUPS.includes(bytes[start + 1]!);
        return this.#byEtherType(packet, start + SLL_PROTOCOL);
      case LINKTYPE_LINUX_SLL2:
        return this.#cooked2(packet);
      case LINKTYPE_NULL:
      case LINKTYPE_LOOP:
        return this.#loopback(packet);
      case LINKTYPE_RAW:
      case LINKTYPE_IPV4:
      case LINKTYPE_IPV6:
        return this.#byVersion(packet, start);
      default:
        // Some BSDs write their own numbers for raw IP.
        if (RAW_OF_BSD.includes(linkType)) return this.#byVersion(packet, start);
        return this.#not(end > start ? `link type ${linkType}` : EMPTY);
    }
  }

  /** @param at where the EtherType is; what it describes follows */
  #byEtherType(packet: CapturedPacket, at: number): number {
    const { view, end } = packet;
    for (let tags = 0; tags <= MAX_TAGS; tags++) {
      if (at + 2 > end) return this.#not(CUT);
      const type = view.getUint16(at);
      at += 2;
      if (type === ETHERTYPE_IPV4 || type === ETHERTYPE_IPV6) return this.#byVersion(packet, at);
      if (!TAGS.includes(type)) return this.#notEtherType(type);
      at += 2; // the VLAN
    }
    return this.#not('more VLAN tags than four');
  }

  #cooked2(packet: CapturedPacket): number {
    const { view, start, end } = packet;
    if (start + SLL2_HEADER > end) return this.#not(CUT);
    this.isToGroup = SLL_GROUPS.includes(view.getUint8(start + SLL2_PACKET_TYPE));
    const type = view.getUint16(start);
    if (TAGS.includes(type)) return this.#byEtherType(packet, start + SLL2_HEADER + 2);
    if (type !== ETHERTYPE_IPV4 && type !== ETHERTYPE_IPV6) return this.#notEtherType(type);
    return this.#byVersion(packet, start + SLL2_HEADER);
  }

  /** The four bytes in front are the address family, in the byte order of the machine that has captured. */
  #loopback(packet: CapturedPacket): number {
    const { view, start, end } = packet;
    if (start + LOOPBACK_HEADER > end) return this.#not(CUT);
    const written = view.getUint32(start);
    const family = written > 0xffff ? view.getUint32(start, true) : written;
    if (!LOOPBACK_FAMILIES.includes(family)) return this.#not(`address family ${family}`);
    return this.#byVersion(packet, start + LOOPBACK_HEADER);
  }

  #byVersion({ bytes, end }: CapturedPacket, at: number): number {
    if (at >= end) return this.#not(CUT);
    const version = bytes[at]! >> 4;
    return version === 4 || version === 6 ? at : this.#not(`IP version ${version}`);
  }

  #notEtherType(type: number): number {
    const name = ETHERTYPES.get(type);
    if (name !== undefined) return this.#not(name);
    if (type < LEAST_ETHERTYPE) return this.#not('802.3 (such as spanning tree)');
    return this.#not(`EtherType 0x${type.toString(16).padStart(4, '0')}`);
  }

  #not(reason: string): -1 {
    this.reason = reason;
    return -1;
  }
}

const EMPTY = 'nothing: no byte of it was captured';
const CUT = 'too few bytes for its link header';

const LINKTYPE_NULL = 0;
const LINKTYPE_ETHERNET = 1;
const LINKTYPE_RAW = 101;
const LINKTYPE_LOOP = 108;
const LINKTYPE_LINUX_SLL = 113;
const LINKTYPE_IPV4 = 228;
const LINKTYPE_IPV6 = 229;
const LINKTYPE_LINUX_SLL2 = 276;
const RAW_OF_BSD: readonly number[] = [12, 14];

const ETHERNET_TYPE = 12;
const SLL_PROTOCOL = 14;
const SLL2_HEADER = 20;
const SLL2_PACKET_TYPE = 10;
/** The packet types of broadcast and multicast. */
const SLL_GROUPS: readonly number[] = [1, 2];
/** The bit of the first byte of a destination that several hosts have. */
const ETHERNET_GROUP = 1;
const LOOPBACK_HEADER = 4;
/** AF_INET, and AF_INET6 of Linux, NetBSD, FreeBSD and macOS. */
const LOOPBACK_FAMILIES: readonly number[] = [2, 10, 24, 28, 30];

const ETHERTYPE_IPV4 = 0x0800;
const ETHERTYPE_IPV6 = 0x86dd;
/** 802.1Q, 802.1ad and its forerunner. */
const TAGS: readonly number[] = [0x8100, 0x88a8, 0x9100];
const MAX_TAGS = 4;
/** Below it, the field is the length of an 802.3 frame. */
const LEAST_ETHERTYPE = 0x0600;
const ETHERTYPES: ReadonlyMap<number, string> = /* @__PURE__ */ new Map([
  [0x0806, 'ARP'],
  [0x8035, 'RARP'],
  [0x8847, 'MPLS'],
  [0x8863, 'PPPoE discovery'],
  [0x8864, 'PPPoE session'],
  [0x88cc, 'LLDP'],
]);
