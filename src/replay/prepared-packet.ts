/**
 * A captured IP packet as a gateway would have got it: alone in a buffer with headroom, without link padding, and of its
 * full length. What a capture changes is undone where that is safe, and counted:
 *
 * - A snap length has cut the end: the bytes that are missing are zeros. The translator reads only headers. If those are
 *   cut, the packet is not judged.
 * - A network card was to fill in the length or the checksum of the IPv4 header (offload): both are computed.
 * @module
 */
import { IpAddress } from '../base/address.ts';
import { fold, sumView } from '../packet/checksum.ts';
import {
  FragmentPart,
  ICMP_HEADER,
  IPV4_CHECKSUM,
  IPV4_MIN_HEADER,
  IPV4_TOTAL_LENGTH,
  IPV6_HEADER,
  IPV6_PAYLOAD_LENGTH,
  PacketKind,
  Parse,
  SCTP_HEADER,
  TCP_MIN_HEADER,
  UDP_HEADER,
} from '../packet/fields.ts';
import { PacketHeader } from '../packet/header.ts';
import { TRANSLATION_HEADROOM } from '../translator/index.ts';
import type { CapturedPacket } from './captured-packet.ts';

/** What became of a packet. */
export type Preparation =
  /** Its headers are whole; `outcome` says whether they are right. */
  | 'ready'
  /** The capture has not all of its headers. */
  | 'cut';

export class PreparedPacket {
  /** The packet is `bytes[start .. end)`. */
  readonly bytes: Uint8Array = new Uint8Array(TRANSLATION_HEADROOM + MAX_BYTES);
  readonly view: DataView = new DataView(this.bytes.buffer);
  readonly start: number = TRANSLATION_HEADROOM;
  end = 0;
  readonly header: PacketHeader = new PacketHeader();
  /** Of the packet that an ICMP error quotes. Valid iff `hasQuote`. */
  readonly quote: PacketHeader = new PacketHeader();
  hasQuote = false;
  /** Whether the headers are right. The fields of `header` are valid iff it is `Parse.Ok`. */
  outcome: Parse = Parse.Ok;
  /** Whether zeros stand for bytes that a snap length has cut. */
  isPadded = false;
  /** Whether the length or the checksum of its IPv4 header was computed, because a network card would have done it. */
  isCompleted = false;

  readonly #text: Buffer = Buffer.from(this.bytes.buffer);

  /**
   * Takes the IP packet that begins at `at` in the bytes of a captured one.
   */
  prepare({ bytes, start: frame, end, wireLength }: CapturedPacket, at: number): Preparation {
    const captured = Math.min(end - at, MAX_BYTES);
    const onWire = Math.min(wireLength - (at - frame), MAX_BYTES);
    this.bytes.set(bytes.subarray(at, at + captured), this.start);
    this.isPadded = false;
    this.isCompleted = false;
    this.hasQuote = false;
    const isIpv4 = this.bytes[this.start]! >> 4 === 4;
    if (captured < (isIpv4 ? IPV4_MIN_HEADER : IPV6_HEADER)) return 'cut';
    const length = isIpv4 ? this.#lengthOfIpv4(onWire) : this.#lengthOfIpv6(onWire);
    // A packet that is longer than its frame was is judged as it is.
    this.isPadded = captured < length && length <= onWire;
    this.end = this.start + (this.isPadded ? length : Math.min(captured, length));
    if (this.isPadded) this.bytes.fill(0, this.start + captured, this.end);
    if (isIpv4) this.#completeChecksum(captured);

    this.outcome = this.header.parse(this.view, this.start, this.end);
    if (this.isPadded && captured < this.#headerLength()) return 'cut';
    if (this.outcome === Parse.Ok && this.header.kind === PacketKind.IcmpError) this.#parseQuote();
    return 'ready';
  }

  /** Returns the address that begins at an offset of the buffer. */
  addressAt(offset: number): IpAddress {
    return IpAddress.fromBytes(this.header.family, this.bytes, offset);
  }

  /** Returns the bytes of the buffer from `from` to `to` as a text of as many characters, which is a key for a `Map`. */
  key(from: number, to: number): string {
    return this.#text.toString('latin1', from, to);
  }

  /** The length that the header gives, or that of the frame if a network card was to fill it in. */
  #lengthOfIpv4(onWire: number): number {
    const at = this.start + IPV4_TOTAL_LENGTH;
    const length = this.view.getUint16(at);
    if (length !== 0) return length;
    const computed = Math.min(onWire, MAX_IPV4);
    this.view.setUint16(at, computed);
    this.view.setUint16(this.start + IPV4_CHECKSUM, 0);
    this.isCompleted = true;
    return computed;
  }

  #lengthOfIpv6(onWire: number): number {
    const at = this.start + IPV6_PAYLOAD_LENGTH;
    const payload = this.view.getUint16(at);
    if (payload !== 0 || onWire === IPV6_HEADER) return IPV6_HEADER + payload;
    this.view.setUint16(at, onWire - IPV6_HEADER);
    this.isCompleted = true;
    return onWire;
  }

  /** Computes the checksum of an IPv4 header that has none. A wrong one stays wrong. */
  #completeChecksum(captured: number): void {
    const at = this.start + IPV4_CHECKSUM;
    const headerLength = (this.bytes[this.start]! & 0x0f) << 2;
    if (this.view.getUint16(at) !== 0 || headerLength > captured) return;
    if (headerLength < IPV4_MIN_HEADER) return;
    const sum = fold(sumView(this.view, this.start, this.start + headerLength, 0));
    if (sum === 0xffff) return;
    this.view.setUint16(at, ~sum & 0xffff);
    this.isCompleted = true;
  }

  /** How many bytes of the packet have to be there so that it can be judged. */
  #headerLength(): number {
    const { header } = this;
    if (this.outcome !== Parse.Ok) return LEAST_FOR_MALFORMED;
    const before = header.transport - this.start;
    if (header.part === FragmentPart.Later) return before;
    switch (header.kind) {
      case PacketKind.Tcp:
        return before + TCP_MIN_HEADER;
      case PacketKind.Udp:
      case PacketKind.UdpLite:
        return before + UDP_HEADER;
      case PacketKind.Sctp:
        return before + SCTP_HEADER;
      case PacketKind.Other:
        return before;
      case PacketKind.IcmpError:
        return (
          before + ICMP_HEADER + (header.family === 4 ? IPV4_MIN_HEADER : IPV6_HEADER) + UDP_HEADER
        );
      default:
        return before + ICMP_HEADER;
    }
  }

  #parseQuote(): void {
    const end = this.header.findQuoteEnd(this.view);
    if (end < 0) return;
    const start = this.header.transport + ICMP_HEADER;
    this.hasQuote = this.quote.parseQuote(this.view, start, end) === Parse.Ok;
  }
}

const MAX_IPV4 = 65_535;
/** The longest packet: an IPv6 header and its payload. */
const MAX_BYTES: number = IPV6_HEADER + 65_535;
/** If fewer bytes than these are there, it is the cut that makes a packet malformed. */
const LEAST_FOR_MALFORMED = 128;
