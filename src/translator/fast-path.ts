/**
 * The fast path: forwards, in one pass over the bytes, unfragmented TCP segments and UDP datagrams without
 * IP options and extension headers, and the ICMP errors about them. These are nearly all packets. It never
 * refuses a packet: all others take the slow path (`slow-path.ts`), which gives the same result for these
 * in more steps. A test sends the same packets through both.
 *
 * 1. The IP header has no options, its length and checksum are correct, and it is not a fragment.
 * 2. The path is known.
 * 3. The transport header is complete. A segment with SYN takes the slow path.
 * 4. The virtio-net header is zero, or says only that the checksum is partial, or also that this is a TCP
 *    super-packet.
 * 5. The packet fits the MTU, and the headroom if its IP version changes.
 * 6. The policy permits it. A UDP reply has a recent request.
 * 7. Write checksums and addresses, or a new header; update the session and the path's counters.
 * @module
 */
import { adjustChecksum, fold, foldDelta, longDelta, wordDelta } from '../packet/checksum.ts';
import {
  ICMP_CHECKSUM,
  ICMP_HEADER,
  ICMP_LENGTH_V4,
  IPV4_CHECKSUM,
  IPV4_DESTINATION,
  IPV4_DONT_FRAGMENT,
  IPV4_FRAGMENT_OFFSET,
  IPV4_IDENTIFICATION,
  IPV4_MIN_HEADER,
  IPV4_MORE_FRAGMENTS,
  IPV4_SOURCE,
  IPV4_TTL,
  IPV6_HEADER,
  IPV6_PAYLOAD_LENGTH,
  IPV6_SOURCE,
  KIND_TCP,
  KIND_UDP,
  PROTOCOL_ICMP,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  TCP_CHECKSUM,
  TCP_DATA_OFFSET,
  TCP_FLAG_SYN,
  TCP_MIN_HEADER,
  UDP_CHECKSUM,
  UDP_HEADER,
  UDP_LENGTH,
} from '../packet/fields.ts';
import { MAX_SHORT_SEGMENTS, MIN_LONG_SEGMENT } from '../packet/segments.ts';
import {
  VNET_CSUM_OFFSET,
  VNET_CSUM_START,
  VNET_F_NEEDS_CSUM,
  VNET_GSO_SIZE,
  VNET_GSO_TCPV4,
  VNET_GSO_TCPV6,
  VNET_HEADER_LENGTH,
} from '../packet/virtio.ts';
import {
  PATH_ADDRESSES,
  PATH_DELTA,
  PATH_PAIR,
  PATH_ROUTE,
  REPLY,
  REQUEST,
  ROUTE_EGRESS,
  ROUTE_FAMILY,
  ROUTE_MTU,
  ROUTE_POLICY,
} from './layout.ts';
import { moveOffload } from './offload.ts';
import type { Paths } from './paths.ts';
import { updatedChecksum } from './rewrite.ts';
import { MIN_IPV6_MTU } from './route-table.ts';
import type { Sessions } from './sessions.ts';
import { MAX_WITHOUT_DF, type Siit, VERSION_GROWTH, writeIpv4, writeIpv6 } from './siit.ts';

export class FastPath {
  /** The egress realm of the packet that was forwarded. */
  egress = 0;
  /** How many bytes that packet has grown at its front. */
  growth = 0;
  readonly #paths: Paths;
  readonly #sessions: Sessions;
  readonly #siit: Siit;

  constructor(paths: Paths, sessions: Sessions, siit: Siit) {
    this.#paths = paths;
    this.#sessions = sessions;
    this.#siit = siit;
  }

  /**
   * Forwards the packet and returns true, or returns false and leaves it unchanged. The parameters are those
   * of `translate`; `end` must be within the view.
   */
  forward(
    realm: number,
    view: DataView,
    start: number,
    end: number,
    vnet: number,
    headroom: number,
    now: number
  ): boolean {
    const length = end - start;
    if (!(start >= 0 && length >= IPV4_MIN_HEADER + UDP_HEADER)) return false;
    const first = view.getInt32(start);
    const third = view.getInt32(start + IPV4_TTL);
    const paths = this.#paths;
    let table = paths.v4;
    let path: number;
    let protocol: number;
    let ipHeader = IPV4_MIN_HEADER;
    if (first >>> 24 === 0x45) {
      if ((first & 0xffff) !== length) return false;
      const second = view.getInt32(start + IPV4_IDENTIFICATION);
      if ((second & (IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET)) !== 0) return false;
      const source = view.getInt32(start + IPV4_SOURCE);
      const destination = view.getInt32(start + IPV4_DESTINATION);
      let sum = (first >>> 16) + length + (second >>> 16) + (second & 0xffff);
      sum += (third >>> 16) + (third & 0xffff) + (source >>> 16) + (source & 0xffff);
      sum += (destination >>> 16) + (destination & 0xffff);
      if (fold(sum) !== 0xffff) return false;
      protocol = (third >>> 16) & 0xff;
      if (protocol === PROTOCOL_ICMP) return this.#forwardError(realm, view, start, end, vnet);
      path = table.find3(realm, source, destination);
    } else {
      if (first >>> 28 !== 6 || length < IPV6_HEADER + UDP_HEADER) return false;
      const lengthAndNext = view.getInt32(start + IPV6_PAYLOAD_LENGTH);
      if (lengthAndNext >>> 16 !== length - IPV6_HEADER) return false;
      ipHeader = IPV6_HEADER;
      protocol = (lengthAndNext >>> 8) & 0xff;
      table = paths.v6;
      path = table.find9(realm, view, start + IPV6_SOURCE);
    }
    if (path < 0) return false;

    const transport = start + ipHeader;
    const isTcp = protocol === PROTOCOL_TCP;
    let headers = ipHeader + UDP_HEADER;
    let checksumAt = transport + UDP_CHECKSUM;
    if (isTcp) {
      if (length < ipHeader + TCP_MIN_HEADER) return false;
      const offsetAndFlags = view.getUint16(transport + TCP_DATA_OFFSET);
      const headerLength = (offsetAndFlags >>> 12) << 2;
      headers = ipHeader + headerLength;
      if (headerLength < TCP_MIN_HEADER || headers > length) return false;
      if ((offsetAndFlags & TCP_FLAG_SYN) !== 0) return false;
      checksumAt = transport + TCP_CHECKSUM;
    } else {
      if (protocol !== PROTOCOL_UDP) return false;
      if (view.getUint16(transport + UDP_LENGTH) !== length - ipHeader) return false;
    }

    let size = length;
    let isPartial = false;
    if (vnet >= 0) {
      if (vnet + VNET_HEADER_LENGTH > start) return false;
      const offload = view.getUint16(vnet);
      if (offload !== 0) {
        const segment = this.#segmentOf(view, vnet, offload, ipHeader, checksumAt - transport);
        if (segment < 0) return false;
        // The slow path checks the number of short segments.
        if (segment < MIN_LONG_SEGMENT && length - headers > segment * MAX_SHORT_SEGMENTS) {
          return false;
        }
        size = Math.min(length, headers + segment);
        isPartial = true;
      }
    }
    const checksum = view.getUint16(checksumAt);
    const lacksChecksum = checksum === 0 && !isTcp && !isPartial;

    const { words } = table;
    const at = path * table.stride;
    const value = at + table.keyWords;
    const routes = paths.routes.words;
    const route = words[value + PATH_ROUTE]!;
    const isToIpv4 = routes[route + ROUTE_FAMILY] === 4;
    const isFromIpv4 = ipHeader === IPV4_MIN_HEADER;
    let growth = 0;
    if (isToIpv4 !== isFromIpv4) {
      growth = isFromIpv4 ? VERSION_GROWTH : -VERSION_GROWTH;
      if (lacksChecksum || growth > headroom || length + growth > MAX_TRANSLATED) return false;
      size += growth;
      if (isFromIpv4 && size > MIN_IPV6_MTU) {
        // Without DF it may have to be fragmented.
        if ((view.getInt32(start + IPV4_IDENTIFICATION) & IPV4_DONT_FRAGMENT) === 0) return false;
      }
    }
    if (size > routes[route + ROUTE_MTU]! || (lacksChecksum && !isFromIpv4)) return false;

    const ports = view.getInt32(transport);
    const side = paths.bindings.policies.sideOf(
      routes[route + ROUTE_POLICY]!,
      isTcp ? KIND_TCP : KIND_UDP,
      REQUEST | REPLY,
      ports >>> 16,
      ports & 0xffff
    );
    if (side === 0) return false;
    const egress = routes[route + ROUTE_EGRESS]!;
    if (!isTcp) {
      const pair = words[value + PATH_PAIR]!;
      if (side === REQUEST) {
        this.#sessions.touch(realm, pair, KIND_UDP, ports, now);
      } else {
        const turned = (ports << 16) | (ports >>> 16);
        if (!this.#sessions.isOpen(egress, pair ^ 1, KIND_UDP, turned, now)) return false;
      }
    }

    const delta = words[value + PATH_DELTA]!;
    if (isPartial) {
      view.setUint16(checksumAt, fold(checksum + delta));
    } else if (!lacksChecksum) {
      const after = ~fold((~checksum & 0xffff) + delta) & 0xffff;
      view.setUint16(checksumAt, after === 0 && !isTcp ? 0xffff : after);
    }
    if (growth !== 0) {
      this.#writeSiitHeader(
        view,
        start,
        end,
        vnet,
        protocol,
        table.wide,
        words[value + PATH_ADDRESSES]!
      );
    } else if (isFromIpv4) {
      view.setInt32(start + IPV4_SOURCE, words[value + PATH_ADDRESSES]!);
      view.setInt32(start + IPV4_DESTINATION, words[value + PATH_ADDRESSES + 1]!);
      view.setUint16(start + IPV4_CHECKSUM, ~fold((~third & 0xffff) + delta));
    } else {
      for (let i = 0; i < 8; i++) {
        view.setInt32(start + IPV6_SOURCE + 4 * i, words[value + PATH_ADDRESSES + i]!);
      }
    }
    const counter = (at >>> 1) + table.counters;
    table.floats[counter]!++;
    table.floats[counter + 1]! += length;
    this.egress = egress;
    this.growth = growth;
    return true;
  }

  /**
   * Returns the payload in bytes of each segment of a super-packet, or 0xffff for another packet with a
   * partial checksum; -1 if the virtio-net header says anything else.
   */
  #segmentOf(
    view: DataView,
    vnet: number,
    offload: number,
    ipHeader: number,
    checksumOffset: number
  ): number {
    if (view.getUint16(vnet + VNET_CSUM_START, true) !== ipHeader) return -1;
    if (view.getUint16(vnet + VNET_CSUM_OFFSET, true) !== checksumOffset) return -1;
    if (offload === PARTIAL) return 0xffff;
    const superPacket = ipHeader === IPV4_MIN_HEADER ? PARTIAL_TCPV4 : PARTIAL_TCPV6;
    if (offload !== superPacket || checksumOffset !== TCP_CHECKSUM) return -1;
    const segment = view.getUint16(vnet + VNET_GSO_SIZE, true);
    return segment === 0 ? -1 : segment;
  }

  /**
   * Forwards an ICMP error over IPv4 that quotes a segment or datagram without options and has no
   * extensions (RFC 4884). Its IP header was checked.
   */
  #forwardError(realm: number, view: DataView, start: number, end: number, vnet: number): boolean {
    const length = end - start;
    const icmp = start + IPV4_MIN_HEADER;
    const quote = icmp + ICMP_HEADER;
    const transport = quote + IPV4_MIN_HEADER;
    if (end - transport < UDP_HEADER) return false;
    const type = view.getUint8(icmp);
    if (type !== 3 && type !== 11 && type !== 12) return false;
    if (view.getUint8(icmp + ICMP_LENGTH_V4) !== 0) return false;
    if (vnet >= 0 && (vnet + VNET_HEADER_LENGTH > start || view.getUint16(vnet) !== 0)) {
      return false;
    }
    const first = view.getInt32(quote);
    const quotedLength = first & 0xffff;
    if (first >>> 24 !== 0x45 || quotedLength < IPV4_MIN_HEADER + UDP_HEADER) return false;
    const second = view.getInt32(quote + IPV4_IDENTIFICATION);
    if ((second & (IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET)) !== 0) return false;
    const third = view.getInt32(quote + IPV4_TTL);
    const protocol = (third >>> 16) & 0xff;
    const isTcp = protocol === PROTOCOL_TCP;
    if (!isTcp && protocol !== PROTOCOL_UDP) return false;
    const source = view.getInt32(start + IPV4_SOURCE);
    const destination = view.getInt32(start + IPV4_DESTINATION);
    if (view.getInt32(quote + IPV4_SOURCE) !== destination) return false;

    const paths = this.#paths;
    const table = paths.v4;
    const path = table.find3(realm, view.getInt32(quote + IPV4_DESTINATION), destination);
    if (path < 0) return false;
    const { words } = table;
    const value = path * table.stride + table.keyWords;
    const routes = paths.routes.words;
    const route = words[value + PATH_ROUTE]!;
    if (routes[route + ROUTE_FAMILY] !== 4 || length > routes[route + ROUTE_MTU]!) return false;
    const kind = isTcp ? KIND_TCP : KIND_UDP;
    const ports = view.getInt32(transport);
    const side = paths.bindings.policies.sideOf(
      routes[route + ROUTE_POLICY]!,
      kind,
      REQUEST | REPLY,
      ports & 0xffff,
      ports >>> 16
    );
    if (side === 0) return false;

    const delta = words[value + PATH_DELTA]!;
    const newSource = words[value + PATH_ADDRESSES]!;
    const newDestination = words[value + PATH_ADDRESSES + 1]!;
    view.setInt32(quote + IPV4_SOURCE, newDestination);
    view.setInt32(quote + IPV4_DESTINATION, newSource);
    const quotedHeader = third & 0xffff;
    const newQuotedHeader = adjustChecksum(quotedHeader, delta);
    view.setUint16(quote + IPV4_CHECKSUM, newQuotedHeader);
    let change = delta + wordDelta(quotedHeader, newQuotedHeader);
    const checksumAt = transport + (isTcp ? TCP_CHECKSUM : UDP_CHECKSUM);
    if (checksumAt + 2 <= Math.min(end, quote + quotedLength)) {
      const quoted = view.getUint16(checksumAt);
      const newQuoted = updatedChecksum(kind, quoted, delta, false);
      view.setUint16(checksumAt, newQuoted);
      change += wordDelta(quoted, newQuoted);
    }
    const checksum = view.getUint16(icmp + ICMP_CHECKSUM);
    view.setUint16(icmp + ICMP_CHECKSUM, adjustChecksum(checksum, foldDelta(change)));
    const outerDelta = foldDelta(
      longDelta(source, newSource) + longDelta(destination, newDestination)
    );
    const outer = view.getUint16(start + IPV4_CHECKSUM);
    view.setUint16(start + IPV4_CHECKSUM, adjustChecksum(outer, outerDelta));
    view.setInt32(start + IPV4_SOURCE, newSource);
    view.setInt32(start + IPV4_DESTINATION, newDestination);
    table.count(path, 1, length);
    this.egress = routes[route + ROUTE_EGRESS]!;
    this.growth = 0;
    return true;
  }

  /** Writes the header of the other IP version, which ends where the old one ended. */
  #writeSiitHeader(
    view: DataView,
    start: number,
    end: number,
    vnet: number,
    protocol: number,
    addresses: Int32Array,
    at: number
  ): void {
    const first = view.getInt32(start);
    if (first >>> 28 === 4) {
      const classAndLimit = ((first >>> 8) & 0xff00) | view.getUint8(start + IPV4_TTL);
      const to = start - VERSION_GROWTH;
      if (vnet >= 0) moveOffload(view, vnet, VERSION_GROWTH, VERSION_GROWTH, 6, false);
      writeIpv6(view, to, classAndLimit, end - to - IPV6_HEADER, protocol, addresses, at, at + 4);
      return;
    }
    const classAndLimit = ((first >>> 12) & 0xff00) | (view.getInt32(start + 4) & 0xff);
    const to = start + VERSION_GROWTH;
    const length = end - to;
    const fragment =
      length > MAX_WITHOUT_DF ? IPV4_DONT_FRAGMENT : this.#siit.nextIdentification() << 16;
    if (vnet >= 0) moveOffload(view, vnet, -VERSION_GROWTH, -VERSION_GROWTH, 4, false);
    writeIpv4(
      view,
      to,
      classAndLimit,
      length,
      fragment,
      protocol,
      addresses[at]!,
      addresses[at + 4]!
    );
  }
}

/** Values of `flags` and `gso_type`, the first two bytes of a virtio-net header. */
const PARTIAL: number = VNET_F_NEEDS_CSUM << 8;
const PARTIAL_TCPV4: number = (VNET_F_NEEDS_CSUM << 8) | VNET_GSO_TCPV4;
const PARTIAL_TCPV6: number = (VNET_F_NEEDS_CSUM << 8) | VNET_GSO_TCPV6;
/** The longest packet that changes its version here: the length fields of both versions can describe it. */
const MAX_TRANSLATED = 65_535;
