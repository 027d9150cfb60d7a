/**
 * The records that a desired state consists of, and their keys in the store:
 * `desired/site/<name>`, `desired/service/<name>`, `desired/exposure/<site>/<service>`, `desired/selector/<name>`.
 * @module
 */
import { createHash } from 'node:crypto';
import * as v from 'valibot';
import { NameText, parseSchema, type Schema } from '../base/schema.ts';
import { StoreError } from '../errors.ts';
import type {
  DesiredRecord,
  DesiredState,
  Exposure,
  Owner,
  RecordName,
  SelectorExposure,
  Service,
  Site,
  Spec,
} from './model.ts';
import { AnyExposureSchema, ServiceSchema, SiteSchema } from './schema.ts';
import type { ShardedMap } from './sharded-map.ts';
import type { ExposureId } from './source.ts';

/** The beginning of all keys. */
export const PREFIX = 'desired/';

export const SITES: string = `${PREFIX}site/`;
export const SERVICES: string = `${PREFIX}service/`;
export const EXPOSURES: string = `${PREFIX}exposure/`;
export const SELECTORS: string = `${PREFIX}selector/`;

export function siteKey(name: string): string {
  return `${SITES}${name}`;
}

export function serviceKey(name: string): string {
  return `${SERVICES}${name}`;
}

export function exposureKey({ site, service }: ExposureId): string {
  return `${EXPOSURES}${site}/${service}`;
}

export function selectorKey(name: string): string {
  return `${SELECTORS}${name}`;
}

export function keyOf(spec: Spec): string {
  if ('siteSelector' in spec) return selectorKey(spec.name);
  if ('zone' in spec) return siteKey(spec.name);
  return 'ports' in spec ? serviceKey(spec.name) : exposureKey(spec);
}

/** Returns the key of a record that need not exist. */
export function keyOfName(name: RecordName): string {
  switch (name.kind) {
    case 'site':
      return siteKey(name.name);
    case 'service':
      return serviceKey(name.name);
    case 'selector':
      return selectorKey(name.name);
    case 'exposure':
      return exposureKey(name);
  }
}

/** Returns the words that name a record which need not exist. */
export function describeName(name: RecordName): string {
  if (name.kind === 'exposure') return `the exposure of "${name.service}" to "${name.site}"`;
  return `the ${name.kind === 'selector' ? 'exposure' : name.kind} "${name.name}"`;
}

/** Returns the version of a record. It depends on what the record says alone, so that it survives a restart. */
export function versionOf({ owner, spec }: DesiredRecord): string {
  const text = JSON.stringify([owner, spec]);
  return createHash('sha256').update(text).digest('base64url').slice(0, VERSION_LENGTH);
}

/** Returns the words that name a record in a message. */
export function describe(spec: Spec): string {
  if ('siteSelector' in spec) return `the exposure "${spec.name}"`;
  if ('zone' in spec) return `the site "${spec.name}"`;
  if ('ports' in spec) return `the service "${spec.name}"`;
  return `the exposure of "${spec.service}" to "${spec.site}"`;
}

/**
 * Returns the state that consists of these records. Its lists are in the order of the keys in the store.
 *
 * @param owner whose records; default: all
 */
export function stateOf(
  records: Pick<ShardedMap<DesiredRecord>, 'get' | 'keys'>,
  owner?: Owner
): DesiredState {
  const sites: Site[] = [];
  const services: Service[] = [];
  const exposures: Exposure[] = [];
  const selectors: SelectorExposure[] = [];
  for (const key of [...records.keys()].sort()) {
    const { spec, owner: keeper } = records.get(key)!;
    if (owner !== undefined && keeper !== owner) continue;
    if ('siteSelector' in spec) selectors.push(spec);
    else if ('zone' in spec) sites.push(spec);
    else if ('ports' in spec) services.push(spec);
    else exposures.push(spec);
  }
  return { sites, services, exposures, selectors };
}

/**
 * Reads a record from the store. It shares the value if that says the same.
 *
 * @throws {StoreError} if the value is not a record, or belongs to another key.
 */
export function readRecord(key: string, value: unknown): DesiredRecord {
  let reason = 'its key is not known';
  try {
    const record = isPlain(key, value) ? value : parseRecord(key, value);
    const owned = record && keyOf(record.spec);
    if (owned === key) return record!;
    if (owned !== undefined) reason = `it belongs to ${owned}`;
  } catch (error) {
    reason = (error as Error).message;
  }
  throw new StoreError(`${key} in the store is not a record of the desired state: ${reason}`);
}

/** Whether a value is an exposure without addresses and numbers, which a schema would only copy. */
function isPlain(key: string, value: unknown): value is DesiredRecord {
  if (!key.startsWith(EXPOSURES) || typeof value !== 'object' || value === null) return false;
  const { owner, spec } = value as Partial<DesiredRecord>;
  if (!OWNERS.includes(owner!) || typeof spec !== 'object' || spec === null) return false;
  const { service, site } = spec as Partial<Exposure>;
  const hasMore = Object.keys(value).length + Object.keys(spec).length > 4;
  return !hasMore && v.is(NameText, service) && v.is(NameText, site);
}

function parseRecord(key: string, value: unknown): DesiredRecord | undefined {
  const schema = SCHEMAS.find(([prefix]) => key.startsWith(prefix))?.[1];
  return schema && parseSchema(schema, value);
}

function recordOf(spec: Schema<Spec>): Schema<DesiredRecord> {
  return v.strictObject({ owner: v.picklist(OWNERS), spec }) as unknown as Schema<DesiredRecord>;
}

/** 96 bits. */
const VERSION_LENGTH = 16;

const OWNERS: readonly Owner[] = ['file', 'admin'];

const SCHEMAS: readonly (readonly [prefix: string, schema: Schema<DesiredRecord>])[] =
  /* @__PURE__ */ [
    [SITES, recordOf(SiteSchema)],
    [SERVICES, recordOf(ServiceSchema)],
    [EXPOSURES, recordOf(AnyExposureSchema)],
    [SELECTORS, recordOf(AnyExposureSchema)],
  ];
