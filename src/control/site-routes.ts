/**
 * Where the presences of a realm lead to, as routes: few, for the presences of one site stand together.
 *
 * The pools are cut into blocks. A block in which all presences are of one site is one route to that
 * site; one that several sites share is a route for each presence.
 * @module
 */
import { IpAddress, IpPrefix } from '../base/address.ts';
import type { Presence, TranslationPlan } from '../translator/index.ts';
import { prefixOf } from './prefixes.ts';

export interface RouteChange {
  /** `192.0.2.16/28`. */
  readonly prefix: string;
  /** Undefined: it leads nowhere any more. */
  readonly site: string | undefined;
}

/** Follows the plan as a translator does; keeps no state but what that says. */
export class SiteRoutes {
  readonly #realm: string;
  #pools: readonly IpPrefix[] = [];
  /** By block: the sites of its presences, by their addresses. */
  #blocks = new Map<string, Map<string, string>>();
  #routes = new Map<string, string>();

  /** @param realm the one behind the routes' kernel */
  constructor(realm: string) {
    this.#realm = realm;
  }

  /** Site by prefix. */
  get routes(): ReadonlyMap<string, string> {
    return this.#routes;
  }

  /** Returns what has changed; new routes stand in front of those that are gone. */
  load(plan: TranslationPlan): RouteChange[] {
    const realm = plan.realms.find(({ name }) => name === this.#realm);
    this.#pools = (realm?.pools ?? []).map((text) => IpPrefix.parse(text));
    this.#blocks = new Map();
    for (const presence of plan.presences) {
      if (presence.realm === this.#realm) this.#add(presence);
    }
    const before = this.#routes;
    this.#routes = new Map([...this.#blocks].flatMap(([block, sites]) => routesOf(block, sites)));
    return changes(before, this.#routes);
  }

  /** Adds a presence, and returns what has changed. */
  bind(presence: Presence): RouteChange[] {
    if (presence.realm !== this.#realm) return [];
    const block = this.#blockOf(presence.address);
    const before = new Map(routesOf(block, this.#blocks.get(block) ?? new Map()));
    this.#add(presence);
    const after = new Map(routesOf(block, this.#blocks.get(block)!));
    for (const prefix of before.keys()) this.#routes.delete(prefix);
    for (const [prefix, site] of after) this.#routes.set(prefix, site);
    return changes(before, after);
  }

  #add({ address, of }: Presence): void {
    const block = this.#blockOf(address);
    const sites = this.#blocks.get(block);
    if (sites === undefined) this.#blocks.set(block, new Map([[address, of.realm]]));
    else sites.set(address, of.realm);
  }

  /** A block does not reach beyond its pool. */
  #blockOf(text: string): string {
    const address = IpAddress.parse(text);
    const pool = this.#pools.find((prefix) => prefix.contains(address));
    const length = address.family === 4 ? BLOCK_LENGTH_4 : BLOCK_LENGTH_6;
    return prefixOf(address, Math.max(pool?.length ?? 0, length)).toString();
  }
}

function routesOf(block: string, sites: ReadonlyMap<string, string>): [string, string][] {
  const [first, ...others] = new Set(sites.values());
  if (first === undefined) return [];
  if (others.length === 0) return [[block, first]];
  return [...sites].map(([address, site]) => [hostPrefix(address), site]);
}

function hostPrefix(address: string): string {
  return `${address}/${address.includes(':') ? 128 : 32}`;
}

function changes(
  before: ReadonlyMap<string, string>,
  after: ReadonlyMap<string, string>
): RouteChange[] {
  const added = [...after].filter(([prefix, site]) => before.get(prefix) !== site);
  const gone = [...before.keys()].filter((prefix) => !after.has(prefix));
  return [
    ...added.map(([prefix, site]) => ({ prefix, site })),
    ...gone.map((prefix) => ({ prefix, site: undefined })),
  ];
}

/** Those of the allocator's blocks of 16 addresses. */
const BLOCK_LENGTH_4 = 28;
const BLOCK_LENGTH_6 = 124;
