/**
 * The machines of a cloud gateway and of an edge gateway, each with one host in its LAN, and an unrelated machine,
 * the neighbour, in the network between the gateways:
 *
 * ```
 *  service 10.0.0.5, fd00::5 -- lan0 gateway of the cloud wan0 --+
 *                                                                +-- neighbour 198.51.100.99, 2001:db8::99
 *  host-a  10.0.0.5, fd00::5 -- lan0 gateway of site A    wan0 --+
 * ```
 *
 * No machine has its own packet filter or check of sources (`rp_filter` 0).
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  type Config,
  type Ending,
  GatewayProcess,
  writeConfig,
} from '../support/gateway-process.ts';
import type { Host, Network } from '../support/network.ts';
import { callAdmin, type Presence } from './renewal-scene.ts';

export type Side = 'cloud' | 'site-a';
export type Family = 4 | 6;

/** A gateway's machine, and the host in its LAN. */
export interface Machine {
  readonly gateway: Host;
  readonly host: Host;
  /** The settings of the machine before the gateway was started. */
  readonly before: string;
}

export class NeighboursScene {
  readonly machines: Readonly<Record<Side, Machine>>;
  readonly neighbour: Host;
  readonly #home: string;
  readonly #programs = new Map<Side, GatewayProcess>();
  #presences: readonly Presence[] = [];

  private constructor(machines: Record<Side, Machine>, neighbour: Host, home: string) {
    this.machines = machines;
    this.neighbour = neighbour;
    this.#home = home;
  }

  static async start(network: Network, home: string): Promise<NeighboursScene> {
    await network.root.sh('ip link add wan type bridge && ip link set wan up');
    const onWan = async (name: string, number: number): Promise<Host> => {
      const host = await network.newHost(name, undefined);
      await network.cable(host, 'wan0', network.root, `wan${number}`);
      await network.root.sh(`ip link set wan${number} master wan`);
      await host.sh(`
        ip address add 198.51.100.${number}/24 dev wan0
        ip address add 2001:db8::${number}/64 dev wan0 nodad
      `);
      return host;
    };
    const machine = async (side: Side): Promise<Machine> => {
      const gateway = await onWan(`gateway-of-${side}`, WAN[side]);
      const host = await network.newHost(`host-of-${side}`, undefined);
      await network.cable(host, 'eth0', gateway, 'lan0');
      await gateway.sh(`
        ip address add 10.0.0.1/24 dev lan0
        ip address add fd00::1/64 dev lan0 nodad
        for check in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >$check; done
      `);
      await host.sh(`
        ip address add 10.0.0.5/24 dev eth0
        ip address add fd00::5/64 dev eth0 nodad
        ip route add default via 10.0.0.1
        ip route add default via fd00::1
      `);
      await countRequests(gateway);
      await countRequests(host);
      return { gateway, host, before: await stateOf(gateway) };
    };
    const cloud = await machine('cloud');
    const siteA = await machine('site-a');
    const neighbour = await onWan('neighbour', 99);
    await countRequests(neighbour);
    const scene = new NeighboursScene({ cloud, 'site-a': siteA }, neighbour, home);
    for (const side of ['cloud', 'site-a'] as const) mkdirSync(join(home, side));
    writeConfig(join(home, 'cloud'), cloudConfig());
    await scene.startGateway('cloud');
    const socketPath = join(home, 'cloud/admin.sock');
    const { token } = await callAdmin<{ token: string }>(socketPath, 'POST', '/v1/tokens', {
      site: 'site-a',
    });
    writeFileSync(join(home, 'site-a/token'), token, { mode: 0o600 });
    writeConfig(join(home, 'site-a'), edgeConfig());
    await scene.startGateway('site-a');
    scene.#presences = await callAdmin<Presence[]>(socketPath, 'GET', '/v1/presences');
    return scene;
  }

  async startGateway(side: Side): Promise<GatewayProcess> {
    const program = side === 'cloud' ? 'cloud' : 'edge';
    const path = join(this.#home, side, 'gateway.yaml');
    const { wrapper } = this.machines[side].gateway;
    const gateway = new GatewayProcess(program, [path], wrapper);
    this.#programs.set(side, gateway);
    await gateway.logged(side === 'cloud' ? /gateway ready/ : /revision \d+, [1-9]/);
    return gateway;
  }

  /** Signals the gateway, not the program that started it. */
  endGateway(side: Side, signal: 'SIGTERM' | 'SIGKILL'): Promise<Ending> {
    const { child, ended } = this.#programs.get(side)!;
    const children = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'latin1');
    process.kill(Number(children.split(' ')[0]), signal);
    return ended;
  }

  /** Returns the address that stands here for the host in the LAN of the other side. */
  presenceOn(side: Side, family: Family): string {
    const other = side === 'cloud' ? 'site-a' : 'cloud';
    const found = this.#presences.find(
      ({ realm, of }) => realm === side && of.realm === other && of.address === HOST[family]
    );
    if (found === undefined) throw new Error(`${HOST[family]} of ${other} is nowhere in ${side}`);
    return found.address;
  }

  /** The neighbour sends echo requests to addresses behind a gateway, with the source address `source`. */
  async ping(
    side: Side,
    family: Family,
    destinations: readonly string[],
    source?: string
  ): Promise<void> {
    const network = family === 4 ? '10.0.0.0/24' : 'fd00::/48';
    const via = family === 4 ? `198.51.100.${WAN[side]}` : `2001:db8::${WAN[side]}`;
    const own = `${source}/${family === 4 ? 32 : 128}`;
    const nodad = family === 4 ? '' : 'nodad';
    if (source !== undefined) await this.neighbour.sh(`ip address add ${own} dev wan0 ${nodad}`);
    try {
      await this.neighbour.sh(`ip -${family} route replace ${network} via ${via}`);
      const from = source === undefined ? [] : ['-I', source];
      await Promise.all(destinations.map((to) => this.neighbour.run([...PING, ...from, to])));
    } finally {
      if (source !== undefined) await this.neighbour.sh(`ip address delete ${own} dev wan0`);
    }
  }
}

/** Returns how many echo requests have reached this machine as their destination. */
export async function requestsAt(host: Host): Promise<number> {
  const text = await host.get(['nft', 'list', 'chain', 'inet', 'count', 'input']);
  return [...text.matchAll(/packets (\d+)/g)].reduce((sum, [, count]) => sum + Number(count), 0);
}

async function countRequests(host: Host): Promise<void> {
  await host.sh(`nft '
    table inet count {
      chain input {
        type filter hook input priority 0
        icmp type echo-request counter
        icmpv6 type echo-request counter
      }
    }'`);
}

/** Returns all settings that a gateway could change on its machine. */
export function stateOf(gateway: Host): Promise<string> {
  return gateway.sh(`
    cd /proc/sys/net
    grep -rs . ipv4/conf ipv6/conf ipv4/neigh ipv6/neigh ipv4/ip_forward | sort
    nft -s list ruleset
    ip -4 route show table all
    ip -6 route show table all | sed 's/ expires [0-9]*sec//'
    ip rule
    ip -6 rule
    ip -o link | cut -d ' ' -f 2
  `);
}

/** Three echo requests, and a second in which the last one may arrive. */
export const PING: readonly string[] = ['ping', '-c', '3', '-i', '0.2', '-W', '1'];
export const HOST: Readonly<Record<Family, string>> = { 4: '10.0.0.5', 6: 'fd00::5' };
export const GATEWAY: Readonly<Record<Family, string>> = { 4: '10.0.0.1', 6: 'fd00::1' };
export const NEIGHBOUR: Readonly<Record<Family, string>> = {
  4: '198.51.100.99',
  6: '2001:db8::99',
};
const WAN: Readonly<Record<Side, number>> = { cloud: 1, 'site-a': 11 };

const ZONE = 'openstack.test';
const POOLS = ['10.0.0.128/25', 'fd00:0:0:1::/112'];
const REALM = { sources: ['10.0.0.0/24', 'fd00::/64'], pools: POOLS, zone: ZONE };
const DEVICE = { type: 'tun', name: 'vp0', mtu: 1500, routes: POOLS, proxyArp: ['lan0'] };

function cloudConfig(): Config {
  const services = (['cloud', 'site-a'] as const).flatMap((site) =>
    ([4, 6] as const).map((family) => ({
      name: `${site}-${family}`,
      site,
      address: HOST[family],
      ports: ['icmp'],
    }))
  );
  return {
    trustDomain: ZONE,
    stateDirectory: './state',
    adminSocket: './admin.sock',
    device: DEVICE,
    tunnel: '198.51.100.1:7443',
    enrolment: { listen: '198.51.100.1:7444', endpoints: ['https://198.51.100.1:7444'] },
    dns: { listen: '10.0.0.1:53' },
    desired: {
      sites: ['cloud', 'site-a'].map((name) => ({ name, ...REALM })),
      services,
      exposures: services.map(({ name, site }) => ({
        service: name,
        site: site === 'cloud' ? 'site-a' : 'cloud',
      })),
    },
  };
}

function edgeConfig(): Config {
  return {
    stateDirectory: './state',
    tokenFile: './token',
    cloud: ['198.51.100.1:7443'],
    device: DEVICE,
    dns: { listen: '10.0.0.1:53' },
  };
}
