/**
 * Translates packets between realms, in place.
 *
 * A packet's way through `translate`:
 *
 * 1. its headers are checked, and its virtio-net header against them (`packet/header.ts`, `offload.ts`)
 * 2. (realm, source, destination) finds its path: one look-up (`int-table.ts`)
 * 3. the first packet of a path has none yet: it is derived from the plan (`bindings.ts`) and kept
 * 4. the path's policy says whether this protocol and these ports pass (`policy.ts`)
 * 5. addresses are written and the checksums follow by increment (`rewrite.ts`)
 * 6. the verdict is counted
 *
 * An ICMP error takes the path of a reply to the packet it quotes. The steps and their order are a
 * promise; the room's README states them exactly.
 * @module
 */
import { IpAddress } from '../address.ts';
import { ApiMisuseError } from '../errors.ts';
import { foldDelta, longDelta } from '../packet/checksum.ts';
import {
  PacketHeader,
  PacketKind,
  Parse,
  read16,
  read32,
  TCP_FLAG_ACK,
  TCP_FLAG_SYN,
  TCP_FLAGS,
} from '../packet/header.ts';
import { Bindings, type Resolution } from './bindings.ts';
import { IntTable } from './int-table.ts';
import { checkOffload, needsChecksum } from './offload.ts';
import type { Presence, TranslationPlan } from './plan.ts';
import { REPLY, REQUEST, sidesOf } from './policy.ts';
import {
  rewriteAddresses,
  rewriteHeaderChecksum,
  rewriteQuote,
  rewriteTransportChecksum,
} from './rewrite.ts';
import {
  nameCounters,
  VERDICT_NAMES,
  Verdict,
  type VerdictCounters,
  verdictOfParse,
} from './verdict.ts';

export interface PacketTranslatorOptions {
  /** Paths kept at most, of each IP version; a packet that would open one more is dropped. */
  readonly maxPaths?: number;
}

/** One direction between two hosts, as `paths` reports it. */
export interface PathStatus {
  readonly ingress: string;
  readonly source: string;
  readonly destination: string;
  readonly egress: string;
  readonly newSource: string;
  readonly newDestination: string;
  readonly packets: number;
  /** Without the virtio-net header. */
  readonly bytes: number;
}

/**
 * Twice NAT between realms that may use the same addresses (RFC 2663 section 4.3). The caller owns
 * every buffer. `load`, `bind` and the reading of counters may happen between any two packets.
 */
export class PacketTranslator {
  /**
   * Index of the realm that the packet goes to. Valid iff the last verdict was Forward or
   * NeedsPresence.
   */
  egress = 0;

  readonly #header = new PacketHeader();
  readonly #quote = new PacketHeader();
  readonly #realmNames: string[] = [];
  readonly #realmIndexes = new Map<string, number>();
  readonly #maxPaths: number;
  /** Counters by realm and verdict. */
  #verdicts = new Float64Array(0);
  #bindings: Bindings;
  #paths4: PathTable;
  #paths6: PathTable;
  /** The address that lacked a presence last, in `#lackingWords` words. */
  readonly #lacking = new Int32Array(4);
  #lackingWords = 1;

  constructor(options: PacketTranslatorOptions = {}) {
    this.#maxPaths = options.maxPaths ?? DEFAULT_MAX_PATHS;
    if (!Number.isInteger(this.#maxPaths) || this.#maxPaths < 1 || this.#maxPaths > 2 ** 24) {
      throw new ApiMisuseError(`maxPaths must be a whole number from 1 to 2^24: ${this.#maxPaths}`);
    }
    this.#bindings = new Bindings({ realms: [], presences: [], permits: [] }, this.#indexOf);
    this.#paths4 = new PathTable(1, this.#maxPaths);
    this.#paths6 = new PathTable(4, this.#maxPaths);
  }

  /**
   * Replaces the plan as a whole. Paths that the new plan still has keep their counters.
   *
   * @throws {ConfigError} naming the place in the plan that is wrong; the old plan stays then.
   */
  load(plan: TranslationPlan): void {
    const bindings = new Bindings(plan, this.#indexOf);
    this.#paths4 = this.#carryOver(this.#paths4, bindings, 4);
    this.#paths6 = this.#carryOver(this.#paths6, bindings, 6);
    this.#bindings = bindings;
  }

  /**
   * Adds one presence to the plan, typically of a client that has sent its first packet. The same one
   * again changes nothing.
   *
   * @throws {ConfigError} if it is not one, or names a realm that the plan does not.
   * @throws {ApiMisuseError} if its address or its endpoint is bound otherwise.
   */
  bind(presence: Presence): void {
    this.#bindings.bind(presence);
  }

  /** Returns the index of a realm, which it keeps for the life of the translator. */
  realm(name: string): number {
    return this.#indexOf(name);
  }

  /** @throws {ApiMisuseError} if no realm has the index. */
  realmName(index: number): string {
    const name = this.#realmNames[index];
    if (name === undefined) throw new ApiMisuseError(`there is no realm ${index}`);
    return name;
  }

  /**
   * Returns the address that needs a presence in the realm `egress`. Valid iff the last verdict was
   * NeedsPresence.
   */
  lackingPresence(): IpAddress {
    return IpAddress.fromWords(Array.from(this.#lacking.subarray(0, this.#lackingWords)));
  }

  /** Returns how many packets that entered from the realm got which verdict. */
  counters(realm: number): VerdictCounters {
    this.realmName(realm);
    return nameCounters(this.#verdicts, realm * VERDICT_COUNT);
  }

  /** Lists the paths that packets have taken so far under the present plan. */
  *paths(): Generator<PathStatus> {
    for (const table of [this.#paths4, this.#paths6]) {
      for (let path = 0; path < table.size; path++) {
        const at = path * table.stride;
        const address = (offset: number) => table.addressAt(at + offset).toString();
        const value = at + table.keyWords;
        yield {
          ingress: this.realmName(table.words[at]!),
          source: address(1),
          destination: address(1 + table.width),
          egress: this.realmName(table.words[value + PATH_EGRESS]!),
          newSource: address(table.keyWords + PATH_ADDRESSES),
          newDestination: address(table.keyWords + PATH_ADDRESSES + table.width),
          packets: table.counts[2 * path]!,
          bytes: table.counts[2 * path + 1]!,
        };
      }
    }
  }

  /**
   * Translates the packet `buffer[start .. end)` that entered from `realm`. With the verdict Forward
   * the packet has been rewritten in place and `egress` is the realm it goes to; with any other it
   * is unchanged. A range outside of the buffer is DropMalformed.
   *
   * @param realm index as `realm` gives it; a packet of any other is DropNoPresence and not counted
   * @param vnet offset of the packet's virtio-net header, which stands somewhere in front of it, or -1
   *   if it has none and its checksums are complete
   */
  translate(
    realm: number,
    buffer: Uint8Array,
    start: number,
    end: number,
    vnet: number = -1
  ): Verdict {
    if (this.#realmNames[realm] === undefined) return Verdict.DropNoPresence;
    const verdict = this.#translate(realm, buffer, start, end, vnet);
    this.#verdicts[realm * VERDICT_COUNT + verdict]!++;
    return verdict;
  }

  #translate(realm: number, buffer: Uint8Array, start: number, end: number, vnet: number): Verdict {
    const header = this.#header;
    let outcome = header.parse(buffer, start, end);
    if (outcome !== Parse.Ok) return verdictOfParse(outcome);
    let isPartial = false;
    if (vnet >= 0) {
      outcome = checkOffload(buffer, vnet, start, header);
      if (outcome !== Parse.Ok) return verdictOfParse(outcome);
      isPartial = needsChecksum(buffer, vnet);
    }
    if (header.kind === PacketKind.IcmpError) {
      return this.#translateError(realm, buffer, start, end);
    }
    if (
      header.kind === PacketKind.Udp &&
      header.family === 6 &&
      !isPartial &&
      read16(buffer, header.checksum) === 0
    ) {
      return Verdict.DropMalformed; // RFC 8200 section 8.1
    }

    const isIpv4 = header.family === 4;
    const table = isIpv4 ? this.#paths4 : this.#paths6;
    const key = table.key;
    key[0] = realm;
    const addressBytes = isIpv4 ? 8 : 32;
    for (let i = 0; i < addressBytes; i += 4) {
      key[1 + (i >>> 2)] = read32(buffer, header.source + i);
    }
    const flags = header.kind === PacketKind.Tcp ? buffer[header.transport + TCP_FLAGS]! : 0;
    const isPureSyn = (flags & (TCP_FLAG_SYN | TCP_FLAG_ACK)) === TCP_FLAG_SYN;
    const path = this.#admit(
      table,
      header.kind,
      sidesOf(header.kind, isPureSyn),
      header.sourcePort,
      header.destinationPort
    );
    if (path < 0) return ~path as Verdict;

    const value = path * table.stride + table.keyWords;
    const delta = table.words[value + PATH_DELTA]!;
    this.egress = table.words[value + PATH_EGRESS]!;
    rewriteAddresses(buffer, header, table.words, value + PATH_ADDRESSES);
    rewriteHeaderChecksum(buffer, header, delta);
    rewriteTransportChecksum(buffer, header, delta, isPartial);
    table.counts[2 * path]!++;
    table.counts[2 * path + 1]! += end - start;
    return Verdict.Forward;
  }

  /**
   * The error (r, d) quotes (d, q): it takes the path of (q, d) and leaves as if q had sent it.
   */
  #translateError(realm: number, buffer: Uint8Array, start: number, end: number): Verdict {
    const header = this.#header;
    const quote = this.#quote;
    const outcome = quote.parseQuote(buffer, header.transport + ICMP_ERROR_HEADER, end);
    if (outcome !== Parse.Ok) return verdictOfParse(outcome);
    if (quote.family !== header.family) return Verdict.DropMalformed;
    if (quote.kind === PacketKind.IcmpError) return Verdict.DropUnsupported;

    const table = header.family === 4 ? this.#paths4 : this.#paths6;
    const { key, width } = table;
    key[0] = realm;
    for (let i = 0; i < width; i++) {
      const quoted = read32(buffer, quote.source + 4 * i);
      if (quoted !== read32(buffer, header.source + 4 * (width + i))) return Verdict.DropMalformed;
      key[1 + i] = read32(buffer, quote.source + 4 * (width + i));
      key[1 + width + i] = quoted;
    }
    const path = this.#admit(
      table,
      quote.kind,
      REQUEST | REPLY,
      quote.destinationPort,
      quote.sourcePort
    );
    if (path < 0) return ~path as Verdict;

    const value = path * table.stride + table.keyWords;
    const addresses = value + PATH_ADDRESSES;
    const delta = table.words[value + PATH_DELTA]!;
    let outerDelta = 0;
    for (let i = 0; i < 2 * width; i++) {
      const before = read32(buffer, header.source + 4 * i);
      outerDelta += longDelta(before, table.words[addresses + i]!);
    }
    outerDelta = foldDelta(outerDelta);
    this.egress = table.words[value + PATH_EGRESS]!;
    rewriteQuote(buffer, header, quote, table.words, addresses, delta, outerDelta);
    rewriteAddresses(buffer, header, table.words, addresses);
    rewriteHeaderChecksum(buffer, header, outerDelta);
    table.counts[2 * path]!++;
    table.counts[2 * path + 1]! += end - start;
    return Verdict.Forward;
  }

  /**
   * Returns the path of the key in the table if its policy lets the packet through, else the
   * complement of a verdict.
   */
  #admit(
    table: PathTable,
    kind: PacketKind,
    sides: number,
    sourcePort: number,
    destinationPort: number
  ): number {
    const path = table.find();
    if (path >= 0) {
      const policy = table.words[path * table.stride + table.keyWords + PATH_POLICY]!;
      return this.#bindings.policies.allows(policy, kind, sides, sourcePort, destinationPort)
        ? path
        : ~Verdict.DropNotPermitted;
    }
    const resolution = this.#bindings.resolve(table.width === 1 ? 4 : 6, table.key);
    if (resolution.verdict !== Verdict.Forward && resolution.verdict !== Verdict.NeedsPresence) {
      return ~resolution.verdict;
    }
    const { policies } = this.#bindings;
    if (!policies.allows(resolution.policy, kind, sides, sourcePort, destinationPort)) {
      return ~Verdict.DropNotPermitted;
    }
    this.egress = resolution.egress;
    if (resolution.verdict === Verdict.NeedsPresence) {
      this.#lackingWords = table.width;
      for (let i = 0; i < table.width; i++) this.#lacking[i] = table.key[1 + i]!;
      return ~Verdict.NeedsPresence;
    }
    const opened = table.insertPath(resolution);
    return opened < 0 ? ~Verdict.DropTableFull : opened;
  }

  /** Derives the paths of `old` anew from `bindings`; those it no longer has are left behind. */
  #carryOver(old: PathTable, bindings: Bindings, family: 4 | 6): PathTable {
    const table = new PathTable(family === 4 ? 1 : 4, this.#maxPaths);
    for (let path = 0; path < old.size; path++) {
      const at = path * old.stride;
      table.key.set(old.words.subarray(at, at + old.keyWords));
      const resolution = bindings.resolve(family, table.key);
      if (resolution.verdict !== Verdict.Forward) continue;
      const kept = table.insertPath(resolution);
      table.counts[2 * kept] = old.counts[2 * path]!;
      table.counts[2 * kept + 1] = old.counts[2 * path + 1]!;
    }
    return table;
  }

  readonly #indexOf = (name: string): number => {
    let index = this.#realmIndexes.get(name);
    if (index === undefined) {
      index = this.#realmNames.push(name) - 1;
      this.#realmIndexes.set(name, index);
      const counters = new Float64Array(this.#realmNames.length * VERDICT_COUNT);
      counters.set(this.#verdicts);
      this.#verdicts = counters;
    }
    return index;
  };
}

/** Paths by (ingress realm, source, destination), with a packet and a byte counter each. */
class PathTable extends IntTable {
  /** Words of an address. */
  readonly width: 1 | 4;
  /** Packets and bytes of each path, in turn. */
  counts: Float64Array = new Float64Array(64);

  constructor(width: 1 | 4, maxSize: number) {
    super(1 + 2 * width, PATH_ADDRESSES + 2 * width, maxSize);
    this.width = width;
  }

  /** Adds the path of the key in `key`; -1 when the table is full. */
  insertPath(resolution: Resolution): number {
    const path = this.insert();
    if (path < 0) return -1;
    const value = path * this.stride + this.keyWords;
    this.words[value + PATH_EGRESS] = resolution.egress;
    this.words[value + PATH_POLICY] = resolution.policy;
    this.words.set(resolution.source, value + PATH_ADDRESSES);
    this.words.set(resolution.destination, value + PATH_ADDRESSES + this.width);
    let delta = 0;
    for (let i = 0; i < 2 * this.width; i++) {
      const before = this.words[value - 2 * this.width + i]!;
      delta += longDelta(before, this.words[value + PATH_ADDRESSES + i]!);
    }
    this.words[value + PATH_DELTA] = foldDelta(delta);
    if (2 * this.size > this.counts.length) {
      const larger = new Float64Array(this.counts.length * 2);
      larger.set(this.counts);
      this.counts = larger;
    }
    return path;
  }

  addressAt(word: number): IpAddress {
    return IpAddress.fromWords(Array.from(this.words.subarray(word, word + this.width)));
  }
}

/** Words of a path's value; the new source and the new destination stand last. */
const PATH_EGRESS = 0;
const PATH_POLICY = 1;
const PATH_DELTA = 2;
const PATH_ADDRESSES = 3;

/** ICMP and ICMPv6 errors alike: type, code, checksum and one word in front of the quote. */
const ICMP_ERROR_HEADER = 8;

const DEFAULT_MAX_PATHS = 1_000_000;
const VERDICT_COUNT: number = VERDICT_NAMES.length;
