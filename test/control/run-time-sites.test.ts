/**
 * Sites and services that are added, changed and removed while the packets of others go on, with a real
 * registry, controller and translator.
 */
import { describe, expect, test } from 'vitest';
import { IpPrefix } from '../../src/base/prefix.ts';
import { VERDICT_NAMES, type VerdictName } from '../../src/translator/index.ts';
import { type Ends, SYN, tcpPacket } from '../support/packets.ts';
import { framed, VNET } from '../support/vnet.ts';
import { DESIRED, type Scene, SITE, startScene, turn } from './scene.ts';

const HOST = '10.0.0.5';
const CAMERA_HOST = '10.0.0.7';
const SITE_C = { name: 'site-c', ...SITE, zone: 'c.test' };
const CAMERA = { name: 'camera', site: 'site-c', address: CAMERA_HOST, ports: ['tcp/554'] };
const TO_CLOUD = { service: 'camera', site: 'cloud' };

interface Sent {
  readonly verdict: VerdictName;
  readonly egress: string;
}

/** Sends a segment; a client that has no presence gets one first, as in a gateway. */
async function send(scene: Scene, realm: string, ends: Ends, port: number): Promise<Sent> {
  const translate = (): VerdictName => {
    const { real } = scene.translator;
    const options = { sourcePort: 40_000, destinationPort: port, flags: SYN };
    const buffer = framed(tcpPacket(ends, options));
    const verdict = real.translate(real.realm(realm), buffer, VNET, buffer.length, 0);
    return VERDICT_NAMES[verdict]!;
  };
  let verdict = translate();
  const { real } = scene.translator;
  if (verdict === 'NeedsPresence') {
    const egress = real.realmName(real.egress);
    const source = real.lackingPresence().toString();
    await scene.controller.admit(realm, source, egress, real.lackingFamily);
    verdict = translate();
  }
  return { verdict, egress: verdict === 'Forward' ? real.realmName(real.egress) : '' };
}

/** The host of site A uses the message queue of the cloud. */
async function bystander(scene: Scene): Promise<Sent> {
  const destination = scene.translator.addressOf('site-a', 'cloud', HOST)!;
  return await send(scene, 'site-a', { source: HOST, destination }, 5672);
}

/** A host of the cloud asks a presence for the camera. */
async function askCamera(scene: Scene, destination: string, port = 554): Promise<Sent> {
  return await send(scene, 'cloud', { source: HOST, destination }, port);
}

const FORWARDED = { verdict: 'Forward', egress: 'cloud' };

describe('a site at run time', () => {
  test('is added, changed and removed while the packets of another site pass', async () => {
    const scene = await startScene();
    const { registry, translator, controller, store } = scene;
    expect(await bystander(scene)).toEqual(FORWARDED);
    const path = () =>
      [...translator.real.paths()].find(({ ingress }) => ingress === 'site-a')?.packets;
    let packets = path()!;
    const goesOn = async (): Promise<void> => {
      await turn();
      expect(await bystander(scene)).toEqual(FORWARDED);
      expect(path()).toBe(++packets);
    };

    await registry.putSite(SITE_C, 'admin');
    await registry.putService(CAMERA, 'admin');
    await registry.expose(TO_CLOUD, 'admin');
    await goesOn();
    const presence = translator.addressOf('cloud', 'site-c', CAMERA_HOST)!;
    expect(await askCamera(scene, presence)).toEqual({ verdict: 'Forward', egress: 'site-c' });
    expect(controller.snapshot('site-c')).toMatchObject({ site: 'site-c', pools: SITE.pools });

    await registry.putService({ ...CAMERA, ports: ['tcp/8554'] }, 'admin');
    await goesOn();
    expect(await askCamera(scene, presence)).toMatchObject({ verdict: 'DropNotPermitted' });
    expect((await askCamera(scene, presence, 8554)).verdict).toBe('Forward');

    await registry.putService({ ...CAMERA, address: '10.0.0.8' }, 'admin');
    await goesOn();
    const moved = translator.addressOf('cloud', 'site-c', '10.0.0.8')!;
    expect(moved).not.toBe(presence);
    expect((await askCamera(scene, moved)).verdict).toBe('Forward');
    expect((await askCamera(scene, presence)).verdict).not.toBe('Forward');

    const client = translator.addressOf('site-c', 'cloud', HOST);
    await registry.putSite({ ...SITE_C, pools: ['10.0.0.192/26'], mtu: 1400 }, 'admin');
    await goesOn();
    // The client keeps its address until the overlap ends.
    const pools = ['10.0.0.192/26', '10.0.0.128/26'].map((text) => IpPrefix.parse(text));
    expect(controller.snapshot('site-c')).toMatchObject({ pools });
    expect((await askCamera(scene, moved)).verdict).toBe('Forward');
    expect(translator.addressOf('site-c', 'cloud', HOST)).toBe(client);

    await registry.unexpose(TO_CLOUD, 'admin');
    await registry.removeService('camera', 'admin');
    await registry.removeSite('site-c', 'admin');
    await goesOn();
    expect((await askCamera(scene, moved)).verdict).not.toBe('Forward');
    expect(controller.snapshot('site-c')).toBeUndefined();
    scene.clock.advance(60_000);
    await turn();
    expect([...store.leases.keys()].filter((key) => key.includes('site-c'))).toEqual([]);
    expect(translator.plan.realms.map(({ name }) => name)).toEqual(['cloud', 'site-a', 'site-b']);
    expect(scene.problems).toEqual([]);
    expect(translator.unstored).toEqual([]);
  });

  test('may exist before the file has a service of it', async () => {
    const scene = await startScene({ ...DESIRED, services: [], exposures: [] });
    await scene.registry.putSite(SITE_C, 'admin');
    await turn();
    expect(scene.controller.snapshot('site-c')).toMatchObject({ hosts: [], zone: 'c.test' });
  });
});
