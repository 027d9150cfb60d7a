/**
 * A controller with everything around it observed: what is stored, and what is put to use when.
 */
import { PresenceController, type PresenceControllerOptions } from '../../src/control/index.ts';
import { StoreError } from '../../src/errors.ts';
import {
  type ExposureInput,
  Registry,
  type ServiceInput,
  type SiteInput,
} from '../../src/registry/index.ts';
import { type Json, MemoryStore, type Write } from '../../src/store/index.ts';
import {
  PacketTranslator,
  type PlanChanges,
  type PlannedRealm,
  type Presence,
  type TranslationPlan,
} from '../../src/translator/index.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { type TextOf, type TextPlan, type TextPresence, textOf } from '../support/text-of.ts';
import { KeyedPlan } from './keyed-plan.ts';

export interface Desired {
  readonly sites: readonly SiteInput[];
  readonly services: readonly TextOf<ServiceInput>[];
  readonly exposures: readonly ExposureInput[];
}

export const SITE: Pick<SiteInput, 'sources' | 'pools'> = {
  sources: ['10.0.0.0/24'],
  pools: ['10.0.0.128/25'],
};
export const DESIRED: Desired = {
  sites: [
    { name: 'cloud', ...SITE, zone: 'cloud.test' },
    { name: 'site-a', ...SITE, zone: 'a.test' },
    { name: 'site-b', ...SITE, zone: 'b.test' },
  ],
  services: [
    { name: 'rabbitmq', site: 'cloud', address: '10.0.0.5', ports: ['tcp/5672', 'icmp'] },
    { name: 'neutron', site: 'cloud', address: '10.0.0.5', ports: ['tcp/9696'] },
    { name: 'glance', site: 'cloud', address: '10.0.0.6', ports: ['tcp/9292'] },
    { name: 'console-a', site: 'site-a', address: '10.0.0.5', ports: ['tcp/6080'] },
  ],
  exposures: [
    { service: 'rabbitmq', site: 'site-a' },
    { service: 'neutron', site: 'site-a' },
    { service: 'rabbitmq', site: 'site-b' },
    { service: 'console-a', site: 'cloud' },
  ],
};

/** Lets everything run that does not wait for a timer: promises of a memory store, `setImmediate`. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** A clock of which an asynchronous part of a test may let promises settle between two timers. */
export class SceneClock extends FakeClock {
  /** What each look at the monotonic clock takes, in ms, so that work takes time. */
  tickMs = 0;
  #tickedMs = 0;
  readonly #due = new Set<{ readonly atMs: number }>();

  override monotonicMs(): number {
    this.#tickedMs += this.tickMs;
    return super.monotonicMs() + this.#tickedMs;
  }

  override after(delayMs: number, callback: () => void): () => void {
    const due = { atMs: super.monotonicMs() + delayMs };
    this.#due.add(due);
    const end = super.after(delayMs, () => {
      this.#due.delete(due);
      callback();
    });
    return () => {
      this.#due.delete(due);
      end();
    };
  }

  async pass(ms: number): Promise<void> {
    const endMs = super.monotonicMs() + ms;
    for (;;) {
      const nextMs = Math.min(...[...this.#due].map(({ atMs }) => atMs));
      if (nextMs > endMs) break;
      this.advance(Math.max(nextMs - super.monotonicMs(), 0));
      await turn();
    }
    this.advance(endMs - super.monotonicMs());
    await turn();
  }
}

/** A store whose commits can fail, or be held up. */
export class ScriptedStore extends MemoryStore {
  isFailing = false;
  /** Commits that brought leases, those that failed included. */
  leaseCommits = 0;
  /** What is stored of the leases, by key. */
  readonly leases: Map<string, Json> = new Map();
  #held: Promise<void> | undefined;

  constructor() {
    super();
    this.watch('lease/', (changes) => {
      for (const { key, value } of changes) {
        if (value === undefined) this.leases.delete(key);
        else this.leases.set(key, value);
      }
    });
  }

  /** Holds commits until the function that it returns is called. */
  hold(): () => void {
    let open!: () => void;
    this.#held = new Promise((resolve) => {
      open = resolve;
    });
    return () => {
      this.#held = undefined;
      open();
    };
  }

  override async commit(writes: readonly Write[]): Promise<void> {
    const isLease = writes.some(({ key }) => key.startsWith('lease/'));
    if (isLease) {
      this.leaseCommits++;
      await this.#held;
      if (this.isFailing) throw new StoreError('the disk is full');
    }
    await super.commit(writes);
  }

  /** Whether the presence is stored, and in use. */
  has({ realm, address, of }: TextPresence): boolean {
    const value = this.leases.get(`lease/${realm}/${address}`) as
      | { endpoint: string; releasedAt?: number }
      | undefined;
    return value?.endpoint === `${of.realm}/${of.address}` && value.releasedAt === undefined;
  }
}

/** A real translator, and the plan that it has received. */
export class ObservedTranslator {
  readonly real: PacketTranslator = new PacketTranslator();
  readonly #store: ScriptedStore;
  readonly keyed: KeyedPlan = new KeyedPlan();
  #plan: TextPlan | undefined;
  #presences: readonly TextPresence[] | undefined;
  loads = 0;
  /** Each set of changes that came. */
  readonly changes: PlanChanges[] = [];
  /** Presences that were not stored when they were put to use. */
  readonly unstored: TextPresence[] = [];

  constructor(store: ScriptedStore) {
    this.#store = store;
  }

  /** What is in force. */
  get plan(): TextPlan {
    this.#plan ??= textOf(this.keyed.plan);
    return this.#plan;
  }

  /** All that are in force. */
  get presences(): readonly TextPresence[] {
    this.#presences ??= this.keyed.presences().map(textOfPresence);
    return this.#presences;
  }

  load(plan: TranslationPlan): void {
    this.loads++;
    this.keyed.load(plan);
    this.real.load(plan);
    this.#use(plan.presences);
  }

  apply(changes: PlanChanges): void {
    this.changes.push(changes);
    this.keyed.apply(changes);
    this.real.apply(changes);
    this.#use(changes.presences ?? []);
  }

  planned(realm: string): PlannedRealm | undefined {
    return this.real.planned(realm);
  }

  /** The presence of a host in a realm; the first, if it has one of each IP version. */
  addressOf(realm: string, site: string, address: string): string | undefined {
    return this.addressesOf(realm, site, address)[0];
  }

  /** The presences of a host in a realm, IPv4 first, without former ones. */
  addressesOf(realm: string, site: string, address: string): string[] {
    return this.presences
      .filter(
        (each) =>
          each.realm === realm &&
          each.of.realm === site &&
          each.of.address === address &&
          each.formerUntil === undefined
      )
      .map((each) => each.address)
      .sort((a, b) => Number(a.includes(':')) - Number(b.includes(':')));
  }

  #use(presences: NonNullable<PlanChanges['presences']>): void {
    this.#plan = undefined;
    this.#presences = undefined;
    for (const { realm, address, of } of presences) {
      if (of === undefined) continue;
      const presence = textOfPresence({ realm, address, of });
      if (!this.#store.has(presence)) this.unstored.push(presence);
    }
  }
}

function textOfPresence({ realm, address, of, formerUntil }: Presence): TextPresence {
  return {
    realm,
    address: address.toString(),
    of: { realm: of.realm, address: of.address.toString() },
    ...(formerUntil === undefined ? {} : { formerUntil }),
  };
}

export interface Scene {
  readonly store: ScriptedStore;
  readonly registry: Registry;
  readonly translator: ObservedTranslator;
  readonly controller: PresenceController;
  readonly problems: string[];
  readonly clock: SceneClock;
}

export interface SceneOptions
  extends Partial<Omit<PresenceControllerOptions, 'registry' | 'store' | 'translator'>> {
  /** Makes the translator; default an `ObservedTranslator`. */
  readonly translatorOf?: (store: ScriptedStore) => ObservedTranslator;
}

/**
 * @param desired null: what the store has
 * @param from a scene whose store and clock go on: a restart; or a store alone
 */
export async function startScene(
  desired: unknown = DESIRED,
  { translatorOf = (store) => new ObservedTranslator(store), ...options }: SceneOptions = {},
  from?: Partial<Scene>
): Promise<Scene> {
  await from?.controller?.close();
  await from?.registry?.close();
  const store = from?.store ?? new ScriptedStore();
  const clock = from?.clock ?? new SceneClock();
  const registry = await Registry.open(store, { clock });
  if (desired !== null) await registry.apply(desired, 'file');
  const translator = translatorOf(store);
  const controller = await PresenceController.start({
    registry,
    store,
    translator,
    clock,
    ...options,
  });
  const problems: string[] = [];
  controller.on('problem', ({ error }) => problems.push(error.message));
  await turn();
  return { store, registry, translator, controller, problems, clock };
}
