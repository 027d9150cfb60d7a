/**
 * Several machines with one controller each on one store, and an election that changes at random. Watches lag, commits
 * fail, machines crash. After each step, no address may lead to two hosts, and only the elected machine may have written
 * leases.
 */
import fc from 'fast-check';
import type { Allocation } from '../../src/control/index.ts';
import { Registry } from '../../src/registry/index.ts';
import type { Json } from '../../src/store/index.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { textOf } from '../support/text-of.ts';
import { CONTROLLER, FakeAllocation, Machine } from './cluster-machine.ts';
import { FIRST, FIRST_STEPS, SITES, type Step, step } from './derivation-world.ts';
import { turn } from './scene.ts';
import { type MachineStore, SharedStore } from './shared-store.ts';

export const NAMES: readonly string[] = ['m1', 'm2', 'm3'];
const TTL_SECONDS = 30;

/** What a test of the tests breaks. */
export interface Broken {
  readonly guards?: boolean;
  readonly horizon?: boolean;
}

export type ClusterStep =
  | { readonly do: 'on'; readonly m: number; readonly step: Step }
  | { readonly do: 'elect'; readonly m: number }
  | { readonly do: 'depose' }
  | { readonly do: 'lag' | 'fail'; readonly m: number; readonly is: boolean }
  | { readonly do: 'crash'; readonly m: number }
  | { readonly do: 'wait'; readonly ms: number };

const m = fc.nat({ max: NAMES.length - 1 });
const ofController = new Set<Step['do']>(['send', 'store', 'wait', 'turn', 'restart']);

export const clusterStep: fc.Arbitrary<ClusterStep> = fc.oneof(
  {
    weight: 30,
    arbitrary: fc.record({
      do: fc.constant('on' as const),
      m,
      step: step.filter((each) => !ofController.has(each.do)),
    }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('elect' as const), m }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('depose' as const) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('lag' as const), m, is: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('fail' as const), m, is: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('crash' as const), m }) },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('wait' as const),
      ms: fc.constantFrom(5_000, 30_000, 65_000),
    }),
  }
);

export class ClusterWorld {
  readonly shared: SharedStore = new SharedStore();
  readonly machines: Machine[] = [];
  readonly faults: string[] = [];
  /** How many clients were admitted by a machine that does not allocate. */
  admitted = 0;
  readonly #transit: string | undefined;
  readonly #broken: Broken;
  readonly #suspended = new Set<string>();
  #nowMs = 0;
  /** When all machines had applied which version. */
  #applied: { readonly atMs: number; readonly version: number }[] = [];
  /** Keyed by realm and address: the host that last used it, and when. */
  readonly #lastUse = new Map<string, { readonly of: string; readonly atMs: number }>();

  constructor(transit: string | undefined, broken: Broken = {}) {
    this.#transit = transit;
    this.#broken = broken;
    this.shared.hasGuards = broken.guards !== true;
    this.shared.onCommit = (writes, by) => {
      const isLeases = writes.some(({ key }) => /^(lease|overlap)\//.test(key));
      if (!isLeases || by.name === this.#elected) return;
      this.faults.push(`${by.name} has written leases while ${this.#elected} is elected`);
    };
  }

  get #elected(): string | undefined {
    return this.shared.valueOf(CONTROLLER) as string | undefined;
  }

  async start(): Promise<void> {
    const first = this.shared.machine('first');
    const registry = await Registry.open(first, { clock: new FakeClock() });
    await registry.apply(FIRST, 'file');
    await registry.close();
    for (const [i] of NAMES.entries()) this.machines[i] = await this.#startMachine(i);
    await this.take({ do: 'elect', m: 0 });
    for (const [i, each] of FIRST_STEPS.entries()) {
      if (each.do === 'admit') await this.take({ do: 'on', m: i % NAMES.length, step: each });
    }
  }

  async #startMachine(i: number): Promise<Machine> {
    // Their monotonic clocks do not agree, and some stores limit commits.
    const start = { monotonicMs: 1_000_000 * (i + 1) };
    const store = this.shared.machine(NAMES[i]!, [undefined, 4, 9][i]);
    const before = this.machines[i];
    const machine = new Machine(NAMES[i]!, store, before?.clock ?? new FakeClock(start));
    const allocation = new FakeAllocation(store, () => this.#horizon);
    await this.#open(machine, allocation);
    return machine;
  }

  #open(machine: Machine, allocation: Allocation | undefined): Promise<void> {
    return machine.open(allocation, {
      transit: this.#transit,
      overlapMs: 45_000,
      auditMs: 1000,
      suspended: this.#suspended,
    });
  }

  get #horizon(): number {
    if (this.#broken.horizon === true) return Number.POSITIVE_INFINITY;
    const before = this.#nowMs - 1000 * TTL_SECONDS;
    return this.#applied.findLast(({ atMs }) => atMs <= before)?.version ?? 0;
  }

  async take(each: ClusterStep): Promise<void> {
    const ignore = (): void => {};
    switch (each.do) {
      case 'on':
        this.#on(this.machines[each.m]!, each.step);
        break;
      case 'elect':
      case 'depose': {
        const value = each.do === 'elect' ? NAMES[each.m] : undefined;
        if (value !== this.#elected) this.shared.apply([{ key: CONTROLLER, value }], [], first);
        break;
      }
      case 'lag':
        this.machines[each.m]!.store.isLagging = each.is;
        break;
      case 'fail':
        this.machines[each.m]!.store.isFailing = each.is;
        break;
      case 'crash': {
        const { store, controller, registry, name } = this.machines[each.m]!;
        store.crash();
        controller.close().catch(ignore);
        registry.close().catch(ignore);
        if (this.#elected === name) await this.take({ do: 'depose' });
        this.machines[each.m] = await this.#startMachine(each.m);
        break;
      }
      case 'wait':
        await this.#pass(each.ms);
    }
    await turn();
    await turn();
    this.#check();
  }

  #on({ registry, controller, plan, name }: Machine, each: Step): void {
    const ignore = (): void => {};
    switch (each.do) {
      case 'site':
        return void registry.putSite(each.site, 'file').catch(ignore);
      case 'removeSite':
        return void registry.removeSite(each.name, 'file').catch(ignore);
      case 'service':
        return void registry.putService(each.service, 'file').catch(ignore);
      case 'removeService':
        return void registry.removeService(each.name, 'file').catch(ignore);
      case 'expose':
        return void registry.expose(each.exposure, 'file').catch(ignore);
      case 'select':
        return void registry.expose(each.exposure, 'file').catch(ignore);
      case 'unexpose':
        return void registry.unexpose(each, 'file').catch(ignore);
      case 'unselect':
        return void registry.unexpose({ name: each.name }, 'file').catch(ignore);
      case 'releaseClients':
        return void controller.releaseClients(each.site).catch(ignore);
      case 'suspend':
        if (each.is) this.#suspended.add(each.site);
        else this.#suspended.delete(each.site);
        for (const machine of this.machines) machine.controller.suspend(each.site, each.is);
        return;
      case 'admit': {
        const { from, host, to, family } = each;
        controller.admit(from, host, to, family).then(() => {
          const has = plan
            .presences()
            .some(
              (one) =>
                one.realm === to &&
                one.of.key === `${from}/${host}` &&
                one.address.family === family
            );
          if (has && name !== this.#elected) this.admitted++;
          if (has) return;
          this.faults.push(`${from}/${host} was admitted to ${to}, and has no presence`);
        }, ignore);
      }
    }
  }

  async #pass(ms: number): Promise<void> {
    for (let left = ms; left > 0; left -= STEP_MS) {
      this.#nowMs += STEP_MS;
      for (const { clock } of this.machines) clock.advance(STEP_MS);
      await turn();
      this.#check();
    }
  }

  /** Lets everything heal, and all quarantines end. */
  async settle(): Promise<void> {
    for (const { store } of this.machines) {
      store.isFailing = false;
      store.isLagging = false;
    }
    await turn();
    if (this.#elected === undefined) await this.take({ do: 'elect', m: 1 });
    await this.#pass(200_000);
  }

  #check(): void {
    for (const machine of this.machines) {
      const { version } = machine.store;
      void machine.controller.settled().then(() => {
        machine.applied = Math.max(machine.applied, version);
      });
    }
    const version = Math.min(...this.machines.map(({ applied }) => applied));
    this.#applied.push({ atMs: this.#nowMs, version });
    const present = new Map<string, string>();
    for (const { plan, name } of this.machines) {
      for (const { realm, address, of } of plan.presences()) {
        const key = `${realm} ${address}`;
        const other = present.get(key);
        if (other !== undefined && other !== of.key) {
          this.faults.push(`${key} is ${of.key} on ${name} and ${other} on another machine`);
        }
        present.set(key, of.key);
      }
    }
    for (const [key, of] of present) {
      const last = this.#lastUse.get(key);
      const isEarly = last !== undefined && this.#nowMs - last.atMs < 1000 * TTL_SECONDS;
      if (isEarly && last.of !== of) this.faults.push(`${key} is ${of} soon after ${last.of}`);
      this.#lastUse.set(key, { of, atMs: this.#nowMs });
    }
  }

  /** What each machine has derived, and a fresh controller on the same store. */
  async derived(): Promise<unknown[]> {
    const all = this.machines.map((machine) => derivedOf(machine));
    for (const allocation of [{ guards: undefined } as unknown as Allocation, undefined]) {
      const store = this.shared.machine('fresh');
      const clock = new FakeClock({ wallMs: this.machines[0]!.clock.wallMs() });
      const fresh = new Machine('fresh', store, clock);
      this.shared.onCommit = () => {};
      await this.#open(
        fresh,
        allocation && {
          name: 'fresh',
          guards: undefined,
          lease: undefined,
          horizon: 0,
          watch: () => () => {},
        }
      );
      await turn();
      all.push(derivedOf(fresh));
      await fresh.controller.close();
      await fresh.registry.close();
    }
    return all;
  }

  async close(): Promise<void> {
    for (const { controller, registry } of this.machines) {
      await controller.close();
      await registry.close();
    }
  }

  /** The requests in the store that nobody has answered. */
  get requests(): string[] {
    return [...this.shared.entries.keys()].filter((key) => /^(admit|uses|release)\//.test(key));
  }
}

function derivedOf({ controller, plan }: Machine): unknown {
  const inOrder = (all: readonly object[]): string[] =>
    all.map((each) => JSON.stringify(each)).sort();
  const { realms, presences, permits } = textOf(plan.plan);
  return {
    presences: inOrder(controller.presences()),
    plan: [realms, presences, permits].map(inOrder),
    snapshots: SITES.map((name) => {
      const { revision: _, ...view } = controller.snapshot(name) ?? { revision: 0 };
      return view as Json;
    }),
  };
}

const STEP_MS = 5000;
const first = { name: 'first' } as unknown as MachineStore;
