/**
 * The networks of the scenes. In both, all realms have one address plan, and a WAN is between their gateways.
 *
 * ```
 *  site A 10.0.0.0/24         cloud 10.0.0.0/24             site B 10.0.0.0/24
 *  compute-a .5 - gw-a .1     broker .5, control .9 - gw .1     gw-b .1 - compute-b .5
 *                   |198.51.100.11          |198.51.100.1           |198.51.100.12
 *                   +----------------- wan (a bridge) ---------------+
 * ```
 *
 * With two machines, and etcd on the WAN:
 *
 * ```
 *  site A 10.0.0.0/24         cloud 10.0.0.0/24 (lan, a bridge)
 *  compute-a .5 - gw-a .1     broker .5     one .2         two .3
 *                   |198.51.100.11            |198.51.100.1  |198.51.100.2
 *                   +--------------- wan (a bridge) ---------+---- .100 etcd
 * ```
 *
 * In each realm the presences are in 10.0.0.128/25. This is a part of the LAN's own prefix, and the gateway's
 * kernel answers ARP for it; of two machines, the one that holds the site does; so no host needs a route or other configuration for the gateways.
 * @module
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { Host } from './host.ts';

export interface Topology {
  readonly cloudGateway: Host;
  readonly broker: Host;
  readonly control: Host;
  readonly sites: Readonly<Record<'a' | 'b', { readonly gateway: Host; readonly compute: Host }>>;
}

export interface MachinesTopology {
  readonly machines: readonly [Host, Host];
  readonly broker: Host;
  readonly site: { readonly gateway: Host; readonly compute: Host };
}

export const LAN_GATEWAY = '10.0.0.1';
export const CLOUD_WAN = '198.51.100.1';
/** The addresses of the machines `one` and `two`, and of etcd. */
export const MACHINES_WAN = ['198.51.100.1', '198.51.100.2'] as const;
export const ETCD = '198.51.100.100';

export async function buildTopology(directory: string): Promise<Topology> {
  await bridge('wan');

  const cloudGateway = await gateway('gw', CLOUD_WAN);
  await cloudGateway.ip('link', 'add', 'lan0', 'type', 'bridge');
  await cloudGateway.ip('address', 'add', `${LAN_GATEWAY}/24`, 'dev', 'lan0');
  await cloudGateway.ip('link', 'set', 'lan0', 'up');
  const broker = await lanHost('broker', '10.0.0.5', cloudGateway, 'port1', directory);
  const control = await lanHost('control', '10.0.0.9', cloudGateway, 'port2', directory);
  for (const port of ['port1', 'port2']) {
    await cloudGateway.ip('link', 'set', port, 'master', 'lan0');
  }
  return {
    cloudGateway,
    broker,
    control,
    sites: { a: await site('a', 11, directory), b: await site('b', 12, directory) },
  };
}

export async function buildMachinesTopology(directory: string): Promise<MachinesTopology> {
  await bridge('wan');
  await ip('address', 'add', `${ETCD}/24`, 'dev', 'wan');
  await bridge('lan');
  const broker = await lanHost('broker', '10.0.0.5', undefined, 'lan-broker', directory);
  await ip('link', 'set', 'lan-broker', 'master', 'lan');
  return {
    machines: [await machine('one', 0), await machine('two', 1)],
    broker,
    site: await site('a', 11, directory),
  };
}

/** Takes the cables out of a machine, so that its kernel tells nobody that its programs end. */
export async function cutOff({ name }: Host): Promise<void> {
  for (const port of [`lan-${name}`, `wan-${name}`]) await ip('link', 'set', port, 'down');
}

async function bridge(name: string): Promise<void> {
  await ip('link', 'add', name, 'type', 'bridge');
  await ip('link', 'set', name, 'up');
}

async function machine(name: string, index: 0 | 1): Promise<Host> {
  const host = await gateway(name, MACHINES_WAN[index]);
  await host.cable('lan0', undefined, `lan-${name}`);
  await host.ip('address', 'add', `10.0.0.${index + 2}/24`, 'dev', 'lan0');
  await ip('link', 'set', `lan-${name}`, 'master', 'lan');
  return host;
}

async function site(name: string, wan: number, directory: string) {
  const siteGateway = await gateway(`gw-${name}`, `198.51.100.${wan}`);
  const compute = await lanHost(`compute-${name}`, '10.0.0.5', siteGateway, 'lan0', directory);
  await siteGateway.ip('address', 'add', `${LAN_GATEWAY}/24`, 'dev', 'lan0');
  return { gateway: siteGateway, compute };
}

async function gateway(name: string, wanAddress: string): Promise<Host> {
  const host = await Host.create(name);
  await host.cable('wan0', undefined, `wan-${name}`);
  await host.ip('address', 'add', `${wanAddress}/24`, 'dev', 'wan0');
  await ip('link', 'set', `wan-${name}`, 'master', 'wan');
  return host;
}

async function lanHost(
  name: string,
  address: string,
  gatewayHost: Host | undefined,
  port: string,
  directory: string
): Promise<Host> {
  const host = await Host.create(name);
  await host.cable('eth0', gatewayHost, port);
  await host.ip('address', 'add', `${address}/24`, 'dev', 'eth0');
  host.useNameserver(LAN_GATEWAY, directory);
  return host;
}

async function ip(...args: string[]): Promise<void> {
  await promisify(execFile)('ip', args);
}
