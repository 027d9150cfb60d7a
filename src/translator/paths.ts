/**
 * All paths of both IP versions, and the plan they are derived from: each at its first packet, and anew
 * when the plan changes.
 *
 * A path is opened by a client's request, and the path back by the reply to it. A reply to nobody opens
 * nothing: a service cannot fill the table, nor reach the ports of clients that have not spoken to it. For a
 * while after a start, such replies pass without opening a path (`reply-grace.ts`).
 * @module
 */
import { IpAddress } from '../base/address.ts';
import { checkWhole } from '../base/option-check.ts';
import type { PacketKind } from '../packet/fields.ts';
import { Bindings, type Resolution } from './bindings.ts';
import { IdlePaths } from './idle-paths.ts';
import {
  PATH_PAIR,
  PATH_WAY,
  REPLY,
  WAY_BILLED,
  WAY_EGRESS,
  WAY_FAMILY,
  WAY_POLICY,
} from './layout.ts';
import { type PathStatus, PathTable, WayTable } from './path-table.ts';
import type { TranslationPlanInput } from './plan.ts';
import { needsSession } from './policy.ts';
import { ReplyGrace } from './reply-grace.ts';
import { Verdict } from './verdict.ts';

export interface PathOptions {
  /** Paths kept at most, of each IP version; default 1,000,000. */
  readonly maxPaths?: number;
  /**
   * Of these, paths that the hosts of one realm ask for as clients, there and back and of both IP versions
   * together; default 131,072. So no site fills the tables for the others.
   */
  readonly maxPathsOfRealm?: number;
  /**
   * How long a path must have been idle before it makes room for another one when the table, or its
   * realm's share of it, is full; in ms, default 300,000. While there is room, paths are kept.
   */
  readonly pathIdleMs?: number;
  /**
   * How long after a realm's first packet TCP and SCTP replies from and to the realm pass although the client
   * has not been heard since the start; in ms, default 120,000, the longest that TCP waits until it sends
   * again (RFC 6298 section 2.5 asks for 60 s at least; Linux has 120 s).
   */
  readonly replyGraceMs?: number;
}

/** What is used where an option is absent. */
export const PATH_DEFAULTS: Readonly<Required<PathOptions>> = Object.freeze({
  maxPaths: 1_000_000,
  maxPathsOfRealm: 131_072,
  pathIdleMs: 300_000,
  replyGraceMs: 120_000,
});

export class Paths {
  v4: PathTable;
  v6: PathTable;
  ways: WayTable = new WayTable();
  bindings: Bindings;
  /** What `open` found the source to be lacking: a presence in this realm, of this IP version. */
  lackingIn = 0;
  lackingFamily: 4 | 6 = 4;

  readonly #indexOf: (realm: string) => number;
  readonly #maxPaths: number;
  readonly #maxPathsOfRealm: number;
  readonly #idle: IdlePaths;
  readonly #grace: ReplyGrace;
  #now = 0;
  /** The table of the path on loan, which is the last one there. */
  #loan: PathTable | undefined;
  /** By realm: the paths of both versions that its hosts ask for, there and back. */
  #held: number[] = [];
  /** How many pairs of hosts have had a path; see `PATH_PAIR`. */
  #pairs = 0;
  readonly #savedKey = new Int32Array(9);

  /** @throws {ApiMisuseError} if an option is out of range. */
  constructor(indexOf: (realm: string) => number, options: PathOptions) {
    const {
      maxPaths = PATH_DEFAULTS.maxPaths,
      maxPathsOfRealm = PATH_DEFAULTS.maxPathsOfRealm,
      pathIdleMs = PATH_DEFAULTS.pathIdleMs,
      replyGraceMs = PATH_DEFAULTS.replyGraceMs,
    } = options;
    checkWhole('maxPaths', maxPaths, 1, 2 ** 24);
    checkWhole('maxPathsOfRealm', maxPathsOfRealm, 1, 2 ** 25);
    checkWhole('pathIdleMs', pathIdleMs, 1000, 86_400_000);
    checkWhole('replyGraceMs', replyGraceMs, 0, 86_400_000);
    this.#indexOf = indexOf;
    this.#maxPaths = maxPaths;
    this.#maxPathsOfRealm = maxPathsOfRealm;
    this.#idle = new IdlePaths(pathIdleMs);
    this.#grace = new ReplyGrace(replyGraceMs);
    this.bindings = new Bindings({ realms: [], presences: [], permits: [] }, indexOf);
    this.v4 = this.#newTable(4);
    this.v6 = this.#newTable(6);
  }

  /** Tells the time, of a clock that never goes back; to be called often. */
  advance(nowMs: number): void {
    this.#now = nowMs;
    this.#idle.look(nowMs, this.v4, this.v6);
  }

  /**
   * Takes a new plan, and derives from it the paths that were there; those it no longer has are left
   * behind.
   *
   * @returns how many of these led from or to a realm that it no longer has either.
   * @throws {ConfigError} naming the place in the plan that is wrong; all stays as it was then.
   */
  load(plan: TranslationPlanInput): number {
    const bindings = new Bindings(plan, this.#indexOf);
    const gone = this.countOf((realm) => bindings.realm(realm) === undefined);
    this.bindings = bindings;
    const { v4, v6, ways } = this;
    this.ways = new WayTable();
    this.#held = [];
    this.#idle.reset();
    this.#grace.keep((realm) => bindings.realm(realm) !== undefined);
    this.v4 = this.#carryOver(v4, ways);
    this.v6 = this.#carryOver(v6, ways);
    return gone;
  }

  table(family: 4 | 6): PathTable {
    return family === 4 ? this.v4 : this.v6;
  }

  /**
   * Derives the path of the key in the table and keeps it, if its policy lets a packet like this one
   * through; else returns the complement of a verdict. A path that is not to be kept is on loan
   * (`isOnLoan`): it is there for this packet, until `giveBack`.
   *
   * @param sides that the packet may be on (`policy.ts`)
   * @param isQuoted it is the quote of an ICMP error, which needs no session
   * @param isDry nothing is to be kept
   */
  open(
    table: PathTable,
    kind: PacketKind,
    sides: number,
    sourcePort: number,
    destinationPort: number,
    isQuoted: boolean,
    isDry: boolean
  ): number {
    const resolution = this.bindings.resolve(table.family, table.key);
    const { verdict, policy, egress } = resolution;
    if (verdict !== Verdict.Forward && verdict !== Verdict.NeedsPresence) return ~verdict;
    const { policies } = this.bindings;
    const side = policies.sideOf(policy, kind, sides, sourcePort, destinationPort);
    if (side === 0) return ~Verdict.DropNotPermitted;
    const ingress = table.key[0]!;
    // Who has no presence has not been asked, nor has who is answered by no path of the request.
    const back = verdict === Verdict.Forward ? this.#pathBack(table, resolution) : -1;
    const isUnasked = side === REPLY && back < 0;
    if (isUnasked) {
      const mayHaveBeenAsked = isQuoted || !needsSession(kind);
      const isGrace = this.#grace.isNew(ingress, this.#now) || this.#grace.isNew(egress, this.#now);
      if (!mayHaveBeenAsked || !isGrace) return ~Verdict.DropNoSession;
    }
    if (verdict === Verdict.NeedsPresence) {
      this.lackingIn = egress;
      this.lackingFamily = resolution.family;
      return ~Verdict.NeedsPresence;
    }
    const way = this.#wayOf(table, resolution);
    const billed = this.ways.words[way + WAY_BILLED]!;
    const isKept = !isUnasked && !isDry;
    // Making room may give the path back another number, so it is asked for its pair before.
    const pair = this.#pairOf(back, resolution, isKept);
    if (!isUnasked && !this.#hasRoom(table, billed, isDry)) return ~Verdict.DropTableFull;
    const opened = table.open(resolution, way, pair, this.#idle.tick);
    if (!isKept) this.#loan = table;
    else this.#held[billed] = (this.#held[billed] ?? 0) + 1;
    // Also by a reply that nobody asked for: a realm that sends no others must not stay new.
    if (!isDry) this.#grace.hear(ingress, this.#now);
    return opened;
  }

  /** The path that was opened last is for one packet, and is to be given back. */
  get isOnLoan(): boolean {
    return this.#loan !== undefined;
  }

  /** Takes back the path on loan, if there is one. */
  giveBack(): void {
    const table = this.#loan;
    if (table === undefined) return;
    this.#loan = undefined;
    const path = table.size - 1;
    const way = table.words[path * table.stride + table.keyWords + PATH_WAY]!;
    table.close(path, this.ways.words[way + WAY_FAMILY]! as 4 | 6);
  }

  /**
   * Whether there is room for one more path of the table that a realm's clients ask for. An idle one is
   * closed to make it, unless nothing is to change: one of the realm's own, or, if the table is full, of a
   * realm that has as many as an even share of the table or more.
   */
  #hasRoom(table: PathTable, realm: number, isDry: boolean): boolean {
    const isShareFull = (this.#held[realm] ?? 0) >= this.#maxPathsOfRealm;
    const isTableFull = table.size >= this.#maxPaths;
    if (!isShareFull && !isTableFull) return true;
    const evenShare = this.#maxPaths / this.bindings.realmCount;
    const isMeant = (each: PathTable, path: number): boolean => {
      if (isTableFull && each !== table) return false;
      const billed = this.#billedTo(each, path);
      return billed === realm || (!isShareFull && this.#held[billed]! >= evenShare);
    };
    const who = isShareFull ? realm : -table.family;
    if (!this.#idle.find(who, this.v4, this.v6, isMeant)) return false;
    if (!isDry) this.#close(this.#idle.table!, this.#idle.path);
    return true;
  }

  #close(table: PathTable, path: number): void {
    const billed = this.#billedTo(table, path);
    const way = table.words[path * table.stride + table.keyWords + PATH_WAY]!;
    this.#held[billed]!--;
    table.close(path, this.ways.words[way + WAY_FAMILY]! as 4 | 6);
  }

  #billedTo(table: PathTable, path: number): number {
    const way = table.words[path * table.stride + table.keyWords + PATH_WAY]!;
    return this.ways.words[way + WAY_BILLED]!;
  }

  /** How many paths have such a realm at either end. */
  countOf(isMeant: (realm: number) => boolean): number {
    let count = 0;
    for (const table of [this.v4, this.v6]) {
      for (let at = 0; at < table.size * table.stride; at += table.stride) {
        const way = table.words[at + table.keyWords + PATH_WAY]!;
        if (isMeant(table.words[at]!) || isMeant(this.ways.words[way + WAY_EGRESS]!)) count++;
      }
    }
    return count;
  }

  policyOf(table: PathTable, path: number): number {
    const way = table.words[path * table.stride + table.keyWords + PATH_WAY]!;
    return this.ways.words[way + WAY_POLICY]!;
  }

  status(table: PathTable, path: number, realmName: (index: number) => string): PathStatus {
    const key = path * table.stride;
    const way = table.words[key + table.keyWords + PATH_WAY]!;
    const family = this.ways.words[way + WAY_FAMILY]! as 4 | 6;
    const { words, at, width } = table.newAddresses(path, family);
    return {
      ingress: realmName(table.words[key]!),
      source: addressOf(table.family, table.words, key + 1).toString(),
      destination: addressOf(table.family, table.words, key + 1 + table.width).toString(),
      egress: realmName(this.ways.words[way + WAY_EGRESS]!),
      newSource: addressOf(family, words, at).toString(),
      newDestination: addressOf(family, words, at + width).toString(),
      packets: table.packets(path),
      bytes: table.bytes(path),
    };
  }

  #wayOf(table: PathTable, resolution: Resolution): number {
    const ingress = table.key[0]!;
    const { egress, policy } = resolution;
    const from = this.bindings.realm(ingress)!;
    const to = this.bindings.realm(egress)!;
    // Where hosts at both ends are clients, each direction is its own's.
    const billed = this.bindings.policies.hasRequests(policy) ? ingress : egress;
    return this.ways.wayOf(table.family, ingress, from, resolution, to, billed);
  }

  /** Returns the path in the other direction, -1 if it has not been opened. */
  #pathBack(table: PathTable, { egress, family, source, destination }: Resolution): number {
    const saved = this.#savedKey;
    saved.set(table.key);
    const back = this.table(family);
    back.key[0] = egress;
    for (let i = 0; i < back.width; i++) {
      back.key[1 + i] = destination[i]!;
      back.key[1 + back.width + i] = source[i]!;
    }
    const path = back.find();
    for (let i = 0; i < table.keyWords; i++) table.key[i] = saved[i]!;
    return path;
  }

  /**
   * Returns the number that the path back, if there is one, has for its pair of hosts, or a new one; a path
   * that is not kept needs none of its own.
   */
  #pairOf(back: number, { family }: Resolution, isKept: boolean): number {
    if (back >= 0) {
      const table = this.table(family);
      return table.words[back * table.stride + table.keyWords + PATH_PAIR]! ^ 1;
    }
    if (!isKept) return NO_PAIR;
    this.#pairs = this.#pairs === MAX_PAIRS ? 1 : this.#pairs + 1;
    return this.#pairs << 1;
  }

  #carryOver(old: PathTable, oldWays: WayTable): PathTable {
    const table = this.#newTable(old.family);
    for (let path = 0; path < old.size; path++) {
      old.keyOf(path);
      table.key.set(old.key);
      const resolution = this.bindings.resolve(old.family, table.key);
      const isThere =
        resolution.verdict === Verdict.Forward && leadsTo(old, oldWays, path, resolution);
      if (!isThere) {
        // Hosts of a realm that is gone may be reached another way now, where nobody has heard them yet.
        const way = old.words[path * old.stride + old.keyWords + PATH_WAY]!;
        const ingress = old.words[path * old.stride]!;
        const egress = oldWays.words[way + WAY_EGRESS]!;
        if (this.bindings.realm(ingress) === undefined) this.#grace.beginAnew(egress, this.#now);
        if (this.bindings.realm(egress) === undefined) this.#grace.beginAnew(ingress, this.#now);
        continue;
      }
      const pair = old.words[path * old.stride + old.keyWords + PATH_PAIR]!;
      const way = this.#wayOf(table, resolution);
      const kept = table.open(resolution, way, pair, this.#idle.tick);
      const billed = this.ways.words[way + WAY_BILLED]!;
      this.#held[billed] = (this.#held[billed] ?? 0) + 1;
      table.copyUse(kept, old, path);
    }
    return table;
  }

  /** One more than may be kept can be on loan. */
  #newTable(family: 4 | 6): PathTable {
    return new PathTable(family, this.#maxPaths + 1);
  }
}

/** The address `words[at]` on. */
function addressOf(family: 4 | 6, words: Int32Array, at: number): IpAddress {
  return IpAddress.fromWords(Array.from(words.subarray(at, at + (family === 4 ? 1 : 4))));
}

/** Whether a path leads where the resolution says: to the same hosts as it did. */
function leadsTo(table: PathTable, ways: WayTable, path: number, to: Resolution): boolean {
  const way = table.words[path * table.stride + table.keyWords + PATH_WAY]!;
  if (ways.words[way + WAY_EGRESS] !== to.egress || ways.words[way + WAY_FAMILY] !== to.family) {
    return false;
  }
  const { words, at, width } = table.newAddresses(path, to.family);
  for (let i = 0; i < (to.family === 4 ? 1 : 4); i++) {
    if (words[at + i] !== to.source[i] || words[at + width + i] !== to.destination[i]) return false;
  }
  return true;
}

/** No kept path has this number. */
export const NO_PAIR = 0;
/** Pairs are numbered anew after this many; by then, the sessions of the first are long over. */
const MAX_PAIRS = 0x07ff_ffff;
