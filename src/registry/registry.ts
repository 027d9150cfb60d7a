/**
 * Keeps the desired state: checks what is asked for, stores it, and says when it has changed.
 * @module
 */
import { EventEmitter } from 'eventemitter3';
import { ApiMisuseError, ConfigError } from '../errors.ts';
import { parseSchema } from '../schema.ts';
import type { Change, Json, Store, Write } from '../store/index.ts';
import { checkFit } from './check.ts';
import {
  type DesiredRecord,
  type DesiredState,
  DesiredStateSchema,
  type Exposure,
  ExposureSchema,
  type Owner,
  type Site,
} from './model.ts';
import { describe, exposureKey, PREFIX, readRecord, stateOf, wantedSpecs } from './records.ts';

export interface RegistryEvents {
  /** The desired state has changed, by whomever; read it anew. */
  change: [];
  /** Another writer has stored what is not a record; it counts as absent. */
  problem: [error: Error];
}

/**
 * The registry of one store. What it returns is immutable. Writes are serialised; when one resolves,
 * it is durable and `change` has been emitted.
 */
export class Registry extends EventEmitter<RegistryEvents> {
  readonly #store: Store;
  readonly #unwatch: () => void;
  #records: ReadonlyMap<string, DesiredRecord> = new Map();
  #state: DesiredState = { sites: [], services: [], exposures: [] };
  #sites: ReadonlyMap<string, Site> = new Map();
  #writes: Promise<unknown> = Promise.resolve();
  /** Changes that came before the store had been read. */
  #early: Change[] | undefined = [];
  #closed = false;

  private constructor(store: Store) {
    super();
    this.#store = store;
    this.#unwatch = store.watch(PREFIX, (changes) => {
      if (this.#early === undefined) this.#take(changes);
      else this.#early = this.#early.concat(changes);
    });
  }

  /** Reads what the store has. @throws {StoreError} if it cannot be read, or is not a desired state. */
  static async open(store: Store): Promise<Registry> {
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

  /**
   * Replaces all that `owner` has asked for so far.
   *
   * @param desired as `DesiredState`, straight from a file
   * @throws {ConfigError} naming the place in `desired` that is wrong; nothing changed then.
   * @throws {StoreError} if it cannot be stored; nothing changed then.
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
   * Adds one exposure, or changes the one of the same service in the same site.
   *
   * @throws {ConfigError} if it is not a possible exposure, or is not the owner's to change.
   * @throws {StoreError} if it cannot be stored; nothing changed then.
   */
  expose(exposure: unknown, owner: Owner): Promise<Exposure> {
    return this.#serialise(async () => {
      const spec = parseSchema(ExposureSchema, exposure);
      const key = exposureKey(spec);
      this.#assertOwned(spec, owner);
      const records = new Map(this.#records);
      records.delete(key);
      records.set(key, { owner, spec });
      checkFit(records, new Map([[spec, '']]));
      await this.#commit(records);
      return spec;
    });
  }

  /**
   * Ends an exposure.
   *
   * @throws {ConfigError} if there is none, or it is not the owner's to end.
   * @throws {StoreError} if that cannot be stored; nothing changed then.
   */
  unexpose(exposure: Pick<Exposure, 'site' | 'service'>, owner: Owner): Promise<void> {
    return this.#serialise(async () => {
      const records = new Map(this.#records);
      this.#assertOwned(exposure, owner);
      if (!records.delete(exposureKey(exposure))) {
        throw new ConfigError('', `"${exposure.service}" is not exposed to "${exposure.site}"`);
      }
      await this.#commit(records);
    });
  }

  /** Waits for writes under way and ends the watch of the store, which stays open. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#writes;
    this.#unwatch();
  }

  async #read(): Promise<void> {
    const entries = await this.#store.list(PREFIX);
    const records = new Map(entries.map(({ key, value }) => [key, readRecord(key, value)]));
    const early = this.#early!;
    this.#early = undefined;
    this.#use(records);
    // Told again, if the list has them already: what came last still counts.
    if (early.length > 0) this.#take(early);
  }

  #take(changes: readonly Change[]): void {
    const records = new Map(this.#records);
    for (const { key, value } of changes) {
      records.delete(key);
      if (value === undefined) continue;
      try {
        records.set(key, readRecord(key, value));
      } catch (error) {
        this.emit('problem', error as Error);
      }
    }
    this.#use(records);
    this.emit('change');
  }

  #use(records: ReadonlyMap<string, DesiredRecord>): void {
    this.#records = records;
    // In the order of their keys: the same records are the same state, whatever their history.
    this.#state = stateOf([...records].sort(([a], [b]) => (a < b ? -1 : 1)));
    this.#sites = new Map(this.#state.sites.map((site) => [site.name, site]));
  }

  #assertOwned(exposure: Pick<Exposure, 'site' | 'service'>, owner: Owner): void {
    const record = this.#records.get(exposureKey(exposure));
    if (record !== undefined && record.owner !== owner) {
      throw new ConfigError(
        '',
        `${describe(record.spec)} is kept by the ${record.owner}; change it there`
      );
    }
  }

  #serialise<T>(write: () => Promise<T>): Promise<T> {
    if (this.#closed) return Promise.reject(new ApiMisuseError('the registry is closed'));
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
      if (record === before || JSON.stringify(record) === JSON.stringify(before)) continue;
      writes.push({ key, value: record as unknown as Json });
    }
    if (writes.length > 0) await this.#store.commit(writes);
  }
}
