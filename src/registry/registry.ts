/**
 * The registry: checks the desired state, stores it, and emits an event when it has changed.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { Emitter } from '../base/emitter.ts';
import { checkClock, checkMethods, checkObject } from '../base/option-check.ts';
import { NameText, parseSchema, type Schema } from '../base/schema.ts';
import { SliceQueue, type Slices, slicesOf } from '../base/slices.ts';
import { ApiMisuseError, ConflictError, NotFoundError } from '../errors.ts';
import type { Change, Store } from '../store/index.ts';
import type { ChangePlan } from './change-plan.ts';
import { GENERATION, WATCHED } from './generation.ts';
import {
  CLOUD,
  type DesiredRecord,
  type DesiredState,
  type Exposure,
  type ExposureKey,
  type Owner,
  type RecordName,
  type SelectorExposure,
  type Service,
  type Site,
  type Spec,
  type VersionedRecord,
} from './model.ts';
import { pageOf, type RecordQuery } from './record-pages.ts';
import { RecordWriter } from './record-writer.ts';
import {
  describe,
  exposureKey,
  keyOf,
  keyOfName,
  PREFIX,
  readRecord,
  selectorKey,
  serviceKey,
  siteKey,
  stateOf,
  versionOf,
} from './records.ts';
import { AnyExposureSchema, ExposureKeySchema, ServiceSchema, SiteSchema } from './schema.ts';
import { sourceOf } from './selector.ts';
import type { DesiredSource, ExposureId, Touched } from './source.ts';
import { DesiredTables, type RecordChange } from './tables.ts';
import { noneTouched, type TouchedKeys, takeAll } from './touched-keys.ts';

export interface RegistryOptions {
  /** Says when the time boxes of exposures begin and end. Default: the system's clock. */
  readonly clock?: Clock | undefined;
}

export interface RegistryEvents {
  /**
   * The desired state has changed, whoever changed it, or a time box of an exposure has begun or ended. A large change
   * comes in slices, each with its own event.
   */
  change: [touched: Touched];
  /** Another writer has stored something that is not a record; it counts as absent. */
  problem: [problem: { readonly error: Error }];
}

/** What replacing all records of an owner has changed; records that were so already do not count. */
export interface AppliedChanges {
  /** How many records were added or changed. */
  readonly written: number;
  readonly removed: number;
}

/** On which condition one record is changed. */
export interface ChangeOptions {
  /**
   * The version that the record must have (`VersionedRecord`), `absent` if there must be none, or `present` if there
   * must be one, of any version. Default: any, and none.
   */
  readonly expect?: string | undefined;
}

/**
 * Keeps the desired state in one store. What it returns is immutable. Writes run one after the other; when a write
 * resolves, it is durable and `change` has been emitted. The methods of `DesiredSource` and `state` have the state of
 * the last `change`.
 *
 * Several processes may have a registry on one store. A write that others overtake is checked and made anew, also against
 * its `expect`; if that happens 20 times, it rejects with `StoreConflictError`.
 */
export class Registry extends Emitter<RegistryEvents> implements DesiredSource, AsyncDisposable {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #unwatch: () => void;
  readonly #tables: DesiredTables;
  readonly #slices: Slices;
  readonly #taking: SliceQueue;
  readonly #touched: TouchedKeys = noneTouched();
  /** The revision of the tables that the last `change` was about. */
  #revision = 0;
  #state: { readonly revision: number; readonly state: DesiredState } | undefined;
  readonly #writer: RecordWriter;
  /** Changes that came before the store was read. */
  #early: Change[] | undefined = [];
  #stopTimer: () => void = () => {};
  #closing: Promise<void> | undefined;

  private constructor(store: Store, clock: Clock) {
    super();
    this.#store = store;
    this.#clock = clock;
    this.#tables = new DesiredTables(() => clock.wallMs());
    this.#slices = slicesOf(clock);
    this.#taking = new SliceQueue(this.#slices, () => this.#afterSlice());
    this.#writer = new RecordWriter({
      store,
      tables: this.#tables,
      clock,
      slices: this.#slices,
      taking: this.#taking,
    });
    this.#unwatch = store.watch(WATCHED, (changes) => {
      if (this.#early === undefined) this.#take(changes);
      else this.#early = this.#early.concat(changes);
    });
  }

  /**
   * Reads the desired state from the store.
   *
   * @throws {ApiMisuseError} if `store` lacks a method of a store, or an option is invalid.
   * @throws {StoreError} if the store cannot be read, or has a record that is not one.
   */
  static async open(store: Store, options: RegistryOptions = {}): Promise<Registry> {
    checkMethods('store', store, ['get', 'list', 'commit', 'watch']);
    const clock = checkClock(checkObject('the options of Registry', options).clock);
    const registry = new Registry(store, clock);
    try {
      await registry.#read();
    } catch (error) {
      registry.#unwatch();
      throw error;
    }
    return registry;
  }

  /** All records as they were stated, in the order of their keys. It is made when it is asked for. */
  get state(): DesiredState {
    const { revision, records } = this.#tables;
    if (this.#state?.revision !== revision) this.#state = { revision, state: stateOf(records) };
    return this.#state.state;
  }

  /** Returns the records of one owner, as `state` does. */
  stateOf(owner: Owner): DesiredState {
    return stateOf(this.#tables.records, owner);
  }

  /** Returns a record as it was stated; undefined if there is none of that name. */
  record(name: RecordName): VersionedRecord | undefined {
    const record = this.#tables.records.get(keyOfName(name));
    return record && { ...record, version: versionOf(record) };
  }

  /** Returns one page of records as they were stated, in the order of their names; see `RecordQuery`. */
  page(query: RecordQuery): DesiredRecord[] {
    return pageOf(this.#tables, query);
  }

  /**
   * Returns the record that exposes a service to a site, in force or not: the exposure to that very site, or the one
   * whose selector takes it. Undefined if there is none.
   */
  exposureRecord(id: ExposureId): VersionedRecord<Exposure | SelectorExposure> | undefined {
    const spec = sourceOf(this.#tables, id.service, id.site);
    const record = spec && this.#tables.records.get(keyOf(spec));
    return record && { ...record, spec: spec!, version: versionOf(record) };
  }

  site(name: string): Site | undefined {
    return this.#tables.site(name);
  }

  service(name: string): Service | undefined {
    return this.#tables.service(name);
  }

  exposure(id: ExposureId): Exposure | undefined {
    return this.#tables.exposure(id);
  }

  sites(): Iterable<Site> {
    return this.#tables.sites();
  }

  services(): Iterable<Service> {
    return this.#tables.services();
  }

  exposures(): Iterable<Exposure> {
    return this.#tables.exposures();
  }

  servicesOf(site: string): Iterable<Service> {
    return this.#tables.servicesOf(site);
  }

  exposuresTo(site: string): Iterable<Exposure> {
    return this.#tables.exposuresTo(site);
  }

  exposuresOf(service: string): Iterable<Exposure> {
    return this.#tables.exposuresOf(service);
  }

  sitesOf(service: string): Iterable<string> {
    return this.#tables.sitesOf(service);
  }

  /**
   * Replaces all records of `owner`, and takes only what differs. A large state is read, checked and taken in slices, so
   * that packets flow meanwhile; other writes wait.
   *
   * A store with `maxWrites` takes a large state in several commits: what ends first, and each leaves a valid state. If
   * this rejects after the first one, what was stored so far remains, and the same call goes on from there.
   *
   * @param desired a `DesiredInput`, which may come straight from a file; it must not change until this has resolved
   * @returns how many records were stored
   * @throws {ConfigError} naming the place in `desired` that is wrong; then nothing is changed.
   * @throws {ConflictError} naming the place of a record that another owner keeps; then nothing is changed.
   * @throws {ConflictError} if the store has `maxWrites`, and the state cannot be reached in several commits.
   * @throws {StoreConflictError} if other machines change the state again and again meanwhile.
   * @throws {StoreError} if it cannot be stored; then nothing is changed.
   */
  async apply(desired: unknown, owner: Owner): Promise<AppliedChanges> {
    let changes: ChangePlan['changes'] = [];
    await this.#write(owner, async (plan) => {
      await this.#slices.all(plan.replaceAll(desired));
      changes = plan.changes;
    });
    const removed = changes.filter(({ record }) => record === undefined).length;
    return { written: changes.length - removed, removed };
  }

  /**
   * Adds a site, or changes the site of that name.
   *
   * @param site a `SiteInput`
   * @returns the site with its defaults
   * @throws {ConfigError} naming the field that is wrong or the record that would no longer fit; then nothing is changed.
   * @throws {ConflictError} if the site belongs to another owner.
   * @throws {VersionMismatchError} if the site has not the expected version.
   * @throws {StoreError} if it cannot be stored; then nothing is changed.
   */
  putSite(site: unknown, owner: Owner, options: ChangeOptions = {}): Promise<Site> {
    return this.#put(SiteSchema, site, owner, options);
  }

  /**
   * Removes a site that no service and no exposure needs. An exposure with a selector does not need it. Its leases go with
   * it: if it is added again while names may still be cached (`ttlSeconds`), an address there may stand for another host
   * than before.
   *
   * @throws {NotFoundError} if there is no such site.
   * @throws {ConflictError} if it is the cloud, it belongs to another owner, or records need it, which the message
   *   lists; then nothing is changed.
   * @throws {VersionMismatchError} if the site has not the expected version, also if it is not there.
   * @throws {StoreError} if that cannot be stored; then nothing is changed.
   */
  removeSite(name: string, owner: Owner, { expect }: ChangeOptions = {}): Promise<void> {
    return this.#write(owner, (plan) => {
      parseSchema(NameText, name, 'name');
      if (name === CLOUD) {
        throw new ConflictError(`"${name}" cannot be removed: every other site needs it`);
      }
      const tables = this.#tables;
      plan.expect(siteKey(name), expect);
      const site = tables.site(name);
      if (site === undefined) throw new NotFoundError(`"${name}" is not a site`);
      plan.remove(siteKey(name));
      const explicit = [...tables.servicesTo(name)].map((each) => tables.explicit(each, name));
      this.#assertUnneeded(site, [...tables.servicesOf(name), ...explicit]);
    });
  }

  /**
   * Adds a service, or changes the service of that name.
   *
   * @param service a `ServiceInput`
   * @throws {ConfigError} naming the field that is wrong or the record that would no longer fit; then nothing is changed.
   * @throws {ConflictError} if the service belongs to another owner.
   * @throws {VersionMismatchError} if the service has not the expected version.
   * @throws {StoreError} if it cannot be stored; then nothing is changed.
   */
  putService(service: unknown, owner: Owner, options: ChangeOptions = {}): Promise<Service> {
    return this.#put(ServiceSchema, service, owner, options);
  }

  /**
   * Removes a service that no exposure needs.
   *
   * @throws {NotFoundError} if there is no such service.
   * @throws {ConflictError} if it belongs to another owner, or it is exposed, in which case the message lists the
   *   exposures; then nothing is changed.
   * @throws {VersionMismatchError} if the service has not the expected version, also if it is not there.
   * @throws {StoreError} if that cannot be stored; then nothing is changed.
   */
  removeService(name: string, owner: Owner, { expect }: ChangeOptions = {}): Promise<void> {
    return this.#write(owner, (plan) => {
      parseSchema(NameText, name, 'name');
      const tables = this.#tables;
      plan.expect(serviceKey(name), expect);
      const service = tables.service(name);
      if (service === undefined) throw new NotFoundError(`"${name}" is not a service`);
      plan.remove(serviceKey(name));
      const explicit = [...tables.sitesOf(name)].map((site) => tables.explicit(name, site));
      this.#assertUnneeded(service, [...explicit, ...tables.selectorsOf(name)]);
    });
  }

  /**
   * Adds an exposure, or changes the one of the same service in the same site, or of the same name if it has a selector.
   *
   * @param exposure an `ExposureInput` or a `SelectorExposureInput`
   * @throws {ConfigError} if it is not a possible exposure; then nothing is changed.
   * @throws {ConflictError} if it belongs to another owner.
   * @throws {VersionMismatchError} if the exposure has not the expected version.
   * @throws {StoreError} if it cannot be stored; then nothing is changed.
   */
  expose(
    exposure: unknown,
    owner: Owner,
    options: ChangeOptions = {}
  ): Promise<Exposure | SelectorExposure> {
    return this.#put(AnyExposureSchema, exposure, owner, options);
  }

  /**
   * Ends an exposure. If a selector takes the site for the same service, its exposure holds there from then on.
   *
   * @throws {NotFoundError} if there is no such exposure.
   * @throws {ConflictError} if it belongs to another owner; then nothing is changed.
   * @throws {ConfigError} if what a selector exposes then does not fit; then nothing is changed.
   * @throws {VersionMismatchError} if the exposure has not the expected version, also if it is not there.
   * @throws {StoreError} if that cannot be stored; then nothing is changed.
   */
  unexpose(exposure: ExposureKey, owner: Owner, { expect }: ChangeOptions = {}): Promise<void> {
    return this.#write(owner, (plan) => {
      const id = parseSchema(ExposureKeySchema, exposure);
      const key = 'name' in id ? selectorKey(id.name) : exposureKey(id);
      plan.expect(key, expect);
      plan.remove(key);
      if (this.#tables.records.has(key)) return;
      const message =
        'name' in id
          ? `there is no exposure with the name "${id.name}"`
          : `"${id.service}" is not exposed to "${id.site}"`;
      throw new NotFoundError(message);
    });
  }

  /** Waits for the writes under way, and ends the watch of the store, which stays open. */
  close(): Promise<void> {
    this.#closing ??= this.#writer
      .idle()
      .then(() => this.#taking.idle())
      .then(() => {
        this.#unwatch();
        this.#stopTimer();
      });
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #read(): Promise<void> {
    // The list is at least as new as the generation that was read before it.
    const generation = await this.#store.get(GENERATION);
    const entries = await this.#store.list(PREFIX);
    function* records(): Generator<RecordChange> {
      for (const { key, value } of entries) yield { key, record: readRecord(key, value) };
    }
    await this.#slices.all(this.#tables.take(records(), undefined));
    this.#revision = this.#tables.revision;
    if (generation !== undefined) this.#writer.taken([generation]);
    const early = this.#early!;
    this.#early = undefined;
    // The list may have these changes already; to take them twice changes nothing.
    if (early.length > 0) this.#take(early);
    await this.#taking.idle();
    this.#startTimer();
  }

  #take(changes: readonly Change[]): void {
    this.#taking.add(this.#taken(changes));
  }

  *#taken(changes: readonly Change[]): Generator<void> {
    yield* this.#tables.take(this.#recordsOf(changes), this.#touched);
    this.#writer.taken(changes);
  }

  *#recordsOf(changes: readonly Change[]): Generator<RecordChange> {
    for (const { key, value } of changes) {
      if (!key.startsWith(PREFIX)) continue;
      try {
        yield { key, record: value === undefined ? undefined : readRecord(key, value) };
      } catch (error) {
        this.emit('problem', { error: error as Error });
        yield { key, record: undefined };
      }
    }
  }

  /** Emits what a slice has changed. */
  #afterSlice(): void {
    this.#startTimer();
    const { revision } = this.#tables;
    if (revision === this.#revision) return;
    this.#revision = revision;
    this.emit('change', takeAll(this.#touched));
  }

  /** Looks at the time boxes again when the next one begins or ends; sooner, as somebody may set the clock. */
  #startTimer(): void {
    this.#stopTimer();
    const { size, nextMs } = this.#tables.boxes;
    if (size === 0 || this.#closing !== undefined) return;
    const delayMs = Math.min(Math.max(nextMs - this.#clock.wallMs(), 1), MAX_BOX_DELAY_MS);
    const onTime = () => this.#taking.add(this.#tables.turnBoxes(this.#touched));
    this.#stopTimer = this.#clock.after(delayMs, onTime, true);
  }

  /** Adds or changes one record. */
  async #put<T extends Spec>(
    schema: Schema<T>,
    value: unknown,
    owner: Owner,
    { expect }: ChangeOptions
  ): Promise<T> {
    let spec: T | undefined;
    await this.#write(owner, (plan) => {
      spec = parseSchema(schema, value);
      plan.expect(keyOf(spec), expect);
      plan.put(spec);
    });
    return spec!;
  }

  /** Makes a change after all earlier ones: `make` says what changes. */
  #write(owner: Owner, make: (plan: ChangePlan) => void | Promise<void>): Promise<void> {
    if (this.#closing !== undefined) {
      return Promise.reject(new ApiMisuseError('the registry is closed'));
    }
    return this.#writer.write(owner, make);
  }

  /** @param needing the specs that need the record of `spec`; `undefined` ones are left out */
  #assertUnneeded(spec: Spec, needing: readonly (Spec | undefined)[]): void {
    const specs = needing.filter((each) => each !== undefined);
    if (specs.length === 0) return;
    const named = specs.slice(0, MAX_LISTED).map((each) => {
      const { owner } = this.#tables.records.get(keyOf(each))!;
      return `${describe(each)} (kept by the ${owner})`;
    });
    const more = specs.length - named.length;
    const list = `${named.join(', ')}${more === 0 ? '' : ` and ${more} more`}`;
    throw new ConflictError(
      `${describe(spec)} cannot be removed while it is needed by ${list}: remove these first, each where it is kept`
    );
  }
}

const MAX_LISTED = 5;
/** How late a time box may begin or end after the time of day was set, in ms. */
const MAX_BOX_DELAY_MS = 60_000;
