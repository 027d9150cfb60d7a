/**
 * The networks of the scene: three realms with one address plan, and a WAN between their gateways.
 *
 * ```
 *  site A 10.0.0.0/24         cloud 10.0.0.0/24             site B 10.0.0.0/24
 *  compute-a .5 - gw-a .1     broker .5, control .9 - gw .1     gw-b .1 - compute-b .5
 *                   |198.51.100.11          |198.51.100.1           |198.51.100.12
 *                   +----------------- wan (a bridge) ---------------+
 * ```
 *
 * In each realm the presences are in 10.0.0.128/25. This is a part of the LAN's own prefix, and the gateway's
 * kernel answers ARP for it, so no host needs a route or other configuration for the gateways.
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

export const LAN_GATEWAY = '10.0.0.1';
export const CLOUD_WAN = '198.51.100.1';

export async function buildTopology(directory: string): Promise<Topology> {
  await ip('link', 'add', 'wan', 'type', 'bridge');
  await ip('link', 'set', 'wan', 'up');

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
    sites: { a: await site('a', 11), b: await site('b', 12) },
  };

  async function site(name: string, wan: number) {
    const siteGateway = await gateway(`gw-${name}`, `198.51.100.${wan}`);
    const compute = await lanHost(`compute-${name}`, '10.0.0.5', siteGateway, 'lan0', directory);
    await siteGateway.ip('address', 'add', `${LAN_GATEWAY}/24`, 'dev', 'lan0');
    return { gateway: siteGateway, compute };
  }
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
  gatewayHost: Host,
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
