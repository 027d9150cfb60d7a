/**
 * What one site can take of the things that all sites share: addresses, queues, and the gateway's time.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { udpPacket } from '../support/packets.ts';
import type { RawPeer } from '../support/raw-peer.ts';
import { framed } from '../support/vnet.ts';
import { intrude, leave, packetFrame, settled } from './attacker.ts';
import { BUS, CLIENT, MAX_CLIENTS, SENSOR } from './plan.ts';
import { FULL, Scene } from './scene.ts';

let scene: Scene;
/** Where site-a has the service. */
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
    const peer = await intrude(scene.ports.tunnel, scene.siteA);
    for (let round = 0; round < (FULL ? 100 : 10); round++) {
      for (const client of clients) peer.socket.write(request(client));
      await settled(peer);
    }
    // Clients of site-b that have never been seen find room.
    const newcomers = clients.slice(50, 50 + MAX_CLIENTS - 1);
    expect(await scene.bystander.call('ask', newcomers)).toBe(newcomers.length);
    await leave(peer);
  });
  const held = (await scene.presences()).filter(
    ({ realm, of }) => realm === 'cloud' && of.realm === 'site-a'
  );
  // And one that is a service.
  expect(held).toHaveLength(MAX_CLIENTS + 1);
  expect(outcome.counted('dataPlane.dropNotAdmitted')).toBeGreaterThan(0);
  expect(outcome.passed).toBeGreaterThan(0);
});

test('requests from as many ports as there are cost the gateway no memory', async () => {
  await scene.attack('many ports', async () => {
    const peer = await intrude(scene.ports.tunnel, scene.siteA);
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

test('fragments whose rest never comes cost the gateway no memory', async () => {
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
    const peer = await intrude(scene.ports.tunnel, scene.siteA);
    for (let i = 0; i < count; i += BATCH) {
      const ids = Array.from({ length: BATCH }, (_, j) => i + j);
      // Those behind belong to no datagram that has come.
      await sendSome(
        peer,
        ids.flatMap((id) => [fragment(id, MORE_FRAGMENTS), fragment(id + ORPHANS, FURTHER)])
      );
    }
    await leave(peer);
  });
  expect(outcome.counted('sites.site-a.verdicts.DropFragmentOrphan')).toBeGreaterThanOrEqual(count);
});

test('a site that does not read, and is sent all that there is, keeps nobody waiting', async () => {
  const sensor = await scene.presenceOf(SENSOR.address, 'cloud', SENSOR.site);
  const count = FULL ? 500_000 : 50_000;
  const run = async (): Promise<void> => {
    const peer = await intrude(scene.ports.tunnel, scene.siteA);
    peer.socket.pause();
    expect(await scene.bystander.call('flood', sensor, SENSOR.port, count)).toBe(count);
    await leave(peer);
  };
  // What so much traffic costs at all is not the attack's.
  await run();
  const outcome = await scene.attack('slow reader', run);
  const dropped = outcome.counted('dataPlane.dropTunnelFull');
  expect(dropped).toBeGreaterThan(count / 2);
});

/**
 * No faster than the cloud's hosts take them: the link behind the gateway is what all sites share, and who
 * may send to it may fill it.
 */
async function sendSome(peer: RawPeer, frames: readonly Buffer[]): Promise<void> {
  peer.socket.write(Buffer.concat(frames));
  await settled(peer);
  await scene.bystander.call('turn');
}

/** Packets that are under way at once. */
const BATCH = 64;
const ORPHANS = 32_000;
const MORE_FRAGMENTS = 0x2000;
/** The last fragment, from byte 800 on. */
const FURTHER = 100;
