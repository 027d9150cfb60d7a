/**
 * Keeps all paths of both IP versions. A path is derived from the plan at its first packet, and again when
 * the plan changes.
 *
 * A client's request opens a path, and the reply to it opens the path back. An unsolicited reply opens no
 * path, so a service can neither fill the table nor reach the ports of clients that have not contacted it.
 * After a start such replies pass for a while without opening a path (`reply-grace.ts`).
 * @module
 */
import { IpAddress } from '../base/address.ts';
import { checkWhole } from '../base/option-check.ts';
import type { PacketKind } from '../packet/fields.ts';
import { Bindings, type Resolution } from './bindings.ts';
import { IdlePaths } from './idle-paths.ts';
import {
  PATH_PAIR,
  REPLY,
  ROUTE_CLIENT_REALM,
  ROUTE_EGRESS,
  ROUTE_FAMILY,
  ROUTE_POLICY,
} from './layout.ts';
import { PathPairs } from './path-pairs.ts';
import { type PathStatus, PathTable } from './path-table.ts';
import type { PlanChangesInput, TranslationPlanInput } from './plan.ts';
import { needsSession } from './policy.ts';
import { ReplyGrace } from './reply-grace.ts';
import { RouteTable } from './route-table.ts';
import { Verdict } from './verdict.ts';

export interface PathOptions {
  /** The number of paths of each IP version to keep at most; default 1,000,000. */
  readonly maxPaths?: number;
  /**
   * The number of paths to keep at most for the clients of one realm, in both directions and of both IP
   * versions together; default 131,072. So no site can fill the tables for the others.
   */
  readonly maxPathsOfRealm?: number;
  /**
   * How long a path must have been idle before another one may replace it when the table, or its realm's
   * share of it, is full; in ms, default 300,000. While there is room, idle paths are kept.
   */
  readonly pathIdleMs?: number;
  /**
   * How long after a realm's first packet unsolicited TCP and SCTP replies from and to the realm pass; in
   * ms, default 120,000. That is the longest time that TCP waits before it retransmits (RFC 6298 section
   * 2.5 asks for at least 60 s, Linux has 120 s).
   */
  readonly replyGraceMs?: number;
}

/** The defaults of the options. */
export const PATH_DEFAULTS: Readonly<Required<PathOptions>> = Object.freeze({
  maxPaths: 1_000_000,
  maxPathsOfRealm: 131_072,
  pathIdleMs: 300_000,
  replyGraceMs: 120_000,
});

export class Paths {
  v4: PathTable;
  v6: PathTable;
  routes: RouteTable;
  bindings: Bindings;
  /** The realm in which the source has no presence. Valid iff `open` returned NeedsPresence. */
  lackingIn = 0;
  /** The IP version of that presence. */
  lackingFamily: 4 | 6 = 4;

  readonly #indexOf: (realm: string) => number;
  readonly #maxPaths: number;
  readonly #maxPathsOfRealm: number;
  readonly #idle: IdlePaths;
  readonly #grace: ReplyGrace;
  #now = 0;
  /** The table whose last path is temporary; undefined if there is no temporary path. */
  #temporaryTable: PathTable | undefined;
  /** The number of paths that count against each realm's share. */
  #pathCounts: number[] = [];
  readonly #pairs: PathPairs = new PathPairs(this);

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
    this.routes = new RouteTable(this.bindings.policies);
    this.v4 = this.#newTable(4);
    this.v6 = this.#newTable(6);
  }

  /** Sets the time, of a clock that never goes back. Call it often: it also looks for idle paths. */
  advance(nowMs: number): void {
    this.#now = nowMs;
    this.#idle.scan(nowMs, this.v4, this.v6);
  }

  /**
   * Replaces the plan and derives the existing paths again. Paths that it no longer allows end. All tables are made
   * anew, from nothing but the plan and the old paths.
   *
   * @returns how many of the ended paths led from or to a realm that the new plan does not have
   * @throws {ConfigError} if the plan is invalid; it names the place. Nothing has changed then.
   */
  load(plan: TranslationPlanInput): number {
    const bindings = new Bindings(plan, this.#indexOf);
    this.bindings = bindings;
    const { v4, v6, routes } = this;
    this.routes = new RouteTable(bindings.policies);
    this.#pathCounts = [];
    this.#idle.reset();
    this.#grace.keep((realm) => bindings.realm(realm) !== undefined);
    this.v4 = this.#newTable(4);
    this.v6 = this.#newTable(6);
    return this.#carryOver(v4, routes) + this.#carryOver(v6, routes);
  }

  /**
   * Changes the plan, and derives the paths again that this may have changed. Paths that it no longer allows end.
   *
   * @param ingress gets the ingress realms of all ended paths
   * @returns how many of the ended paths led from or to a realm that is gone
   * @throws {ConfigError} if the changes are invalid; it names the place. Nothing has changed then.
   */
  apply(changes: PlanChangesInput, ingress: Set<number>): number {
    const { gone, resized, realms, pairs } = this.bindings.apply(changes);
    const { routes } = this;
    let count = 0;
    for (const realm of gone) this.#grace.forget(realm);
    for (const realm of gone) {
      for (const route of routes.ofRealm(realm)) {
        // The hosts of a removed realm may be reached through another realm now, so replies to their
        // earlier requests may come unsolicited.
        this.#grace.restart(routes.ingressOf(route), this.#now);
        this.#grace.restart(routes.words[route + ROUTE_EGRESS]!, this.#now);
        count += this.#closeSome(route, ingress, () => true);
      }
    }
    for (const realm of resized) {
      for (const route of routes.ofRealm(realm)) {
        const from = this.bindings.realm(routes.ingressOf(route))!;
        routes.setSizes(route, from, this.bindings.realm(routes.words[route + ROUTE_EGRESS]!)!);
      }
    }
    const touched = [
      ...realms.flatMap((realm) => routes.ofRealm(realm)),
      ...pairs.flatMap((pair) => routes.between(...pair)),
    ];
    // A route of these has paths until its turn comes, because no other one's turn takes its paths away.
    for (const route of new Set(touched)) {
      this.#closeSome(route, ingress, (table, path) => !this.#deriveAgain(table, path));
    }
    return count;
  }

  /** Returns the table of an IP version. */
  table(family: 4 | 6): PathTable {
    return family === 4 ? this.v4 : this.v6;
  }

  /**
   * Derives the path of the table's key and keeps it, if its policy allows the packet. A path that is not
   * kept is temporary (`isTemporary`): it exists for this packet, until `releaseTemporary`.
   *
   * @param sides the sides that the packet may be on (`policy.ts`)
   * @param isQuoted whether the packet is the quote of an ICMP error, which needs no session
   * @param isDryRun whether to keep nothing
   * @returns the number of the path, or the complement of a verdict (negative)
   */
  open(
    table: PathTable,
    kind: PacketKind,
    sides: number,
    sourcePort: number,
    destinationPort: number,
    isQuoted: boolean,
    isDryRun: boolean
  ): number {
    const resolution = this.bindings.resolve(table.family, table.key);
    const { verdict, policy } = resolution;
    if (verdict !== Verdict.Forward && verdict !== Verdict.NeedsPresence) return ~verdict;
    const { policies } = this.bindings;
    const side = policies.sideOf(policy, kind, sides, sourcePort, destinationPort);
    const opened =
      side === 0
        ? ~Verdict.DropNotPermitted
        : this.#openTo(resolution, table, side, isQuoted || !needsSession(kind), isDryRun);
    policies.drop(policy);
    return opened;
  }

  /**
   * Opens a path to where a resolution leads.
   *
   * @param mayBeSolicited whether there may have been a request that is not known any more, if the packet is a reply
   */
  #openTo(
    resolution: Resolution,
    table: PathTable,
    side: number,
    mayBeSolicited: boolean,
    isDryRun: boolean
  ): number {
    const { verdict, policy, egress } = resolution;
    const ingress = table.key[0]!;
    // A source without a presence cannot have got a request, nor can one to which no path leads.
    const back = verdict === Verdict.Forward ? this.#pairs.pathBack(table, resolution) : -1;
    const isUnsolicited = side === REPLY && back < 0;
    if (isUnsolicited) {
      const isGrace = this.#grace.isNew(ingress, this.#now) || this.#grace.isNew(egress, this.#now);
      if (!mayBeSolicited || !isGrace) return ~Verdict.DropNoSession;
    }
    if (verdict === Verdict.NeedsPresence) {
      this.lackingIn = egress;
      this.lackingFamily = resolution.family;
      return ~Verdict.NeedsPresence;
    }
    const clientRealm = this.routes.clientRealm(ingress, egress, policy);
    const isKept = !isUnsolicited && !isDryRun;
    // `#hasRoom` may change the number of the path back, so read its pair before.
    const pair = this.#pairs.pairOf(back, table, resolution, isKept);
    if (!isUnsolicited && !this.#hasRoom(table, clientRealm, isDryRun))
      return ~Verdict.DropTableFull;
    const route = this.#routeOf(table, resolution);
    const opened = table.open(resolution, route, pair, this.#idle.tick);
    if (!isKept) this.#temporaryTable = table;
    else this.#countPath(clientRealm, 1);
    // An unsolicited reply counts too: a realm that sends nothing else must not stay new.
    if (!isDryRun) this.#grace.noteTraffic(ingress, this.#now);
    return opened;
  }

  /** Whether the path that was opened last exists for one packet only. */
  get isTemporary(): boolean {
    return this.#temporaryTable !== undefined;
  }

  /** Removes the temporary path, if there is one. */
  releaseTemporary(): void {
    const table = this.#temporaryTable;
    if (table === undefined) return;
    this.#temporaryTable = undefined;
    this.#remove(table, table.size - 1);
  }

  /**
   * Returns whether there is room for one more path of a client realm. If not, it closes an idle path
   * (except in a dry run): one of the same realm or, if the table is full, one of a realm that has at least
   * an even share of the table.
   */
  #hasRoom(table: PathTable, realm: number, isDryRun: boolean): boolean {
    const isShareFull = (this.#pathCounts[realm] ?? 0) >= this.#maxPathsOfRealm;
    const isTableFull = table.size >= this.#maxPaths;
    if (!isShareFull && !isTableFull) return true;
    const evenShare = this.#maxPaths / this.bindings.realmCount;
    const isCandidate = (each: PathTable, path: number): boolean => {
      if (isTableFull && each !== table) return false;
      const clientRealm = this.#clientRealmOf(each, path);
      return clientRealm === realm || (!isShareFull && this.#pathCounts[clientRealm]! >= evenShare);
    };
    const searchKey = isShareFull ? realm : -table.family;
    if (!this.#idle.find(searchKey, this.v4, this.v6, isCandidate)) return false;
    if (!isDryRun) this.#close(this.#idle.table!, this.#idle.path);
    return true;
  }

  /** Closes a path that is kept. */
  #close(table: PathTable, path: number): void {
    this.#countPath(this.#clientRealmOf(table, path), -1);
    this.#remove(table, path);
  }

  /** Removes a path, and its route if no other path has it. */
  #remove(table: PathTable, path: number): void {
    const route = table.routeOf(path);
    table.close(path, this.routes.words[route + ROUTE_FAMILY]! as 4 | 6);
    if (table.countOf(route) === 0) this.routes.close(route);
  }

  /** Closes the paths of a route that have ended. Returns how many these were. */
  #closeSome(
    route: number,
    ingress: Set<number>,
    hasEnded: (table: PathTable, path: number) => boolean
  ): number {
    const realm = this.routes.ingressOf(route);
    const table = this.table(this.routes.familyOf(route));
    let count = 0;
    for (let path = table.firstOf(route), next: number; path >= 0; path = next) {
      next = table.nextOf(path);
      if (!hasEnded(table, path)) continue;
      // The last path of the table gets the number of the closed one.
      if (next === table.size - 1) next = path;
      this.#close(table, path);
      ingress.add(realm);
      count++;
    }
    return count;
  }

  /** Derives a path again. Returns false if it no longer leads where it did. */
  #deriveAgain(table: PathTable, path: number): boolean {
    table.keyOf(path);
    const resolution = this.bindings.resolve(table.family, table.key);
    const { verdict, policy } = resolution;
    if (verdict !== Verdict.Forward) {
      if (verdict === Verdict.NeedsPresence) this.bindings.policies.drop(policy);
      return false;
    }
    const isSame = leadsTo(table, this.routes, path, resolution);
    const before = table.routeOf(path);
    const route = isSame ? this.#routeOf(table, resolution) : before;
    if (route !== before) {
      this.#countPath(this.#clientRealmOf(table, path), -1);
      table.setRoute(path, route);
      this.#countPath(this.#clientRealmOf(table, path), 1);
      if (table.countOf(before) === 0) this.routes.close(before);
    }
    this.bindings.policies.drop(policy);
    return isSame;
  }

  #clientRealmOf(table: PathTable, path: number): number {
    return this.routes.words[table.routeOf(path) + ROUTE_CLIENT_REALM]!;
  }

  /** Adds to the number of paths that count against a realm's share. */
  #countPath(clientRealm: number, change: 1 | -1): void {
    this.#pathCounts[clientRealm] = (this.#pathCounts[clientRealm] ?? 0) + change;
  }

  /** Counts the paths from or to a realm. */
  countOf(realm: number): number {
    const { routes } = this;
    return routes
      .ofRealm(realm)
      .reduce((sum, route) => sum + this.table(routes.familyOf(route)).countOf(route), 0);
  }

  policyOf(table: PathTable, path: number): number {
    return this.routes.words[table.routeOf(path) + ROUTE_POLICY]!;
  }

  status(table: PathTable, path: number, realmName: (index: number) => string): PathStatus {
    const key = path * table.stride;
    const route = table.routeOf(path);
    const family = this.routes.words[route + ROUTE_FAMILY]! as 4 | 6;
    const { words, at, width } = table.newAddresses(path, family);
    return {
      ingress: realmName(table.words[key]!),
      source: addressOf(table.family, table.words, key + 1).toString(),
      destination: addressOf(table.family, table.words, key + 1 + table.width).toString(),
      egress: realmName(this.routes.words[route + ROUTE_EGRESS]!),
      newSource: addressOf(family, words, at).toString(),
      newDestination: addressOf(family, words, at + width).toString(),
      packets: table.packets(path),
      bytes: table.bytes(path),
    };
  }

  #routeOf(table: PathTable, resolution: Resolution): number {
    const ingress = table.key[0]!;
    const from = this.bindings.realm(ingress)!;
    const to = this.bindings.realm(resolution.egress)!;
    return this.routes.routeOf(table.family, ingress, from, resolution, to);
  }

  /**
   * Derives the paths of an old table again, and adds those that lead where they did to the new one. Returns how many
   * of the others led from or to a realm that is gone.
   */
  #carryOver(old: PathTable, oldRoutes: RouteTable): number {
    const table = this.table(old.family);
    let gone = 0;
    for (let path = 0; path < old.size; path++) {
      old.keyOf(path);
      table.key.set(old.key);
      const resolution = this.bindings.resolve(old.family, table.key);
      const { verdict, policy } = resolution;
      if (verdict === Verdict.Forward && leadsTo(old, oldRoutes, path, resolution)) {
        const pair = old.words[path * old.stride + old.keyWords + PATH_PAIR]!;
        const route = this.#routeOf(table, resolution);
        const kept = table.open(resolution, route, pair, this.#idle.tick);
        this.#countPath(this.#clientRealmOf(table, kept), 1);
        table.copyUse(kept, old, path);
      } else {
        const ingress = old.words[path * old.stride]!;
        const egress = oldRoutes.words[old.routeOf(path) + ROUTE_EGRESS]!;
        const ends = [this.bindings.realm(ingress), this.bindings.realm(egress)];
        // Forgotten realms are left out by the grace.
        if (ends.includes(undefined)) {
          gone++;
          this.#grace.restart(egress, this.#now);
          this.#grace.restart(ingress, this.#now);
        }
      }
      if (verdict === Verdict.Forward || verdict === Verdict.NeedsPresence) {
        this.bindings.policies.drop(policy);
      }
    }
    return gone;
  }

  /** The table has room for one more path than may be kept: the temporary one. */
  #newTable(family: 4 | 6): PathTable {
    return new PathTable(family, this.#maxPaths + 1);
  }
}

/** Returns the address at `words[at]`. */
function addressOf(family: 4 | 6, words: Int32Array, at: number): IpAddress {
  return IpAddress.fromWords(Array.from(words.subarray(at, at + (family === 4 ? 1 : 4))));
}

/** Returns whether a path leads to the same hosts as the resolution. */
function leadsTo(table: PathTable, routes: RouteTable, path: number, to: Resolution): boolean {
  const route = table.routeOf(path);
  if (
    routes.words[route + ROUTE_EGRESS] !== to.egress ||
    routes.words[route + ROUTE_FAMILY] !== to.family
  ) {
    return false;
  }
  const { words, at, width } = table.newAddresses(path, to.family);
  for (let i = 0; i < (to.family === 4 ? 1 : 4); i++) {
    if (words[at + i] !== to.source[i] || words[at + width + i] !== to.destination[i]) return false;
  }
  return true;
}
