/**
 * The share that one site can take of what all sites share: addresses, queues, and the gateway's time.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { udpPacket } from '../support/packets.ts';
import type { RawPeer } from '../support/raw-peer.ts';
import { framed } from '../support/vnet.ts';
import { leave, openTunnel, packetFrame, settled } from './attacker.ts';
import { BUS, CLIENT, MAX_CLIENTS, SENSOR } from './plan.ts';
import { FULL, Scene } from './scene.ts';

let scene: Scene;
/** The address of the service in site-a. */
let bus: string;

beforeAll(async () => {
  scene = await Scene.open();
  bus = await scene.presenceOf(BUS.address, 'site-a');
});

afterAll(() => scene?.close());

const request = (source: string, sourcePort = 4000): Buffer =>
  packetFrame(
    framed(udpPacket({ source, destination: bus }, { sourcePort, destinationPort: BUS.port }))
  );

test('more clients than a site may have get no address, and take none from other sites', async () => {
  const clients = Array.from({ length: 127 }, (_, i) => `10.0.0.${i + 1}`);
  const outcome = await scene.attack('new clients', async () => {
    const peer = await openTunnel(scene.ports.tunnel, scene.siteA);
    for (let round = 0; round < (FULL ? 100 : 10); round++) {
      for (const client of clients) peer.socket.write(request(client));
      await settled(peer);
    }
    // New clients of site-b still get addresses.
    const newcomers = clients.slice(50, 50 + MAX_CLIENTS - 1);
    expect(await scene.bystander.call('request', newcomers)).toBe(newcomers.length);
    await leave(peer);
  });
  const held = (await scene.presences()).filter(
    ({ realm, of }) => realm === 'cloud' && of.realm === 'site-a'
  );
  // So does a service.
  expect(held).toHaveLength(MAX_CLIENTS + 1);
  expect(outcome.counted('dataPlane.dropNotAdmitted')).toBeGreaterThan(0);
  expect(outcome.passed).toBeGreaterThan(0);
});

test('requests from all possible ports cost the gateway no memory', async () => {
  await scene.attack('many ports', async () => {
    const peer = await openTunnel(scene.ports.tunnel, scene.siteA);
    for (const client of FULL ? [CLIENT, '10.0.0.21', '10.0.0.22'] : [CLIENT]) {
      for (let port = 1; port <= 65_535 - BATCH; port += FULL ? BATCH : 16 * BATCH) {
        const ports = Array.from({ length: BATCH }, (_, i) => port + i);
        await sendSome(
          peer,
          ports.map((each) => request(client, each))
        );
      }
    }
    await leave(peer);
  });
});

test('fragments of incomplete datagrams cost the gateway no memory', async () => {
  const fragment = (identification: number, part: number): Buffer =>
    packetFrame(
      framed(
        udpPacket(
          { source: CLIENT, destination: bus },
          {
            sourcePort: 4000,
            destinationPort: BUS.port,
            payload: Buffer.alloc(64),
            fragment: part,
            identification,
          }
        )
      )
    );
  const count = FULL ? 30_000 : 3_000;
  const outcome = await scene.attack('fragments', async () => {
    const peer = await openTunnel(scene.ports.tunnel, scene.siteA);
    for (let i = 0; i < count; i += BATCH) {
      const ids = Array.from({ length: BATCH }, (_, j) => i + j);
      // The later fragments belong to no datagram that has come.
      await sendSome(
        peer,
        ids.flatMap((id) => [fragment(id, MORE_FRAGMENTS), fragment(id + ORPHANS, FURTHER)])
      );
    }
    await leave(peer);
  });
  expect(outcome.counted('sites.site-a.verdicts.DropFragmentOrphan')).toBeGreaterThanOrEqual(count);
});

test('a site that does not read while it is sent as much as possible delays no other site', async () => {
  const sensor = await scene.presenceOf(SENSOR.address, 'cloud', SENSOR.site);
  const count = FULL ? 500_000 : 50_000;
  const run = async (): Promise<void> => {
    const peer = await openTunnel(scene.ports.tunnel, scene.siteA);
    peer.socket.pause();
    expect(await scene.bystander.call('flood', sensor, SENSOR.port, count)).toBe(count);
    await leave(peer);
  };
  // The first run warms up: only the cost of the attack counts.
  await run();
  const outcome = await scene.attack('slow reader', run);
  const dropped = outcome.counted('dataPlane.dropTunnelFull');
  expect(dropped).toBeGreaterThan(count / 2);
});

/**
 * Sends no faster than the cloud's hosts read: all sites share the link behind the gateway, and a site may
 * fill it.
 */
async function sendSome(peer: RawPeer, frames: readonly Buffer[]): Promise<void> {
  peer.socket.write(Buffer.concat(frames));
  await settled(peer);
  await scene.bystander.call('turn');
}

/** How many packets are in transit at once. */
const BATCH = 64;
const ORPHANS = 32_000;
const MORE_FRAGMENTS = 0x2000;
/** The last fragment, from byte 800 on. */
const FURTHER = 100;
