/**
 * Lists records page by page, in the order of their names. A page costs what it has, and the records that a filter
 * leaves out on the way.
 * @module
 */
import type { RecordName, VersionedRecord } from './model.ts';
import { keyOfName, versionOf } from './records.ts';
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

export function pageOf(tables: DesiredTables, query: RecordQuery): VersionedRecord[] {
  const page: VersionedRecord[] = [];
  if (query.limit < 1) return page;
  for (const name of namesOf(tables, query)) {
    const record = tables.records.get(keyOfName(name));
    if (record === undefined || !isWanted(record.spec, query)) continue;
    page.push({ ...record, version: versionOf(record) });
    if (page.length === query.limit) break;
  }
  return page;
}

function* namesOf(
  tables: DesiredTables,
  { kind, after = '', site }: RecordQuery
): Generator<RecordName> {
  if (kind !== 'exposure') {
    for (const name of tables.namesAfter(kind, after)) yield { kind, name };
    return;
  }
  const [first = '', service = ''] = after.split('/');
  const sites = site === undefined ? tables.namesAfter('site', first) : [];
  for (const each of site === undefined ? [first, ...sites] : [site]) {
    for (const name of tables.servicesAfter(each, each === first ? service : '')) {
      yield { kind, site: each, service: name };
    }
  }
}

function isWanted(spec: object, { site, service }: RecordQuery): boolean {
  const record = spec as { readonly site?: string; readonly service?: string };
  if (site !== undefined && record.site !== site) return false;
  return service === undefined || record.service === service;
}
