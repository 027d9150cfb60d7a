/**
 * Keeps the desired state: checks what is asked for, stores it, and says when it has changed.
 * @module
 */
import { EventEmitter } from 'eventemitter3';
import { IpAddress, IpPrefix } from '../address.ts';
import { ConfigError } from '../errors.ts';
import { parseSchema } from '../schema.ts';
import type { Entry, Json, Store, Write } from '../store/index.ts';
import {
  type DesiredState,
  DesiredStateSchema,
  type Exposure,
  ExposureSchema,
  type Service,
  type Site,
} from './model.ts';

/**
 * Who asked for a record. Each owner replaces only what is its own, so that reloading a file leaves
 * alone what was exposed at run time.
 */
export type Owner = 'file' | 'admin';

export interface RegistryEvents {
  /** The desired state has changed, by whomever; read it anew. */
  change: [];
}

/**
 * The registry of one store. What it returns is immutable. Writes are serialised; when one resolves,
 * it is durable and `change` has been emitted.
 */
export class Registry extends EventEmitter<RegistryEvents> {
  readonly #store: Store;
  readonly #unwatch: () => void;
  #records: ReadonlyMap<string, StoredRecord> = new Map();
  #state: DesiredState = { sites: [], services: [], exposures: [] };
  #writes: Promise<unknown> = Promise.resolve();

  private constructor(store: Store) {
    super();
    this.#store = store;
    this.#unwatch = store.watch(PREFIX, (changes) => {
      const records = new Map(this.#records);
      for (const { key, value } of changes) {
        if (value === undefined) records.delete(key);
        else records.set(key, value as unknown as StoredRecord);
      }
      this.#use(records);
      this.emit('change');
    });
  }

  /** Reads what the store has. @throws {StoreError} if it cannot be read. */
  static async open(store: Store): Promise<Registry> {
    const registry = new Registry(store);
    const entries = await store.list(PREFIX);
    registry.#use(new Map(entries.map(({ key, value }: Entry) => [key, value as never])));
    return registry;
  }

  get state(): DesiredState {
    return this.#state;
  }

  site(name: string): Site | undefined {
    return this.#state.sites.find((site) => site.name === name);
  }

  /**
   * Replaces all that `owner` has asked for so far.
   *
   * @param desired as `DesiredState`, straight from a file
   * @throws {ConfigError} naming the place in `desired` that is wrong; nothing changed then.
   */
  apply(desired: unknown, owner: Owner): Promise<void> {
    return this.#serialise(async () => {
      const wanted = recordsOf(parseSchema(DesiredStateSchema, desired));
      const records = new Map<string, StoredRecord>();
      for (const [key, record] of this.#records) {
        if (record.owner !== owner) records.set(key, record);
      }
      for (const { key, spec, path } of wanted) {
        if (records.has(key)) {
          throw new ConfigError(path, `there is another one of the same name already`);
        }
        records.set(key, { owner, spec } as StoredRecord);
      }
      check(
        stateOf(records),
        wanted.map(({ spec, path }) => [spec, path])
      );
      await this.#commit(records);
    });
  }

  /**
   * Adds one exposure, or changes the one of the same service in the same site.
   *
   * @throws {ConfigError} if it is not a possible exposure, or is not the owner's to change.
   */
  expose(exposure: unknown, owner: Owner): Promise<Exposure> {
    return this.#serialise(async () => {
      const spec = parseSchema(ExposureSchema, exposure);
      const key = exposureKey(spec);
      this.#assertOwned(key, owner);
      const records = new Map(this.#records).set(key, { owner, spec });
      check(stateOf(records), [[spec, '']]);
      await this.#commit(records);
      return spec;
    });
  }

  /**
   * Ends an exposure.
   *
   * @throws {ConfigError} if there is none, or it is not the owner's to end.
   */
  unexpose(exposure: Pick<Exposure, 'site' | 'service'>, owner: Owner): Promise<void> {
    return this.#serialise(async () => {
      const key = exposureKey(exposure);
      const records = new Map(this.#records);
      this.#assertOwned(key, owner);
      if (!records.delete(key)) {
        throw new ConfigError('', `"${exposure.service}" is not exposed to "${exposure.site}"`);
      }
      await this.#commit(records);
    });
  }

  /** Ends the watch of the store, which stays open. */
  async close(): Promise<void> {
    this.#unwatch();
    await this.#writes;
  }

  #assertOwned(key: string, owner: Owner): void {
    const record = this.#records.get(key);
    if (record !== undefined && record.owner !== owner) {
      throw new ConfigError('', `${key} is kept by the ${record.owner}; change it there`);
    }
  }

  #serialise<T>(write: () => Promise<T>): Promise<T> {
    const result = this.#writes.then(write);
    this.#writes = result.catch(() => {});
    return result;
  }

  async #commit(records: ReadonlyMap<string, StoredRecord>): Promise<void> {
    const writes: Write[] = [];
    for (const key of this.#records.keys()) {
      if (!records.has(key)) writes.push({ key, value: undefined });
    }
    for (const [key, record] of records) {
      const text = JSON.stringify(record);
      if (text !== JSON.stringify(this.#records.get(key))) {
        writes.push({ key, value: JSON.parse(text) as Json });
      }
    }
    if (writes.length > 0) await this.#store.commit(writes);
  }

  #use(records: ReadonlyMap<string, StoredRecord>): void {
    this.#records = records;
    this.#state = stateOf(records);
  }
}

interface StoredRecord {
  readonly owner: Owner;
  readonly spec: Site | Service | Exposure;
}

/** Full domain name of an exposure. */
export function exposureName(exposure: Exposure, site: Site): string {
  const name = (exposure.dnsName ?? exposure.service).toLowerCase();
  const zone = site.zone.toLowerCase();
  return name === zone || name.endsWith(`.${zone}`) ? name : `${name}.${zone}`;
}

function exposureKey({ site, service }: Pick<Exposure, 'site' | 'service'>): string {
  return `${PREFIX}exposure/${site}/${service}`;
}

interface Wanted {
  readonly key: string;
  readonly spec: Site | Service | Exposure;
  readonly path: string;
}

function recordsOf(state: DesiredState): Wanted[] {
  const wanted: Wanted[] = [
    ...state.sites.map((spec, i) => ({
      key: `${PREFIX}site/${spec.name}`,
      spec,
      path: `sites[${i}]`,
    })),
    ...state.services.map((spec, i) => ({
      key: `${PREFIX}service/${spec.name}`,
      spec,
      path: `services[${i}]`,
    })),
    ...state.exposures.map((spec, i) => ({
      key: exposureKey(spec),
      spec,
      path: `exposures[${i}]`,
    })),
  ];
  return wanted;
}

function stateOf(records: ReadonlyMap<string, StoredRecord>): DesiredState {
  const ofKind = <T>(kind: string): T[] =>
    [...records]
      .filter(([key]) => key.startsWith(`${PREFIX}${kind}/`))
      .map(([, { spec }]) => spec as T);
  return { sites: ofKind('site'), services: ofKind('service'), exposures: ofKind('exposure') };
}

/** Checks what no schema can: that the records fit together. Faults are told by their path. */
function check(state: DesiredState, wanted: readonly (readonly [object, string])[]): void {
  const paths = new Map(wanted);
  const fail = (spec: object, field: string, message: string): never => {
    const path = paths.get(spec);
    // Without a path it is a record of another owner that no longer fits.
    throw new ConfigError(
      path === undefined ? '' : path === '' ? field : `${path}.${field}`,
      path === undefined ? `${message}: ${JSON.stringify(spec)}` : message
    );
  };
  const sites = new Map(state.sites.map((site) => [site.name, site]));
  const services = new Map(state.services.map((service) => [service.name, service]));

  for (const site of state.sites) {
    const pools = site.pools.map((text) => IpPrefix.parse(text));
    pools.forEach((pool, i) => {
      const other = pools.slice(0, i).find((each) => each.overlaps(pool));
      if (other) fail(site, `pools[${i}]`, `${pool} overlaps ${other}`);
    });
  }
  for (const service of state.services) {
    const site =
      sites.get(service.site) ?? fail(service, 'site', `"${service.site}" is not a site`);
    const address = IpAddress.parse(service.address);
    const within = (texts: readonly string[]) =>
      texts.some((text) => IpPrefix.parse(text).contains(address));
    if (!within(site.sources)) {
      fail(service, 'address', `${address} is not in the sources of "${site.name}"`);
    }
    if (within(site.pools)) fail(service, 'address', `${address} is in a pool of "${site.name}"`);
  }
  const names = new Map<string, string>();
  for (const exposure of state.exposures) {
    const site =
      sites.get(exposure.site) ?? fail(exposure, 'site', `"${exposure.site}" is not a site`);
    const service =
      services.get(exposure.service) ??
      fail(exposure, 'service', `"${exposure.service}" is not a service`);
    if (service.site === site.name) {
      fail(exposure, 'site', `"${service.name}" is at home in "${site.name}"`);
    }
    const { family } = IpAddress.parse(service.address);
    if (!site.pools.some((text) => IpPrefix.parse(text).family === family)) {
      fail(
        exposure,
        'site',
        `"${site.name}" has no IPv${family} pool for a presence of "${service.name}"`
      );
    }
    const name = exposureName(exposure, site);
    const key = `${site.name}/${name}`;
    const other = names.get(key);
    if (other !== undefined) {
      fail(exposure, 'dnsName', `${name} is the name of "${other}" in "${site.name}" already`);
    }
    names.set(key, exposure.service);
  }
}

const PREFIX = 'desired/';
