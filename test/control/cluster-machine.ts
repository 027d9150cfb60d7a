/**
 * One of several machines on one store: its registry, its controller and what its translator has.
 */
import {
  type Allocation,
  PresenceController,
  type PresenceControllerOptions,
} from '../../src/control/index.ts';
import { Registry } from '../../src/registry/index.ts';
import type { Guard } from '../../src/store/index.ts';
import {
  PacketTranslator,
  type PlanChanges,
  type TranslationPlan,
} from '../../src/translator/index.ts';
import type { FakeClock } from '../support/fake-clock.ts';
import { KeyedPlan } from './keyed-plan.ts';
import type { MachineStore } from './shared-store.ts';

/** The key of the name of the elected machine. */
export const CONTROLLER = 'controller';

/** An entry of the store says which machine is elected; a machine knows it when its watch shows it. */
export class FakeAllocation implements Allocation {
  readonly name: string;
  readonly #store: MachineStore;
  readonly #horizon: () => number;
  #guards: readonly Guard[] | undefined;
  readonly #listeners = new Set<() => void>();

  /** It is not elected until it is elected anew. */
  constructor(store: MachineStore, horizon: () => number) {
    this.name = store.name;
    this.#store = store;
    this.#horizon = horizon;
    store.watch(CONTROLLER, (changes) => {
      const { value, version } = changes.at(-1)!;
      this.#guards = value === this.name ? [{ key: CONTROLLER, version }] : undefined;
      for (const listener of this.#listeners) listener();
    });
  }

  get guards(): readonly Guard[] | undefined {
    return this.#guards;
  }

  get lease(): MachineStore['lease'] {
    return this.#store.lease;
  }

  get horizon(): number {
    return this.#horizon();
  }

  watch(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}

export class Machine {
  readonly name: string;
  readonly store: MachineStore;
  readonly clock: FakeClock;
  registry!: Registry;
  controller!: PresenceController;
  readonly plan: KeyedPlan = new KeyedPlan();
  readonly real: PacketTranslator = new PacketTranslator();
  loads = 0;
  applied = 0;
  readonly problems: string[] = [];

  constructor(name: string, store: MachineStore, clock: FakeClock) {
    this.name = name;
    this.store = store;
    this.clock = clock;
  }

  async open(
    allocation: Allocation | undefined,
    options: Partial<PresenceControllerOptions> = {}
  ): Promise<void> {
    const { store, clock } = this;
    this.registry = await Registry.open(store, { clock });
    this.controller = await PresenceController.start({
      registry: this.registry,
      store,
      translator: this,
      clock,
      ttlSeconds: 30,
      quarantineMs: 60_000,
      allocation,
      ...options,
    });
    this.controller.on('problem', ({ error }) => this.problems.push(error.message));
  }

  load(plan: TranslationPlan): void {
    this.loads++;
    this.plan.load(plan);
    this.real.load(plan);
  }

  apply(changes: PlanChanges): void {
    this.plan.apply(changes);
    this.real.apply(changes);
  }
}
