/**
 * TCP segments in frames: `SegmentReader` reads the fields of a received one, `SegmentWriter` writes the headers of one
 * to send ([RFC 9293 section 3.1](https://www.rfc-editor.org/rfc/rfc9293#section-3.1)). IPv4 and IPv6 differ in this
 * file alone.
 * @module
 */
import { IpAddress } from '../base/address.ts';
import { fold } from '../packet/checksum.ts';
import { copySum } from '../packet/copy-sum.ts';
import {
  IPV4_DESTINATION,
  IPV4_DONT_FRAGMENT,
  IPV4_MIN_HEADER,
  IPV4_SOURCE,
  IPV6_HEADER,
  IPV6_SOURCE,
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
import { PacketView } from '../packet/view.ts';
import {
  VNET_F_DATA_VALID,
  VNET_F_NEEDS_CSUM,
  VNET_FLAGS,
  VNET_GSO_TCPV4,
  VNET_GSO_TCPV6,
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
   * is not computed if the virtio-net header says that it is partial, or that it was verified: a peer that lies there
   * could as well send the right sum.
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
    const flags = view.getUint8(vnet + VNET_FLAGS);
    const isTrusted = (flags & (VNET_F_NEEDS_CSUM | VNET_F_DATA_VALID)) !== 0;
    if (!isTrusted && !this.#isIntact(view, transport, end, words)) return false;
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

  #isIntact(view: DataView, transport: number, end: number, words: number): boolean {
    let sum = Protocol.Tcp + end - transport;
    for (let i = 0; i < words; i++) sum += (this.words[i]! >>> 16) + (this.words[i]! & 0xffff);
    sum += copySum(view, transport, summed(), 0, end - transport);
    return fold(sum) === 0xffff;
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
    const transport = start + (flow.family === 4 ? IPV4_MIN_HEADER : IPV6_HEADER);
    const payload = transport + TCP_MIN_HEADER + this.options.length;
    const end = payload + length;
    for (let i = at; i < start; i += 2) view.setInt16(i, 0);
    let sum =
      flow.family === 4
        ? writeIpv4(view, start, flow, end - start)
        : writeIpv6(view, start, flow, end - transport);
    sum = fold(sum + Protocol.Tcp + end - transport);
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
      view.setUint16(transport + TCP_CHECKSUM, sum);
      writeVnet(view, at, transport - start);
      if (length > mss) writeGso(view, at, flow.family, payload - start, mss);
    } else {
      view.setUint16(transport + TCP_CHECKSUM, 0);
      sum += copySum(view, transport, summed(), 0, end - transport);
      view.setUint16(transport + TCP_CHECKSUM, ~fold(sum) & 0xffff);
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
  return (family === 4 ? IPV4_MIN_HEADER : IPV6_HEADER) + TCP_MIN_HEADER;
}

/** Writes the header and returns the sum of the addresses. The ID is 0, because DF is set (RFC 6864 section 4.1). */
function writeIpv4(view: DataView, start: number, flow: Flow, length: number): number {
  const local = flow.local.words[0]!;
  const remote = flow.remote.words[0]!;
  const addresses = (local >>> 16) + (local & 0xffff) + (remote >>> 16) + (remote & 0xffff);
  const head = 0x4500;
  const lifetime = (HOP_LIMIT << 8) | Protocol.Tcp;
  view.setInt32(start, (head << 16) | length);
  view.setInt32(start + 4, IPV4_DONT_FRAGMENT);
  const checksum = ~fold(addresses + head + length + IPV4_DONT_FRAGMENT + lifetime) & 0xffff;
  view.setInt32(start + 8, (lifetime << 16) | checksum);
  view.setInt32(start + IPV4_SOURCE, local);
  view.setInt32(start + IPV4_DESTINATION, remote);
  return addresses;
}

/** Writes the header and returns the sum of the addresses. `length` is that of the segment. */
function writeIpv6(view: DataView, start: number, flow: Flow, length: number): number {
  view.setInt32(start, 0x60000000);
  view.setInt32(start + 4, (length << 16) | (Protocol.Tcp << 8) | HOP_LIMIT);
  let sum = 0;
  for (let i = 0; i < 4; i++) {
    const local = flow.local.words[i]!;
    const remote = flow.remote.words[i]!;
    view.setInt32(start + IPV6_SOURCE + 4 * i, local);
    view.setInt32(start + IPV6_SOURCE + 16 + 4 * i, remote);
    sum += (local >>> 16) + (local & 0xffff) + (remote >>> 16) + (remote & 0xffff);
  }
  return sum;
}

function writeVnet(view: DataView, at: number, checksumStart: number): void {
  view.setUint8(at + VNET_FLAGS, VNET_F_NEEDS_CSUM);
  view.setUint16(at + 6, checksumStart, true);
  view.setUint16(at + 8, TCP_CHECKSUM, true);
}

function writeGso(view: DataView, at: number, family: 4 | 6, headers: number, mss: number): void {
  view.setUint8(at + 1, family === 4 ? VNET_GSO_TCPV4 : VNET_GSO_TCPV6);
  view.setUint16(at + 2, headers, true);
  view.setUint16(at + 4, mss, true);
}

/** Where `copySum` puts the bytes that it sums, which nobody reads; allocated when a checksum is computed first. */
function summed(): Int32Array {
  scratch ??= new Int32Array(SCRATCH_WORDS);
  return scratch;
}

let scratch: Int32Array | undefined;
const SCRATCH_WORDS = 16_400;

const TCP_WINDOW = 14;
const TCP_URGENT = 18;
/** RFC 1122 section 3.2.1.7 leaves the value to the host; 64 is the default of most systems. */
const HOP_LIMIT = 64;
const EMPTY: Uint8Array = new Uint8Array(0);
