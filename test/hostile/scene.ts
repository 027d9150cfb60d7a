/**
 * A cloud gateway as a process of its own, a legitimate site-b whose traffic is measured, and the
 * credentials of site-a in the hands of an attacker. `Scene.attack` runs the attack of every test: during
 * the attack site-b loses nothing, and after it the gateway has not grown and serves a legitimate site-a.
 * @module
 */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import type { CloudAddresses } from '../../src/gateway/index.ts';
import { enrol } from '../../src/pki/index.ts';
import { type Credentials, MtlsTunnel } from '../../src/tunnel/index.ts';
import { readDatagram, writeDatagram } from '../support/datagrams.ts';
import {
  type AdminAnswer,
  admin,
  cloudConfig,
  GatewayProcess,
  Workspace,
  writeConfig,
} from '../support/gateway-process.ts';
import { Bystander } from './bystander.ts';
import type { Commands } from './bystander-process.ts';
import { BUS, CLIENT, desired, TRUST_DOMAIN } from './plan.ts';
import { type Counters, countersOf } from './status.ts';

/** Whether to run everything, or a short form of it. */
export const FULL: boolean = process.env.VP_FULL === '1';

interface Presence {
  readonly realm: string;
  readonly address: string;
  readonly of: { readonly realm: string; readonly address: string };
}

/** The effects of an attack. */
export class Outcome {
  readonly traffic: Awaited<ReturnType<Commands['end']>>;
  readonly #before: Counters;
  readonly #after: Counters;
  readonly #presences: readonly Presence[];

  constructor(
    traffic: Outcome['traffic'],
    before: Counters,
    after: Counters,
    presences: readonly Presence[]
  ) {
    this.traffic = traffic;
    this.#before = before;
    this.#after = after;
    this.#presences = presences;
  }

  /** Returns the increase of a counter that an operator sees, for example `listener.failed.no-alpn`. */
  counted(name: string): number {
    return (this.#after.get(name) ?? 0) - (this.#before.get(name) ?? 0);
  }

  /** Returns the same for all counters whose name matches. */
  countedAs(pattern: RegExp): number {
    return Object.entries(this.differences)
      .filter(([name]) => pattern.test(name))
      .reduce((sum, [, count]) => sum + count, 0);
  }

  /** Returns all increases, for a message. */
  get differences(): Record<string, number> {
    const names = [...this.#after.keys()].filter((name) => this.counted(name) !== 0);
    return Object.fromEntries(names.map((name) => [name, this.counted(name)]));
  }

  /** Packets that reached the cloud's network, and were not those of the bystander. */
  get passed(): number {
    const isBystanders = (source: string) =>
      this.#presences.some((it) => it.address === source && it.of.realm === 'site-b');
    return Object.entries(this.traffic.seen)
      .filter(([source]) => !isBystanders(source))
      .reduce((sum, [, count]) => sum + count, 0);
  }
}

/** The ports of the gateway on 127.0.0.1. */
interface Ports {
  readonly tunnel: number;
  readonly enrolment: number;
}

export class Scene {
  readonly ports: Ports;
  readonly home: string;
  readonly bystander: Bystander;
  /** The credentials of the attacker. */
  readonly siteA: Credentials;
  readonly #gateway: GatewayProcess;
  readonly #workspace: Workspace;
  /** The gateway's file, without its desired state. */
  readonly #config: Readonly<Record<string, unknown>>;
  readonly #report: string[] = [];

  private constructor(
    workspace: Workspace,
    home: string,
    ports: Ports,
    gateway: GatewayProcess,
    bystander: Bystander,
    siteA: Credentials,
    config: Readonly<Record<string, unknown>>
  ) {
    this.#workspace = workspace;
    this.#config = config;
    this.home = home;
    this.ports = ports;
    this.#gateway = gateway;
    this.bystander = bystander;
    this.siteA = siteA;
  }

  /** @param state the desired state at the start of the gateway */
  static async open(state: object = desired()): Promise<Scene> {
    const workspace = new Workspace();
    const home = workspace.newDirectory();
    const path = join(home, 'device.sock');
    const device = { type: 'unix', path, role: 'listen' };
    const config = { ...cloudConfig(), device };
    writeConfig(home, { ...config, desired: state });
    const gateway = new GatewayProcess('cloud', [join(home, 'gateway.yaml')]);
    let bystander: Bystander | undefined;
    try {
      const { tunnels, enrolment } = await gateway.listening<CloudAddresses>();
      const ports = { tunnel: tunnels[0]!.port, enrolment: enrolment.port };
      bystander = await Bystander.start(path, ports.tunnel);
      const siteA = await enrolled(await tokenFor(home, 'site-a'));
      const scene = new Scene(workspace, home, ports, gateway, bystander, siteA, config);
      const service = await scene.presenceOf(BUS.address, 'site-b');
      await bystander.call('join', await scene.token('site-b'), service);
      await scene.#warmUp();
      return scene;
    } catch (error) {
      bystander?.stop();
      await gateway.kill('SIGKILL');
      workspace.remove();
      throw error;
    }
  }

  callAdmin(method: string, path: string, body?: unknown): Promise<AdminAnswer> {
    return admin(join(this.home, 'admin.sock'), method, path, body);
  }

  token(site: string): Promise<string> {
    return tokenFor(this.home, site);
  }

  async enrol(site: string): Promise<Credentials> {
    return enrolled(await this.token(site));
  }

  /** Puts another desired state in force. */
  async reload(state: object): Promise<void> {
    writeConfig(this.home, { ...this.#config, desired: state });
    const { status, body } = await this.callAdmin('POST', '/v1/reload');
    if (status !== 200) throw new Error(`the gateway did not reload: ${body.detail}`);
  }

  async presences(): Promise<readonly Presence[]> {
    const { body } = await this.callAdmin('GET', '/v1/presences?limit=1000');
    return body.items as Presence[];
  }

  /** Returns the address of a host in a realm. */
  async presenceOf(address: string, realm: string, home = 'cloud'): Promise<string> {
    const all = await this.presences();
    const found = all.find(
      (it) => it.realm === realm && it.of.realm === home && it.of.address === address
    );
    if (found === undefined) throw new Error(`${address} of ${home} is nowhere in ${realm}`);
    return found.address;
  }

  async counters(): Promise<Counters> {
    return countersOf((await this.callAdmin('GET', '/v1/status')).body);
  }

  /** Returns the memory of the gateway, in MiB. */
  memoryMib(): number {
    const status = readFileSync(`/proc/${this.#gateway.child.pid}/status`, 'utf8');
    return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)![1]) / 1024;
  }

  /** Runs an attack while site-b continues its work, and returns what was counted. */
  async attack(what: string, run: () => Promise<unknown>): Promise<Outcome> {
    const before = await this.counters();
    const memoryMib = this.memoryMib();
    await this.bystander.call('begin');
    let traffic: Outcome['traffic'];
    try {
      await run();
    } finally {
      traffic = await this.bystander.call('end', LEAST_REQUESTS);
    }
    await this.checkEdge();
    const grownMib = this.memoryMib() - memoryMib;
    const after = await this.counters();
    const outcome = new Outcome(traffic, before, after, await this.presences());
    this.#note(what, traffic, grownMib);
    expect(traffic, `${what}: what site-b got`).toMatchObject({
      answered: traffic.sent,
      doubled: 0,
      strange: 0,
    });
    expect(traffic.sent).toBeGreaterThanOrEqual(LEAST_REQUESTS);
    const mostMs = MAX_STALL_MS + TURNS * traffic.lateMs;
    expect(traffic.worstMs, `${what}: site-b stood still`).toBeLessThan(mostMs);
    expect(grownMib, `${what}: memory of the gateway`).toBeLessThan(MAX_GROWTH_MIB);
    return outcome;
  }

  /** Checks that a legitimate edge comes up and is served. */
  async checkEdge(credentials: Credentials = this.siteA, site = 'site-a'): Promise<void> {
    const tunnel = this.dial(credentials);
    try {
      await within(UP_DEADLINE_MS, 'up again', once(tunnel as never, 'up'));
      const service = await this.presenceOf(BUS.address, site);
      await within(ANSWER_DEADLINE_MS, 'answered', exchange(tunnel, service));
    } finally {
      await tunnel.close();
    }
  }

  dial(credentials: Credentials): MtlsTunnel {
    return MtlsTunnel.dial({
      endpoints: [{ host: '127.0.0.1', port: this.ports.tunnel }],
      expectedPeer: { trustDomain: TRUST_DOMAIN, role: 'cloud' },
      ...credentials,
    });
  }

  /** Ends everything, and prints the measurements of site-b. */
  async close(): Promise<void> {
    console.log(this.#report.join('\n'));
    this.bystander.stop();
    const { code, complaint } = await this.#gateway.kill('SIGTERM');
    this.#workspace.remove();
    expect({ code, complaint }).toEqual({ code: 0, complaint: '' });
  }

  async #warmUp(): Promise<void> {
    await this.checkEdge();
    await this.bystander.call('begin');
    const quiet = await this.bystander.call('end', LEAST_REQUESTS);
    this.#note('quiet', quiet, 0);
  }

  #note(what: string, { sent, p50Ms, p99Ms, worstMs }: Outcome['traffic'], grownMib: number): void {
    const ms = [p50Ms, p99Ms, worstMs].map((each) => each.toFixed(1)).join('/');
    const memory = `memory ${this.memoryMib().toFixed(0)} (${grownMib.toFixed(0)}) MiB`;
    this.#report.push(`${what}: site-b ${sent} answered, p50/p99/worst ${ms} ms, ${memory}`);
  }
}

async function tokenFor(home: string, site: string): Promise<string> {
  const { body } = await admin(join(home, 'admin.sock'), 'POST', '/v1/tokens', { site });
  if (body.token === undefined) throw new Error(`no token for ${site}: ${body.detail}`);
  return body.token;
}

async function enrolled(token: string): Promise<Credentials> {
  const { key, cert, ca } = await enrol(token);
  return { key, cert, ca };
}

/** Sends one request to the service, from the first client of the site. */
async function exchange(tunnel: MtlsTunnel, service: string): Promise<void> {
  const answered = new Promise<void>((resolve) => {
    tunnel.onPacket = (buffer, start, end) => {
      if (readDatagram(buffer, start, end)?.source === service) resolve();
    };
  });
  const request = writeDatagram({
    source: CLIENT,
    sourcePort: 40_002,
    destination: service,
    destinationPort: BUS.port,
    payload: Buffer.alloc(64),
  });
  tunnel.sendPacket(request, 0, request.length);
  tunnel.flush();
  await answered;
}

/** Rejects if `done` takes too long for a legitimate edge. */
async function within(limitMs: number, what: string, done: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    const error = new Error(`a legitimate edge is not ${what} within ${limitMs} ms`);
    timer = setTimeout(() => reject(error), limitMs);
  });
  await Promise.race([done, late]).finally(() => clearTimeout(timer));
}

/** The least number of requests during an attack. */
const LEAST_REQUESTS = FULL ? 500 : 25;
const MAX_STALL_MS = 1_000;
/** How often a process has to get its turn for one answer, on a machine that may be late each time. */
const TURNS = 4;
const MAX_GROWTH_MIB = 64;
/** Includes a wait for the connection rate of the site, which the attack may have used up. */
const UP_DEADLINE_MS = 30_000;
const ANSWER_DEADLINE_MS = 20_000;
