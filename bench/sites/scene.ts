/**
 * A cloud gateway and many sites, all with one address plan:
 *
 * ```
 *   site 0, 10.0.0.5 -- vp0 --+
 *   site 1, 10.0.0.5 -- vp0 --+-- farm ==== wan ==== cloud gateway -- service, 10.0.0.5
 *   ...                       |
 * ```
 *
 * The farm's processes hold the edge gateways; each TUN is moved into the namespace of its site, which is
 * the site's gateway and its only host in one.
 * @module
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { admin, eventually } from '../../test/support/gateway-process.ts';
import { type Host, Network, type Program } from '../../test/support/network.ts';
import { pidsOf } from '../gateway/processes.ts';
import { pidInside } from '../wan/wan.ts';
import type { FarmConfig, FarmLine } from './farm.ts';

export interface SitesOptions {
  /** The directory for files of this scene; its owner removes it. */
  readonly directory: string;
  readonly congestion: string;
  /** Built for Node. */
  readonly programs: { readonly cloud: readonly string[]; readonly farm: string };
  /** Arguments for Node in front of the cloud gateway's program. */
  readonly nodeOptions?: readonly string[];
  /** How many sites the cloud gateway knows. */
  readonly sites: number;
  /** The lifetime of the programs of the scene. */
  readonly seconds: number;
}

/** The sites that one farm process holds. */
export interface Farm {
  readonly program: Program;
  /** The process itself, without those that only started it. */
  readonly pid: number;
  /** In the order of the sites; none of sites that have no TUN. */
  readonly hosts: readonly Host[];
}

export class SitesScene {
  readonly service: Host;
  readonly cloudProgram: Program;
  readonly cloudPid: number;
  readonly #network: Network;
  readonly #farmHost: Host;
  readonly #options: SitesOptions;
  #started = 0;

  private constructor(
    network: Network,
    options: SitesOptions,
    { farm, service }: { farm: Host; service: Host },
    cloudProgram: Program
  ) {
    this.#network = network;
    this.#options = options;
    this.#farmHost = farm;
    this.service = service;
    this.cloudProgram = cloudProgram;
    this.cloudPid = pidsOf([cloudProgram])[0]!;
  }

  static async create(options: SitesOptions): Promise<SitesScene> {
    const { directory, congestion, programs, nodeOptions = [], sites, seconds } = options;
    const network = await Network.create(directory);
    try {
      const [farm, cloud, service] = await Promise.all(
        ['farm', 'cloud', 'service'].map((name) => network.newHost(name, undefined))
      );
      await network.cable(farm!, 'wan0', cloud!, 'wan0');
      await network.cable(service!, 'eth0', cloud!, 'lan0');
      await farm!.sh(`ip address add ${FARM_WAN}/24 dev wan0`);
      await cloud!.sh(`
        ip address add ${CLOUD_WAN}/24 dev wan0
        ip address add 10.0.0.1/24 dev lan0
      `);
      await service!.sh(`
        ip address add ${HOST}/24 dev eth0
        ip route add default via 10.0.0.1
      `);
      for (const host of [farm!, cloud!, service!]) await chooseCongestion(host, congestion);
      const config = join(directory, 'cloud.yaml');
      // There are no aliases, because the gateway takes a limited number of them.
      const text = stringify(cloudConfig(directory, sites), { aliasDuplicateObjects: false });
      writeFileSync(config, text);
      const command = [process.execPath, ...nodeOptions, ...programs.cloud, config];
      const cloudProgram = cloud!.start(command, seconds);
      await cloudProgram.printed(/gateway ready/, 30_000);
      return new SitesScene(network, options, { farm: farm!, service: service! }, cloudProgram);
    } catch (error) {
      await network.close();
      throw error;
    }
  }

  /** Starts the next sites, in one farm process. Returns when their tunnels are up. */
  async startSites(count: number, hasHosts: boolean): Promise<Farm> {
    const { directory, programs, seconds } = this.#options;
    const first = this.#started;
    this.#started += count;
    const indices = Array.from({ length: count }, (_, i) => first + i);
    const hosts = hasHosts ? await this.#newHosts(indices) : [];
    const sites: { token: string; tun?: string }[] = [];
    for (const index of indices) {
      const token = await this.#token(siteName(index));
      sites.push(hasHosts ? { token, tun: `vp-${index}` } : { token });
    }
    const config: FarmConfig = { cloud: { host: CLOUD_WAN, port: TUNNEL_PORT }, sites };
    const path = join(directory, `farm-${first}.json`);
    writeFileSync(path, JSON.stringify(config), { mode: 0o600 });
    const program = this.#farmHost.start([process.execPath, programs.farm, path], seconds);
    await program.printed(/"opened"/, 120_000);
    for (const [i, host] of hosts.entries()) await this.#giveTun(indices[i]!, host);
    await eventually(
      `${count} sites that are up`,
      () => (siteAddresses(program).size === count ? true : undefined),
      60_000
    );
    return { program, pid: pidsOf([program])[0]!, hosts };
  }

  /** The address at which every site finds the service. */
  addressOfService(farm: Farm): string {
    const addresses = new Set(siteAddresses(farm.program).values());
    if (addresses.size !== 1) throw new Error('the sites have different addresses of the service');
    return [...addresses][0]!;
  }

  /** Returns which of a farm's tunnels have been down, and why. */
  outages(farm: Farm): string[] {
    return linesOf(farm.program).flatMap((line) =>
      line.event === 'down' ? [`${line.site}: ${line.reason}`] : []
    );
  }

  /** A process that sees all hosts by the pids of `pidInside`. */
  startBeside(command: readonly string[]): Program {
    return this.#farmHost.start(command, this.#options.seconds);
  }

  close(): Promise<void> {
    return this.#network.close();
  }

  async #newHosts(indices: readonly number[]): Promise<Host[]> {
    const hosts: Host[] = [];
    for (let i = 0; i < indices.length; i += HOSTS_AT_ONCE) {
      const some = indices.slice(i, i + HOSTS_AT_ONCE);
      const made = some.map((index) => this.#network.newHost(siteName(index), undefined));
      hosts.push(...(await Promise.all(made)));
    }
    return hosts;
  }

  async #giveTun(index: number, host: Host): Promise<void> {
    await this.#farmHost.sh(`ip link set vp-${index} netns ${pidInside(host)} name vp0`);
    await host.sh(`
      ip address add ${HOST}/32 dev vp0
      ip link set vp0 up
      ip route add ${POOL} dev vp0 src ${HOST} congctl ${this.#options.congestion}
    `);
  }

  async #token(site: string): Promise<string> {
    const socket = join(this.#options.directory, 'admin.sock');
    const { status, body } = await admin(socket, 'POST', '/v1/tokens', { site });
    if (status !== 201) throw new Error(`no token for ${site}: ${body.detail}`);
    return body.token!;
  }
}

/** A namespace may not choose a default that is not allowed to everybody; a route may. */
async function chooseCongestion(host: Host, congestion: string): Promise<void> {
  await host.sh(`
    ip route show | while read -r route; do ip route change $route congctl ${congestion}; done
  `);
}

function siteAddresses(program: Program): Map<string, string> {
  const addresses = new Map<string, string>();
  for (const line of linesOf(program)) {
    if (line.event === 'up') addresses.set(line.site, line.address);
  }
  return addresses;
}

function linesOf({ stdout }: Program): FarmLine[] {
  const lines = stdout.split('\n').slice(0, -1);
  return lines.map((line) => JSON.parse(line) as FarmLine);
}

function siteName(index: number): string {
  return `site-${index}`;
}

function cloudConfig(directory: string, count: number): object {
  const realm = { sources: ['10.0.0.0/24'], pools: [POOL], zone: 'example.test' };
  const names = Array.from({ length: count }, (_, index) => siteName(index));
  return {
    trustDomain: 'example.test',
    stateDirectory: './state',
    adminSocket: join(directory, 'admin.sock'),
    device: { type: 'tun', name: 'vp0', mtu: 1500, routes: [POOL], proxyArp: ['lan0'] },
    tunnel: `${CLOUD_WAN}:${TUNNEL_PORT}`,
    enrolment: { listen: `${CLOUD_WAN}:7444`, endpoints: [`https://${CLOUD_WAN}:7444`] },
    dns: { listen: '10.0.0.1:53' },
    // All edges come from one address.
    limits: { maxConnectionRate: 10_000, maxHandshakes: 1000 },
    desired: {
      sites: ['cloud', ...names].map((name) => ({ name, ...realm })),
      services: [{ name: 'service', site: 'cloud', address: HOST, ports: [`tcp/${SERVICE_PORT}`] }],
      exposures: names.map((site) => ({ service: 'service', site })),
    },
  };
}

export const SERVICE_PORT = 7100;
const TUNNEL_PORT = 7443;
const CLOUD_WAN = '198.51.100.1';
const FARM_WAN = '198.51.100.11';
const HOST = '10.0.0.5';
const POOL = '10.0.0.128/25';
const HOSTS_AT_ONCE = 5;
