/**
 * What may happen to the cloud in a random fault run: faults, which last for a while and are healed then, and acts of
 * operators and clients.
 * @module
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Machine, MachinesScene, Site } from '../e2e/several-machines-scene.ts';
import type { Random } from '../support/random.ts';
import { inTime } from './in-time.ts';
import type { StoreWatch } from './store-watch.ts';
import type { Violations } from './violations.ts';
import type { Clients } from './workload.ts';

/** Something that happens, and what ends it. */
export interface Fault {
  readonly text: string;
  /** No two faults take the same at once. */
  readonly takes: string;
  /** The machine that serves badly or not at all meanwhile. */
  readonly machine?: string;
  /** The member of etcd that does not answer meanwhile. */
  readonly member?: string;
  /** How long it lasts at most, in ms; 0 for an act, which is over at once. */
  readonly mostMs: number;
  readonly begin: () => Promise<void>;
  readonly end?: () => Promise<void>;
}

export interface FaultsParts {
  readonly scene: MachinesScene;
  readonly clients: ReadonlyMap<string, Clients>;
  readonly watch: StoreWatch;
  readonly violations: Violations;
}

export class Faults {
  readonly #parts: FaultsParts;
  /** Whether the end of gateways is no fault any more. */
  isOver = false;
  /** The machines whose gateways this has killed. */
  readonly #killed = new Set<string>();

  constructor(parts: FaultsParts) {
    this.#parts = parts;
    for (const machine of parts.scene.machines) this.#expectLife(machine);
  }

  /** Chooses the next one. It takes the same number of random numbers each time. */
  draw(random: Random): Fault {
    const { scene } = this.#parts;
    const machine = random.pick(scene.machines);
    const site = random.pick(scene.sites);
    const member = random.pick(scene.etcdHosts);
    const host = random.between(20, 250);
    const choice = random.below(100);
    const to = random.pick(scene.machines);
    const { name } = machine;
    const etcd = scene.etcdHosts.map(({ address }) => address);
    if (choice < 12) {
      return {
        text: `kill ${name}`,
        takes: `gateway ${name}`,
        machine: name,
        mostMs: 3000,
        begin: () => this.#kill(machine),
        end: () => this.restart(machine),
      };
    }
    if (choice < 26) {
      return {
        text: `stop ${name}`,
        takes: `gateway ${name}`,
        machine: name,
        mostMs: 8000,
        begin: () => scene.signal(machine, 'STOP'),
        end: () => this.#goOn(machine),
      };
    }
    if (choice < 34) {
      return {
        text: `unplug ${name}`,
        takes: `cable ${name}`,
        machine: name,
        mostMs: 6000,
        begin: () => scene.unplug(machine),
        end: () => scene.plugIn(machine),
      };
    }
    if (choice < 42) {
      return {
        text: `cut ${name} from etcd`,
        takes: `cut ${name}`,
        machine: name,
        mostMs: 8000,
        begin: () => scene.cut(machine, etcd),
        end: () => scene.heal(machine),
      };
    }
    if (choice < 50) {
      return {
        text: `cut ${site.name} from ${name}`,
        takes: `cut ${site.name}`,
        machine: name,
        mostMs: 8000,
        begin: () => scene.cut(site, [machine.address]),
        end: () => scene.heal(site),
      };
    }
    if (choice < 55) {
      return {
        text: `stop ${member.name}`,
        takes: member.name,
        member: member.name,
        mostMs: 6000,
        begin: () => member.signal('STOP'),
        end: () => member.signal('CONT'),
      };
    }
    if (choice < 60) {
      return {
        text: `kill ${member.name}`,
        takes: member.name,
        member: member.name,
        mostMs: 5000,
        begin: () => member.kill(),
        end: async () => member.start(),
      };
    }
    if (choice < 67) {
      return {
        text: `drain ${name}`,
        takes: `drain ${name}`,
        machine: name,
        mostMs: 6000,
        begin: () => this.#handOver(machine, 'POST', `/v1/machines/${name}/drain`),
        end: () => this.#resume(machine),
      };
    }
    if (choice < 77) {
      const body = { site: site.name, machine: to.name };
      return {
        text: `move ${site.name} to ${to.name}`,
        takes: `move ${site.name}`,
        mostMs: 0,
        begin: () => this.#handOver(scene.holderOf(site), 'POST', '/v1/moves', body),
      };
    }
    if (choice < 82) return this.#exposure(machine, site, 'PUT');
    if (choice < 87) return this.#exposure(machine, site, 'DELETE');
    return {
      text: `clients 10.0.0.${host} and two more of ${site.name} appear`,
      takes: `clients ${site.name}`,
      mostMs: 0,
      begin: async () => {
        const clients = this.#parts.clients.get(site.name)!;
        if (clients.talking.size > MOST_CLIENTS) return;
        for (const each of [host, host + 1, host + 2]) await clients.appear(`10.0.0.${each}`);
      },
    };
  }

  /** Kills a gateway and starts it again, as systemd does: it is tried again as long as the start fails. */
  async killAndRestart(machine: Machine): Promise<void> {
    await this.#kill(machine);
    await this.restart(machine);
  }

  async restart(machine: Machine): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        await this.#parts.scene.restart(machine);
        break;
      } catch (error) {
        if (attempt === MOST_STARTS) throw error;
        await delay(RESTART_MS);
      }
    }
    this.#killed.delete(machine.name);
    this.#expectLife(machine);
  }

  async #goOn(machine: Machine): Promise<void> {
    await this.#parts.scene.signal(machine, 'CONT');
    // `nsenter` stops with its child, and does not go on by itself.
    machine.gateway.child.kill('SIGCONT');
  }

  async #kill(machine: Machine): Promise<void> {
    this.#killed.add(machine.name);
    await this.#parts.scene.kill(machine);
  }

  #expectLife(machine: Machine): void {
    void machine.gateway.ended.then(({ code, signal, complaint }) => {
      if (this.#killed.has(machine.name) || this.isOver) return;
      this.#parts.violations.add(
        `the gateway of ${machine.name} has ended by itself: ${code ?? signal} ${complaint}`
      );
    });
  }

  #exposure(machine: Machine, site: Site, method: 'PUT' | 'DELETE'): Fault {
    const verb = method === 'PUT' ? 'expose the second service to' : 'withdraw it from';
    const path = exposurePath(site.name);
    return {
      text: `${verb} ${site.name} at ${machine.name}`,
      takes: `exposure ${site.name}`,
      mostMs: 0,
      begin: async () => {
        await this.#act(machine, method, path, method === 'PUT' ? {} : undefined);
      },
    };
  }

  /** Asks a machine for what writes keys of its sites for other machines. */
  async #handOver(machine: Machine, method: string, path: string, body?: unknown): Promise<void> {
    const { watch } = this.#parts;
    watch.beginHandOver(machine.name);
    const status = await this.#act(machine, method, path, body);
    // Without a good answer, a commit may be on its way, also to a member of etcd that does not run.
    if (status === undefined || status >= 300) await delay(LATE_MS);
    await watch.endHandOver(machine.name);
  }

  async #resume(machine: Machine): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      const status = await this.#act(machine, 'POST', `/v1/machines/${machine.name}/resume`);
      if (status !== undefined && status < 300) return;
      if (attempt === MOST_STARTS) throw new Error(`${machine.name} does not resume: ${status}`);
      await delay(RESTART_MS);
    }
  }

  /** Sends a request, which may be refused while there are faults. Returns the status; undefined without an answer. */
  async #act(
    machine: Machine,
    method: string,
    path: string,
    body?: unknown
  ): Promise<number | undefined> {
    const asked = this.#parts.scene.ask(machine, method, path, body).catch(() => undefined);
    const answer = await inTime(asked, `${machine.name}: ${method} ${path}`, ANSWER_MS);
    if (answer?.status === 500) {
      this.#parts.violations.add(
        `${machine.name}: ${method} ${path}: ${JSON.stringify(answer.body)}`
      );
    }
    return answer?.status;
  }
}

/** The exposure that is set and ended during the run. */
export function exposurePath(site: string): string {
  return `/v1/exposures/${site}/second`;
}

/** Longer than a gateway is stopped. */
const ANSWER_MS = 60_000;
const MOST_CLIENTS = 10;
const MOST_STARTS = 60;
/** What systemd waits by the unit of the guide. */
const RESTART_MS = 1000;
/** After this time no commit is on its way. */
const LATE_MS = 10_000;
