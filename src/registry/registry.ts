/**
 * The registry: checks the desired state, stores it, and emits an event when it has changed.
 * @module
 */
import { EventEmitter } from 'eventemitter3';
import { checkMethods } from '../base/option-check.ts';
import { NameText, parseSchema, type Schema } from '../base/schema.ts';
import { ApiMisuseError, ConfigError } from '../errors.ts';
import type { Change, Json, Store, Write } from '../store/index.ts';
import { checkFit } from './check.ts';
import {
  CLOUD,
  type DesiredRecord,
  type DesiredState,
  DesiredStateSchema,
  type Exposure,
  ExposureSchema,
  type Owner,
  type Service,
  ServiceSchema,
  type Site,
  SiteSchema,
} from './model.ts';
import {
  describe,
  exposureKey,
  PREFIX,
  readRecord,
  serviceKey,
  siteKey,
  stateOf,
  wantedSpecs,
} from './records.ts';
import { type DesiredSource, type ExposureId, exposureId, type Touched } from './source.ts';

export interface RegistryEvents {
  /** The desired state has changed, whoever changed it; `state` has the new one. */
  change: [touched: Touched];
  /** Another writer has stored something that is not a record; it counts as absent. */
  problem: [problem: { readonly error: Error }];
}

/**
 * Keeps the desired state in one store. What it returns is immutable. Writes run one after the other; when a write
 * resolves, it is durable and `change` has been emitted.
 */
export class Registry
  extends EventEmitter<RegistryEvents>
  implements DesiredSource, AsyncDisposable
{
  readonly #store: Store;
  readonly #unwatch: () => void;
  #records: ReadonlyMap<string, DesiredRecord> = new Map();
  #state: DesiredState = { sites: [], services: [], exposures: [] };
  #sites: ReadonlyMap<string, Site> = new Map();
  #writes: Promise<unknown> = Promise.resolve();
  /** Changes that came before the store was read. */
  #early: Change[] | undefined = [];
  #closing: Promise<void> | undefined;

  private constructor(store: Store) {
    super();
    this.#store = store;
    this.#unwatch = store.watch(PREFIX, (changes) => {
      if (this.#early === undefined) this.#take(changes);
      else this.#early = this.#early.concat(changes);
    });
  }

  /**
   * Reads the desired state from the store.
   *
   * @throws {ApiMisuseError} if `store` lacks a method of a store.
   * @throws {StoreError} if the store cannot be read, or has a record that is not one.
   */
  static async open(store: Store): Promise<Registry> {
    checkMethods('store', store, ['list', 'commit', 'watch']);
    const registry = new Registry(store);
    try {
      await registry.#read();
    } catch (error) {
      registry.#unwatch();
      throw error;
    }
    return registry;
  }

  get state(): DesiredState {
    return this.#state;
  }

  site(name: string): Site | undefined {
    return this.#sites.get(name);
  }

  service(name: string): Service | undefined {
    return this.#state.services.find((each) => each.name === name);
  }

  exposure({ service, site }: ExposureId): Exposure | undefined {
    return this.#state.exposures.find((each) => each.service === service && each.site === site);
  }

  sites(): Iterable<Site> {
    return this.#state.sites;
  }

  services(): Iterable<Service> {
    return this.#state.services;
  }

  exposures(): Iterable<Exposure> {
    return this.#state.exposures;
  }

  servicesOf(site: string): Iterable<Service> {
    return this.#state.services.filter((each) => each.site === site);
  }

  exposuresTo(site: string): Iterable<Exposure> {
    return this.#state.exposures.filter((each) => each.site === site);
  }

  exposuresOf(service: string): Iterable<Exposure> {
    return this.#state.exposures.filter((each) => each.service === service);
  }

  /**
   * Replaces all records of `owner`.
   *
   * @param desired a `DesiredInput`, which may come straight from a file
   * @throws {ConfigError} naming the place in `desired` that is wrong; then nothing is changed.
   * @throws {StoreError} if it cannot be stored; then nothing is changed.
   */
  apply(desired: unknown, owner: Owner): Promise<void> {
    return this.#serialise(async () => {
      const wanted = wantedSpecs(parseSchema(DesiredStateSchema, desired));
      const records = new Map<string, DesiredRecord>();
      for (const [key, record] of this.#records) {
        if (record.owner !== owner) records.set(key, record);
      }
      for (const { key, spec, path } of wanted) {
        const other = records.get(key);
        if (other !== undefined) {
          const where =
            other.owner === owner ? 'there twice' : `kept by the ${other.owner} already`;
          throw new ConfigError(path, `${describe(spec)} is ${where}`);
        }
        records.set(key, { owner, spec });
      }
      checkFit(records, new Map(wanted.map(({ spec, path }) => [spec, path])));
      await this.#commit(records);
    });
  }

  /**
   * Adds a site, or changes the site of that name.
   *
   * @param site a `SiteInput`
   * @returns the site with its defaults
   * @throws {ConfigError} naming the field that is wrong or the record that would no longer fit, or if the site belongs
   *   to another owner; then nothing is changed.
   * @throws {StoreError} if it cannot be stored; then nothing is changed.
   */
  putSite(site: unknown, owner: Owner): Promise<Site> {
    return this.#put(SiteSchema, site, siteKey, owner);
  }

  /**
   * Removes a site that no service and no exposure needs. Its leases go with it: if it is added again while names may
   * still be cached (`ttlSeconds`), an address there may stand for another host than before.
   *
   * @throws {ConfigError} if there is no such site, it is the cloud, it belongs to another owner, or records need it,
   *   which the message lists; then nothing is changed.
   * @throws {StoreError} if that cannot be stored; then nothing is changed.
   */
  removeSite(name: string, owner: Owner): Promise<void> {
    return this.#serialise(async () => {
      parseSchema(NameText, name, 'name');
      if (name === CLOUD) {
        throw new ConfigError('name', `"${name}" cannot be removed: every other site needs it`);
      }
      const needs = ({ spec }: DesiredRecord) => !isSite(spec) && spec.site === name;
      await this.#removeUnneeded(siteKey({ name }), `"${name}" is not a site`, needs, owner);
    });
  }

  /**
   * Adds a service, or changes the service of that name.
   *
   * @param service a `ServiceInput`
   * @throws {ConfigError} naming the field that is wrong or the record that would no longer fit, or if the service
   *   belongs to another owner; then nothing is changed.
   * @throws {StoreError} if it cannot be stored; then nothing is changed.
   */
  putService(service: unknown, owner: Owner): Promise<Service> {
    return this.#put(ServiceSchema, service, serviceKey, owner);
  }

  /**
   * Removes a service that is exposed to no site.
   *
   * @throws {ConfigError} if there is no such service, it belongs to another owner, or it is exposed, in which case the
   *   message lists the sites; then nothing is changed.
   * @throws {StoreError} if that cannot be stored; then nothing is changed.
   */
  removeService(name: string, owner: Owner): Promise<void> {
    return this.#serialise(async () => {
      parseSchema(NameText, name, 'name');
      const needs = ({ spec }: DesiredRecord) => 'service' in spec && spec.service === name;
      await this.#removeUnneeded(serviceKey({ name }), `"${name}" is not a service`, needs, owner);
    });
  }

  /**
   * Adds an exposure, or changes the exposure of the same service in the same site.
   *
   * @param exposure an `ExposureInput`
   * @throws {ConfigError} if it is not a possible exposure, or belongs to another owner; then nothing is changed.
   * @throws {StoreError} if it cannot be stored; then nothing is changed.
   */
  expose(exposure: unknown, owner: Owner): Promise<Exposure> {
    return this.#put(ExposureSchema, exposure, exposureKey, owner);
  }

  /**
   * Ends an exposure.
   *
   * @throws {ConfigError} if there is no such exposure, or it belongs to another owner; then nothing is changed.
   * @throws {StoreError} if that cannot be stored; then nothing is changed.
   */
  unexpose(exposure: Pick<Exposure, 'site' | 'service'>, owner: Owner): Promise<void> {
    return this.#serialise(async () => {
      const key = exposureKey(exposure);
      this.#assertOwned(key, owner);
      const records = new Map(this.#records);
      if (!records.delete(key)) {
        throw new ConfigError('', `"${exposure.service}" is not exposed to "${exposure.site}"`);
      }
      await this.#commit(records);
    });
  }

  /** Waits for the writes under way, and ends the watch of the store, which stays open. */
  close(): Promise<void> {
    this.#closing ??= this.#writes.then(this.#unwatch);
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #read(): Promise<void> {
    const entries = await this.#store.list(PREFIX);
    const records = new Map(entries.map(({ key, value }) => [key, readRecord(key, value)]));
    const early = this.#early!;
    this.#early = undefined;
    this.#use(records);
    // The list may have these changes already; to take them twice changes nothing.
    if (early.length > 0) this.#take(early);
  }

  #take(changes: readonly Change[]): void {
    const records = new Map(this.#records);
    const touched = new Set<string>();
    for (const { key, value } of changes) {
      records.delete(key);
      touched.add(key);
      if (value === undefined) continue;
      try {
        records.set(key, readRecord(key, value));
      } catch (error) {
        this.emit('problem', { error: error as Error });
      }
    }
    const before = this.#records;
    this.#use(records);
    this.emit('change', touchedBy(touched, [before, records]));
  }

  #use(records: ReadonlyMap<string, DesiredRecord>): void {
    this.#records = records;
    // Sorted by key, so that the same records make the same state, whatever their history.
    this.#state = stateOf([...records].sort(([a], [b]) => (a < b ? -1 : 1)));
    this.#sites = new Map(this.#state.sites.map((site) => [site.name, site]));
  }

  /** Adds or changes one record. */
  #put<T extends Site | Service | Exposure>(
    schema: Schema<T>,
    value: unknown,
    keyOf: (spec: T) => string,
    owner: Owner
  ): Promise<T> {
    return this.#serialise(async () => {
      const spec = parseSchema(schema, value);
      const key = keyOf(spec);
      this.#assertOwned(key, owner);
      const records = new Map(this.#records);
      // It comes last, so that it is at fault in a conflict.
      records.delete(key);
      records.set(key, { owner, spec });
      checkFit(records, new Map([[spec, '']]));
      await this.#commit(records);
      return spec;
    });
  }

  /** @param needs returns whether a record needs the one that is to be removed */
  async #removeUnneeded(
    key: string,
    absent: string,
    needs: (record: DesiredRecord) => boolean,
    owner: Owner
  ): Promise<void> {
    const record = this.#records.get(key);
    if (record === undefined) throw new ConfigError('name', absent);
    this.#assertOwned(key, owner);
    const needing = [...this.#records.values()].filter(needs);
    if (needing.length > 0) {
      throw new ConfigError(
        'name',
        `${describe(record.spec)} cannot be removed while it is needed by ${listOf(needing)}: remove these first, each where it is kept`
      );
    }
    const records = new Map(this.#records);
    records.delete(key);
    await this.#commit(records);
  }

  #assertOwned(key: string, owner: Owner): void {
    const record = this.#records.get(key);
    if (record !== undefined && record.owner !== owner) {
      throw new ConfigError(
        '',
        `${describe(record.spec)} is kept by the ${record.owner}; change it there`
      );
    }
  }

  #serialise<T>(write: () => Promise<T>): Promise<T> {
    if (this.#closing !== undefined)
      return Promise.reject(new ApiMisuseError('the registry is closed'));
    const result = this.#writes.then(write);
    this.#writes = result.catch(() => {});
    return result;
  }

  async #commit(records: ReadonlyMap<string, DesiredRecord>): Promise<void> {
    const writes: Write[] = [];
    for (const key of this.#records.keys()) {
      if (!records.has(key)) writes.push({ key, value: undefined });
    }
    for (const [key, record] of records) {
      const before = this.#records.get(key);
      if (record === before) continue;
      const text = JSON.stringify(record);
      if (text === JSON.stringify(before)) continue;
      // The values in it, such as addresses, are stored as text.
      writes.push({ key, value: JSON.parse(text) as Json });
    }
    if (writes.length > 0) await this.#store.commit(writes);
  }
}

function touchedBy(
  keys: ReadonlySet<string>,
  all: readonly ReadonlyMap<string, DesiredRecord>[]
): Touched {
  const touched = {
    sites: new Set<string>(),
    services: new Set<string>(),
    exposures: new Map<string, ExposureId>(),
  };
  for (const records of all) {
    for (const key of keys) {
      const spec = records.get(key)?.spec;
      if (spec === undefined) continue;
      if (isSite(spec)) touched.sites.add(spec.name);
      else if ('service' in spec) touched.exposures.set(exposureId(spec), spec);
      else touched.services.add(spec.name);
    }
  }
  return touched;
}

function isSite(spec: DesiredRecord['spec']): spec is Site {
  return 'zone' in spec;
}

/** Returns the words that name records and their owners in a message; the first few of many. */
function listOf(records: readonly DesiredRecord[]): string {
  const named = records
    .slice(0, MAX_LISTED)
    .map(({ owner, spec }) => `${describe(spec)} (kept by the ${owner})`);
  const more = records.length - named.length;
  return `${named.join(', ')}${more === 0 ? '' : ` and ${more} more`}`;
}

const MAX_LISTED = 5;
