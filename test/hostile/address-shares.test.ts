/**
 * The share that one site can take of the addresses that all sites share, with the sites of the reference
 * configuration as it is shipped: pools of /25, and no option set.
 */
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parse } from 'yaml';
import { udpPacket } from '../support/packets.ts';
import { framed } from '../support/vnet.ts';
import { leave, openTunnel, packetFrame, settled } from './attacker.ts';
import { BUS, CAMERA } from './plan.ts';
import { Scene } from './scene.ts';

interface Shipped {
  readonly sites: readonly { readonly name: string }[];
  readonly services: readonly object[];
  readonly exposures: readonly object[];
}

const SHIPPED: Shipped = parse(
  readFileSync(new URL('../../examples/cloud-gateway/cloud.yaml', import.meta.url), 'utf8')
).desired;

/** The shipped state, with as many names for site-a as possible, and the services of the scene. */
function desiredOf(names: readonly string[]): object {
  const [cloud, siteA] = SHIPPED.sites;
  const bus = { name: BUS.name, site: BUS.site, address: BUS.address, ports: [`udp/${BUS.port}`] };
  const { name, site, address, port } = CAMERA;
  return {
    sites: [cloud, ...names.map((each) => ({ ...siteA, name: each }))],
    services: [...SHIPPED.services, bus, { name, site, address, ports: [`udp/${port}`] }],
    exposures: [...SHIPPED.exposures, ...names.map((each) => ({ service: BUS.name, site: each }))],
  };
}

let scene: Scene;
/** The address of the service in site-a. */
let bus: string;

beforeAll(async () => {
  scene = await Scene.open(desiredOf(['site-a', 'site-b']));
  bus = await scene.presenceOf(BUS.address, 'site-a');
});

afterAll(() => scene?.close());

const clientsOf = async (site: string): Promise<number> =>
  (await scene.presences()).filter(({ realm, of }) => realm === 'cloud' && of.realm === site)
    .length;

test('a site that takes every address it can leaves some for other sites, services and later sites', async () => {
  // All hosts that the shipped sources have outside the pool.
  const clients = Array.from({ length: 127 }, (_, i) => `10.0.0.${i + 1}`);
  await scene.attack('every address', async () => {
    const peer = await openTunnel(scene.ports.tunnel, scene.siteA);
    for (let round = 0; round < 4; round++) {
      for (const source of clients) {
        const ends = { source, destination: bus };
        const ports = { sourcePort: 4000, destinationPort: BUS.port };
        peer.socket.write(packetFrame(framed(udpPacket(ends, ports))));
      }
      await settled(peer);
    }
    await leave(peer);
    // The first client of site-b already has an address; these clients are new.
    const newcomers = clients.slice(50, 65);
    expect(await scene.bystander.call('request', newcomers)).toBe(newcomers.length);
  });
  const taken = await clientsOf('site-a');
  expect(taken).toBeGreaterThan(30);
  expect(taken).toBeLessThan(70);

  await scene.callAdmin('PUT', `/v1/exposures/cloud/${CAMERA.name}`, {});
  await expect
    .poll(() => scene.presenceOf(CAMERA.address, 'cloud', CAMERA.site).catch(() => undefined))
    .toBeDefined();

  await scene.callAdmin('POST', '/v1/revocations', { site: 'site-a' });
  // A revoked site keeps its addresses, as documented.
  expect(await clientsOf('site-a')).toBe(taken);
  await scene.reload(desiredOf(['site-a', 'site-b', 'site-c']));
  await scene.checkEdge(await scene.enrol('site-c'), 'site-c');

  const released = await scene.callAdmin('DELETE', '/v1/sites/site-a/clients');
  expect(released.body).toEqual({ released: taken });
  expect(await clientsOf('site-a')).toBe(0);
});
