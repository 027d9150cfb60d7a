/**
 * The warnings of gateways whose pools are in conflict with the machine, in a network namespace with real interfaces
 * and routes. What the gateways have set themselves is no conflict.
 */
import { afterEach, describe, expect, test } from 'vitest';
import { readHostPrefixes } from '../../src/device/host-prefixes.ts';
import { changeRoutes, configureTun, LinuxTun } from '../../src/device/index.ts';
import type { DesiredInput } from '../../src/registry/index.ts';
import { eventually } from '../support/gateway-process.ts';
import { ip, nftSkipReason, titled, useNamespace } from '../support/namespace.ts';
import { Gateways, LAN, memory } from './scene.ts';

const skipReason = (await useNamespace()) ?? nftSkipReason();

const gateways = new Gateways();
const devices: LinuxTun[] = [];
afterEach(async () => {
  await gateways.close();
  for (const device of devices.splice(0)) await device.close();
  gateways.log.length = 0;
});

/** Creates an interface; its addresses and routes end with it. */
async function newInterface(name: string, ...addresses: string[]): Promise<void> {
  devices.push(await LinuxTun.open({ name }));
  for (const address of addresses) ip('address', 'add', address, 'dev', name);
}

/** The cloud and one site with these pools. */
function desired(cloud: readonly string[], site: readonly string[]): DesiredInput {
  return {
    sites: [
      { name: 'cloud', ...LAN, pools: cloud },
      { name: 'site-a', ...LAN, pools: site },
    ],
    services: [],
    exposures: [],
  };
}

/** Returns what the gateways have warned of, without the remedies. */
function warned(): string[] {
  return gateways.log.flatMap((line) => /^pools: (.*?)(?::|$)/.exec(line)?.[1] ?? []);
}

describe.skipIf(skipReason !== undefined)(titled('conflicts with the machine', skipReason), () => {
  test('a cloud warns of an interface and a route at its start, and of others when its pools change', async () => {
    await newInterface('lan0', '10.0.0.1/24', '10.64.0.1/24');
    ip('route', 'add', '10.64.8.0/24', 'via', '10.0.0.9');
    const cloud = await gateways.cloud({
      device: { type: 'tun', name: 'vp0', lan: ['lan0'] },
      desired: desired(['10.64.0.0/16', '10.0.0.128/25'], ['10.0.0.128/25']),
    });
    const atStart = [
      'the pool 10.64.0.0/16 contains 10.64.0.1, the address of the interface lan0 of this host',
      'the pool 10.64.0.0/16 contains 10.64.8.0/24, for which this host has a route to lan0 via 10.0.0.9',
    ];
    expect(warned()).toEqual(atStart);
    ip('route', 'add', '10.65.0.0/16', 'via', '10.0.0.9');
    // Its former pools are routed to the TUN of the gateway itself, and the next pool is a part of one of them.
    await cloud.apply(desired(['10.64.128.0/17', '10.65.0.0/16'], ['10.0.0.128/25']));
    const { warnings } = await cloud.status();
    const equal = 'the pool 10.65.0.0/16 has a route of this host already, to lan0 via 10.0.0.9';
    expect(warned()).toEqual([...atStart, equal]);
    expect(warnings).toMatchObject([{ kind: 'route', pool: '10.65.0.0/16' }]);
  });

  test('an edge warns when it knows the pools of its site, and when they change', async () => {
    await newInterface('lan0', '10.0.0.1/24');
    ip('route', 'add', '10.66.0.0/16', 'via', '10.0.0.9');
    const cloud = await gateways.cloud({ desired: desired(['10.64.0.0/24'], ['10.66.1.0/24']) });
    const token = await cloud.createToken({ site: 'site-a' });
    const edge = await gateways.edge({ device: { type: 'tun', name: 'vp1' }, token });
    const covered =
      'the pool 10.66.1.0/24 is a part of 10.66.0.0/16, for which this host has a route to lan0 via 10.0.0.9';
    await eventually('the first warning', () => warned().length > 0 || undefined);
    await cloud.apply(desired(['10.64.0.0/24'], ['10.0.0.128/25']));
    await eventually('the next warning', () => warned().length > 1 || undefined);
    const network =
      'the pool 10.0.0.128/25 is a part of 10.0.0.0/24, the network of the interface lan0 of this host';
    expect(warned()).toEqual([covered, network]);
    expect(edge.status().warnings).toMatchObject([{ kind: 'interface', pool: '10.0.0.128/25' }]);
  });

  test('a restart does not warn of what a killed gateway of several processes has left', async () => {
    await newInterface('lan0', '10.0.0.1/24');
    await newInterface('vp0');
    await newInterface('vp1');
    const pool = '10.0.0.128/25';
    const setup = await configureTun({
      name: 'vp0',
      otherTuns: ['vp1'],
      routes: [],
      unreachable: [pool],
    });
    await changeRoutes([{ prefix: '10.0.0.128/28', device: 'vp1' }]);
    expect(ip('route', 'show', 'root', pool).trim().split('\n')).toHaveLength(2);
    // The gateway opens this TUN again, and the other one stays.
    await devices.splice(1, 1)[0]!.close();
    const options = {
      device: { type: 'tun', name: 'vp0', proxyArp: ['lan0'] },
      desired: desired([pool], [pool]),
      ...memory(),
    } as const;
    for (let starts = 0; starts < 2; starts++) {
      await gateways.cloud(options);
      expect(warned()).toEqual([]);
      await gateways.close();
    }
    await setup.close();
  });

  test('what cannot be read is named, and the rest is compared', async () => {
    await newInterface('lan0', '10.0.0.1/24');
    const path = process.env.PATH;
    process.env.PATH = '/nonexistent';
    try {
      const { interfaces, routes, unread } = await readHostPrefixes();
      expect(interfaces.map(({ device, network }) => `${device} ${network}`)).toContain(
        'lan0 10.0.0.0/24'
      );
      expect(routes).toEqual([]);
      expect(unread).toEqual([
        'the IPv4 routes (the command ip is missing; install iproute2)',
        'the IPv6 routes (the command ip is missing; install iproute2)',
      ]);
    } finally {
      process.env.PATH = path;
    }
  });
});
