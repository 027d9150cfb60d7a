/**
 * TCP segments in frames: `SegmentReader` reads the fields of a received one, `SegmentWriter` writes the headers of one
 * to send ([RFC 9293 section 3.1](https://www.rfc-editor.org/rfc/rfc9293#section-3.1)). IPv4 and IPv6 differ in this
 * file alone.
 * @module
 */
import { IpAddress } from '../base/address.ts';
import { fold } from '../packet/checksum.ts';
import {
  IPV4_DONT_FRAGMENT,
  Protocol,
  TCP_ACKNOWLEDGEMENT,
  TCP_CHECKSUM,
  TCP_DATA_OFFSET,
  TCP_FLAG_ACK,
  TCP_FLAG_FIN,
  TCP_FLAG_RST,
  TCP_FLAG_SYN,
  TCP_FLAGS,
  TCP_MIN_HEADER,
  TCP_SEQUENCE,
} from '../packet/fields.ts';
import type { PacketHeader } from '../packet/header.ts';
import {
  ipHeaderLength,
  pseudoHeaderSum,
  sourceOffset,
  writeAddresses,
  writeIpv4Header,
  writeIpv6Header,
} from '../packet/ip-writer.ts';
import {
  hasRightChecksum,
  isChecksumTrusted,
  markPartial,
  transportSum,
} from '../packet/transport-checksum.ts';
import { PacketView } from '../packet/view.ts';
import {
  VNET_GSO_SIZE,
  VNET_GSO_TCPV4,
  VNET_GSO_TCPV6,
  VNET_GSO_TYPE,
  VNET_HDR_LEN,
  VNET_HEADER_LENGTH,
} from '../packet/virtio.ts';
import type { Flow } from './flow.ts';
import { TcpOptions } from './options.ts';

export const FLAG_FIN: number = TCP_FLAG_FIN;
export const FLAG_SYN: number = TCP_FLAG_SYN;
export const FLAG_RST: number = TCP_FLAG_RST;
export const FLAG_PSH = 0x08;
export const FLAG_ACK: number = TCP_FLAG_ACK;

/** The fields of one received segment. The caller reuses one object for all segments. */
export class SegmentReader {
  family: 4 | 6 = 4;
  /** The source address, then the destination: one word each (IPv4) or four (IPv6). */
  readonly words: Int32Array = new Int32Array(8);
  /** The words of the source and of the destination; views of `words`. */
  source: Int32Array = this.words.subarray(0, 1);
  destination: Int32Array = this.words.subarray(1, 2);
  sourcePort = 0;
  destinationPort = 0;
  sequence = 0;
  acknowledgement = 0;
  flags = 0;
  /** The window field, not scaled. */
  window = 0;
  readonly options: TcpOptions = new TcpOptions();
  /** The frame's buffer, and the range of the payload in it. */
  buffer: Uint8Array = EMPTY;
  payload = 0;
  end = 0;

  readonly #source4 = this.source;
  readonly #destination4 = this.destination;
  readonly #source6 = this.words.subarray(0, 4);
  readonly #destination6 = this.words.subarray(4, 8);
  /** The ends of the flow made last. The next one often has the same, and then need not keep them again. */
  #local: IpAddress | undefined;
  #remote: IpAddress | undefined;

  /** The length in sequence numbers (SEG.LEN): the payload, and one each for SYN and FIN. */
  get length(): number {
    const { flags } = this;
    return (
      this.end -
      this.payload +
      ((flags & FLAG_SYN) === 0 ? 0 : 1) +
      ((flags & FLAG_FIN) === 0 ? 0 : 1)
    );
  }

  /** Whether the segment goes to this end of the flow, from the other. */
  isOf(flow: Flow): boolean {
    return (
      this.destinationPort === flow.localPort &&
      this.sourcePort === flow.remotePort &&
      this.family === flow.family &&
      sameWords(this.source, flow.remote.words) &&
      sameWords(this.destination, flow.local.words)
    );
  }

  /** Makes the flow of the segment, as this endpoint sees it. */
  flow(hash: number): Flow {
    this.#local = addressOf(this.destination, this.#local);
    this.#remote = addressOf(this.source, this.#remote);
    return {
      family: this.family,
      local: this.#local,
      localPort: this.destinationPort,
      remote: this.#remote,
      remotePort: this.sourcePort,
      hash,
    };
  }

  has(flag: number): boolean {
    return (this.flags & flag) !== 0;
  }

  /**
   * Reads the segment of a packet that `header` has parsed as TCP. Returns false if its checksum is wrong. The checksum
   * is not computed if the virtio-net header vouches for it.
   *
   * @param vnet the offset of the virtio-net header in `buffer`
   */
  read(buffer: Uint8Array, view: DataView, vnet: number, header: PacketHeader): boolean {
    const { transport, end, source } = header;
    this.family = header.family;
    const isIpv4 = header.family === 4;
    this.source = isIpv4 ? this.#source4 : this.#source6;
    this.destination = isIpv4 ? this.#destination4 : this.#destination6;
    const words = isIpv4 ? 2 : 8;
    for (let i = 0; i < words; i++) this.words[i] = view.getInt32(source + 4 * i);
    if (!isChecksumTrusted(view, vnet) && !hasRightChecksum(view, header)) return false;
    this.sourcePort = header.sourcePort;
    this.destinationPort = header.destinationPort;
    this.sequence = view.getInt32(transport + TCP_SEQUENCE);
    this.acknowledgement = view.getInt32(transport + TCP_ACKNOWLEDGEMENT);
    this.flags = view.getUint8(transport + TCP_FLAGS);
    this.window = view.getUint16(transport + TCP_WINDOW);
    this.buffer = buffer;
    this.payload = transport + ((view.getUint8(transport + TCP_DATA_OFFSET) >>> 4) << 2);
    this.end = end;
    this.options.read(view, transport + TCP_MIN_HEADER, this.payload);
    return true;
  }
}

/** The headers of one segment to send. The caller sets the fields and reuses one object for all segments. */
export class SegmentWriter {
  sequence = 0;
  acknowledgement = 0;
  flags = 0;
  /** The window field, already scaled. */
  window = 0;
  readonly options: TcpOptions = new TcpOptions();

  readonly #offload: boolean;
  readonly #views = new PacketView();

  /** @param offload whether frames may have partial checksums; without it, no frame may be a super-segment */
  constructor(offload: boolean) {
    this.#offload = offload;
  }

  /** Returns the offset of the payload in a frame that begins at `at`. `options` must be set. */
  payloadAt(flow: Flow, at: number): number {
    return at + VNET_HEADER_LENGTH + headersOf(flow.family) + this.options.length;
  }

  /**
   * Writes the headers of the frame at `at`, whose payload of `length` bytes is already in its place. Returns the
   * length of the frame.
   *
   * @param mss the payload bytes of each segment, if the frame is a super-segment; it is one if `length` is larger
   */
  write(buffer: Uint8Array, at: number, flow: Flow, length: number, mss: number): number {
    const view = this.#views.of(buffer);
    const start = at + VNET_HEADER_LENGTH;
    const transport = start + ipHeaderLength(flow.family);
    const payload = transport + TCP_MIN_HEADER + this.options.length;
    const end = payload + length;
    for (let i = at; i < start; i += 2) view.setInt16(i, 0);
    writeAddresses(view, start, flow.local, flow.remote);
    // The identification is 0, because DF is set (RFC 6864 section 4.1).
    if (flow.family === 4)
      writeIpv4Header(view, start, end - start, Protocol.Tcp, 0, IPV4_DONT_FRAGMENT);
    else writeIpv6Header(view, start, end - transport, Protocol.Tcp);
    const source = start + sourceOffset(flow.family);
    const sum = pseudoHeaderSum(view, source, flow.family, Protocol.Tcp, end - transport);
    view.setUint16(transport, flow.localPort);
    view.setUint16(transport + 2, flow.remotePort);
    view.setInt32(transport + TCP_SEQUENCE, this.sequence);
    view.setInt32(transport + TCP_ACKNOWLEDGEMENT, this.acknowledgement);
    view.setUint8(transport + TCP_DATA_OFFSET, ((payload - transport) >> 2) << 4);
    view.setUint8(transport + TCP_FLAGS, this.flags);
    view.setUint16(transport + TCP_WINDOW, this.window);
    view.setUint16(transport + TCP_URGENT, 0);
    this.options.write(view, transport + TCP_MIN_HEADER);
    if (this.#offload) {
      view.setUint16(transport + TCP_CHECKSUM, fold(sum));
      markPartial(view, at, transport - start, TCP_CHECKSUM);
      if (length > mss) writeGso(view, at, flow.family, payload - start, mss);
    } else {
      view.setUint16(transport + TCP_CHECKSUM, 0);
      view.setUint16(transport + TCP_CHECKSUM, ~fold(sum + transportSum(view, transport, end)));
    }
    return end - at;
  }
}

function addressOf(words: Int32Array, last: IpAddress | undefined): IpAddress {
  return last !== undefined && sameWords(words, last.words)
    ? last
    : IpAddress.fromWords([...words]);
}

function sameWords(a: Int32Array, b: readonly number[]): boolean {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** Returns the bytes of an IP header and a TCP header without options. */
export function headersOf(family: 4 | 6): number {
  return ipHeaderLength(family) + TCP_MIN_HEADER;
}

function writeGso(view: DataView, at: number, family: 4 | 6, headers: number, mss: number): void {
  view.setUint8(at + VNET_GSO_TYPE, family === 4 ? VNET_GSO_TCPV4 : VNET_GSO_TCPV6);
  view.setUint16(at + VNET_HDR_LEN, headers, true);
  view.setUint16(at + VNET_GSO_SIZE, mss, true);
}

const TCP_WINDOW = 14;
const TCP_URGENT = 18;
const EMPTY: Uint8Array = new Uint8Array(0);
