/**
 * The table of paths. A path is what the data plane needs for one direction between two hosts. Its key is
 * (ingress realm, source, destination). A record of the IPv4 table has 48 bytes, about one cache line:
 *
 * ```
 *  realm | source | destination | route | delta | pair | new source | new destination | packets | bytes
 * ```
 *
 * An address has one word, or four in the IPv6 table; `packets` and `bytes` are floats of two words. A
 * *route* holds what many paths have in common: the egress realm, the policy, the MTU and the MSS. The time
 * of last use is kept apart from the records, because no packet reads it.
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

/** The state of a path: one direction between two hosts. Addresses are text, realms are names. */
export interface PathStatus {
  readonly ingress: string;
  readonly source: string;
  readonly destination: string;
  readonly egress: string;
  readonly newSource: string;
  readonly newDestination: string;
  readonly packets: number;
  /** The bytes of the packets before translation, without virtio-net headers. */
  readonly bytes: number;
}

/** The paths of one IP version. */
export class PathTable extends IntTable {
  readonly family: Family;
  /** The number of words of an address. */
  readonly width: 1 | 4;
  /** The offset of the counters in a record, in units of two words; read them from `floats`. */
  readonly counters: number;
  /**
   * The new addresses of paths that change the IP version, eight words for each path, the source first.
   * The word at `PATH_ADDRESSES` of such a path is the index of its first word here.
   */
  wide: Int32Array = new Int32Array(64);
  #wideLength = 0;
  /** Indexes in `wide` that are free again. */
  readonly #freeWide: number[] = [];
  /**
   * For each path: in the high 16 bits its packet count (modulo 2^16) at the last check, in the low 16 bits
   * the tick in which a check last saw the count changed.
   */
  #uses = new Int32Array(16);

  constructor(family: Family, maxSize: number) {
    const width = family === 4 ? 1 : 4;
    super(1 + 2 * width, PATH_ADDRESSES + 2 * width + COUNTER_WORDS, maxSize);
    this.family = family;
    this.width = width;
    this.counters = (this.stride - COUNTER_WORDS) / 2;
  }

  /** Adds a path with the key in `key`, in use since `tick`. Returns its number, or -1 if the table is full. */
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

  /** Copies the key of a path to `key`. */
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
   * Returns where the new source of a path is; the new destination is `width` words behind it. Both are of
   * the IP version `family`.
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

  /** Removes a path that leads to the IP version `family`. The last path gets its number. */
  close(path: number, family: Family): void {
    if (family !== this.family) {
      this.#freeWide.push(this.words[path * this.stride + this.keyWords + PATH_ADDRESSES]!);
    }
    this.#uses[path] = this.#uses[this.size - 1]!;
    this.remove(path);
  }

  /** Notes the tick if the path was used since the last check. Ticks are modulo 2^16. */
  noteUse(path: number, tick: number): void {
    const use = this.#uses[path]!;
    const packets = this.packets(path) & 0xffff;
    if (use >>> 16 !== packets) this.#uses[path] = (packets << 16) | (tick & 0xffff);
    // Ticks wrap around: without this a path that was idle for very long would look used.
    else if (((tick - use) & 0xffff) > MAX_IDLE_TICKS) {
      this.#uses[path] = (packets << 16) | ((tick - MAX_IDLE_TICKS) & 0xffff);
    }
  }

  /** Returns how many ticks ago a check last saw the path in use. */
  idleTicks(path: number, tick: number): number {
    const use = this.#uses[path]!;
    return use >>> 16 === (this.packets(path) & 0xffff) ? (tick - use) & 0xffff : 0;
  }

  /** Copies the counters and the last use of a path of another table. */
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

/** The table of routes: what paths have in common. A route is the index in `words` of its value. */
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
      // RFC 7915 section 4: the MTU behind the realm is not known, so use the least that IPv6 allows.
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

/** The least MTU of an IPv6 link ([RFC 8200 section 5](https://www.rfc-editor.org/rfc/rfc8200#section-5)). */
export const MIN_IPV6_MTU = 1280;

function mtuTo(family: Family, mtu: number): number {
  return family === 6 ? Math.max(mtu, MIN_IPV6_MTU) : mtu;
}

/** The largest TCP payload in a packet without options and extension headers. */
function segmentIn(family: Family, mtu: number): number {
  return family === 4 ? mtu - 40 : mtuTo(6, mtu) - 60;
}

/** Half of the range of 16 bits. */
const MAX_IDLE_TICKS = 0x7fff;
/** The number of words of both counters. */
const COUNTER_WORDS = 4;
/** The largest packet that the length field can describe, by IP version. */
const LARGEST = { 4: MAX_PACKET_LENGTH, 6: 40 + 65_535 } as const;
/** The host bounds its plans, and so the number of routes; this only keeps an index a small integer. */
const MAX_ROUTES = 2 ** 26;
