/**
 * Lists paths page by page. A page costs what it has, and the paths that it leaves out on the way, which are bounded.
 * @module
 */
import { ROUTE_EGRESS } from './layout.ts';
import type { PathStatus } from './path-table.ts';
import type { Paths } from './paths.ts';

/** Which paths to list. */
export interface PathQuery {
  /** `next` of the page before. Default: the first page. */
  readonly after?: number | undefined;
  /** How many paths the page has at most. */
  readonly limit: number;
  /** The realm that paths lead from or to. Default: all. */
  readonly realm?: string | undefined;
}

export interface PathPage {
  /** There may be fewer than `limit`, also none, although there is a next page. */
  readonly paths: readonly PathStatus[];
  /** Absent on the last page. */
  readonly next?: number | undefined;
}

/**
 * Returns one page. A path that is there all the time is on one of the pages, and may be on two; one that comes meanwhile
 * may be on none.
 *
 * @param realm the number of the realm in the query
 */
export function pathPageOf(
  paths: Paths,
  { after = Number.POSITIVE_INFINITY, limit }: PathQuery,
  realm: number | undefined,
  realmName: (index: number) => string
): PathPage {
  const found: PathStatus[] = [];
  let left = MAX_LOOKED_AT;
  for (const [table, base] of [
    [paths.v6, BASE_V6],
    [paths.v4, 0],
  ] as const) {
    // From the last one down: when a path is removed, the last one moves to its place.
    for (let path = Math.min(table.size, after - base) - 1; path >= 0; path--) {
      const isOfRealm = (): boolean =>
        table.words[path * table.stride] === realm ||
        paths.routes.words[table.routeOf(path) + ROUTE_EGRESS] === realm;
      if (table.packets(path) > 0 && (realm === undefined || isOfRealm())) {
        found.push(paths.status(table, path, realmName));
      }
      left--;
      const place = base + path;
      if (place > 0 && (found.length >= limit || left === 0)) return { paths: found, next: place };
    }
  }
  return { paths: found };
}

/** A place is the number of a path in the IPv4 table, or this plus the number in the IPv6 table. */
const BASE_V6 = 2 ** 32;
/** How many paths one page looks at: less than 1 ms. */
const MAX_LOOKED_AT = 10_000;
