/**
 * Builds the answers to refused packets: ICMP errors ([RFC 792](https://www.rfc-editor.org/rfc/rfc792),
 * [RFC 4443](https://www.rfc-editor.org/rfc/rfc4443)) and TCP resets
 * ([RFC 9293 section 3.5.2](https://www.rfc-editor.org/rfc/rfc9293#section-3.5.2)). All are built in one
 * buffer, and their rate is limited. `docs/translation.md` says which packet gets which answer.
 * @module
 */
import { checkWhole } from '../base/option-check.ts';
import { fold, sumBytes } from '../packet/checksum.ts';
import {
  FragmentPart,
  ICMP_CHECKSUM,
  ICMP_HEADER,
  IPV4_DONT_FRAGMENT,
  IPV4_MIN_HEADER,
  PacketKind,
  Protocol,
  SCTP_CHUNK_ABORT,
  SCTP_HEADER,
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
  writeIpv4Header,
  writeIpv6Header,
} from '../packet/ip-writer.ts';
import { VNET_HEADER_LENGTH } from '../packet/virtio.ts';
import type { Reject } from './plan.ts';

export interface ReplyOptions {
  /** The number of answers into one realm per second at most, and the burst; default 1000. */
  readonly maxRepliesPerSecond?: number;
}

/** The defaults of the options. */
export const REPLY_DEFAULTS: Readonly<Required<ReplyOptions>> = Object.freeze({
  maxRepliesPerSecond: 1000,
});

export class Replies {
  /** A virtio-net header of zeros, then the packet that was built last. */
  readonly frame: Uint8Array = new Uint8Array(VNET_HEADER_LENGTH + MAX_IPV6_ERROR);
  readonly #view: DataView = new DataView(this.frame.buffer);
  readonly #perSecond: number;
  readonly #rejectOf: (realm: number) => Reject;
  #nowMs = 0;
  /** Token buckets by realm index: the tokens at the time in `#sinceMs`. */
  readonly #tokens: number[] = [];
  readonly #sinceMs: number[] = [];

  /**
   * @param rejectOf returns how refused packets of a realm are answered
   * @throws {ApiMisuseError} if an option is out of range.
   */
  constructor(options: ReplyOptions, rejectOf: (realm: number) => Reject) {
    const { maxRepliesPerSecond = REPLY_DEFAULTS.maxRepliesPerSecond } = options;
    checkWhole('maxRepliesPerSecond', maxRepliesPerSecond, 0, 2 ** 30);
    this.#perSecond = maxRepliesPerSecond;
    this.#rejectOf = rejectOf;
  }

  advance(nowMs: number): void {
    this.#nowMs = nowMs;
  }

  /** Returns whether refused packets of the realm get an answer. */
  isAnswered(realm: number): boolean {
    return this.#rejectOf(realm) !== 'drop';
  }

  /** Answers a refused packet as its realm's `reject` says. Returns the length of the frame, or 0. */
  refused(realm: number, view: DataView, header: PacketHeader): number {
    const reject = this.#rejectOf(realm);
    if (reject === 'drop' || !mayBeAnswered(view, header) || !this.#takeToken(realm)) return 0;
    if (reject === 'reset' && header.kind === PacketKind.Tcp) return this.#reset(view, header);
    const isIpv4 = header.family === 4;
    if (reject === 'reset') {
      return isIpv4 ? this.#error(view, header, 3, 3, 0) : this.#error(view, header, 1, 4, 0);
    }
    return isIpv4 ? this.#error(view, header, 3, 13, 0) : this.#error(view, header, 1, 1, 0);
  }

  /** Answers a packet that is larger than `mtu`. Returns the length of the frame, or 0. */
  tooBig(realm: number, view: DataView, header: PacketHeader, mtu: number): number {
    if (!mayBeAnswered(view, header) || !this.#takeToken(realm)) return 0;
    return header.family === 4
      ? this.#error(view, header, 3, 4, mtu)
      : this.#error(view, header, 2, 0, mtu);
  }

  #takeToken(realm: number): boolean {
    const elapsedMs = this.#nowMs - (this.#sinceMs[realm] ?? Number.NEGATIVE_INFINITY);
    const before = this.#tokens[realm] ?? 0;
    const tokens = Math.min(this.#perSecond, before + (elapsedMs * this.#perSecond) / 1000);
    this.#sinceMs[realm] = this.#nowMs;
    this.#tokens[realm] = tokens < 1 ? tokens : tokens - 1;
    return tokens >= 1;
  }

  #error(view: DataView, header: PacketHeader, type: number, code: number, rest: number): number {
    const isIpv4 = header.family === 4;
    const ipHeader = ipHeaderLength(header.family);
    const most = (isIpv4 ? MAX_IPV4_ERROR : MAX_IPV6_ERROR) - ipHeader - ICMP_HEADER;
    const quoted = Math.min(header.end - header.start, most);
    const at = VNET_HEADER_LENGTH + ipHeader;
    const to = this.#view;
    to.setUint16(at, (type << 8) | code);
    to.setUint16(at + ICMP_CHECKSUM, 0);
    to.setInt32(at + 4, rest);
    for (let i = 0; i < quoted; i++) {
      to.setUint8(at + ICMP_HEADER + i, view.getUint8(header.start + i));
    }
    const length = ICMP_HEADER + quoted;
    const protocol = isIpv4 ? Protocol.Icmp : Protocol.Icmpv6;
    this.#ip(view, header, protocol, length);
    const pseudo = isIpv4 ? 0 : this.#pseudoSum(header, protocol, length);
    to.setUint16(at + ICMP_CHECKSUM, ~fold(sumBytes(this.frame, at, at + length, pseudo)));
    return VNET_HEADER_LENGTH + ipHeader + length;
  }

  #reset(view: DataView, header: PacketHeader): number {
    const { transport } = header;
    const ipHeader = ipHeaderLength(header.family);
    const at = VNET_HEADER_LENGTH + ipHeader;
    const to = this.#view;
    const flags = view.getUint8(transport + TCP_FLAGS);
    const isAck = (flags & TCP_FLAG_ACK) !== 0;
    const dataOffset = (view.getUint8(transport + TCP_DATA_OFFSET) >>> 4) << 2;
    let length = header.end - transport - dataOffset;
    if ((flags & TCP_FLAG_SYN) !== 0) length++;
    if ((flags & TCP_FLAG_FIN) !== 0) length++;
    to.setUint16(at, header.destinationPort);
    to.setUint16(at + 2, header.sourcePort);
    to.setInt32(at + TCP_SEQUENCE, isAck ? view.getInt32(transport + TCP_ACKNOWLEDGEMENT) : 0);
    to.setInt32(
      at + TCP_ACKNOWLEDGEMENT,
      isAck ? 0 : (view.getInt32(transport + TCP_SEQUENCE) + length) | 0
    );
    to.setUint8(at + TCP_DATA_OFFSET, (TCP_MIN_HEADER >>> 2) << 4);
    to.setUint8(at + TCP_FLAGS, isAck ? TCP_FLAG_RST : TCP_FLAG_RST | TCP_FLAG_ACK);
    to.setUint16(at + 14, 0);
    to.setInt32(at + TCP_CHECKSUM, 0);
    this.#ip(view, header, Protocol.Tcp, TCP_MIN_HEADER);
    const pseudo = this.#pseudoSum(header, Protocol.Tcp, TCP_MIN_HEADER);
    to.setUint16(at + TCP_CHECKSUM, ~fold(sumBytes(this.frame, at, at + TCP_MIN_HEADER, pseudo)));
    return VNET_HEADER_LENGTH + ipHeader + TCP_MIN_HEADER;
  }

  /** Writes the IP header of an answer, from the packet's destination to its source. */
  #ip(view: DataView, { family, source }: PacketHeader, protocol: number, length: number): void {
    const to = this.#view;
    const at = VNET_HEADER_LENGTH;
    const first = at + sourceOffset(family);
    const width = family === 4 ? 4 : 16;
    for (let i = 0; i < width; i += 4) {
      to.setInt32(first + i, view.getInt32(source + width + i));
      to.setInt32(first + width + i, view.getInt32(source + i));
    }
    if (family === 4)
      writeIpv4Header(to, at, IPV4_MIN_HEADER + length, protocol, 0, IPV4_DONT_FRAGMENT);
    else writeIpv6Header(to, at, length, protocol);
  }

  /** Returns the sum of the pseudo-header of the packet in the frame. */
  #pseudoSum({ family }: PacketHeader, protocol: number, length: number): number {
    const source = VNET_HEADER_LENGTH + sourceOffset(family);
    return pseudoHeaderSum(this.#view, source, family, protocol, length);
  }
}

/** Returns false for packets that may be answers themselves (RFC 1122 section 3.2.2, RFC 4443 section 2.4). */
function mayBeAnswered(view: DataView, header: PacketHeader): boolean {
  if (header.part === FragmentPart.Later) return false;
  const { kind, transport, end } = header;
  if (kind === PacketKind.IcmpError) return false;
  if (kind === PacketKind.Tcp) return (view.getUint8(transport + TCP_FLAGS) & TCP_FLAG_RST) === 0;
  if (kind !== PacketKind.Sctp || transport + SCTP_HEADER >= end) return true;
  return view.getUint8(transport + SCTP_HEADER) !== SCTP_CHUNK_ABORT;
}

/** The largest ICMP errors in bytes (RFC 1812 section 4.3.2.3, RFC 4443 section 2.4). */
const MAX_IPV4_ERROR = 576;
const MAX_IPV6_ERROR = 1280;
