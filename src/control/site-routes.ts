/**
 * Makes routes of the presences of a realm. They are few, because the addresses of a site's presences are close together.
 *
 * The pools are divided into blocks. A block whose presences all belong to one site makes one route to that site. A block
 * that several sites share makes a route for each presence.
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import { IpPrefix } from '../base/prefix.ts';
import type { Presence, PresenceInput, TranslationPlanInput } from '../translator/index.ts';
import { compilePlan, compilePresence } from '../translator/plan.ts';

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

  /** Returns all routes. */
  list(): Iterable<SiteRoute> {
    return this.#routes.values();
  }

  /**
   * Loads a plan, and returns the changed routes: first the new ones, then those that are gone.
   *
   * @throws {ConfigError} naming the place in the plan that is wrong.
   */
  load(plan: TranslationPlanInput): RouteChange[] {
    const { realms, presences } = compilePlan(plan);
    this.#pools = realms.find(({ name }) => name === this.#realm)?.pools ?? [];
    this.#blocks = new Map();
    for (const presence of presences) {
      if (presence.realm === this.#realm) this.#add(presence);
    }
    const before = this.#routes;
    this.#routes = byPrefix([...this.#blocks.values()].flatMap(routesOf));
    return changes(before, this.#routes);
  }

  /**
   * Adds a presence, and returns the changed routes in the same order.
   *
   * @throws {ConfigError} if it is not one.
   */
  bind(input: PresenceInput): RouteChange[] {
    const presence = compilePresence(input, () => 'presence');
    if (presence.realm !== this.#realm) return [];
    const block = this.#blockOf(presence.address);
    const before = byPrefix(routesOf(block));
    this.#add(presence);
    const after = byPrefix(routesOf(block));
    for (const text of before.keys()) this.#routes.delete(text);
    for (const [text, route] of after) this.#routes.set(text, route);
    return changes(before, after);
  }

  #add({ address, of }: Presence): void {
    const block = this.#blockOf(address);
    block.routes.set(address.toString(), { address, site: of.realm });
  }

  /** Returns the block of an address, which is never larger than its pool. */
  #blockOf(address: IpAddress): Block {
    const pool = this.#pools.find((each) => each.contains(address));
    const length = address.family === 4 ? BLOCK_LENGTH_4 : BLOCK_LENGTH_6;
    const prefix = IpPrefix.around(address, Math.max(pool?.length ?? 0, length));
    const text = prefix.toString();
    let block = this.#blocks.get(text);
    if (block === undefined) {
      block = { prefix, routes: new Map() };
      this.#blocks.set(text, block);
    }
    return block;
  }
}

interface Block {
  readonly prefix: IpPrefix;
  /** Keyed by the text of a presence's address: the site that it leads to. */
  readonly routes: Map<string, { readonly address: IpAddress; readonly site: string }>;
}

function routesOf({ prefix, routes }: Block): SiteRoute[] {
  const [site, ...others] = new Set([...routes.values()].map((route) => route.site));
  if (site === undefined) return [];
  if (others.length === 0) return [{ prefix, site }];
  return [...routes.values()].map((route) => ({
    prefix: IpPrefix.around(route.address),
    site: route.site,
  }));
}

function byPrefix(routes: readonly SiteRoute[]): Map<string, SiteRoute> {
  return new Map(routes.map((route) => [route.prefix.toString(), route]));
}

function changes(
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
