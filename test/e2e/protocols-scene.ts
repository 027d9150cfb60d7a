/**
 * The networks and gateways of the protocol tests:
 *
 * ```
 *             cloud            site A           site B         site C
 *  hosts    service .5       host-a .5        host-b .5     host-c fd00::5
 *              |                |                |               |
 *  gateways   gw .1           gw-a .1          gw-b .1       gw-c fd00::1
 *              | 1300           | 1300
 *  routers  router .2       router-a .2
 *              |                |
 *  hosts    narrow .6       narrow-a .6
 * ```
 *
 * All IPv4 networks are 10.0.0.0/24 with the presences in 10.0.0.128/25; site C has no IPv4. Every link
 * has an MTU of 1500, except those between gateways and routers.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { admin, type Config, GatewayProcess, writeConfig } from '../support/gateway-process.ts';
import type { Host, Network } from '../support/network.ts';

export type SiteName = 'cloud' | 'site-a' | 'site-b' | 'site-c';

export const ZONE = 'openstack.test';
export const GATEWAY: Readonly<Record<SiteName, string>> = {
  cloud: '10.0.0.1',
  'site-a': '10.0.0.1',
  'site-b': '10.0.0.1',
  'site-c': 'fd00::1',
};
/** Addresses in the pools of each site that are not presences. */
export const UNUSED_PRESENCE: Readonly<Record<'site-a' | 'site-b' | 'site-c', string>> = {
  'site-a': '10.0.0.250',
  'site-b': '10.0.0.250',
  'site-c': 'fd00:0:0:1::fffa',
};

const IPV4_REALM = { sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'], zone: ZONE };
const IPV6_REALM = { sources: ['fd00::/64'], pools: ['fd00:0:0:1::/112'], zone: ZONE };

/** All services except tcp/8081 and udp/7778. */
const PORTS = [
  ...['icmp', 'tcp/8080', 'udp/7777', 'udp/9999', 'udplite/7777', 'sctp/7777', 'ip/47', 'ip/99'],
  ...['udp/33434-33534', 'udp/44444-44544'], // what traceroute and tracepath send to
];

function service(name: string, site: SiteName, address: string): Config {
  return { name, site, address, ports: PORTS };
}

const DESIRED = {
  sites: [
    { name: 'cloud', ...IPV4_REALM },
    { name: 'site-a', ...IPV4_REALM, reject: 'reset' },
    { name: 'site-b', ...IPV4_REALM, reject: 'unreachable', mtu: 1400 },
    { name: 'site-c', ...IPV6_REALM, reject: 'reset', mtu: 1500 },
  ],
  services: [
    service('service', 'cloud', '10.0.0.5'),
    service('narrow', 'cloud', '10.0.0.6'),
    service('host-a', 'site-a', '10.0.0.5'),
    service('narrow-a', 'site-a', '10.0.0.6'),
    service('host-b', 'site-b', '10.0.0.5'),
    service('host-c', 'site-c', 'fd00::5'),
  ],
  exposures: [
    { service: 'service', site: 'site-a' },
    { service: 'service', site: 'site-b' },
    { service: 'service', site: 'site-c' },
    { service: 'narrow', site: 'site-a' },
    { service: 'narrow', site: 'site-c' },
    { service: 'host-a', site: 'cloud' },
    { service: 'narrow-a', site: 'cloud' },
    { service: 'host-b', site: 'cloud' },
    { service: 'host-c', site: 'cloud' },
  ],
};

const CLOUD_WAN = '198.51.100.1';

export interface Hosts {
  readonly service: Host;
  readonly narrow: Host;
  readonly a: Host;
  readonly narrowA: Host;
  readonly b: Host;
  readonly c: Host;
}

export interface Verdicts {
  readonly [verdict: string]: number;
}

export class Scene {
  readonly hosts: Hosts;
  readonly #adminSocket: string;
  readonly #config: Config;

  private constructor(hosts: Hosts, adminSocket: string, config: Config) {
    this.hosts = hosts;
    this.#adminSocket = adminSocket;
    this.#config = config;
  }

  /** Builds everything and waits until every host can reach what is exposed to it. */
  static async start(network: Network, directory: string): Promise<Scene> {
    await network.root.sh('ip link add wan type bridge && ip link set wan up');
    const lan = { device: { type: 'tun', name: 'vp0', mtu: 1500 } };
    const device4 = { ...lan.device, routes: IPV4_REALM.pools, proxyArp: ['lan0'] };
    const device4Narrow = { ...device4, lan: ['narrow0'] };
    const device6 = { ...lan.device, routes: IPV6_REALM.pools, lan: ['lan0'] };

    const gateway = async (name: SiteName, number: number): Promise<Host> => {
      const host = await network.newHost(`gateway-of-${name}`, undefined);
      await network.cable(host, 'wan0', network.root, `wan${number}`);
      await network.root.sh(`ip link set wan${number} master wan`);
      await host.sh(`ip address add 198.51.100.${number}/24 dev wan0`);
      return host;
    };
    const ipv4Lan = async (name: string, gatewayHost: Host): Promise<Host> => {
      const host = await network.newHost(name, '10.0.0.1');
      await network.cable(host, 'eth0', gatewayHost, 'lan0');
      await gatewayHost.sh('ip address add 10.0.0.1/24 dev lan0');
      await host.sh(`
        ip address add 10.0.0.5/24 dev eth0
        ip route add default via 10.0.0.1
      `);
      return host;
    };
    const narrowLan = async (name: string, gatewayHost: Host): Promise<Host> => {
      const router = await network.newHost(`router-of-${name}`, undefined);
      const host = await network.newHost(name, '10.0.0.1');
      await network.cable(gatewayHost, 'narrow0', router, 'up0');
      await network.cable(router, 'lan0', host, 'eth0');
      await gatewayHost.sh(`
        ip link set narrow0 mtu 1300
        ip route add 10.0.0.2/32 dev narrow0
        ip route add 10.0.0.6/32 via 10.0.0.2 dev narrow0 onlink
      `);
      await router.sh(`
        ip link set up0 mtu 1300
        ip address add 10.0.0.2/32 dev lan0
        ip route add 10.0.0.1/32 dev up0
        ip route add default via 10.0.0.1 dev up0 onlink
        ip route add 10.0.0.6/32 dev lan0
        echo 1 >/proc/sys/net/ipv4/ip_forward
      `);
      await host.sh(`
        ip address add 10.0.0.6/32 dev eth0
        ip route add default via 10.0.0.2 dev eth0 onlink
      `);
      return host;
    };
    const ipv6Lan = async (name: string, gatewayHost: Host): Promise<Host> => {
      const host = await network.newHost(name, 'fd00::1');
      await network.cable(host, 'eth0', gatewayHost, 'lan0');
      await gatewayHost.sh('ip address add fd00::1/64 dev lan0 nodad');
      await host.sh(`
        ip address add fd00::5/64 dev eth0 nodad
        ip route add default via fd00::1
      `);
      return host;
    };

    const [gw, gwA, gwB, gwC] = await Promise.all([
      gateway('cloud', 1),
      gateway('site-a', 11),
      gateway('site-b', 12),
      gateway('site-c', 13),
    ]);
    const [service, narrow, a, narrowA, b, c] = await Promise.all([
      ipv4Lan('service', gw),
      narrowLan('narrow', gw),
      ipv4Lan('host-a', gwA),
      narrowLan('narrow-a', gwA),
      ipv4Lan('host-b', gwB),
      ipv6Lan('host-c', gwC),
    ]);
    const hosts: Hosts = { service, narrow, a, narrowA, b, c };
    const services = [service, narrow, a, narrowA, b, c].map(async (host) => {
      const address =
        host === c ? 'fd00::5' : host.name.startsWith('narrow') ? '10.0.0.6' : '10.0.0.5';
      const program = 'test/e2e/host-service.ts';
      await host
        .start([process.execPath, '--import', 'tsx', program, address], LIFETIME_SECONDS)
        .printed(/ready/, START_DEADLINE_MS);
    });

    const home = (name: SiteName): string => {
      const path = join(directory, name);
      mkdirSync(path);
      return path;
    };
    const cloudHome = home('cloud');
    const adminSocket = join(cloudHome, 'admin.sock');
    const cloudConfig = {
      trustDomain: ZONE,
      stateDirectory: './state',
      adminSocket,
      device: device4Narrow,
      tunnel: `${CLOUD_WAN}:7443`,
      enrolment: { listen: `${CLOUD_WAN}:7444`, endpoints: [`https://${CLOUD_WAN}:7444`] },
      dns: { listen: '10.0.0.1:53' },
      desired: DESIRED,
    };
    const configPath = writeConfig(cloudHome, cloudConfig);
    await new GatewayProcess('cloud', [configPath], gw.wrapper).logged(/gateway ready/);
    const scene = new Scene(hosts, adminSocket, cloudConfig);

    const edge = async (site: SiteName, host: Host, device: Config, dns: string): Promise<void> => {
      const path = home(site);
      const { token } = await scene.callAdmin('POST', '/v1/tokens', { site });
      writeFileSync(join(path, 'token'), String(token), { mode: 0o600 });
      const config = {
        stateDirectory: './state',
        tokenFile: './token',
        cloud: [`${CLOUD_WAN}:7443`],
        device,
        dns: { listen: dns },
      };
      const args = [writeConfig(path, config)];
      await new GatewayProcess('edge', args, host.wrapper).logged(/revision \d+, [1-9]/);
    };
    await Promise.all([
      edge('site-a', gwA, device4Narrow, '10.0.0.1:53'),
      edge('site-b', gwB, device4, '10.0.0.1:53'),
      edge('site-c', gwC, device6, '[fd00::1]:53'),
      ...services,
    ]);
    return scene;
  }

  /** Sends a request to the cloud gateway's admin interface. */
  async callAdmin(method: string, path: string, body?: unknown): Promise<Record<string, unknown>> {
    const answer = await admin(this.#adminSocket, method, path, body);
    if (answer.status !== 200) throw new Error(`${method} ${path}: ${answer.body.message}`);
    return answer.body;
  }

  /** Calls `work` while the desired state has no `mtu` of a site. */
  async withoutMtu(site: SiteName, what: () => Promise<void>): Promise<void> {
    const home = dirname(this.#adminSocket);
    const sites = DESIRED.sites.map((each) =>
      each.name === site ? { ...each, mtu: undefined } : each
    );
    writeConfig(home, { ...this.#config, desired: { ...DESIRED, sites } });
    await this.callAdmin('POST', '/v1/reload');
    try {
      await what();
    } finally {
      writeConfig(home, this.#config);
      await this.callAdmin('POST', '/v1/reload');
    }
  }

  /** Returns the verdict counters of packets that came from this site. */
  async verdicts(site: SiteName): Promise<Verdicts> {
    const { sites } = await this.callAdmin('GET', '/v1/status');
    const found = (sites as { name: string; verdicts: Verdicts }[]).find(
      ({ name }) => name === site
    );
    return found!.verdicts;
  }
}

/** Returns the address of a name of the zone at a host. */
export async function resolve(host: Host, name: string): Promise<string> {
  const family = host.name === 'host-c' ? 'ahostsv6' : 'ahostsv4';
  const answer = await host.get(['getent', family, `${name}.${ZONE}`]);
  return answer.split(/\s/)[0]!;
}

/** Longer than all tests; the programs end with the network. */
const LIFETIME_SECONDS = 600;
const START_DEADLINE_MS = 90_000;
