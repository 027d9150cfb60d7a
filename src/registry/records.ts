/**
 * The records that a desired state consists of, and their keys in the store:
 * `desired/site/<name>`, `desired/service/<name>`, `desired/exposure/<site>/<service>`.
 * @module
 */
import * as v from 'valibot';
import { parseSchema, type Schema } from '../base/schema.ts';
import { StoreError } from '../errors.ts';
import {
  type DesiredRecord,
  type DesiredState,
  type Exposure,
  ExposureSchema,
  type Owner,
  type Service,
  ServiceSchema,
  type Site,
  SiteSchema,
} from './model.ts';

/** The beginning of all keys. */
export const PREFIX = 'desired/';

/** A record that a caller asks for, and its place in what the caller gave. */
export interface WantedSpec {
  readonly key: string;
  readonly spec: Site | Service | Exposure;
  readonly path: string;
}

export function wantedSpecs(state: DesiredState): WantedSpec[] {
  return [
    ...state.sites.map((spec, i) => ({ key: siteKey(spec), spec, path: `sites[${i}]` })),
    ...state.services.map((spec, i) => ({ key: serviceKey(spec), spec, path: `services[${i}]` })),
    ...state.exposures.map((spec, i) => ({
      key: exposureKey(spec),
      spec,
      path: `exposures[${i}]`,
    })),
  ];
}

/** Returns the state that consists of these records, in this order. */
export function stateOf(records: Iterable<readonly [string, DesiredRecord]>): DesiredState {
  const sites: Site[] = [];
  const services: Service[] = [];
  const exposures: Exposure[] = [];
  for (const [key, { spec }] of records) {
    if (key.startsWith(SITES)) sites.push(spec as Site);
    else if (key.startsWith(SERVICES)) services.push(spec as Service);
    else exposures.push(spec as Exposure);
  }
  return { sites, services, exposures };
}

/**
 * Reads a record from the store.
 *
 * @throws {StoreError} if the value is not a record, or belongs to another key.
 */
export function readRecord(key: string, value: unknown): DesiredRecord {
  const kind = KINDS.find(({ prefix }) => key.startsWith(prefix));
  let reason = 'its key is not known';
  try {
    const found = kind?.read(value);
    if (found?.key === key) return found.record;
    if (found !== undefined) reason = `it belongs to ${found.key}`;
  } catch (error) {
    reason = (error as Error).message;
  }
  throw new StoreError(`${key} in the store is not a record of the desired state: ${reason}`);
}

/** Returns the words that name a record in a message. */
export function describe(spec: Site | Service | Exposure): string {
  if ('zone' in spec) return `the site "${spec.name}"`;
  if ('ports' in spec) return `the service "${spec.name}"`;
  return `the exposure of "${spec.service}" to "${spec.site}"`;
}

export function exposureKey({ site, service }: Pick<Exposure, 'site' | 'service'>): string {
  return `${EXPOSURES}${site}/${service}`;
}

export function siteKey({ name }: Pick<Site, 'name'>): string {
  return `${SITES}${name}`;
}

export function serviceKey({ name }: Pick<Service, 'name'>): string {
  return `${SERVICES}${name}`;
}

interface Kind {
  readonly prefix: string;
  /** Parses a value; returns the record and its key. */
  readonly read: (value: unknown) => { readonly record: DesiredRecord; readonly key: string };
}

function kindOf<T extends Site | Service | Exposure>(
  prefix: string,
  specSchema: Schema<T>,
  keyOf: (spec: T) => string
): Kind {
  const schema = v.strictObject({ owner: v.picklist(['file', 'admin']), spec: specSchema });
  const read: Kind['read'] = (value) => {
    const record = parseSchema(schema as Schema<{ owner: Owner; spec: T }>, value);
    return { record, key: keyOf(record.spec) };
  };
  return { prefix, read };
}

const SITES = `${PREFIX}site/`;
const SERVICES = `${PREFIX}service/`;
const EXPOSURES = `${PREFIX}exposure/`;

const KINDS: readonly Kind[] = /* @__PURE__ */ [
  kindOf(SITES, SiteSchema, siteKey),
  kindOf(SERVICES, ServiceSchema, serviceKey),
  kindOf(EXPOSURES, ExposureSchema, exposureKey),
];
