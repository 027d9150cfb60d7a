/**
 * Makes routes of the presences of a realm. They are few, because the addresses of a site's presences are close together.
 *
 * The pools are divided into blocks. A block whose presences all belong to one site makes one route to that site. A block
 * that several sites share makes a route for each presence. So a changed presence changes the routes of its block only.
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import { IpPrefix } from '../base/prefix.ts';
import type { PlanChanges, TranslationPlanInput } from '../translator/index.ts';
import { compilePlan } from '../translator/plan.ts';

export interface RouteChange {
  readonly prefix: IpPrefix;
  /** Undefined if the prefix leads nowhere any more. */
  readonly site: string | undefined;
}

/** A prefix, and the site that it leads to. */
export interface SiteRoute {
  readonly prefix: IpPrefix;
  readonly site: string;
}

/** Follows the plan as a translator does. Its state depends on the plan only. */
export class SiteRoutes {
  readonly #realm: string;
  #pools: readonly IpPrefix[] = [];
  /** The presences in the realm, by site and the text of their addresses. */
  #presences = new Map<string, Map<string, IpAddress>>();
  /** Keyed by the text of their prefixes. */
  #blocks = new Map<string, Block>();
  /** Keyed by the text of their prefixes. */
  #routes = new Map<string, SiteRoute>();

  /** @param realm the realm whose presences the routes are for */
  constructor(realm: string) {
    this.#realm = realm;
  }

  /** The sites by the texts of prefixes. */
  get routes(): ReadonlyMap<string, string> {
    return new Map([...this.#routes].map(([text, { site }]) => [text, site]));
  }

  /**
   * Loads a plan, and returns the changed routes: first the new ones, then those that are gone.
   *
   * @throws {ConfigError} naming the place in the plan that is wrong.
   */
  load(plan: TranslationPlanInput): RouteChange[] {
    const { realms, presences } = compilePlan(plan);
    this.#presences = new Map();
    for (const { realm, address, of } of presences) {
      if (realm === this.#realm) this.#note(address.toString(), address, of.realm);
    }
    return this.#divide(realms.find(({ name }) => name === this.#realm)?.pools ?? []);
  }

  /**
   * Applies changes of the plan, and returns the changed routes in the same order. It costs what the blocks of the
   * changed presences have, unless the pools of the realm change.
   */
  apply(changes: PlanChanges): RouteChange[] {
    const wanted = this.#wantedBy(changes);
    const own = changes.realms?.findLast(({ name }) => name === this.#realm);
    const pools = own === undefined ? this.#pools : (own.realm?.pools ?? []);
    if (pools.join() !== this.#pools.join()) {
      for (const [text, { address, from, to }] of wanted) {
        this.#forget(text, from);
        if (to !== undefined) this.#note(text, address, to);
      }
      return this.#divide(pools);
    }
    const blocks = new Set<Block>();
    const before = new Map<string, SiteRoute>();
    for (const [text, { address, from, to }] of wanted) {
      const block = this.#blockOf(address);
      if (!blocks.has(block)) {
        blocks.add(block);
        for (const route of routesOf(block)) before.set(route.prefix.toString(), route);
      }
      this.#forget(text, from);
      block.destinations.delete(text);
      if (to === undefined) continue;
      this.#note(text, address, to);
      block.destinations.set(text, { address, site: to });
    }
    const after = byPrefix([...blocks].flatMap(routesOf));
    for (const { key, destinations } of blocks) {
      if (destinations.size === 0) this.#blocks.delete(key);
    }
    for (const text of before.keys()) this.#routes.delete(text);
    for (const [text, route] of after) this.#routes.set(text, route);
    return changesBetween(before, after);
  }

  /** Returns what the changes do to the presences in the realm, by the text of the address. */
  #wantedBy({ realms = [], presences = [] }: PlanChanges): Map<string, Move> {
    const last = new Map(realms.map(({ name, realm }) => [name, realm]));
    const isGone = (site: string): boolean => last.has(site) && last.get(site) === undefined;
    const isRealmGone = isGone(this.#realm);
    const wanted = new Map<string, Move>();
    for (const { realm, address, of } of presences) {
      if (realm !== this.#realm) continue;
      const text = address.toString();
      const to = of === undefined || isRealmGone || isGone(of.realm) ? undefined : of.realm;
      wanted.set(text, { address, from: this.#siteOf(text, address), to });
    }
    const gone = isRealmGone ? this.#presences.keys() : [...last.keys()].filter(isGone);
    for (const from of gone) {
      for (const [text, address] of this.#presences.get(from) ?? []) {
        if (!wanted.has(text)) wanted.set(text, { address, from, to: undefined });
      }
    }
    return wanted;
  }

  #siteOf(text: string, address: IpAddress): string | undefined {
    return this.#blocks.get(this.#blockPrefix(address).toString())?.destinations.get(text)?.site;
  }

  #note(text: string, address: IpAddress, site: string): void {
    const presences = this.#presences.get(site);
    if (presences === undefined) this.#presences.set(site, new Map([[text, address]]));
    else presences.set(text, address);
  }

  #forget(text: string, site: string | undefined): void {
    const presences = site === undefined ? undefined : this.#presences.get(site);
    presences?.delete(text);
    if (presences?.size === 0) this.#presences.delete(site!);
  }

  /** Divides the pools into blocks anew, and returns the changed routes. */
  #divide(pools: readonly IpPrefix[]): RouteChange[] {
    this.#pools = pools;
    this.#blocks = new Map();
    for (const [site, presences] of this.#presences) {
      for (const [text, address] of presences) {
        this.#blockOf(address).destinations.set(text, { address, site });
      }
    }
    const before = this.#routes;
    this.#routes = byPrefix([...this.#blocks.values()].flatMap(routesOf));
    return changesBetween(before, this.#routes);
  }

  #blockOf(address: IpAddress): Block {
    const prefix = this.#blockPrefix(address);
    const key = prefix.toString();
    let block = this.#blocks.get(key);
    if (block === undefined) {
      block = { key, prefix, destinations: new Map() };
      this.#blocks.set(key, block);
    }
    return block;
  }

  /** Returns the prefix of the block of an address, which is never larger than its pool. */
  #blockPrefix(address: IpAddress): IpPrefix {
    const pool = this.#pools.find((each) => each.contains(address));
    const length = address.family === 4 ? BLOCK_LENGTH_4 : BLOCK_LENGTH_6;
    return IpPrefix.around(address, Math.max(pool?.length ?? 0, length));
  }
}

/** A presence that leads to another site than before. */
interface Move {
  readonly address: IpAddress;
  readonly from: string | undefined;
  readonly to: string | undefined;
}

interface Block {
  /** The text of the prefix. */
  readonly key: string;
  readonly prefix: IpPrefix;
  /** Keyed by the text of a presence's address: the site that it leads to. */
  readonly destinations: Map<string, { readonly address: IpAddress; readonly site: string }>;
}

function routesOf({ prefix, destinations }: Block): SiteRoute[] {
  const [site, ...others] = new Set([...destinations.values()].map((each) => each.site));
  if (site === undefined) return [];
  if (others.length === 0) return [{ prefix, site }];
  return [...destinations.values()].map((each) => ({
    prefix: IpPrefix.around(each.address),
    site: each.site,
  }));
}

function byPrefix(routes: readonly SiteRoute[]): Map<string, SiteRoute> {
  return new Map(routes.map((route) => [route.prefix.toString(), route]));
}

function changesBetween(
  before: ReadonlyMap<string, SiteRoute>,
  after: ReadonlyMap<string, SiteRoute>
): RouteChange[] {
  const added = [...after].filter(([text, { site }]) => before.get(text)?.site !== site);
  const gone = [...before].filter(([text]) => !after.has(text));
  return [
    ...added.map(([, route]) => route),
    ...gone.map(([, { prefix }]) => ({ prefix, site: undefined })),
  ];
}

/** The prefix lengths of the allocator's blocks of 16 addresses. */
const BLOCK_LENGTH_4 = 28;
const BLOCK_LENGTH_6 = 124;
