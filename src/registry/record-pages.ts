/**
 * Lists records page by page, in the order of their names. A page costs what it has, and what is left out on the way:
 * exposures that come from selectors, and selectors of other services.
 * @module
 */
import type { DesiredRecord, RecordName } from './model.ts';
import { keyOfName } from './records.ts';
import type { DesiredTables } from './tables.ts';

/** Which records to list. */
export interface RecordQuery {
  readonly kind: RecordName['kind'];
  /** The name of the last record of the page before; of an exposure it is `site/service`. Default: the first page. */
  readonly after?: string | undefined;
  /** How many records the page has at most. */
  readonly limit: number;
  /** The site where services are at home, or to which exposures lead. Default: all. */
  readonly site?: string | undefined;
  /** The service of exposures. Default: all. */
  readonly service?: string | undefined;
}

export function pageOf(tables: DesiredTables, query: RecordQuery): DesiredRecord[] {
  const page: DesiredRecord[] = [];
  if (query.limit < 1) return page;
  for (const name of namesOf(tables, query)) {
    const record = tables.records.get(keyOfName(name));
    if (record === undefined || !isWanted(record.spec, query)) continue;
    page.push(record);
    if (page.length === query.limit) break;
  }
  return page;
}

function* namesOf(tables: DesiredTables, query: RecordQuery): Generator<RecordName> {
  const { kind, after = '', site } = query;
  if (kind === 'exposure') return yield* exposureNames(tables, query);
  const isAtHome = kind === 'service' && site !== undefined;
  const names = isAtHome ? tables.homeServicesAfter(site, after) : tables.namesAfter(kind, after);
  for (const name of names) yield { kind, name };
}

function* exposureNames(
  tables: DesiredTables,
  { after = '', site, service }: RecordQuery
): Generator<RecordName> {
  const kind = 'exposure';
  const [first = '', last = ''] = after.split('/');
  for (const each of site === undefined ? sitesFrom(tables, first, service) : [site]) {
    const behind = each === first ? last : '';
    if (service === undefined) {
      for (const name of tables.servicesAfter(each, behind))
        yield { kind, site: each, service: name };
    } else if (service > behind) {
      yield { kind, site: each, service };
    }
  }
}

/** Returns a site and those behind it; with a service, only sites to which it is exposed are behind it. */
function* sitesFrom(
  tables: DesiredTables,
  first: string,
  service: string | undefined
): Generator<string> {
  yield first;
  yield* service === undefined
    ? tables.namesAfter('site', first)
    : tables.sitesAfter(service, first);
}

function isWanted(spec: object, { site, service }: RecordQuery): boolean {
  const record = spec as { readonly site?: string; readonly service?: string };
  if (site !== undefined && record.site !== site) return false;
  return service === undefined || record.service === service;
}
