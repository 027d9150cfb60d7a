/**
 * Puts fragments together to datagrams: IPv4
 * ([RFC 791 section 3.2](https://www.rfc-editor.org/rfc/rfc791#section-3.2)) and IPv6
 * ([RFC 8200 section 4.5](https://www.rfc-editor.org/rfc/rfc8200#section-4.5)).
 *
 * Fragments that overlap are an attack: the datagram is dropped, with those of its fragments that come later
 * ([RFC 5722](https://www.rfc-editor.org/rfc/rfc5722); IPv4 is treated alike). An exact copy of a fragment, which
 * networks make, is ignored.
 *
 * Instead of a list of holes ([RFC 815](https://www.rfc-editor.org/rfc/rfc815)), the fragments are kept in order: a
 * datagram is complete when their lengths add up to its own.
 * @module
 */
import { IpAddress } from '../../base/address.ts';
import { fold, sumBytes } from '../../packet/checksum.ts';
import {
  IPV4_CHECKSUM,
  IPV4_FRAGMENT,
  IPV4_MIN_HEADER,
  IPV4_TOTAL_LENGTH,
  IPV6_HEADER,
  IPV6_NEXT_HEADER,
  IPV6_PAYLOAD_LENGTH,
} from '../../packet/fields.ts';
import type { PacketHeader } from '../../packet/header.ts';
import { PacketView } from '../../packet/view.ts';
import { VNET_F_NEEDS_CSUM, VNET_FLAGS, VNET_GSO_TYPE } from '../../packet/virtio.ts';
import { Pieces, Placement } from './fragment-pieces.ts';

/** Cumulative. */
export interface ReassemblyCounters {
  fragments: number;
  /** Datagrams that became complete. */
  datagrams: number;
  /** Fragments that were dropped: with a partial checksum, longer than a datagram may be, or too many. */
  malformed: number;
  /** Datagrams that were dropped because fragments overlapped. */
  overlaps: number;
  /** Fragments that came after their datagram had been dropped. */
  late: number;
  /** Datagrams that were incomplete at their time limit. */
  timeouts: number;
  /** Datagrams that were dropped to make room for others. */
  evictions: number;
}

export class Reassembler {
  readonly counters: ReassemblyCounters = newCounters();
  /** The datagram of the last `receive` that returned a length; valid until the next call. */
  readonly packet: Buffer = Buffer.alloc(IPV6_HEADER + MAX_DATAGRAM);
  /**
   * Returns the site of a host, which has a quarter of the datagrams and bytes; undefined if none is known. Default: none
   * is known, and each source has a quarter of the datagrams.
   */
  siteOf: (host: IpAddress) => string | undefined = () => undefined;

  readonly #now: () => number;
  readonly #view: PacketView = new PacketView();
  /** Keyed by what identifies a datagram; the one that began first is the first. */
  readonly #datagrams = new Map<string, Incomplete>();
  #bytes = 0;

  /** @param now returns the time in ms, monotonic */
  constructor(now: () => number) {
    this.#now = now;
  }

  /** How many datagrams are incomplete. */
  get size(): number {
    return this.#datagrams.size;
  }

  /** How many bytes are held, `Pieces.bytes` of each datagram. */
  get bytes(): number {
    return this.#bytes;
  }

  /** When `expire` has something to do, in ms; `Infinity` if nothing is held. */
  get deadline(): number {
    let deadline = Number.POSITIVE_INFINITY;
    for (const { deadline: each } of this.#datagrams.values()) deadline = Math.min(deadline, each);
    return deadline;
  }

  /**
   * Takes a fragment, which `header` describes.
   *
   * @param vnet the offset of its virtio-net header
   * @returns the length of the datagram in `packet`, a whole IP packet without options and extension headers in front
   *   of the fragment header; 0 while it is incomplete
   */
  receive(buffer: Uint8Array, vnet: number, header: PacketHeader): number {
    this.counters.fragments++;
    const isPartial = (buffer[vnet + VNET_FLAGS]! & VNET_F_NEEDS_CSUM) !== 0;
    if (isPartial || buffer[vnet + VNET_GSO_TYPE] !== 0) return this.#refuse();
    const { family, fragmentOffset: from, fragmentPayload } = header;
    const to = from + header.end - fragmentPayload;
    const longest = family === 4 ? MAX_DATAGRAM - IPV4_MIN_HEADER : MAX_DATAGRAM;
    if (to > longest) return this.#refuse();

    const view = this.#view.of(buffer);
    const key = keyOf(view, header);
    const now = this.#now();
    let datagram = this.#datagrams.get(key);
    if (datagram !== undefined && datagram.deadline <= now) {
      this.#remove(key, datagram);
      this.counters.timeouts++;
      datagram = undefined;
    }
    datagram ??= this.#begin(key, buffer, view, header, now);
    const { pieces } = datagram;
    if (pieces === undefined) {
      this.counters.late++;
      return 0;
    }
    const before = pieces.bytes;
    const bytes = buffer.subarray(fragmentPayload, header.end);
    const placement = pieces.add(bytes, from, header.moreFragments);
    this.#bytes += pieces.bytes - before;
    if (placement === Placement.Overlap || placement === Placement.TooMany) {
      // It is remembered without its bytes until its time limit, so that what comes later is dropped too.
      this.#bytes -= pieces.bytes;
      datagram.pieces = undefined;
      if (placement === Placement.Overlap) this.counters.overlaps++;
      else this.counters.malformed++;
      return 0;
    }
    if (from === 0 && placement === Placement.Taken) datagram.keepHeader(buffer, header);
    if (!pieces.isComplete) {
      this.#makeRoom(key, datagram);
      return 0;
    }
    this.#remove(key, datagram);
    this.counters.datagrams++;
    return this.#build(datagram, pieces);
  }

  /** Drops the datagrams whose time limit has passed. */
  expire(): void {
    const now = this.#now();
    for (const [key, datagram] of this.#datagrams) {
      if (datagram.deadline > now) continue;
      this.#remove(key, datagram);
      if (datagram.pieces !== undefined) this.counters.timeouts++;
    }
  }

  #refuse(): 0 {
    this.counters.malformed++;
    return 0;
  }

  #begin(
    key: string,
    buffer: Uint8Array,
    view: DataView,
    header: PacketHeader,
    now: number
  ): Incomplete {
    const { family, source } = header;
    const site = this.siteOf(IpAddress.fromBytes(family, buffer, source));
    const group = site === undefined ? sourceOf(view, header) : `site ${site}`;
    let ofGroup = 0;
    let oldest: string | undefined;
    for (const [each, datagram] of this.#datagrams) {
      if (datagram.group !== group) continue;
      ofGroup++;
      oldest ??= each;
    }
    if (ofGroup >= MAX_OF_GROUP) this.#evict(oldest!);
    if (this.#datagrams.size >= MAX_DATAGRAMS) this.#evictOldest(key);
    const timeoutMs = family === 4 ? IPV4_TIMEOUT_MS : IPV6_TIMEOUT_MS;
    const datagram = new Incomplete(family, group, site !== undefined, now + timeoutMs);
    this.#datagrams.set(key, datagram);
    return datagram;
  }

  /** Drops the oldest datagrams, but not the one of `key`, until the bytes are within their bounds. */
  #makeRoom(key: string, { group, isOfSite }: Incomplete): void {
    while (isOfSite && this.#bytesOf(group) > MAX_BYTES_OF_SITE && this.#evictOldest(key, group));
    while (this.#bytes > MAX_BYTES && this.#evictOldest(key));
  }

  #bytesOf(group: string): number {
    if (this.#bytes <= MAX_BYTES_OF_SITE) return 0;
    let bytes = 0;
    for (const { group: each, pieces } of this.#datagrams.values()) {
      if (each === group) bytes += pieces?.bytes ?? 0;
    }
    return bytes;
  }

  /** @param group drops only one of this group; undefined: of any */
  #evictOldest(except: string, group?: string): boolean {
    for (const [key, datagram] of this.#datagrams) {
      if (key === except || (group !== undefined && datagram.group !== group)) continue;
      this.#evict(key);
      return true;
    }
    return false;
  }

  #evict(key: string): void {
    this.#remove(key, this.#datagrams.get(key)!);
    this.counters.evictions++;
  }

  #remove(key: string, datagram: Incomplete): void {
    this.#datagrams.delete(key);
    this.#bytes -= datagram.pieces?.bytes ?? 0;
  }

  #build({ family, header, nextHeader }: Incomplete, pieces: Pieces): number {
    const { packet } = this;
    packet.set(header, 0);
    pieces.copyTo(packet, header.length);
    const length = header.length + pieces.total;
    if (family === 4) {
      packet.writeUInt16BE(length, IPV4_TOTAL_LENGTH);
      packet.writeUInt16BE(0, IPV4_FRAGMENT);
      packet.writeUInt16BE(0, IPV4_CHECKSUM);
      packet[0] = 0x45;
      packet.writeUInt16BE(~fold(sumBytes(packet, 0, IPV4_MIN_HEADER, 0)) & 0xffff, IPV4_CHECKSUM);
    } else {
      packet.writeUInt16BE(pieces.total, IPV6_PAYLOAD_LENGTH);
      packet[IPV6_NEXT_HEADER] = nextHeader;
    }
    return length;
  }
}

/** A datagram of which fragments are missing. */
class Incomplete {
  readonly family: 4 | 6;
  /** Its site, or the source address, as `sourceOf` returns it. */
  readonly group: string;
  readonly isOfSite: boolean;
  readonly deadline: number;
  /** Undefined once the datagram is refused. */
  pieces: Pieces | undefined = new Pieces();
  /** The IP header of the first fragment. */
  header: Uint8Array = NOTHING;
  /** What the fragment header of the first fragment says follows it. */
  nextHeader = 0;

  constructor(family: 4 | 6, group: string, isOfSite: boolean, deadline: number) {
    this.family = family;
    this.group = group;
    this.isOfSite = isOfSite;
    this.deadline = deadline;
  }

  keepHeader(buffer: Uint8Array, { start, family, fragmentHeader }: PacketHeader): void {
    const length = family === 4 ? IPV4_MIN_HEADER : IPV6_HEADER;
    this.header = new Uint8Array(buffer.subarray(start, start + length));
    if (family === 6) this.nextHeader = buffer[fragmentHeader]!;
  }
}

/**
 * Returns what identifies a datagram: the addresses, the identification, and for IPv4 the protocol (RFC 791). For IPv6
 * the protocol does not count, because its fragments may disagree.
 */
function keyOf(view: DataView, header: PacketHeader): string {
  const { family, source, identification, protocol } = header;
  let key = family === 4 ? `${protocol}` : 'v6';
  const end = source + 2 * (family === 4 ? IPV4_ADDRESS : IPV6_ADDRESS);
  for (let at = source; at < end; at += 4) key += `,${view.getInt32(at)}`;
  return `${key},${identification}`;
}

function sourceOf(view: DataView, { family, source }: PacketHeader): string {
  let key = '';
  const end = source + (family === 4 ? IPV4_ADDRESS : IPV6_ADDRESS);
  for (let at = source; at < end; at += 4) key += `,${view.getInt32(at)}`;
  return key;
}

function newCounters(): ReassemblyCounters {
  return {
    fragments: 0,
    datagrams: 0,
    malformed: 0,
    overlaps: 0,
    late: 0,
    timeouts: 0,
    evictions: 0,
  };
}

const NOTHING: Uint8Array = new Uint8Array(0);
const IPV4_ADDRESS = 4;
const IPV6_ADDRESS = 16;
/** The longest payload of a datagram in bytes: its offsets have 16 bits. */
const MAX_DATAGRAM = 65_535;
const MAX_DATAGRAMS = 64;
/** One source or site that leaves many datagrams incomplete does not take the place of all others. */
const MAX_OF_GROUP: number = MAX_DATAGRAMS / 4;
const MAX_BYTES: number = 1024 * 1024;
const MAX_BYTES_OF_SITE: number = MAX_BYTES / 4;
/** As Linux has it (`net.ipv4.ipfrag_time`). */
const IPV4_TIMEOUT_MS = 30_000;
/** RFC 8200 section 4.5. */
const IPV6_TIMEOUT_MS = 60_000;
