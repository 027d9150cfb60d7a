/**
 * Splits packets for a device without offloads, as a kernel does (GSO): super-packets into segments, packets
 * that are too long into fragments. It also completes partial checksums. Segments are as the sender would
 * have sent them ([RFC 9293](https://www.rfc-editor.org/rfc/rfc9293),
 * [RFC 768](https://www.rfc-editor.org/rfc/rfc768)), fragments as
 * [RFC 791 section 3.2](https://www.rfc-editor.org/rfc/rfc791#section-3.2) and
 * [RFC 8200 section 4.5](https://www.rfc-editor.org/rfc/rfc8200#section-4.5) say. A *piece* is one segment or
 * one fragment.
 *
 * 1. `begin` checks the IP headers (`ip-layout.ts`) and the virtio-net header, and decides between one
 *    frame, segments (a bounded number) and fragments.
 * 2. It copies the headers that all pieces share to the frame, once.
 * 3. `next` copies the payload of one piece behind them and sums it at the same time (`copy-sum.ts`).
 * 4. It sets the fields that differ between pieces: lengths, identification, sequence number, flags,
 *    fragment offset, checksums.
 * @module
 */
import { randomInt } from 'node:crypto';
import { fold, sumBytes } from './checksum.ts';
import { copySum } from './copy-sum.ts';
import {
  IPV4_CHECKSUM,
  IPV4_FRAGMENT,
  IPV4_IDENTIFICATION,
  IPV4_MIN_HEADER,
  IPV4_MORE_FRAGMENTS,
  IPV4_TOTAL_LENGTH,
  IPV6_HEADER,
  IPV6_PAYLOAD_LENGTH,
  Protocol,
  TCP_CHECKSUM,
  TCP_DATA_OFFSET,
  TCP_FLAG_FIN,
  TCP_FLAG_SYN,
  TCP_FLAGS,
  TCP_MIN_HEADER,
  TCP_SEQUENCE,
  UDP_CHECKSUM,
  UDP_HEADER,
  UDP_LENGTH,
} from './fields.ts';
import { blankUncopiedOptions, IpLayout } from './ip-layout.ts';
import { Extension, FRAGMENT_HEADER } from './ipv6-extensions.ts';
import { makesTooManySegments } from './segments.ts';
import {
  MAX_PACKET_LENGTH,
  VNET_CSUM_OFFSET,
  VNET_CSUM_START,
  VNET_F_NEEDS_CSUM,
  VNET_FLAGS,
  VNET_GSO_ECN,
  VNET_GSO_NONE,
  VNET_GSO_SIZE,
  VNET_GSO_TCPV4,
  VNET_GSO_TCPV6,
  VNET_GSO_TYPE,
  VNET_GSO_UDP_L4,
  VNET_HEADER_LENGTH,
} from './virtio.ts';

/** The outcome of `PacketSegmenter.begin`. */
export const SegmentResult = {
  /** `next` returns the frames, at least one. */
  Ready: 0,
  /** The packet or its virtio-net header contradicts itself, or has an unknown type. */
  Malformed: 1,
  /** The packet must not be fragmented, or the size leaves no room for payload behind the headers. */
  TooBig: 2,
  /** The packet would make too many segments (`segments.ts`). */
  TooMany: 3,
} as const;
export type SegmentResult = (typeof SegmentResult)[keyof typeof SegmentResult];

const Piece = { None: 0, Whole: 1, Tcp: 2, Udp: 3, Fragment: 4 } as const;
type Piece = (typeof Piece)[keyof typeof Piece];

/**
 * Works on one packet at a time and can be used for any number of packets.
 *
 * The caller pulls the frames: it may stop before the last one, and needs no callback for each packet.
 *
 * ```ts
 * if (segmenter.begin(buffer, vnet, start, end, device.mtu) === SegmentResult.Ready) {
 *   for (let length = segmenter.next(); length > 0; length = segmenter.next()) {
 *     device.write(segmenter.frame, 0, length);
 *   }
 * }
 * ```
 */
export class PacketSegmenter {
  /**
   * The frame of the last `next`, from the first byte on: a virtio-net header of zeros and a packet. Do not
   * write to it; it is valid until the next call.
   */
  readonly frame: Buffer;

  readonly #words: Int32Array;
  readonly #out: DataView;
  readonly #layout: IpLayout = new IpLayout();
  /** The identification for the next packet that needs a new fragment header. */
  #identification: number;

  /** The buffer of the last packet, and its view, which is made again only for another buffer. */
  #buffer: Uint8Array = EMPTY;
  #view: DataView = new DataView(EMPTY.buffer);

  #piece: Piece = Piece.None;
  /** The largest payload of a piece in bytes. */
  #pieceLength = 0;
  /** The length in bytes of the headers in front of a piece's payload. */
  #headers = 0;
  /** Offsets in the buffer: the begin of the payload, the begin of the next piece, the end. */
  #payload = 0;
  #at = 0;
  #end = 0;

  #isPartial = false;
  /** Offsets in the packet: the begin of what the transport checksum covers, and the checksum field. */
  #covered = 0;
  #checksum = 0;
  /** The pseudo-header sum without the length for segments, the complete checksum for fragments. */
  #sum = 0;
  #tcpFlags = 0;

  /**
   * @param identification the identification of the first packet that gets an IPv6 fragment header; it
   *   grows by one for each. Random by default ([RFC 7739](https://www.rfc-editor.org/rfc/rfc7739)).
   */
  constructor(identification: number = randomInt(2 ** 32)) {
    const scratch = new ArrayBuffer((FRAME_START + LONGEST_FRAME + 3) & ~3);
    this.frame = Buffer.from(scratch, FRAME_START, LONGEST_FRAME);
    this.#words = new Int32Array(scratch);
    this.#out = new DataView(scratch, PACKET_START);
    this.#identification = identification;
  }

  /**
   * Begins to split the packet `buffer[start .. end)` into packets of at most `size` bytes. The bytes must
   * not change until the last `next`. A packet that fits becomes one frame. The segmenter fragments any IPv6
   * packet: the caller decides whether it may.
   *
   * @param vnet offset of the virtio-net header, which is somewhere in front of the packet; -1: none.
   */
  begin(buffer: Uint8Array, vnet: number, start: number, end: number, size: number): SegmentResult {
    this.#piece = Piece.None;
    if (start < (vnet < 0 ? 0 : vnet + VNET_HEADER_LENGTH)) return SegmentResult.Malformed;
    if (end > buffer.length) return SegmentResult.Malformed;
    if (buffer !== this.#buffer) {
      this.#buffer = buffer;
      this.#view = new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength);
    }
    const view = this.#view;
    const layout = this.#layout;
    if (!layout.read(view, start, end)) return SegmentResult.Malformed;

    this.#isPartial = vnet >= 0 && (view.getUint8(vnet + VNET_FLAGS) & VNET_F_NEEDS_CSUM) !== 0;
    if (this.#isPartial && !this.#readPartial(vnet, end - start)) return SegmentResult.Malformed;
    const type = vnet < 0 ? VNET_GSO_NONE : view.getUint8(vnet + VNET_GSO_TYPE) & ~VNET_GSO_ECN;
    if (type !== VNET_GSO_NONE) {
      if (!this.#isPartial) return SegmentResult.Malformed;
      const segment = view.getUint16(vnet + VNET_GSO_SIZE, true);
      return this.#beginSegments(type, segment, start, end, size);
    }
    if (end - start > size) return this.#beginFragments(start, end, size);

    const headers = this.#isPartial ? this.#covered : layout.perFragment;
    this.#beginPieces(Piece.Whole, headers, headers, MAX_PACKET_LENGTH, start, end);
    return SegmentResult.Ready;
  }

  /** Writes the next frame to `frame`. Returns its length, or 0 after the last one. */
  next(): number {
    if (this.#piece === Piece.None) return 0;
    const left = this.#end - this.#at;
    const isLast = left <= this.#pieceLength;
    const length = isLast ? left : this.#pieceLength;
    const word = (PACKET_START + this.#headers) >> 2;
    const sum = copySum(this.#view, this.#at, this.#words, word, length);
    switch (this.#piece) {
      case Piece.Tcp:
      case Piece.Udp:
        this.#setSegment(length, sum, isLast);
        break;
      case Piece.Fragment:
        this.#setFragment(length, isLast);
        break;
      default:
        if (this.#isPartial) this.#out.setUint16(this.#checksum, this.#complete(sum));
    }
    this.#at += length;
    if (isLast) this.#piece = Piece.None;
    return VNET_HEADER_LENGTH + this.#headers + length;
  }

  /** Reads the place of the partial checksum. Returns whether the packet can have a checksum there. */
  #readPartial(vnet: number, length: number): boolean {
    const covered = this.#view.getUint16(vnet + VNET_CSUM_START, true);
    const field = this.#view.getUint16(vnet + VNET_CSUM_OFFSET, true);
    this.#covered = covered;
    this.#checksum = covered + field;
    // The length of IP headers is a multiple of 4, and the offset of a checksum is even.
    if ((covered & 3) !== 0 || (field & 1) !== 0) return false;
    if (covered < this.#layout.perFragment || this.#checksum + 2 > length) return false;
    return !this.#layout.isFragment;
  }

  #beginSegments(
    type: number,
    segment: number,
    start: number,
    end: number,
    size: number
  ): SegmentResult {
    const { family, protocol, transport } = this.#layout;
    const view = this.#view;
    const length = end - start - transport;
    if (segment === 0 || this.#covered !== transport) return SegmentResult.Malformed;

    let headers = transport;
    if (type === VNET_GSO_UDP_L4) {
      if (protocol !== Protocol.Udp || length < UDP_HEADER) return SegmentResult.Malformed;
      if (this.#checksum !== transport + UDP_CHECKSUM) return SegmentResult.Malformed;
      if (view.getUint16(start + transport + UDP_LENGTH) !== length) return SegmentResult.Malformed;
      headers += UDP_HEADER;
    } else {
      if (type !== (family === 4 ? VNET_GSO_TCPV4 : VNET_GSO_TCPV6)) return SegmentResult.Malformed;
      if (protocol !== Protocol.Tcp || length < TCP_MIN_HEADER) return SegmentResult.Malformed;
      if (this.#checksum !== transport + TCP_CHECKSUM) return SegmentResult.Malformed;
      const header = (view.getUint8(start + transport + TCP_DATA_OFFSET) >>> 4) << 2;
      if (header < TCP_MIN_HEADER || header > length) return SegmentResult.Malformed;
      this.#tcpFlags = view.getUint8(start + transport + TCP_FLAGS);
      // SYN takes a sequence number, so a super-packet cannot have it.
      if ((this.#tcpFlags & TCP_FLAG_SYN) !== 0) return SegmentResult.Malformed;
      headers += header;
    }
    const payload = end - start - headers;
    if (headers + Math.min(segment, payload) > size) return SegmentResult.TooBig;
    if (makesTooManySegments(type === VNET_GSO_UDP_L4, payload, segment))
      return SegmentResult.TooMany;

    const partial = view.getUint16(start + this.#checksum);
    this.#sum = fold(partial + (~length & 0xffff));
    const piece = type === VNET_GSO_UDP_L4 ? Piece.Udp : Piece.Tcp;
    this.#beginPieces(piece, headers, headers, segment, start, end);
    return SegmentResult.Ready;
  }

  #setSegment(length: number, payloadSum: number, isLast: boolean): void {
    const out = this.#out;
    const isFirst = this.#at === this.#payload;
    if (!isFirst && this.#layout.family === 4) {
      out.setUint16(IPV4_IDENTIFICATION, out.getUint16(IPV4_IDENTIFICATION) + 1);
    }
    this.#setIpLength(length);

    const transport = this.#layout.transport;
    const transportLength = this.#headers + length - transport;
    if (this.#piece === Piece.Udp) {
      out.setUint16(transport + UDP_LENGTH, transportLength);
    } else {
      const sequence = transport + TCP_SEQUENCE;
      if (!isFirst) out.setInt32(sequence, out.getInt32(sequence) + this.#pieceLength);
      // FIN and PSH belong to the last segment, CWR to the first (RFC 3168).
      let flags = this.#tcpFlags;
      if (!isLast) flags &= ~(TCP_FLAG_FIN | TCP_FLAG_PSH);
      if (!isFirst) flags &= ~TCP_FLAG_CWR;
      out.setUint8(transport + TCP_FLAGS, flags);
    }
    out.setUint16(this.#checksum, fold(this.#sum + transportLength));
    const first = VNET_HEADER_LENGTH + transport;
    const behind = VNET_HEADER_LENGTH + this.#headers;
    const sum = sumBytes(this.frame, first, behind, payloadSum);
    out.setUint16(this.#checksum, this.#complete(fold(sum)));
  }

  #beginFragments(start: number, end: number, size: number): SegmentResult {
    const layout = this.#layout;
    const length = end - start;
    const common = layout.perFragment;
    const needsFragmentHeader = layout.family === 6 && !layout.hasFragmentHeader;
    const headers = common + (needsFragmentHeader ? FRAGMENT_HEADER : 0);
    if (layout.offset + length - common > MAX_DATAGRAM) return SegmentResult.Malformed;
    if (layout.moreFragments && ((length - common) & 7) !== 0) return SegmentResult.Malformed;
    const pieceLength = (size - headers) & ~7;
    if (layout.dontFragment || pieceLength <= 0) return SegmentResult.TooBig;
    // RFC 7112: the first fragment of IPv6 contains all headers.
    if (layout.family === 6 && layout.offset === 0) {
      const chain = Math.min(layout.transport + MAX_TRANSPORT_HEADER, length);
      if (chain > common + pieceLength) return SegmentResult.TooBig;
    }

    if (this.#isPartial) {
      // The first fragment may carry the checksum of the datagram, so sum all of it now. The copy that
      // `copySum` makes is overwritten.
      const covered = this.#covered;
      this.#sum = this.#complete(
        copySum(this.#view, start + covered, this.#words, PACKET_START >> 2, length - covered)
      );
    }
    this.#beginPieces(Piece.Fragment, headers, common, pieceLength, start, end);
    if (needsFragmentHeader) {
      const out = this.#out;
      out.setUint8(common, out.getUint8(layout.nextHeader));
      out.setUint8(common + 1, 0);
      out.setInt32(common + 4, this.#identification++);
      out.setUint8(layout.nextHeader, Extension.Fragment);
    }
    return SegmentResult.Ready;
  }

  #setFragment(length: number, isLast: boolean): void {
    const out = this.#out;
    const layout = this.#layout;
    const done = this.#at - this.#payload;
    const offset = layout.offset + done;
    const moreFragments = !isLast || layout.moreFragments;
    if (layout.family === 4) {
      out.setUint16(IPV4_FRAGMENT, (offset >>> 3) | (moreFragments ? IPV4_MORE_FRAGMENTS : 0));
      if (done > 0) blankUncopiedOptions(out, IPV4_MIN_HEADER, this.#headers);
    } else {
      out.setUint16(this.#headers - FRAGMENT_HEADER + 2, offset | (moreFragments ? 1 : 0));
    }
    this.#setIpLength(length);

    if (!this.#isPartial) return;
    const checksum = this.#checksum - layout.perFragment - done;
    if (checksum >= 0 && checksum < length) out.setUint16(this.#headers + checksum, this.#sum);
  }

  /** Copies the first `copied` bytes of the packet to the frame as headers and sets up the pieces. */
  #beginPieces(
    piece: Piece,
    headers: number,
    copied: number,
    pieceLength: number,
    start: number,
    end: number
  ): void {
    copySum(this.#view, start, this.#words, PACKET_START >> 2, copied);
    this.#piece = piece;
    this.#pieceLength = pieceLength;
    this.#headers = headers;
    this.#payload = start + copied;
    this.#at = start + copied;
    this.#end = end;
  }

  #setIpLength(length: number): void {
    const out = this.#out;
    if (this.#layout.family === 6) {
      out.setUint16(IPV6_PAYLOAD_LENGTH, this.#headers + length - IPV6_HEADER);
      return;
    }
    out.setUint16(IPV4_TOTAL_LENGTH, this.#headers + length);
    out.setUint16(IPV4_CHECKSUM, 0);
    const behind = VNET_HEADER_LENGTH + this.#layout.perFragment;
    out.setUint16(IPV4_CHECKSUM, ~fold(sumBytes(this.frame, VNET_HEADER_LENGTH, behind, 0)));
  }

  /** Returns the checksum for a sum. For UDP a zero means "no checksum" (RFC 768), so it becomes 0xffff. */
  #complete(sum: number): number {
    const checksum = ~sum & 0xffff;
    return checksum === 0 && this.#checksum - this.#covered === UDP_CHECKSUM ? 0xffff : checksum;
  }
}

const EMPTY: Uint8Array<ArrayBuffer> = /* @__PURE__ */ new Uint8Array(0);

const TCP_FLAG_PSH = 0x08;
/** Congestion window reduced ([RFC 3168](https://www.rfc-editor.org/rfc/rfc3168)). */
const TCP_FLAG_CWR = 0x80;
const MAX_TRANSPORT_HEADER = 60; // TCP with all its options
const MAX_DATAGRAM = 65_535;

/** Aligns the packet in the frame, and so its headers and payload, to 4 bytes. */
const FRAME_START = 2;
const PACKET_START = FRAME_START + VNET_HEADER_LENGTH;
const LONGEST_FRAME = VNET_HEADER_LENGTH + IPV6_HEADER + MAX_DATAGRAM;
