/**
 * Paths: what the data plane needs of one direction between two hosts, found by (ingress realm,
 * source, destination). A record of the IPv4 table is 48 bytes, so that it costs about one cache line:
 *
 * ```
 *  realm | source | destination | route | delta | pair | new source | new destination | packets | bytes
 * ```
 *
 * Addresses are one word each, or four in the IPv6 table; `packets` and `bytes` are floats of two words.
 * What many paths have in common (where they lead, what may pass, what fits) is one *route*. When each path
 * was last seen in use stands in a word of its own, apart from the records, for no packet needs it.
 * @module
 */
import type { Family } from '../base/address.ts';
import { foldDelta, longDelta } from '../packet/checksum.ts';
import { MAX_PACKET_LENGTH } from '../packet/virtio.ts';
import type { CompiledRealm, Resolution } from './bindings.ts';
import { IntTable } from './int-table.ts';
import {
  MAX_MSS,
  PATH_ADDRESSES,
  PATH_DELTA,
  PATH_PAIR,
  PATH_ROUTE,
  ROUTE_CLIENT_REALM,
  ROUTE_EGRESS,
  ROUTE_FAMILY,
  ROUTE_FRAGMENT_MTU,
  ROUTE_MSS,
  ROUTE_MTU,
  ROUTE_POLICY,
} from './layout.ts';

/** One direction between two hosts, as it is reported. */
export interface PathStatus {
  readonly ingress: string;
  readonly source: string;
  readonly destination: string;
  readonly egress: string;
  readonly newSource: string;
  readonly newDestination: string;
  readonly packets: number;
  /** Without the virtio-net header, as the packets entered. */
  readonly bytes: number;
}

/** The paths of one IP version. */
export class PathTable extends IntTable {
  readonly family: Family;
  /** Words of an address. */
  readonly width: 1 | 4;
  /** Where in a record the counters are, in units of two words; `floats` has them. */
  readonly counters: number;
  /**
   * New addresses of another IP version: eight words for each path that has such, new source first.
   * `PATH_ADDRESSES` is the index of the first.
   */
  wide: Int32Array = new Int32Array(64);
  #wideLength = 0;
  /** Places in `wide` that are free again. */
  readonly #freeWide: number[] = [];
  /** For each path, the low 16 bits of its packet count when it was looked at last, and the tick in which that had changed. */
  #uses = new Int32Array(16);

  constructor(family: Family, maxSize: number) {
    const width = family === 4 ? 1 : 4;
    super(1 + 2 * width, PATH_ADDRESSES + 2 * width + COUNTER_WORDS, maxSize);
    this.family = family;
    this.width = width;
    this.counters = (this.stride - COUNTER_WORDS) / 2;
  }

  /** Adds the path of the key in `key`, in use since `tick`; -1 when the table is full. */
  open(resolution: Resolution, route: number, pair: number, tick: number): number {
    const path = this.insert();
    if (path < 0) return -1;
    if (path >= this.#uses.length) {
      const larger = new Int32Array(2 * this.#uses.length);
      larger.set(this.#uses);
      this.#uses = larger;
    }
    this.#uses[path] = tick & 0xffff;
    const { words, width } = this;
    const value = path * this.stride + this.keyWords;
    const { source, destination, family } = resolution;
    const newWidth = family === 4 ? 1 : 4;
    let delta = 0;
    for (let i = value - 2 * width; i < value; i++) delta += longDelta(words[i]!, 0);
    for (let i = 0; i < newWidth; i++) delta += longDelta(0, source[i]!);
    for (let i = 0; i < newWidth; i++) delta += longDelta(0, destination[i]!);
    words[value + PATH_ROUTE] = route;
    words[value + PATH_DELTA] = foldDelta(delta);
    words[value + PATH_PAIR] = pair;
    if (family === this.family) {
      for (let i = 0; i < width; i++) {
        words[value + PATH_ADDRESSES + i] = source[i]!;
        words[value + PATH_ADDRESSES + width + i] = destination[i]!;
      }
    } else {
      words[value + PATH_ADDRESSES] = this.#addWide(source, destination);
    }
    return path;
  }

  /** Puts the key of a path in `key`. */
  keyOf(path: number): void {
    const at = path * this.stride;
    for (let i = 0; i < this.keyWords; i++) this.key[i] = this.words[at + i]!;
  }

  packets(path: number): number {
    return this.floats[(path * this.stride) / 2 + this.counters]!;
  }

  bytes(path: number): number {
    return this.floats[(path * this.stride) / 2 + this.counters + 1]!;
  }

  count(path: number, packets: number, bytes: number): void {
    const at = (path * this.stride) / 2 + this.counters;
    this.floats[at]! += packets;
    this.floats[at + 1]! += bytes;
  }

  /**
   * Where the new source of a path is, and `width` words behind it the new destination, both of the IP
   * version `family`.
   */
  newAddresses(
    path: number,
    family: Family
  ): { readonly words: Int32Array; readonly at: number; readonly width: number } {
    const at = path * this.stride + this.keyWords + PATH_ADDRESSES;
    return family === this.family
      ? { words: this.words, at, width: this.width }
      : { words: this.wide, at: this.words[at]!, width: 4 };
  }

  /** Removes the path, which leads to the IP version `family`; the last path gets its number. */
  close(path: number, family: Family): void {
    if (family !== this.family) {
      this.#freeWide.push(this.words[path * this.stride + this.keyWords + PATH_ADDRESSES]!);
    }
    this.#uses[path] = this.#uses[this.size - 1]!;
    this.remove(path);
  }

  /** Notes that the path was used since it was looked at last, if it was. Ticks are modulo 2^16. */
  noteUse(path: number, tick: number): void {
    const use = this.#uses[path]!;
    const packets = this.packets(path) & 0xffff;
    if (use >>> 16 !== packets) this.#uses[path] = (packets << 16) | (tick & 0xffff);
    // What has been idle for very long stays so, and does not become new again.
    else if (((tick - use) & 0xffff) > MAX_IDLE_TICKS) {
      this.#uses[path] = (packets << 16) | ((tick - MAX_IDLE_TICKS) & 0xffff);
    }
  }

  /** Returns how many ticks ago the path was seen in use. */
  idleTicks(path: number, tick: number): number {
    const use = this.#uses[path]!;
    return use >>> 16 === (this.packets(path) & 0xffff) ? (tick - use) & 0xffff : 0;
  }

  /** Copies the counters of a path of another table, and when it was in use. */
  copyUse(path: number, from: PathTable, fromPath: number): void {
    this.count(path, from.packets(fromPath), from.bytes(fromPath));
    this.#uses[path] = from.#uses[fromPath]!;
  }

  override get byteLength(): number {
    return super.byteLength + this.#uses.byteLength;
  }

  #addWide(source: Int32Array, destination: Int32Array): number {
    const free = this.#freeWide.pop();
    if (free !== undefined) {
      this.wide.set(source, free);
      this.wide.set(destination, free + 4);
      return free;
    }
    if (this.#wideLength + 8 > this.wide.length) {
      const larger = new Int32Array(2 * this.wide.length);
      larger.set(this.wide);
      this.wide = larger;
    }
    const at = this.#wideLength;
    this.wide.set(source, at);
    this.wide.set(destination, at + 4);
    this.#wideLength += 8;
    return at;
  }
}

/** What paths have in common; a route is the index in `words` of its value. */
export class RouteTable extends IntTable {
  constructor() {
    super(4, 7, MAX_ROUTES);
  }

  routeOf(
    family: Family,
    ingress: number,
    from: CompiledRealm,
    { egress, family: newFamily, policy }: Resolution,
    to: CompiledRealm,
    clientRealm: number
  ): number {
    const { key } = this;
    key[0] = ingress;
    key[1] = egress;
    key[2] = policy;
    key[3] = (family << 8) | newFamily;
    let record = this.find();
    if (record < 0) {
      record = this.insert();
      const value = record * this.stride + this.keyWords;
      this.words[value + ROUTE_EGRESS] = egress;
      this.words[value + ROUTE_POLICY] = policy;
      this.words[value + ROUTE_CLIENT_REALM] = clientRealm;
      this.words[value + ROUTE_FAMILY] = newFamily;
      this.words[value + ROUTE_MTU] = Math.min(mtuTo(newFamily, to.mtu), LARGEST[newFamily]);
      // RFC 7915 section 4: nobody says what the links behind take, so what they all do.
      const isUnknown = family === 4 && newFamily === 6 && to.mtu === Number.POSITIVE_INFINITY;
      this.words[value + ROUTE_FRAGMENT_MTU] = isUnknown
        ? MIN_IPV6_MTU
        : this.words[value + ROUTE_MTU]!;
      const mss = Math.min(segmentIn(family, from.mtu), segmentIn(newFamily, to.mtu));
      this.words[value + ROUTE_MSS] = Math.min(mss, MAX_MSS);
    }
    return record * this.stride + this.keyWords;
  }
}

/** Every IPv6 link takes 1280 bytes ([RFC 8200 section 5](https://www.rfc-editor.org/rfc/rfc8200#section-5)). */
export const MIN_IPV6_MTU = 1280;

function mtuTo(family: Family, mtu: number): number {
  return family === 6 ? Math.max(mtu, MIN_IPV6_MTU) : mtu;
}

/** TCP payload of a packet with plain headers. */
function segmentIn(family: Family, mtu: number): number {
  return family === 4 ? mtu - 40 : mtuTo(6, mtu) - 60;
}

/** Half of what 16 bits can tell apart. */
const MAX_IDLE_TICKS = 0x7fff;
/** Words of both counters. */
const COUNTER_WORDS = 4;
/** What the length fields can say, by IP version. */
const LARGEST = { 4: MAX_PACKET_LENGTH, 6: 40 + 65_535 } as const;
/** Ways come from plans, which the host bounds. */
const MAX_ROUTES = 2 ** 26;
