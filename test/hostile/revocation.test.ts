/**
 * Revocation while a hundred sites have traffic: nothing of the revoked site passes, and no other site is affected.
 */
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { generateCa, type RevocationScope } from '../../src/pki/index.ts';
import { spkiHashOf } from '../../src/pki/keys.ts';
import { FileStore, MemoryStore } from '../../src/store/index.ts';
import type { RevocationReceipt } from '../../src/trust/index.ts';
import { type Credentials, FrameType, type MtlsTunnel } from '../../src/tunnel/index.ts';
import { eventually, Workspace } from '../support/gateway-process.ts';
import { HELLO, RawPeer } from '../support/raw-peer.ts';
import { packetFrame } from './attacker.ts';
import { dial, NumberedTraffic, type Site } from './numbered-traffic.ts';
import { Cloud, desired, siteName, TRUST_DOMAIN } from './revocation-scene.ts';

const SITES = 100;
const IS_FULL = process.env.VP_FULL === '1';
const ROUNDS = IS_FULL ? 200 : 20;

/** Packets of each site, in each direction, before the first revocation. */
const WARM = 40;

const KINDS = ['site', 'serial', 'spki'] as const;
type Kind = (typeof KINDS)[number];

function scopeOf(kind: Kind, site: string, { cert }: Credentials): RevocationScope {
  const certificate = new X509Certificate(String(cert));
  if (kind === 'site') return { site };
  if (kind === 'serial') return { serial: certificate.serialNumber };
  return { spki: spkiHashOf(certificate.publicKey) };
}

/** Returns the code with which the cloud refuses these credentials. */
async function refusalOf(cloud: Cloud, credentials: Credentials): Promise<string> {
  const tunnel = dial(cloud, credentials);
  try {
    return await new Promise((resolve) => {
      tunnel.once('refused', ({ code }) => resolve(code));
      tunnel.once('up', () => resolve('it is up'));
    });
  } finally {
    tunnel.destroy();
  }
}

function tunnelOf(cloud: Cloud, site: string): MtlsTunnel | undefined {
  return [...cloud.listener.tunnels].find(
    ({ peer }) => peer?.role === 'site' && peer.site === site
  );
}

describe(`revocation of one of ${SITES} sites under traffic`, () => {
  const workspace = new Workspace();
  let store: FileStore;
  let cloud: Cloud;
  let traffic: NumberedTraffic;

  beforeAll(async () => {
    store = await FileStore.open({ path: join(workspace.newDirectory(), 'store.journal') });
    cloud = await Cloud.start(store, generateCa({ trustDomain: TRUST_DOMAIN }), desired(SITES));
    traffic = new NumberedTraffic(cloud, SITES);
    for (const site of traffic.sites) await site.connect(await cloud.enrol(site.name));
    traffic.start();
    // The first run of any code is slow.
    await eventually('traffic', () => traffic.sites[0]!.up.received > WARM || undefined);
  });

  afterAll(async () => {
    traffic?.stop();
    for (const { tunnel } of traffic?.sites ?? []) tunnel?.destroy();
    await cloud?.close();
    await store?.close();
    workspace.remove();
  });

  /** Revokes, and checks everything again when all packets in transit have arrived. */
  const revokeKind = async (site: Site, kind: Kind): Promise<RevocationReceipt> => {
    const accepted = tunnelOf(cloud, site.name)!;
    // A path exists from its first packet on.
    await until(() => cloud.translator.pathsOf(site.name) > 0);
    const down = new Promise((resolve) => site.tunnel.once('down', resolve));
    const receipt = await cloud.revoker.revoke(scopeOf(kind, site.name, site.credentials));
    traffic.drain();
    site.revokedAt = site.down.next;
    const counters = { ...accepted.counters };
    expect(tunnelOf(cloud, site.name)).toBeUndefined();
    expect(cloud.translator.pathsOf(site.name) === 0).toBe(kind === 'site');

    expect(await refusalOf(cloud, site.credentials)).toBe('revoked');
    await down;
    await traffic.settled();
    traffic.drain();
    expect(site.leaked, `packets of ${site.name} behind its ${kind} receipt`).toBe(0);
    expect(accepted.counters, 'of the terminated tunnel').toEqual(counters);
    return receipt;
  };

  /** Enrols again with a new token and key, and resumes the traffic. */
  const comeBack = async (site: Site, kind: Kind): Promise<void> => {
    site.tunnel.destroy();
    if (kind === 'site') await cloud.revoker.reinstate(site.name);
    const before = site.presence;
    await site.connect(await cloud.enrol(site.name));
    expect(site.presence).toBe(before);
  };

  test(`lets nothing pass after the receipt, and costs other sites nothing, ${ROUNDS} times`, async () => {
    const receipts: RevocationReceipt[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const site = traffic.sites[(round * 37) % SITES]!;
      const kind = KINDS[round % KINDS.length]!;
      const receipt = await revokeKind(site, kind);
      receipts.push(receipt);
      expect(receipt.tunnelsClosed).toBe(1);
      expect(receipt.sites).toEqual([site.name]);
      expect(receipt.serials.length).toBeGreaterThan(0);
      if (kind === 'site') expect(receipt.pathsRemoved).toBeGreaterThan(0);
      else expect(receipt.pathsRemoved).toBe(0);
      await comeBack(site, kind);
    }
    const all = traffic.sites.flatMap(({ up, down }) => [up, down]);
    await until(() => all.every(({ received }) => received > 0));
    await traffic.settled();
    const packets = all.reduce((sum, { next }) => sum + next, 0);
    const ms = (list: number[], share: number) =>
      list.sort((a, b) => a - b)[Math.floor(share * (list.length - 1))]!.toFixed(1);
    const elapsed = receipts.map(({ elapsedMs }) => elapsedMs);
    const stored = receipts.map(({ storedMs }) => storedMs);
    console.log(
      `${ROUNDS} revocations among ${SITES} sites: elapsedMs median ${ms(elapsed, 0.5)}, ` +
        `p99 ${ms(elapsed, 0.99)}, longest ${ms(elapsed, 1)}; storedMs median ${ms(stored, 0.5)}; ` +
        `${packets} packets`
    );
    expect(traffic.faultsBeside(), 'packets lost or doubled').toBe(0);
    // A refused peer occupies no place among pending handshakes.
    const isQuiet = () => cloud.listener.handshakes === 0 || undefined;
    await eventually('no handshake', isQuiet, 5_000);
    // The long form runs alone on its machine.
    if (IS_FULL) expect(Number(ms(elapsed, 0.5))).toBeLessThan(50);
  });

  test('gives no tunnel to a connection that is verified and has not sent HELLO yet', async () => {
    const site = traffic.sites[SITES - 2]!;
    await traffic.settled();
    const { key, cert, ca } = site.credentials;
    const peer = RawPeer.dial(cloud.listener.port, { key, cert, ca });
    await once(peer.socket, 'secureConnect');
    const accepted = cloud.listener.counters.accepted;
    await revokeKind(site, 'site');
    peer.send(FrameType.Hello, HELLO);
    expect(await peer.frame(FrameType.Welcome)).toBeUndefined();
    expect(cloud.listener.counters.accepted).toBe(accepted);
    await comeBack(site, 'site');
    expect(traffic.faultsBeside(site)).toBe(0);
  });

  test('drops packets of an edge that does not receive its CLOSE, and keeps sending', async () => {
    const site = traffic.sites[SITES - 1]!;
    const down = new Promise((resolve) => site.tunnel.once('down', resolve));
    await site.tunnel.close();
    await down;
    const { key, cert, ca } = site.credentials;
    const peer = RawPeer.dial(cloud.listener.port, { key, cert, ca });
    peer.send(FrameType.Hello, HELLO);
    await peer.frame(FrameType.Welcome);
    let isOver = false;
    const flooding = (async () => {
      while (!isOver && peer.socket.writable) {
        for (let i = 0; i < 50; i++) peer.socket.write(packetFrame(site.nextUp()));
        await new Promise(setImmediate);
      }
    })();
    const before = site.up.received;
    await eventually('packets of the raw edge', () => site.up.received > before + 500 || undefined);
    await cloud.revoker.revoke({ site: site.name });
    traffic.drain();
    site.revokedAt = site.down.next;
    expect((await peer.json(FrameType.Close))?.code).toBe('revoked');
    await peer.closed;
    isOver = true;
    await flooding;
    await traffic.settled();
    traffic.drain();
    expect(site.leaked).toBe(0);
    expect(traffic.faultsBeside(site)).toBe(0);
    await comeBack(site, 'site');
    await traffic.settled();
  });
});

describe('two cloud gateways on one store', () => {
  const store = new MemoryStore();
  const clouds: Cloud[] = [];
  let traffic: NumberedTraffic;

  beforeAll(async () => {
    const ca = generateCa({ trustDomain: TRUST_DOMAIN });
    clouds.push(await Cloud.start(store, ca, desired(2)), await Cloud.start(store, ca));
    traffic = new NumberedTraffic(clouds[1]!, 2);
    for (const site of traffic.sites) await site.connect(await clouds[0]!.enrol(site.name));
    traffic.start();
    await traffic.settled();
  });

  afterAll(async () => {
    traffic?.stop();
    for (const { tunnel } of traffic?.sites ?? []) tunnel?.destroy();
    for (const cloud of clouds) await cloud.close();
    await store.close();
  });

  test.each(KINDS)('terminate and refuse what the other one has revoked by %s', async (kind) => {
    const [here, there] = clouds as [Cloud, Cloud];
    const [site] = traffic.sites as [Site];
    const down = new Promise<string>((resolve) =>
      site.tunnel.once('down', ({ code }) => resolve(code))
    );
    const receipt = await here.revoker.revoke(scopeOf(kind, site.name, site.credentials));
    expect(receipt, 'of its own, it had no tunnel').toMatchObject({ tunnelsClosed: 0 });
    await until(() => tunnelOf(there, site.name) === undefined);
    traffic.drain();
    site.revokedAt = site.down.next;
    expect(await down).toBe('revoked');
    for (const cloud of clouds) {
      expect(await refusalOf(cloud, site.credentials)).toBe('revoked');
      expect(cloud.controller.snapshot(site.name) === undefined).toBe(kind === 'site');
    }
    expect(there.translator.pathsOf(site.name) === 0).toBe(kind === 'site');
    await traffic.settled();
    expect(site.leaked).toBe(0);
    expect(traffic.faultsBeside(site)).toBe(0);

    site.tunnel.destroy();
    // The other gateway reinstates: that takes effect everywhere, too.
    if (kind === 'site') await there.revoker.reinstate(site.name);
    await site.connect(await here.enrol(site.name));
    await traffic.settled();
  });

  test('refuse what was revoked before they started', async () => {
    const [here] = clouds as [Cloud];
    const [site] = traffic.sites as [Site];
    await here.revoker.revoke({ site: site.name });
    const { certificatePem, privateKeyPem } = here.authority;
    const late = await Cloud.start(store, { certificatePem, privateKeyPem });
    clouds.push(late);
    expect(await refusalOf(late, site.credentials)).toBe('revoked');
    expect(late.controller.snapshot(site.name)).toBeUndefined();
    expect(late.controller.snapshot(siteName(1))).toBeDefined();
  });
});

/** Waits turn by turn. */
async function until(isSo: () => boolean): Promise<void> {
  const end = performance.now() + 10_000;
  while (!isSo()) {
    if (performance.now() > end) throw new Error(`not within 10 s: ${isSo}`);
    await new Promise(setImmediate);
  }
}
