/**
 * Random histories of three machines, two sites and their edges on one store: machines are cut off from the store, killed and
 * started again, commits get no answer, tunnels die unnoticed, sites are handed over. After each step:
 *
 * - one machine at most believes that it is the controller, and epochs only grow;
 * - one attached machine at most believes that it holds a site;
 * - an edge is never given a lower epoch than before;
 * - a commit that was reported as failed is not applied, and one that was reported as done is.
 *
 * When all is well again, each edge gets a tunnel, whichever machine it reaches, and then every key is where its tunnel is.
 */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { runsOf, timeoutOf } from '../support/property-runs.ts';
import { Cloud, type Machine } from './cloud.ts';
import type { Fault } from './faulty-store.ts';

const NAMES = ['m1', 'm2', 'm3'] as const;
const SITES = ['site-a', 'site-b'] as const;
type Name = (typeof NAMES)[number];
type Site = (typeof SITES)[number];

type Step =
  | { readonly do: 'dial' | 'hand over'; readonly site: Site; readonly at: Name }
  | { readonly do: 'tunnel dies' | 'tunnel dies unnoticed'; readonly site: Site }
  | { readonly do: 'cut' | 'heal' | 'kill' | 'start'; readonly at: Name }
  | { readonly do: 'no answer'; readonly at: Name; readonly prefix: string; readonly fault: Fault }
  | { readonly do: 'deliver late'; readonly at: Name }
  | { readonly do: 'allocate' | 'write'; readonly at: Name }
  | { readonly do: 'pass'; readonly ms: number };

const at = fc.constantFrom(...NAMES);
const site = fc.constantFrom(...SITES);
const steps: fc.Arbitrary<readonly Step[]> = fc.array(
  fc.oneof<fc.Arbitrary<Step>[]>(
    fc.record({ do: fc.constantFrom('dial' as const), site, at }),
    fc.record({ do: fc.constantFrom('dial' as const, 'hand over' as const), site, at }),
    fc.record({
      do: fc.constantFrom('tunnel dies' as const, 'tunnel dies unnoticed' as const),
      site,
    }),
    fc.record({
      do: fc.constantFrom('cut' as const, 'heal' as const, 'kill' as const, 'start' as const),
      at,
    }),
    fc.record({
      do: fc.constant('no answer' as const),
      at,
      prefix: fc.constantFrom('holder/', 'controller', 'fence/', 'want/', 'desired/'),
      fault: fc.constantFrom<Fault>('applied', 'late', 'never'),
    }),
    fc.record({ do: fc.constant('deliver late' as const), at }),
    fc.record({ do: fc.constantFrom('allocate' as const, 'write' as const), at }),
    fc.record({ do: fc.constant('pass' as const), ms: fc.constantFrom(250, 1000, 2500) })
  ),
  { minLength: 5, maxLength: 40 }
);

class World {
  readonly cloud = new Cloud();
  readonly machines = new Map<Name, Machine>();
  readonly killed: Machine[] = [];
  /** The machine at which the edge of a site has its end of the tunnel, and the highest epoch that it was given. */
  readonly edges = new Map<Site, { at: Machine | undefined; max: number }>(
    SITES.map((name) => [name, { at: undefined, max: 0 }])
  );
  #epoch = 0;
  #writes = 0;

  async start(name: Name): Promise<void> {
    if (this.machines.has(name)) return;
    this.machines.set(name, await this.cloud.start(name));
  }

  async take(step: Step): Promise<void> {
    const { cloud, machines } = this;
    if (step.do === 'pass') await cloud.pass(step.ms);
    else if (!('at' in step)) this.#tunnelDies(step.site, step.do === 'tunnel dies');
    else if (step.do === 'start') await this.start(step.at);
    else {
      const machine = machines.get(step.at);
      if (machine === undefined) return;
      if (step.do === 'dial') await this.dial(step.site, machine);
      else if (step.do === 'hand over') {
        const holder = [...machines.values()].find(({ claims }) => claims.held.has(step.site));
        if (holder === undefined) return;
        await this.#finish(holder.claims.handOver(step.site, step.at).catch(() => {}));
      } else if (step.do === 'cut') machine.store.inner.disconnect();
      else if (step.do === 'heal') machine.store.inner.reconnect();
      else if (step.do === 'kill') await this.#kill(step.at, machine);
      else if (step.do === 'no answer') machine.store.fail(step.prefix, step.fault);
      else if (step.do === 'deliver late') await machine.store.deliver();
      else if (step.do === 'allocate') await this.#allocate(machine);
      else await this.#write(machine);
    }
    await cloud.settle();
    this.check();
  }

  /** The edge has lost its tunnel, and dials a machine. */
  async dial(name: Site, machine: Machine): Promise<boolean> {
    const edge = this.edges.get(name)!;
    if (edge.at?.tunnels.has(name) === true) return true;
    const last = { cluster: machine.store.clusterId, number: edge.max };
    const claim = await this.#finish(machine.claims.claim(name, last));
    if (claim.kind !== 'held') return false;
    expect(claim.epoch.number).toBeGreaterThanOrEqual(edge.max);
    edge.max = claim.epoch.number;
    edge.at = machine;
    machine.tunnels.add(name);
    return true;
  }

  check(): void {
    const all = [...this.machines.values()];
    const leaders = all.filter(({ allocation }) => allocation.guards !== undefined);
    expect(leaders.length).toBeLessThanOrEqual(1);
    const epoch = leaders[0]?.election.epoch ?? this.#epoch;
    expect(epoch).toBeGreaterThanOrEqual(this.#epoch);
    this.#epoch = epoch;
    for (const name of SITES) {
      const holders = all.filter(
        ({ member, claims }) => member.lease !== undefined && claims.held.has(name)
      );
      expect(holders.length).toBeLessThanOrEqual(1);
    }
  }

  /** All faults end, and the edges dial one machine after the other until they have a tunnel. */
  async heal(): Promise<void> {
    for (const { store } of this.machines.values()) store.inner.reconnect();
    for (const name of NAMES) await this.start(name);
    await this.cloud.pass(5000);
    for (const name of SITES) {
      const edge = this.edges.get(name)!;
      const wasThere = edge.at?.tunnels.has(name) === true;
      let isUp = wasThere;
      for (let turn = 0; turn < 9 && !isUp; turn++) {
        isUp = await this.dial(name, this.machines.get(NAMES[turn % 3]!)!);
      }
      expect(isUp).toBe(true);
    }
    await this.cloud.pass(15_000);
    this.check();
    for (const name of SITES) {
      const { at: machine } = this.edges.get(name)!;
      expect(machine!.tunnels).toContain(name);
      for (const { claims } of this.machines.values()) {
        expect(claims.holderOf(name)?.machine).toBe(machine!.name);
      }
    }
    expect(this.#epoch).toBeGreaterThan(0);
    expect(await this.cloud.handle().list('want/')).toEqual([]);
  }

  async close(): Promise<void> {
    for (const machine of [...this.machines.values(), ...this.killed]) {
      await machine.claims.close();
      await machine.store.close();
    }
  }

  /** Lets time pass until some work has ended. */
  async #finish<T>(work: Promise<T>): Promise<T> {
    let isOver = false;
    const over = work.finally(() => {
      isOver = true;
    });
    await this.cloud.settle();
    while (!isOver) await this.cloud.pass(250);
    return over;
  }

  #tunnelDies(name: Site, isNoticed: boolean): void {
    const edge = this.edges.get(name)!;
    const machine = edge.at;
    edge.at = undefined;
    if (machine?.tunnels.delete(name) === true && isNoticed) machine.claims.release(name);
  }

  async #kill(name: Name, machine: Machine): Promise<void> {
    await this.cloud.kill(machine);
    this.machines.delete(name);
    this.killed.push(machine);
    for (const edge of this.edges.values()) if (edge.at === machine) edge.at = undefined;
  }

  /** A machine writes an address lease if it believes that it may. It is written only in its own epoch. */
  async #allocate({ allocation, member }: Machine): Promise<void> {
    const { guards } = allocation;
    if (guards === undefined) return;
    const write = { key: 'lease/cloud/a', value: guards[0]!.version };
    const isWritten = await member.store.commit([write], guards).then(
      () => true,
      () => false
    );
    const controller = await this.cloud.handle().get('controller');
    if (isWritten) expect(controller?.version).toBe(guards[0]!.version);
  }

  async #write({ member, store }: Machine): Promise<void> {
    const key = `desired/${++this.#writes}`;
    const said = await this.#finish(
      member.store.commit([{ key, value: 1 }]).then(
        () => 'done',
        (error: { readonly code: string }) => error.code
      )
    );
    await store.deliver();
    const isApplied = (await this.cloud.handle().get(key)) !== undefined;
    if (said !== 'ERR_PRESENCE_STORE_DOUBT') expect(isApplied).toBe(said === 'done');
  }
}

const runs = runsOf(40);

test('whatever happens to three machines, a site has one holder and addresses one controller', {
  timeout: timeoutOf(runs),
}, async () => {
  await fc.assert(
    fc.asyncProperty(steps, async (all) => {
      const world = new World();
      try {
        for (const name of NAMES) await world.start(name);
        for (const step of all) await world.take(step);
        await world.heal();
      } finally {
        await world.close();
      }
    }),
    runs
  );
});
