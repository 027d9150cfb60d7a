/**
 * A cloud gateway of several processes, and two sites; all three networks are 10.0.0.0/24:
 *
 * ```
 *             cloud            site A           site B
 *  hosts    service .5       host-a .5        host-b .5
 *              |                |                |
 *  gateways   gw .1           gw-a .1          gw-b .1
 * ```
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CloudAddresses } from '../../src/gateway/index.ts';
import {
  admin,
  type Config,
  type Ending,
  eventually,
  GatewayProcess,
  writeConfig,
} from '../support/gateway-process.ts';
import type { Host, Network, Program } from '../support/network.ts';

export const ZONE = 'openstack.test';
export const OPEN_PORT = 8080;
export const CLOSED_PORT = 8081;
/** The program of the hosts, which its arguments follow. */
export const HOST_PROGRAM: readonly string[] = [
  process.execPath,
  '--import',
  'tsx',
  'test/e2e/several-processes-host.ts',
];
/** Longer than all tests; the programs end with the network. */
export const LIFETIME_SECONDS = 600;

const REALM = { sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'], zone: ZONE };
const PORTS = ['icmp', `tcp/${OPEN_PORT}`, `udp/${OPEN_PORT}`];
const DESIRED = {
  sites: ['cloud', 'site-a', 'site-b'].map((name) => ({ name, ...REALM, reject: 'reset' })),
  services: [
    { name: 'service', site: 'cloud', address: '10.0.0.5', ports: PORTS },
    { name: 'host-a', site: 'site-a', address: '10.0.0.5', ports: PORTS },
    { name: 'host-b', site: 'site-b', address: '10.0.0.5', ports: PORTS },
  ],
  exposures: [
    { service: 'service', site: 'site-a' },
    { service: 'service', site: 'site-b' },
    { service: 'host-a', site: 'cloud' },
    { service: 'host-b', site: 'cloud' },
    { service: 'host-b', site: 'site-a' },
  ],
};
const CLOUD_WAN = '198.51.100.1';

export interface Hosts {
  readonly service: Host;
  readonly a: Host;
  readonly b: Host;
}

export interface Status {
  readonly pid: number;
  readonly listening: CloudAddresses;
  readonly sites: readonly {
    readonly name: string;
    readonly worker?: number;
    readonly verdicts: Readonly<Record<string, number>>;
  }[];
  readonly workers: readonly { readonly pid: number; readonly sites: readonly string[] }[];
}

export class Scene {
  readonly hosts: Hosts;
  readonly gateway: Host;
  /** The hosts of the edge gateways. */
  readonly gateways: Readonly<Record<'a' | 'b', Host>>;
  readonly edges: Readonly<Record<'a' | 'b', GatewayProcess>>;
  cloud: GatewayProcess;
  readonly #home: string;

  private constructor(
    hosts: Hosts,
    gateway: Host,
    gateways: Scene['gateways'],
    edges: Scene['edges'],
    cloud: GatewayProcess,
    home: string
  ) {
    this.hosts = hosts;
    this.gateway = gateway;
    this.gateways = gateways;
    this.edges = edges;
    this.cloud = cloud;
    this.#home = home;
  }

  /** @param firstPort the first tunnel port; with 0 each process takes a free one */
  static async start(
    network: Network,
    directory: string,
    processes: number,
    firstPort: number = FIRST_PORT
  ): Promise<Scene> {
    await network.root.sh('ip link add wan type bridge && ip link set wan up');
    const device = {
      type: 'tun',
      name: 'vp0',
      mtu: 1500,
      routes: REALM.pools,
      proxyArp: ['lan0'],
    };
    const realm = async (name: string, number: number): Promise<[gateway: Host, host: Host]> => {
      const gateway = await network.newHost(`gateway-of-${name}`, undefined);
      await network.cable(gateway, 'wan0', network.root, `wan${number}`);
      await network.root.sh(`ip link set wan${number} master wan`);
      const host = await network.newHost(name, '10.0.0.1');
      await network.cable(host, 'eth0', gateway, 'lan0');
      await gateway.sh(`
        ip address add 198.51.100.${number}/24 dev wan0
        ip address add 10.0.0.1/24 dev lan0
      `);
      await host.sh('ip address add 10.0.0.5/24 dev eth0');
      await host
        .start([...HOST_PROGRAM, '10.0.0.5', `${OPEN_PORT}`, `${CLOSED_PORT}`], LIFETIME_SECONDS)
        .printed(/ready/, START_DEADLINE_MS);
      return [gateway, host];
    };
    const [[gateway, service], [gatewayA, a], [gatewayB, b]] = await Promise.all([
      realm('service', 1),
      realm('host-a', 11),
      realm('host-b', 12),
    ]);

    const home = join(directory, 'cloud');
    mkdirSync(home);
    writeConfig(home, {
      trustDomain: ZONE,
      stateDirectory: './state',
      adminSocket: './admin.sock',
      workers: processes,
      device,
      tunnel: `${CLOUD_WAN}:${firstPort}`,
      enrolment: { listen: `${CLOUD_WAN}:7440`, endpoints: [`https://${CLOUD_WAN}:7440`] },
      dns: { listen: '10.0.0.1:53' },
      desired: DESIRED,
    });
    const cloud = await startCloud(gateway, home);
    const { tunnels } = await cloud.listening<CloudAddresses>();
    const edge = async (site: 'a' | 'b', host: Host): Promise<GatewayProcess> => {
      const path = join(directory, `site-${site}`);
      mkdirSync(path);
      const { body } = await admin(join(home, 'admin.sock'), 'POST', '/v1/tokens', {
        site: `site-${site}`,
      });
      writeFileSync(join(path, 'token'), body.token!, { mode: 0o600 });
      const config: Config = {
        stateDirectory: './state',
        tokenFile: './token',
        cloud: [`${CLOUD_WAN}:${tunnels[0]!.port}`],
        device,
        dns: { listen: '10.0.0.1:53' },
      };
      const process = new GatewayProcess('edge', [writeConfig(path, config)], host.wrapper);
      await process.logged(/revision \d+, [1-9]/);
      return process;
    };
    const [edgeA, edgeB] = await Promise.all([edge('a', gatewayA), edge('b', gatewayB)]);
    const gateways = { a: gatewayA, b: gatewayB };
    return new Scene({ service, a, b }, gateway, gateways, { a: edgeA, b: edgeB }, cloud, home);
  }

  /** Signals the cloud gateway, not the program that started it, and returns how it ended. */
  async killCloud(signal: 'KILL' | 'TERM'): Promise<Ending> {
    const { pid } = await this.status();
    await this.gateway.sh(`kill -${signal} ${pid}`);
    return this.cloud.ended;
  }

  async restartCloud(): Promise<void> {
    this.cloud = await startCloud(this.gateway, this.#home);
  }

  /** Sends a request to the cloud gateway's admin interface. */
  async callAdmin<T = Record<string, unknown>>(
    method: string,
    path: string,
    body?: unknown
  ): Promise<T> {
    const answer = await admin(join(this.#home, 'admin.sock'), method, path, body);
    if (answer.status >= 300) throw new Error(`${method} ${path}: ${answer.body.detail}`);
    return answer.body as T;
  }

  status(): Promise<Status> {
    return this.callAdmin<Status>('GET', '/v1/status');
  }

  /** Returns how often a verdict was given to packets that came from this site. */
  async verdicts(site: string, verdict: string): Promise<number> {
    const { sites } = await this.status();
    return sites.find(({ name }) => name === site)!.verdicts[verdict] ?? 0;
  }

  async holderOf(site: string): Promise<number | undefined> {
    return (await this.status()).sites.find(({ name }) => name === site)?.worker;
  }
}

/** Returns the address of a name of the zone at a host. */
export async function resolve(host: Host, name: string, family: 4 | 6 = 4): Promise<string> {
  const answer = await host.get(['getent', `ahostsv${family}`, `${name}.${ZONE}`]);
  return answer.split(/\s/)[0]!;
}

/** Returns the client's address as a service sees it. */
export function whoami(host: Host, address: string, port: number = OPEN_PORT): Promise<string> {
  const script = `exec 3<>/dev/tcp/${address}/${port} && echo whoami >&3 && cat <&3`;
  return host.get(['bash', '-c', script]).then((text) => text.trim());
}

/** Many clients on one host, each with an address of its own, that ask a service which address it sees. */
export class Clients {
  readonly #host: Host;
  readonly #program: Program;

  constructor(host: Host, service: string) {
    this.#host = host;
    this.#program = host.start([...HOST_PROGRAM, 'clients', service, `${OPEN_PORT}`]);
  }

  /** Lets clients with these addresses of 10.0.0.0/16 ask at once. */
  async ask(clients: readonly string[]): Promise<void> {
    await this.#host.sh(clients.map((each) => `ip address replace ${each}/16 dev eth0`).join('\n'));
    this.#program.write(clients.map((each) => `${each}\n`).join(''));
  }

  /** The answers so far, or errors, by client. */
  get answers(): Readonly<Record<string, string>> {
    const lines = this.#program.stdout.split('\n').slice(0, -1);
    return Object.fromEntries(lines.map((line) => line.split(' ') as [string, string]));
  }

  /** Returns the answers when there are all. */
  async end(): Promise<Readonly<Record<string, string>>> {
    this.#program.child.stdin!.end();
    await this.#program.ended;
    return this.answers;
  }
}

/** Returns the addresses that such clients have, as the service sees them. */
export async function askedAt(
  host: Host,
  service: string,
  addresses: readonly string[]
): Promise<Readonly<Record<string, string>>> {
  const clients = new Clients(host, service);
  await clients.ask(addresses);
  return clients.end();
}

/** A transfer over one TCP connection that goes on during a test. */
export class Transfer {
  readonly #program: Program;

  constructor(host: Host, address: string, lifetimeSeconds: number = LIFETIME_SECONDS) {
    this.#program = host.start([...HOST_PROGRAM, 'get', address, `${OPEN_PORT}`], lifetimeSeconds);
  }

  /** Waits for so many more MiB. */
  async flows(mebibytes: number = 2, deadlineMs?: number): Promise<void> {
    const until = this.received + mebibytes;
    const hasFlown = () => {
      if (this.#program.child.exitCode !== null) throw new Error(this.#program.text);
      return this.received >= until || undefined;
    };
    await eventually(`${until} MiB`, hasFlown, deadlineMs);
  }

  /** Ends the transfer; returns whether all bytes have arrived, or how it was interrupted. */
  async end(): Promise<{ readonly isWhole: boolean; readonly error?: string }> {
    this.#program.write('stop\n');
    const { stdout, text } = await this.#program.ended;
    const last = stdout.trim().split('\n').at(-1) ?? '';
    if (!last.startsWith('{')) throw new Error(text);
    return JSON.parse(last);
  }

  /** How many MiB have arrived. */
  get received(): number {
    return Number(/received (\d+)\n$/.exec(this.#program.stdout)?.[1] ?? 0);
  }
}

async function startCloud(gateway: Host, home: string): Promise<GatewayProcess> {
  const path = join(home, 'gateway.yaml');
  const cloud = new GatewayProcess('cloud', [path], gateway.wrapper);
  await cloud.logged(/gateway ready/);
  return cloud;
}

const FIRST_PORT = 7443;
const START_DEADLINE_MS = 90_000;
