/**
 * The table of paths. A path is what the data plane needs for one direction between two hosts. Its key is
 * (ingress realm, source, destination). A record of the IPv4 table has 48 bytes, about one cache line:
 *
 * ```
 *  realm | source | destination | route | delta | pair | new source | new destination | packets | bytes
 * ```
 *
 * An address has one word, or four in the IPv6 table; `packets` and `bytes` are floats of two words. A *route* holds
 * what many paths have in common (`route-table.ts`). The time of last use and the place in the list of the route's paths
 * are kept apart from the records, because no packet reads them: 12 bytes for a path.
 * @module
 */
import type { Family } from '../base/address.ts';
import { foldDelta, longDelta } from '../packet/checksum.ts';
import type { Resolution } from './bindings.ts';
import { IntLists } from './int-lists.ts';
import { IntTable } from './int-table.ts';
import { PATH_ADDRESSES, PATH_DELTA, PATH_PAIR, PATH_ROUTE } from './layout.ts';
import { routeNumber } from './route-table.ts';

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
  /** The paths of each route, by the route's number. */
  readonly #ofRoutes = new IntLists();

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
    this.#ofRoutes.add(routeNumber(route), path);
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
    const last = this.size - 1;
    this.#ofRoutes.remove(routeNumber(this.routeOf(path)), path);
    if (path !== last) this.#ofRoutes.renumber(routeNumber(this.routeOf(last)), last, path);
    this.#uses[path] = this.#uses[last]!;
    this.remove(path);
  }

  routeOf(path: number): number {
    return this.words[path * this.stride + this.keyWords + PATH_ROUTE]!;
  }

  /** Gives a path another route between the same realms and IP versions. */
  setRoute(path: number, route: number): void {
    this.#ofRoutes.remove(routeNumber(this.routeOf(path)), path);
    this.#ofRoutes.add(routeNumber(route), path);
    this.words[path * this.stride + this.keyWords + PATH_ROUTE] = route;
  }

  /** Returns the first path of a route, or -1. */
  firstOf(route: number): number {
    return this.#ofRoutes.first(routeNumber(route));
  }

  /** Returns the path behind another one of the same route, or -1. */
  nextOf(path: number): number {
    return this.#ofRoutes.next(path);
  }

  /** Returns the number of paths of a route. */
  countOf(route: number): number {
    return this.#ofRoutes.length(routeNumber(route));
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
    return super.byteLength + this.#uses.byteLength + this.#ofRoutes.byteLength;
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

/** Half of the range of 16 bits. */
const MAX_IDLE_TICKS = 0x7fff;
/** The number of words of both counters. */
const COUNTER_WORDS = 4;
