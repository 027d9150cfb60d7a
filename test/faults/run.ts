/**
 * One random fault run: faults for a while, then quiet, in which everything is checked that has to hold then; and so on. What
 * must hold all the time is checked by the traffic (`workload.ts`) and by all changes of the store (`store-watch.ts`).
 * @module
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FAST_ETCD } from '../e2e/several-machines-etcd.ts';
import { MachinesScene } from '../e2e/several-machines-scene.ts';
import { resolve, ZONE } from '../e2e/several-processes-scene.ts';
import { bundleGateways } from '../support/bundle.ts';
import { eventually, killGateways } from '../support/gateway-process.ts';
import { Network } from '../support/network.ts';
import { Random } from '../support/random.ts';
import { exposurePath, Faults } from './faults.ts';
import { AUDIT_EVERY_SECOND, type Edit, edited } from './mutations.ts';
import { checkQuiet } from './quiet.ts';
import { reportOf } from './report.ts';
import { Schedule } from './schedule.ts';
import { StoreWatch } from './store-watch.ts';
import { Violations } from './violations.ts';
import { Clients, FIRST_CLIENT, PORT, SeenAddresses, Service } from './workload.ts';

export interface RunOptions {
  readonly seed: number;
  readonly minutes: number;
  /** How long faults go on before everything has to become quiet, in ms. */
  readonly phaseMs: number;
  /** What is broken in the gateways on purpose. */
  readonly edits?: readonly Edit[];
}

/** What a run was; `report` is undefined if it has found no violation. */
export interface RunResult {
  readonly violations: readonly string[];
  readonly report: string | undefined;
  readonly summary: string;
}

/** Runs. The namespaces and all programs end with it. */
export async function runFaults(options: RunOptions): Promise<RunResult> {
  const { edits = [], minutes } = options;
  const bundle = await bundleGateways([edited([...AUDIT_EVERY_SECOND, ...edits])]);
  const before = process.env.VP_BUNDLED_GATEWAYS;
  process.env.VP_BUNDLED_GATEWAYS = bundle;
  const directory = mkdtempSync(join(tmpdir(), 'vp-faults-'));
  const network = await Network.create(directory);
  try {
    const lifetimeSeconds = 60 * minutes + 900;
    const scene = await MachinesScene.start(network, directory, {
      machines: 3,
      sites: 3,
      members: 3,
      etcdData: 'memory',
      etcd: FAST_ETCD,
      lifetimeSeconds,
    });
    return await new Run(options, scene, lifetimeSeconds).run();
  } finally {
    await network.close();
    await killGateways();
    process.env.VP_BUNDLED_GATEWAYS = before;
    rmSync(directory, { recursive: true, force: true });
    rmSync(bundle, { recursive: true, force: true });
  }
}

class Run {
  readonly #options: RunOptions;
  readonly #scene: MachinesScene;
  readonly #lifetimeSeconds: number;
  readonly #random: Random;
  readonly #violations = new Violations();
  readonly #seen: SeenAddresses = new SeenAddresses(this.#violations);
  readonly #clients = new Map<string, Clients>();
  readonly #watch: StoreWatch;

  constructor(options: RunOptions, scene: MachinesScene, lifetimeSeconds: number) {
    this.#options = options;
    this.#scene = scene;
    this.#lifetimeSeconds = lifetimeSeconds;
    this.#random = new Random(options.seed);
    const members = scene.etcdHosts.map(({ address }) => address);
    const prefix = `/vp/${ZONE}/`;
    this.#watch = new StoreWatch(scene.root, members, prefix, this.#violations);
  }

  async run(): Promise<RunResult> {
    const scene = this.#scene;
    const violations = this.#violations;
    await this.#open();
    const faults = new Faults({ scene, clients: this.#clients, watch: this.#watch, violations });
    const schedule = new Schedule(this.#random, faults, violations, {
      machines: scene.machines.length,
      members: scene.etcdHosts.length,
    });
    const endMs = performance.now() + 60_000 * this.#options.minutes;
    let rounds = 0;
    try {
      await checkQuiet(scene, this.#watch);
      do {
        rounds++;
        await schedule.phase(this.#options.phaseMs);
        await this.#quiet(schedule, faults);
      } while (performance.now() < endMs && violations.texts.length === 0);
      for (const clients of this.#clients.values()) await clients.endExchange();
    } catch (error) {
      violations.add((error as Error).message);
    }
    faults.isOver = true;
    this.#watch.isOver = true;
    const counts = [...schedule.counts].map(([word, count]) => `${count} ${word}`).join(', ');
    const { texts } = violations;
    const { seed } = this.#options;
    const report =
      texts.length === 0
        ? undefined
        : await reportOf({ seed, texts, log: schedule.log, scene, watch: this.#watch });
    return { violations: texts, report, summary: `seed ${seed}, ${rounds} rounds: ${counts}` };
  }

  /** Lets traffic begin. */
  async #open(): Promise<void> {
    const { root, service: host, sites } = this.#scene;
    await root.sh('ip address add 198.51.100.254/24 dev wan');
    await host.sh('ip address add 10.0.0.6/16 dev lan0 && ip address add 10.0.0.7/16 dev lan0');
    const service = new Service(host, '10.0.0.6', this.#lifetimeSeconds, this.#violations);
    const second = new Service(host, '10.0.0.7', this.#lifetimeSeconds, this.#violations);
    await Promise.all([service.ready(), second.ready()]);
    for (const [name, address] of [
      ['first', '10.0.0.6'],
      ['second', '10.0.0.7'],
    ] as const) {
      const ports = [`tcp/${PORT}`, `udp/${PORT}`];
      await this.#change('PUT', `/v1/services/${name}`, { site: 'cloud', address, ports });
    }
    for (const site of sites) {
      await this.#change('PUT', `/v1/exposures/${site.name}/first`, {});
    }
    for (const { name, client } of sites) {
      const target = await eventually('the name of the service', () =>
        resolve(client, 'first').catch(() => undefined)
      );
      const clients = new Clients({
        site: name,
        host: client,
        target,
        service,
        seen: this.#seen,
        violations: this.#violations,
        lifetimeSeconds: this.#lifetimeSeconds,
      });
      await clients.ready();
      await clients.appear(FIRST_CLIENT);
      clients.beginExchange();
      this.#clients.set(name, clients);
    }
    for (const clients of this.#clients.values()) await clients.reach();
  }

  async #quiet(schedule: Schedule, faults: Faults): Promise<void> {
    const scene = this.#scene;
    await checkQuiet(scene, this.#watch);
    schedule.note('quiet');
    // A machine that has just been started has derived everything in full.
    const fresh = this.#random.pick(scene.machines);
    schedule.note(`kill ${fresh.name}, which then derives everything anew`);
    await faults.killAndRestart(fresh);
    await checkQuiet(scene, this.#watch);
    await this.#checkService(schedule);
    for (const [site, clients] of this.#clients) {
      await clients.reach();
      for (const client of clients.talking) {
        const address = await clients.whoami(client);
        this.#seen.see(`${site}/${client}`, address);
        if (this.#watch.leases.get(`cloud/${address}`) === `${site}/${client}`) continue;
        this.#violations.add(`${client} of ${site} is ${address} for the service, and not in etcd`);
      }
    }
    await this.#renew(schedule);
  }

  /** Exposes the second service to a site or ends that, and checks that its name is there or not. */
  async #checkService(schedule: Schedule): Promise<void> {
    const site = this.#random.pick(this.#scene.sites);
    const isExposed = this.#random.chance(0.5);
    schedule.note(`the second service is ${isExposed ? '' : 'not '}exposed to ${site.name}`);
    const path = exposurePath(site.name);
    await this.#change(isExposed ? 'PUT' : 'DELETE', path, isExposed ? {} : undefined);
    await eventually(`the name of the second service at ${site.name}`, async () => {
      const address = await resolve(site.client, 'second').catch(() => undefined);
      return (address !== undefined) === isExposed || undefined;
    });
  }

  /** Lets the clients of one site leave, releases their addresses, and lets others come. */
  async #renew(schedule: Schedule): Promise<void> {
    const { name } = this.#random.pick(this.#scene.sites);
    const clients = this.#clients.get(name)!;
    await clients.endExchange();
    await clients.leave();
    await this.#change('DELETE', `/v1/sites/${name}/clients`);
    await this.#watch.caughtUp();
    this.#seen.forget(name);
    schedule.note(`the clients of ${name} have left`);
    await clients.appear(FIRST_CLIENT);
    clients.beginExchange();
  }

  /** Changes something while there are no faults, at any machine. */
  async #change(method: string, path: string, body?: unknown): Promise<void> {
    const machine = this.#random.pick(this.#scene.machines);
    const answer = await this.#scene.ask(machine, method, path, body);
    if (answer.status < 300 || (method === 'DELETE' && answer.status === 404)) return;
    throw new Error(`${machine.name}: ${method} ${path}: ${answer.status} ${answer.body.detail}`);
  }
}
