/**
 * Writes a datagram (UDP or ICMP) as frames of the packet device: one, or fragments if it is longer than the path
 * takes.
 *
 * Over IPv4 the limit is the MTU of the device: datagrams leave without DF and with an identification, so that a
 * router may cut them ([RFC 6864](https://www.rfc-editor.org/rfc/rfc6864)). Over IPv6 only the sender fragments
 * ([RFC 8200 section 4.5](https://www.rfc-editor.org/rfc/rfc8200#section-4.5)).
 * @module
 */
import type { IpAddress } from '../../base/address.ts';
import { fold, sumBytes } from '../../packet/checksum.ts';
import {
  ICMP_CHECKSUM,
  IPV4_MIN_HEADER,
  IPV4_MORE_FRAGMENTS,
  IPV6_HEADER,
  Protocol,
  UDP_CHECKSUM,
} from '../../packet/fields.ts';
import {
  ipHeaderLength,
  writeAddresses,
  writeIpv4Header,
  writeIpv6Header,
} from '../../packet/ip-writer.ts';
import { Extension, FRAGMENT_HEADER } from '../../packet/ipv6-extensions.ts';
import { markPartial } from '../../packet/transport-checksum.ts';
import { PacketView } from '../../packet/view.ts';
import { MAX_PACKET_LENGTH, VNET_HEADER_LENGTH } from '../../packet/virtio.ts';
import type { Identifications } from './identifications.ts';
import type { PathMtus } from './path-mtu.ts';

/** A datagram whose transport header has eight bytes, as those of UDP and ICMP have. */
export interface OutgoingDatagram {
  /** `Protocol.Udp`, `Icmp` or `Icmpv6`. */
  readonly protocol: number;
  readonly local: IpAddress;
  readonly remote: IpAddress;
  /** The two words of the transport header; the checksum in them is 0. */
  readonly first: number;
  readonly second: number;
  readonly payload: Uint8Array;
}

export interface DatagramWriterOptions {
  /** The longest packet that the device takes, in bytes. */
  readonly mtu: number;
  /** Whether UDP checksums may be left partial. */
  readonly offload: boolean;
  readonly pathMtus: PathMtus;
  readonly identifications: Identifications;
}

/** Writes one datagram at a time: `begin`, then `next` until it returns 0. */
export class DatagramWriter {
  readonly #options: DatagramWriterOptions;
  readonly #view: PacketView = new PacketView();
  #datagram: OutgoingDatagram | undefined;
  /** How many bytes of transport header and payload are written. */
  #done = 0;
  /** The most bytes of transport header and payload in one fragment; 0 if the datagram fits. */
  #piece = 0;
  #identification = 0;
  /** The checksum of a fragmented datagram, which is complete. */
  #checksum = 0;

  constructor(options: DatagramWriterOptions) {
    this.#options = options;
  }

  /** Whether `next` has more to write. */
  get isActive(): boolean {
    return this.#datagram !== undefined;
  }

  /** Begins a datagram, whose payload must not change until its last frame. */
  begin(datagram: OutgoingDatagram): void {
    const { remote, payload } = datagram;
    this.#datagram = datagram;
    this.#done = 0;
    this.#piece = 0;
    const isIpv4 = remote.family === 4;
    const header = ipHeaderLength(remote.family);
    const limit = this.#limit(remote);
    const isLong = header + TRANSPORT_HEADER + payload.length > limit;
    if (isIpv4 || isLong) this.#identification = this.#options.identifications.next(remote);
    if (!isLong) return;
    this.#piece = (limit - header - (isIpv4 ? 0 : FRAGMENT_HEADER)) & ~7;
    this.#checksum = completeChecksum(datagram);
  }

  /**
   * Writes the next frame, a virtio-net header and a packet, to `buffer` at `at`, where `VNET_HEADER_LENGTH +
   * MAX_PACKET_LENGTH` bytes must be free. Returns its length, or 0 if there is none.
   */
  next(buffer: Buffer, at: number): number {
    const datagram = this.#datagram;
    if (datagram === undefined) return 0;
    const view = this.#view.of(buffer);
    buffer.fill(0, at, at + VNET_HEADER_LENGTH);
    const length = TRANSPORT_HEADER + datagram.payload.length;
    const from = this.#done;
    const isFragment = this.#piece > 0;
    const to = isFragment ? Math.min(from + this.#piece, length) : length;
    this.#done = to;
    if (to === length) this.#datagram = undefined;

    const ip = at + VNET_HEADER_LENGTH;
    writeAddresses(view, ip, datagram.local, datagram.remote);
    const transport =
      datagram.remote.family === 4
        ? this.#writeIpv4(view, ip, datagram, from, to, to < length)
        : this.#writeIpv6(view, ip, datagram, from, to, to < length);
    if (from === 0) {
      view.setInt32(transport, datagram.first);
      view.setInt32(transport + 4, datagram.second);
      this.#writeChecksum(view, at, transport, datagram);
      buffer.set(datagram.payload.subarray(0, to - TRANSPORT_HEADER), transport + TRANSPORT_HEADER);
    } else {
      const [first, last] = [from - TRANSPORT_HEADER, to - TRANSPORT_HEADER];
      buffer.set(datagram.payload.subarray(first, last), transport);
    }
    return transport + to - from - at;
  }

  /** Leaves out the rest of the datagram. */
  cancel(): void {
    this.#datagram = undefined;
  }

  /** The longest packet to this destination, in bytes. */
  #limit(remote: IpAddress): number {
    const { mtu, pathMtus } = this.#options;
    const limit = Math.min(mtu, MAX_PACKET_LENGTH);
    if (remote.family === 4) return limit;
    return Math.min(limit, pathMtus.get(remote) || UNKNOWN_IPV6_MTU);
  }

  #writeIpv4(
    view: DataView,
    ip: number,
    { protocol }: OutgoingDatagram,
    from: number,
    to: number,
    isMore: boolean
  ): number {
    const fragment = (from >>> 3) | (isMore ? IPV4_MORE_FRAGMENTS : 0);
    const length = IPV4_MIN_HEADER + to - from;
    writeIpv4Header(view, ip, length, protocol, this.#identification & 0xffff, fragment);
    return ip + IPV4_MIN_HEADER;
  }

  #writeIpv6(
    view: DataView,
    ip: number,
    { protocol }: OutgoingDatagram,
    from: number,
    to: number,
    isMore: boolean
  ): number {
    const isFragment = this.#piece > 0;
    const extension = isFragment ? FRAGMENT_HEADER : 0;
    writeIpv6Header(view, ip, extension + to - from, isFragment ? Extension.Fragment : protocol);
    if (isFragment) {
      const at = ip + IPV6_HEADER;
      view.setUint16(at, protocol << 8);
      view.setUint16(at + 2, from | (isMore ? 1 : 0));
      view.setUint32(at + 4, this.#identification);
    }
    return ip + IPV6_HEADER + extension;
  }

  #writeChecksum(view: DataView, at: number, transport: number, datagram: OutgoingDatagram): void {
    const isUdp = datagram.protocol === Protocol.Udp;
    const field = isUdp ? UDP_CHECKSUM : ICMP_CHECKSUM;
    if (this.#piece > 0) {
      view.setUint16(transport + field, this.#checksum);
    } else if (isUdp && this.#options.offload) {
      view.setUint16(transport + field, fold(pseudoSum(datagram)));
      markPartial(view, at, transport - at - VNET_HEADER_LENGTH, field);
    } else {
      view.setUint16(transport + field, completeChecksum(datagram));
    }
  }
}

/** Returns the checksum. For UDP a zero means "no checksum" (RFC 768), so it becomes 0xffff. */
function completeChecksum(datagram: OutgoingDatagram): number {
  const { protocol, first, second, payload } = datagram;
  let sum = protocol === Protocol.Icmp ? 0 : pseudoSum(datagram);
  sum += (first >>> 16) + (first & 0xffff) + (second >>> 16) + (second & 0xffff);
  const checksum = ~fold(sumBytes(payload, 0, payload.length, sum)) & 0xffff;
  return checksum === 0 && protocol === Protocol.Udp ? 0xffff : checksum;
}

function pseudoSum({ protocol, local, remote, payload }: OutgoingDatagram): number {
  let sum = protocol + TRANSPORT_HEADER + payload.length;
  for (const word of local.words) sum += (word >>> 16) + (word & 0xffff);
  for (const word of remote.words) sum += (word >>> 16) + (word & 0xffff);
  return sum;
}

/** Bytes of the header of UDP and of ICMP. */
export const TRANSPORT_HEADER = 8;

/**
 * The longest IPv6 packet of a datagram to a destination of which no report is known, in bytes. The device's own MTU
 * is that of the tunnel, which cuts nothing; what a network behind it refuses is lost, and UDP does not repeat it.
 */
const UNKNOWN_IPV6_MTU = 1500;
