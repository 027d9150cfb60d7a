/**
 * What a hostile edge does at the very moment of its revocation: it reads nothing and keeps its connection, connects
 * again at once, and has an enrolment or a renewal under way. Each is refused and counted.
 */
import { afterEach, expect, test, vi } from 'vitest';
import type { CloudGateway } from '../../src/gateway/index.ts';
import { udpFrame } from '../../src/packet/index.ts';
import { createSigningRequest, enrol, generateGatewayKey } from '../../src/pki/index.ts';
import { MemoryStore, type Write } from '../../src/store/index.ts';
import { type Credentials, FrameType } from '../../src/tunnel/index.ts';
import { desired, Gateways, Hosts, memory } from '../gateway/scene.ts';
import { frameBytes, HELLO, RawPeer } from '../support/raw-peer.ts';

const SITE = 'site-a';
const ATTEMPTS = 8;

const gateways = new Gateways();
afterEach(() => gateways.close());

/** Holds back commits with a certificate, before or after they are in the store. */
class HeldStore extends MemoryStore {
  #hold: { at: 'before' | 'after'; arrived: () => void; until: Promise<void> } | undefined;

  /** @returns `arrived` resolves when a commit is held back, which goes on after `release` */
  hold(at: 'before' | 'after'): { arrived: Promise<void>; release: () => void } {
    let release!: () => void;
    const until = new Promise<void>((resolve) => {
      release = resolve;
    });
    const arrived = new Promise<void>((resolve) => {
      this.#hold = { at, arrived: resolve, until };
    });
    return { arrived, release };
  }

  override async commit(writes: readonly Write[]): Promise<void> {
    const isIssue = writes.some(({ key }) => key.startsWith('certificate/'));
    const hold = isIssue ? this.#hold : undefined;
    if (hold !== undefined) this.#hold = undefined;
    if (hold?.at === 'before') await wait(hold);
    await super.commit(writes);
    if (hold?.at === 'after') await wait(hold);
  }
}

async function wait(hold: { arrived: () => void; until: Promise<void> }): Promise<void> {
  hold.arrived();
  await hold.until;
}

interface Scene {
  readonly store: HeldStore;
  readonly cloud: CloudGateway;
  /** The network of the cloud. */
  readonly hosts: Hosts;
  readonly credentials: Credentials;
  readonly port: number;
}

async function start(): Promise<Scene> {
  const store = new HeldStore();
  const hosts = new Hosts();
  const cloud = await gateways.cloud({
    ...memory(),
    store,
    desired: desired(SITE, 'site-b'),
    device: hosts.device,
    limits: { maxConnectionRate: 1000, maxTunnelRate: 1000, maxTunnelBurst: 1000 },
  });
  const token = await cloud.createToken({ site: SITE });
  const { key, cert, ca } = await enrol(token);
  const { port } = cloud.addresses.tunnels[0]!;
  return { store, cloud, hosts, credentials: { key, cert, ca }, port };
}

async function connect({ port, credentials }: Scene): Promise<RawPeer> {
  const peer = RawPeer.dial(port, credentials);
  peer.send(FrameType.Hello, HELLO);
  await peer.frame(FrameType.Welcome);
  return peer;
}

/** Returns the reason of the CLOSE that the cloud sends, or undefined if it just ends the connection. */
async function closeOf(peer: RawPeer): Promise<string | undefined> {
  const close = await peer.json(FrameType.Close);
  await peer.closed;
  return close?.code as string | undefined;
}

/** Expects that the site has no certificate that works, and no tunnel. */
async function expectNothing({ cloud, store }: Scene): Promise<void> {
  const revoked = (await store.list('revocation/serial/')).map(({ key }) => key.split('/')[2]);
  const issued = (await store.list('certificate/'))
    .filter(({ value }) => (value as { identity: string }).identity.endsWith(`/${SITE}`))
    .map(({ key }) => key.split('/')[1]);
  expect(revoked.sort()).toEqual(issued.sort());
  expect(await store.list('token/')).toEqual([]);
  const { sites } = await cloud.status();
  expect(sites.find(({ name }) => name === SITE)).toMatchObject({ revoked: true, edge: undefined });
}

test.each([
  ['before', 0],
  ['after', 1],
] as const)(
  'an enrolment whose certificate is stored %s the revocation leaves none that works',
  async (at, more) => {
    const scene = await start();
    const { cloud, store } = scene;
    const token = await cloud.createToken({ site: SITE });
    // Held back before it is stored, the revocation is first.
    const { arrived, release } = store.hold(at);
    const enrolment = enrol(token).then(
      () => 'enrolled',
      ({ code }) => code
    );
    await arrived;
    const receipt = await cloud.revoke({ site: SITE });
    release();
    expect(receipt.serials).toHaveLength(1 + more);
    expect(await enrolment).toBe(more === 1 ? 'enrolled' : 'ERR_PRESENCE_ENROLMENT_UNKNOWN');
    const { enrolment: counters } = await cloud.status();
    expect(counters).toMatchObject({ enrolled: 1 + more, refused: 1 - more });
    await expectNothing(scene);
    // It comes too late with the same token, also when the site may enrol again.
    await cloud.reinstate(SITE);
    await expect(enrol(token)).rejects.toMatchObject({ code: 'ERR_PRESENCE_ENROLMENT_UNKNOWN' });
  }
);

test.each([
  ['before', 0],
  ['after', 1],
] as const)(
  'a renewal whose certificate is stored %s the revocation leaves none that works',
  async (at, more) => {
    const scene = await start();
    const { cloud, store } = scene;
    const peer = await connect(scene);
    const csrPem = createSigningRequest(generateGatewayKey().privateKeyPem);
    const { arrived, release } = store.hold(at);
    peer.send(FrameType.Control, { type: 'renew', csrPem });
    await arrived;
    const receipt = await cloud.revoke({ site: SITE });
    release();
    expect(receipt).toMatchObject({ tunnelsClosed: 1, sites: [SITE] });
    expect(receipt.serials).toHaveLength(1 + more);
    expect(await closeOf(peer)).toBe('revoked');
    await vi.waitFor(async () => {
      const { renewals } = await cloud.status();
      expect(renewals).toMatchObject({ renewed: more, refused: 1 - more });
    });
    await expectNothing(scene);

    // With the old certificate there is no connection over which it could ask again.
    const again = RawPeer.dial(scene.port, scene.credentials);
    again.send(FrameType.Hello, HELLO);
    again.send(FrameType.Control, { type: 'renew', csrPem });
    expect(await closeOf(again)).toBe('revoked');
    const { listener, renewals } = await cloud.status();
    expect(listener['refused.revoked']).toBe(1);
    expect(renewals).toMatchObject({ renewed: more, refused: 1 - more });
  }
);

test('edges that connect again at once and all the time get nothing after the receipt', async () => {
  const scene = await start();
  const { cloud, port, credentials } = scene;
  await connect(scene);
  const peers: RawPeer[] = [];
  const dial = (): void => {
    const peer = RawPeer.dial(port, credentials);
    peer.send(FrameType.Hello, HELLO);
    peers.push(peer);
  };
  for (let i = 0; i < ATTEMPTS; i++) dial();
  const revoking = cloud.revoke({ site: SITE });
  for (let i = 0; i < ATTEMPTS; i++) dial();
  await revoking;
  const { listener: before } = await cloud.status();
  for (let i = 0; i < ATTEMPTS; i++) dial();
  const codes = await Promise.all(peers.map(closeOf));
  expect(codes.slice(-ATTEMPTS)).toEqual(Array(ATTEMPTS).fill('revoked'));
  const { listener } = await cloud.status();
  expect(listener.accepted).toBe(before.accepted);
  const refused = listener['refused.revoked']! - (before['refused.revoked'] ?? 0);
  expect(refused).toBeGreaterThanOrEqual(ATTEMPTS);
  await expectNothing(scene);
});

test('an edge that reads nothing and keeps its connection holds up no receipt, and gets no packet', async () => {
  const scene = await start();
  const { cloud, hosts } = scene;
  const arrived: { source: string; text: string }[] = [];
  hosts.serve(({ source, payload }) => {
    arrived.push({ source: `${source}`, text: Buffer.from(payload).toString() });
    return undefined;
  });
  const peer = await connect(scene);
  const presence = await presenceOfService(peer);
  const sendUp = (text: string): void => {
    const ends = { source: '10.0.0.5', sourcePort: 40_000, destination: presence };
    const packet = udpFrame({ ...ends, destinationPort: 7, payload: Buffer.from(text) });
    peer.socket.write(frameBytes(FrameType.Packet, packet));
  };
  await vi.waitFor(() => {
    sendUp('before');
    expect(arrived.length).toBeGreaterThan(0);
  });
  peer.socket.pause();
  const sendDown = (text: string): void => {
    const ends = { source: '10.0.0.5', sourcePort: 7, destination: arrived[0]!.source };
    hosts.send({ ...ends, destinationPort: 40_000, payload: Buffer.from(text.padEnd(1200)) });
  };
  // Until nothing more fits into its queue.
  await vi.waitFor(
    async () => {
      for (let i = 0; i < 500; i++) sendDown('before');
      const { dataPlane } = await cloud.status();
      expect(dataPlane.dropTunnelFull).toBeGreaterThan(0);
    },
    { timeout: 20_000, interval: 1 }
  );
  const receipt = await cloud.revoke({ site: SITE });
  expect(receipt).toMatchObject({ tunnelsClosed: 1 });
  const before = arrived.length;
  sendDown('after');
  sendUp('after');
  const received: Buffer[] = [];
  peer.socket.on('data', (chunk) => received.push(chunk));
  peer.socket.resume();
  await peer.closed;
  expect(Buffer.concat(received).includes('before')).toBe(true);
  expect(Buffer.concat(received).includes('after')).toBe(false);
  expect(arrived.slice(before)).toEqual([]);
  await expectNothing(scene);
});

/** Reads the address of the service in the site from the snapshot. */
async function presenceOfService(peer: RawPeer): Promise<string> {
  for (;;) {
    const message = await peer.json(FrameType.Control);
    if (message === undefined) throw new Error('the connection has ended without a snapshot');
    if (message.type !== 'snapshot') continue;
    const { hosts } = message.snapshot as { hosts: { addresses: string[] }[] };
    return hosts[0]!.addresses[0]!;
  }
}
