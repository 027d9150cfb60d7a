/**
 * A cloud and two sites, each a network of its own, with certificates that are valid for seconds:
 *
 * ```
 *   service .5 -- gw .1 --- wan --- gw-a .1 -- host-a .5
 *                            |
 *                           gw-b
 * ```
 *
 * Site B has only a gateway, which tests start and stop.
 * @module
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { admin, type Config, GatewayProcess, writeConfig } from '../support/gateway-process.ts';
import type { Host, Network } from '../support/network.ts';

export const PORT = 9000;

export interface Presence {
  readonly realm: string;
  readonly address: string;
  readonly of: { readonly realm: string; readonly address: string };
}

export interface CloudStatus {
  readonly sites: readonly {
    readonly name: string;
    readonly edge?: { readonly certificate?: { readonly isCurrent: boolean } };
  }[];
  readonly renewals: {
    readonly renewed: number;
    readonly refused: number;
    readonly failed: number;
  };
  readonly ca: { readonly rollover: string };
}

/** Sends a request to the admin interface of a cloud gateway. @throws for any status but 200. */
export async function callAdmin<T>(
  socketPath: string,
  method: string,
  path: string,
  body?: unknown
): Promise<T> {
  const answer = await admin(socketPath, method, path, body);
  if (answer.status !== 200) throw new Error(`${method} ${path}: ${answer.body.message}`);
  return answer.body as T;
}

/** Returns how many certificates a file contains. */
export function certificatesIn(path: string): number {
  return readFileSync(path, 'utf8').split('-----BEGIN CERTIFICATE-----').length - 1;
}

export class RenewalScene {
  readonly service: Host;
  readonly hostA: Host;
  readonly cloud: GatewayProcess;
  readonly edgeA: GatewayProcess;
  readonly #gatewayB: Host;
  readonly #home: string;

  private constructor(parts: {
    readonly service: Host;
    readonly hostA: Host;
    readonly cloud: GatewayProcess;
    readonly edgeA: GatewayProcess;
    readonly gatewayB: Host;
    readonly home: string;
  }) {
    this.service = parts.service;
    this.hostA = parts.hostA;
    this.cloud = parts.cloud;
    this.edgeA = parts.edgeA;
    this.#gatewayB = parts.gatewayB;
    this.#home = parts.home;
  }

  /** Starts everything except the edge of site B, which is prepared. */
  static async start(
    network: Network,
    home: string,
    lifetimeSeconds: number
  ): Promise<RenewalScene> {
    await network.root.sh('ip link add wan type bridge && ip link set wan up');
    const gateway = async (name: string, number: number): Promise<Host> => {
      const host = await network.newHost(name, undefined);
      await network.cable(host, 'wan0', network.root, `wan${number}`);
      await network.root.sh(`ip link set wan${number} master wan`);
      await host.sh(`ip address add 198.51.100.${number}/24 dev wan0`);
      return host;
    };
    const lan = async (name: string, gatewayHost: Host): Promise<Host> => {
      const host = await network.newHost(name, '10.0.0.1');
      await network.cable(host, 'eth0', gatewayHost, 'lan0');
      await gatewayHost.sh('ip address add 10.0.0.1/24 dev lan0');
      await host.sh('ip address add 10.0.0.5/24 dev eth0 && ip route add default via 10.0.0.1');
      return host;
    };
    const [gw, gatewayA, gatewayB] = await Promise.all([
      gateway('gw', 1),
      gateway('gw-a', 11),
      gateway('gw-b', 12),
    ]);
    const [service, hostA] = await Promise.all([lan('service', gw), lan('host-a', gatewayA)]);
    for (const name of ['cloud', 'site-a', 'site-b']) mkdirSync(join(home, name));

    const config = cloudConfig(lifetimeSeconds);
    const configPath = writeConfig(join(home, 'cloud'), config);
    const cloud = new GatewayProcess('cloud', [configPath], gw.wrapper);
    await cloud.logged(/gateway ready/);
    const device = { ...TUN, proxyArp: ['lan0'] };
    writeConfig(join(home, 'site-a'), edgeConfig(device, '10.0.0.1:53'));
    writeConfig(join(home, 'site-b'), edgeConfig(TUN, '127.0.0.1:53'));
    await writeToken(home, 'site-a');
    const edgeA = startEdge(home, 'site-a', gatewayA);
    await edgeA.logged(/revision \d+, [1-9]/);
    return new RenewalScene({ service, hostA, cloud, edgeA, gatewayB, home });
  }

  pathOf(name: string): string {
    return join(this.#home, name);
  }

  callAdmin<T>(method: string, path: string, body?: unknown): Promise<T> {
    return callAdmin(this.pathOf('cloud/admin.sock'), method, path, body);
  }

  status(): Promise<CloudStatus> {
    return this.callAdmin('GET', '/v1/status');
  }

  /** Returns the presences of site B in the cloud, and those of the cloud there. */
  async presencesOfB(): Promise<readonly string[]> {
    const all = await this.callAdmin<Presence[]>('GET', '/v1/presences');
    return all
      .filter(({ realm, of }) => realm === 'site-b' || of.realm === 'site-b')
      .map(({ realm, address, of }) => `${of.realm} ${of.address} in ${realm}: ${address}`)
      .sort();
  }

  /** Stores a new token where the edge of site B reads one. */
  newTokenForB(): Promise<void> {
    return writeToken(this.#home, 'site-b');
  }

  /** Terminates the edge of site B; the program that started it in its network passes no signals on. */
  async stopB(edge: GatewayProcess): Promise<void> {
    const { pid } = edge.child;
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1');
    process.kill(Number(children.split(' ')[0]), 'SIGTERM');
    const { code, complaint } = await edge.ended;
    if (code !== 0) throw new Error(`the edge of site B has ended with ${code}: ${complaint}`);
  }

  startB(): GatewayProcess {
    return startEdge(this.#home, 'site-b', this.#gatewayB);
  }
}

async function writeToken(home: string, site: string): Promise<void> {
  const socketPath = join(home, 'cloud/admin.sock');
  const { token } = await callAdmin<{ token: string }>(socketPath, 'POST', '/v1/tokens', { site });
  writeFileSync(join(home, site, 'token'), token, { mode: 0o600 });
}

function startEdge(home: string, site: string, host: Host): GatewayProcess {
  return new GatewayProcess('edge', [join(home, site, 'gateway.yaml')], host.wrapper);
}

const ZONE = 'openstack.test';
const CLOUD_WAN = '198.51.100.1';
const REALM = { sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'], zone: ZONE };
const TUN = { type: 'tun', name: 'vp0', mtu: 1500, routes: REALM.pools };

function cloudConfig(certificateLifetimeSeconds: number): Config {
  const service = { address: '10.0.0.5', ports: [`tcp/${PORT}`] };
  return {
    trustDomain: ZONE,
    stateDirectory: './state',
    adminSocket: './admin.sock',
    device: { ...TUN, proxyArp: ['lan0'] },
    tunnel: `${CLOUD_WAN}:7443`,
    enrolment: { listen: `${CLOUD_WAN}:7444`, endpoints: [`https://${CLOUD_WAN}:7444`] },
    dns: { listen: '10.0.0.1:53' },
    trust: { certificateLifetimeSeconds },
    desired: {
      sites: ['cloud', 'site-a', 'site-b'].map((name) => ({ name, ...REALM })),
      services: [
        { name: 'service', site: 'cloud', ...service },
        { name: 'host-b', site: 'site-b', ...service },
      ],
      exposures: [
        { service: 'service', site: 'site-a' },
        { service: 'service', site: 'site-b' },
        { service: 'host-b', site: 'cloud' },
      ],
    },
  };
}

function edgeConfig(device: Config, dns: string): Config {
  return {
    stateDirectory: './state',
    tokenFile: './token',
    cloud: [`${CLOUD_WAN}:7443`],
    device,
    dns: { listen: dns },
  };
}
