/**
 * Random histories of a registry: records of all kinds come, change and go, also by another writer, the store fails, time
 * passes, the wall clock is set, the process restarts. After each step the registry is what a fresh one reads from the
 * same store, each verdict is that of plain rules over the whole state, and all that differs from before was touched.
 */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { ConfigError, ConflictError, NotFoundError, StoreError } from '../../src/errors.ts';
import { type Owner, Registry, type RegistryEvents } from '../../src/registry/index.ts';
import { MemoryStore, type Write } from '../../src/store/index.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { runsOf, timeoutOf } from '../support/property-runs.ts';
import { fits, inForce } from './naive-fit.ts';
import {
  FIRST,
  grouped,
  keyOf,
  SERVICE_NAMES,
  SITE_NAMES,
  START_MS,
  stateOf,
  type Value,
  value,
} from './random-records.ts';

const RUNS = runsOf(60);
const owner = fc.constantFrom<Owner>('file', 'admin', 'admin');

type Step =
  | { readonly do: 'put'; readonly value: Value; readonly owner: Owner }
  | { readonly do: 'remove'; readonly which: number; readonly owner: Owner }
  | { readonly do: 'rotate names'; readonly owner: Owner }
  | { readonly do: 'apply'; readonly values: readonly Value[]; readonly owner: Owner }
  | { readonly do: 'other writer'; readonly value: Value; readonly isGone: boolean }
  | { readonly do: 'store'; readonly isFailing: boolean }
  | { readonly do: 'wait' | 'set clock'; readonly minutes: number }
  | { readonly do: 'restart' };

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 12, arbitrary: fc.record({ do: fc.constant('put' as const), value, owner }) },
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant('remove' as const),
      which: fc.nat(),
      owner: fc.constantFrom('admin' as const, 'admin' as const, 'file' as const),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('rotate names' as const), owner }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('apply' as const),
      values: fc.uniqueArray(value, { selector: keyOf, maxLength: 12 }),
      owner,
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('other writer' as const),
      value,
      isGone: fc.boolean(),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('store' as const), isFailing: fc.boolean() }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constantFrom('wait' as const, 'set clock' as const),
      minutes: fc.integer({ min: 0, max: 5 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('restart' as const) }) }
);

class FailingStore extends MemoryStore {
  isFailing = false;

  override async commit(writes: readonly Write[]): Promise<void> {
    if (this.isFailing) throw new StoreError('the disk is full');
    await super.commit(writes);
  }
}

/** All that `DesiredSource` says, by keys. */
function viewOf(registry: Registry): Map<string, string> {
  const view = new Map<string, string>();
  const put = (key: string, what: unknown): void => {
    view.set(key, JSON.stringify(what));
  };
  for (const each of registry.sites()) put(`site ${each.name}`, each);
  for (const each of registry.services()) put(`service ${each.name}`, each);
  for (const each of registry.exposures()) put(`exposure ${each.site}/${each.service}`, each);
  return view;
}

/** The lists and lookups of a registry, in their order. */
function listsOf(registry: Registry): unknown {
  const pairs = SITE_NAMES.flatMap((name) => SERVICE_NAMES.map((each) => [each, name] as const));
  const lists = {
    state: registry.state,
    sites: [...registry.sites()],
    services: [...registry.services()],
    exposures: [...registry.exposures()],
    bySite: SITE_NAMES.map((name) => [
      registry.site(name),
      [...registry.servicesOf(name)],
      [...registry.exposuresTo(name)],
    ]),
    byService: SERVICE_NAMES.map((name) => [
      registry.service(name),
      [...registry.exposuresOf(name)],
    ]),
    byId: pairs.map(([each, name]) => registry.exposure({ service: each, site: name }) ?? null),
  };
  return JSON.parse(JSON.stringify(lists));
}

class History {
  readonly #store = new FailingStore();
  readonly #clock = new FakeClock({ wallMs: START_MS });
  readonly #touched = new Set<string>();
  #registry!: Registry;
  #view = new Map<string, string>();
  readonly #isTrusted: boolean;

  /** @param isTrusted whether no other writer stores what may not fit */
  constructor(isTrusted: boolean) {
    this.#isTrusted = isTrusted;
  }

  async run(steps: readonly Step[]): Promise<void> {
    await this.#open();
    await this.#registry.apply(FIRST, 'admin');
    await this.#check();
    for (const each of steps) {
      await this.#take(each);
      await this.#check();
    }
    await this.#registry.close();
  }

  async #open(): Promise<void> {
    const registry = await Registry.open(this.#store, { clock: this.#clock });
    registry.on('change', (...[touched]: RegistryEvents['change']) => {
      for (const name of touched.sites) this.#touched.add(`site ${name}`);
      for (const name of touched.services) this.#touched.add(`service ${name}`);
      for (const [key] of touched.exposures) this.#touched.add(`exposure ${key}`);
    });
    this.#registry = registry;
    this.#view = viewOf(registry);
  }

  async #take(each: Step): Promise<void> {
    const registry = this.#registry;
    switch (each.do) {
      case 'put':
        return this.#expect(each.owner, [each.value], [], () => put(registry, each));
      case 'remove': {
        const entries = await this.#store.list('desired/');
        const entry = entries[each.which % Math.max(entries.length, 1)];
        if (entry === undefined) return;
        const { spec } = entry.value as { readonly spec: Value };
        const write = () => remove(registry, spec, each.owner);
        return this.#expect(each.owner, [], [entry.key], write, spec.name !== 'cloud');
      }
      case 'rotate names': {
        const values = (await this.#ownOf(each.owner)).map(({ spec }) => spec);
        const exposures = values.filter(({ service: name }) => name !== undefined);
        const names = exposures.map((one) => one.dnsName ?? one.service!);
        const renamed = exposures.map((one, i) => ({
          ...one,
          dnsName: names[(i + 1) % names.length]!,
        }));
        const others = values.filter((one) => !exposures.includes(one));
        const all = [...others, ...renamed];
        return this.#expect(each.owner, all, [], () => registry.apply(grouped(all), each.owner));
      }
      case 'apply': {
        const keys = each.values.map(keyOf);
        const own = await this.#ownOf(each.owner);
        const gone = own.map(({ key }) => key).filter((key) => !keys.includes(key));
        return this.#expect(each.owner, each.values, gone, () => {
          return registry.apply(grouped(each.values), each.owner);
        });
      }
      case 'other writer': {
        if (this.#isTrusted) return;
        const written = each.isGone ? undefined : { owner: 'admin', spec: each.value };
        await this.#store.commit([{ key: keyOf(each.value), value: written }]).catch(() => {});
        return;
      }
      case 'store':
        this.#store.isFailing = each.isFailing;
        return;
      case 'wait':
        this.#clock.advance(each.minutes * 60_000);
        return;
      case 'set clock':
        this.#clock.setWall(START_MS + each.minutes * 60_000);
        this.#clock.advance(60_000);
        return;
      case 'restart':
        await registry.close();
        await this.#open();
    }
  }

  async #ownOf(by: Owner): Promise<{ readonly key: string; readonly spec: Value }[]> {
    const entries = await this.#store.list('desired/');
    return entries.flatMap(({ key, value: record }) => {
      const { owner: who, spec } = record as { readonly owner: Owner; readonly spec: Value };
      return who === by ? [{ key, spec }] : [];
    });
  }

  /** Makes a write, and compares what becomes of it with the plain rules. */
  async #expect(
    by: Owner,
    values: readonly Value[],
    gone: readonly string[],
    write: () => Promise<unknown>,
    isAllowed = true
  ): Promise<void> {
    const entries = await this.#store.list('desired/');
    const before = new Map(entries.map(({ key, value }) => [key, value]));
    const after = new Map(before);
    const keys = [...values.map(keyOf), ...gone];
    const isOwner = keys.every((key) => {
      const present = before.get(key) as { owner: Owner } | undefined;
      return present === undefined || present.owner === by;
    });
    const isThere = gone.every((key) => before.has(key));
    for (const key of gone) after.delete(key);
    for (const each of values) after.set(keyOf(each), { owner: by, spec: each });
    const isPossible = isOwner && isThere && isAllowed;
    const isFit = fits(await stateOf(after, this.#clock));
    const error = await write().then(
      () => undefined,
      (fault: unknown) => fault
    );
    if (error instanceof StoreError && this.#store.isFailing) return;
    if (error !== undefined && !isRefusal(error)) throw error;
    if (this.#isTrusted) {
      const told = `${error?.message ?? 'accepted'} after ${JSON.stringify([...after])}`;
      expect(error === undefined, told).toBe(isPossible && isFit);
    }
    if (error === undefined) return;
    const entriesThen = await this.#store.list('desired/');
    expect(entriesThen).toEqual(entries);
  }

  async #check(): Promise<void> {
    const registry = this.#registry;
    // A write waits until the registry has taken what came before, which a busy machine does in slices.
    await registry.unexpose({ name: 'none' }, 'admin').catch(() => {});
    const fresh = await Registry.open(this.#store, { clock: this.#clock });
    expect(listsOf(registry)).toEqual(listsOf(fresh));
    await fresh.close();
    const open = [...inForce(registry.state, this.#clock.wallMs())].map(([key, each]) => [
      `exposure ${key}`,
      each,
    ]);
    const view = viewOf(registry);
    const kept = [...view].filter(([key]) => key.startsWith('exposure '));
    expect(kept.map(([key, text]) => [key, JSON.parse(text)]).sort()).toEqual(
      JSON.parse(JSON.stringify(open)).sort()
    );
    const differs = [...new Set([...view.keys(), ...this.#view.keys()])].filter(
      (key) => view.get(key) !== this.#view.get(key)
    );
    expect(differs.filter((key) => !this.#touched.has(key))).toEqual([]);
    this.#touched.clear();
    this.#view = view;
  }
}

function put(registry: Registry, { value, owner: by }: Extract<Step, { do: 'put' }>) {
  if (value.zone !== undefined) return registry.putSite(value, by);
  return value.ports === undefined ? registry.expose(value, by) : registry.putService(value, by);
}

function remove(registry: Registry, value: Value, by: Owner) {
  const name = String(value.name);
  if (value.zone !== undefined) return registry.removeSite(name, by);
  if (value.ports !== undefined) return registry.removeService(name, by);
  return registry.unexpose(
    value.siteSelector === undefined
      ? { service: String(value.service), site: String(value.site) }
      : { name },
    by
  );
}

test('a history of a registry', { timeout: timeoutOf(RUNS) }, async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { maxLength: 80, size: 'max' }),
      fc.boolean(),
      async (steps, isTrusted) => {
        await new History(isTrusted).run(steps);
      }
    ),
    { ...RUNS, unbiased: true }
  );
});

function isRefusal(error: unknown): error is Error {
  return [ConfigError, ConflictError, NotFoundError].some((kind) => error instanceof kind);
}
