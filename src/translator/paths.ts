/**
 * All paths of both IP versions, and the plan they are derived from: each at its first packet, and anew
 * when the plan changes.
 * @module
 */

import { IpAddress } from '../address.ts';
import type { PacketKind } from '../packet/fields.ts';
import { Bindings, type Resolution } from './bindings.ts';
import { PATH_PAIR, PATH_WAY, REPLY, WAY_EGRESS, WAY_FAMILY, WAY_POLICY } from './layout.ts';
import { type PathStatus, PathTable, WayTable } from './path-table.ts';
import type { TranslationPlan } from './plan.ts';
import { needsSession } from './policy.ts';
import { Verdict } from './verdict.ts';

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
  /** By realm: the paths of both versions that its hosts ask for, there and back. */
  #held: number[] = [];
  /** How many pairs of hosts have had a path; see `PATH_PAIR`. */
  #pairs = 0;
  readonly #savedKey = new Int32Array(9);

  constructor(indexOf: (realm: string) => number, maxPaths: number, maxPathsOfRealm: number) {
    this.#indexOf = indexOf;
    this.#maxPaths = maxPaths;
    this.#maxPathsOfRealm = maxPathsOfRealm;
    this.bindings = new Bindings({ realms: [], presences: [], permits: [] }, indexOf);
    this.v4 = new PathTable(4, maxPaths);
    this.v6 = new PathTable(6, maxPaths);
  }

  /**
   * Takes a new plan, and derives from it the paths that were there; those it no longer has are left
   * behind.
   *
   * @returns how many of these led from or to a realm that it no longer has either.
   * @throws {ConfigError} naming the place in the plan that is wrong; all stays as it was then.
   */
  load(plan: TranslationPlan): number {
    const bindings = new Bindings(plan, this.#indexOf);
    const gone = this.countOf((realm) => bindings.realm(realm) === undefined);
    this.bindings = bindings;
    const { v4, v6, ways } = this;
    this.ways = new WayTable();
    this.#held = [];
    this.v4 = this.#carryOver(v4, ways);
    this.v6 = this.#carryOver(v6, ways);
    return gone;
  }

  table(family: 4 | 6): PathTable {
    return family === 4 ? this.v4 : this.v6;
  }

  /**
   * Derives the path of the key in the table and keeps it, if its policy lets a packet like this one
   * through; else returns the complement of a verdict.
   *
   * @param sides that the packet may be on (`policy.ts`)
   * @param isQuoted it is the quote of an ICMP error, which needs no session
   */
  open(
    table: PathTable,
    kind: PacketKind,
    sides: number,
    sourcePort: number,
    destinationPort: number,
    isQuoted: boolean
  ): number {
    const resolution = this.bindings.resolve(table.family, table.key);
    const { verdict, policy } = resolution;
    if (verdict !== Verdict.Forward && verdict !== Verdict.NeedsPresence) return ~verdict;
    const { policies } = this.bindings;
    const side = policies.sideOf(policy, kind, sides, sourcePort, destinationPort);
    if (side === 0) return ~Verdict.DropNotPermitted;
    const isAnswer = side === REPLY && needsSession(kind) && !isQuoted;
    if (verdict === Verdict.NeedsPresence) {
      // Who has no presence has not been asked either.
      if (isAnswer) return ~Verdict.DropNoSession;
      this.lackingIn = resolution.egress;
      this.lackingFamily = resolution.family;
      return ~Verdict.NeedsPresence;
    }
    const back = this.#pathBack(table, resolution);
    // Nor has who is answered by no path of the request.
    if (isAnswer && back < 0) return ~Verdict.DropNoSession;
    const client = this.#clientRealm(table.key[0]!, resolution.egress, policy);
    const held = this.#held[client] ?? 0;
    if (held >= this.#maxPathsOfRealm) return ~Verdict.DropTableFull;
    const opened = table.open(
      resolution,
      this.#wayOf(table, resolution),
      this.#pairOf(back, resolution)
    );
    if (opened < 0) return ~Verdict.DropTableFull;
    this.#held[client] = held + 1;
    return opened;
  }

  /** Takes back the path that was opened last. */
  closeLast(table: PathTable): void {
    const at = (table.size - 1) * table.stride;
    const way = table.words[at + table.keyWords + PATH_WAY]!;
    const { words } = this.ways;
    const policy = words[way + WAY_POLICY]!;
    this.#held[this.#clientRealm(table.words[at]!, words[way + WAY_EGRESS]!, policy)]!--;
    table.closeLast(words[way + WAY_FAMILY]! as 4 | 6);
  }

  /**
   * Whose a path is: a site that opens as many as it can takes none of another's. Where hosts at both ends
   * are clients, each direction is its own's.
   */
  #clientRealm(ingress: number, egress: number, policy: number): number {
    return this.bindings.policies.hasRequests(policy) ? ingress : egress;
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
    const from = this.bindings.realm(ingress)!;
    const to = this.bindings.realm(resolution.egress)!;
    return this.ways.wayOf(table.family, ingress, from, resolution, to);
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

  /** Returns the number that the path back, if there is one, has for its pair of hosts, or a new one. */
  #pairOf(back: number, { family }: Resolution): number {
    if (back >= 0) {
      const table = this.table(family);
      return table.words[back * table.stride + table.keyWords + PATH_PAIR]! ^ 1;
    }
    this.#pairs = this.#pairs === MAX_PAIRS ? 1 : this.#pairs + 1;
    return this.#pairs << 1;
  }

  #carryOver(old: PathTable, oldWays: WayTable): PathTable {
    const table = new PathTable(old.family, this.#maxPaths);
    for (let path = 0; path < old.size; path++) {
      old.keyOf(path);
      table.key.set(old.key);
      const resolution = this.bindings.resolve(old.family, table.key);
      if (resolution.verdict !== Verdict.Forward) continue;
      if (!leadsTo(old, oldWays, path, resolution)) continue;
      const pair = old.words[path * old.stride + old.keyWords + PATH_PAIR]!;
      const kept = table.open(resolution, this.#wayOf(table, resolution), pair);
      const client = this.#clientRealm(table.key[0]!, resolution.egress, resolution.policy);
      this.#held[client] = (this.#held[client] ?? 0) + 1;
      table.count(kept, old.packets(path), old.bytes(path));
    }
    return table;
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

/** Pairs are numbered anew after this many; by then, the sessions of the first are long over. */
const MAX_PAIRS = 0x07ff_ffff;
