/**
 * The cloud gateway in this process, so that the tests can act at exact moments.
 */
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, test, vi } from 'vitest';
import { ConfigError } from '../../src/errors.ts';
import { CloudGateway } from '../../src/gateway/index.ts';
import { type GatewayIdentity, MemoryDevice } from '../../src/index.ts';
import { createSigningRequest, generateGatewayKey } from '../../src/pki/index.ts';
import type { DesiredInput } from '../../src/registry/index.ts';
import { type Credentials, FrameType } from '../../src/tunnel/index.ts';
import { Access } from '../../src/worker/access.ts';
import { admin, desired, REALM, Workspace } from '../support/gateway-process.ts';
import { HELLO, RawPeer } from '../support/raw-peer.ts';

const workspace = new Workspace();
const running: CloudGateway[] = [];
afterEach(async () => {
  for (const gateway of running.splice(0)) await gateway.close();
});
afterAll(() => workspace.remove());

const HOST = '127.0.0.1';
const ANY_PORT = `${HOST}:0`;

interface Scene {
  readonly gateway: CloudGateway;
  readonly log: string[];
  readonly tunnelPort: number;
  /** The desired state that a reload reads. */
  file: unknown;
}

/** @param home the state directory, also of an earlier gateway */
async function start(file: unknown = desired(), home = workspace.newDirectory()): Promise<Scene> {
  const [device] = MemoryDevice.pair({ mtu: 1500 });
  const log: string[] = [];
  const scene: { file: unknown } = { file };
  const line = (_fields: object, message: string): void => void log.push(message);
  const gateway = await CloudGateway.start({
    trustDomain: 'openstack.test',
    stateDirectory: join(home, 'state'),
    adminSocket: join(home, 'admin.sock'),
    device,
    tunnel: ANY_PORT,
    dns: { listen: ANY_PORT },
    desired: file as DesiredInput,
    logger: { debug: () => {}, info: line, warn: line, error: line },
  });
  running.push(gateway);
  return Object.assign(scene, { gateway, log, tunnelPort: gateway.addresses.tunnels[0]!.port });
}

async function certified({ authority }: CloudGateway, site: string): Promise<Credentials> {
  const { trustDomain, certificatePem: ca } = authority;
  const { privateKeyPem: key } = generateGatewayKey();
  const identity: GatewayIdentity = { trustDomain, role: 'site', site };
  const { certificatePem: cert } = await authority.issue(createSigningRequest(key), identity);
  return { key, cert, ca };
}

/** Returns the desired state with these sites. */
function withSites(names: readonly string[]): ReturnType<typeof desired> {
  const sites = names.map((name) => ({ name, ...REALM }));
  return { ...desired(), sites, exposures: [] };
}

describe('a verified edge that has not said HELLO yet', () => {
  const changes: [what: string, code: string, change: (scene: Scene) => Promise<unknown>][] = [
    ['is revoked', 'revoked', ({ gateway }) => gateway.revoke({ site: 'site-a' })],
    [
      'presents a certificate of a CA that is retired in the meantime',
      'untrusted',
      async ({ gateway }) => {
        for (const step of ['prepare', 'activate', 'retire'] as const) await gateway.rotateCa(step);
      },
    ],
    [
      'is removed from the desired state',
      'unknown-site',
      (scene) => {
        scene.file = withSites(['cloud', 'site-b']);
        return scene.gateway.apply(scene.file as DesiredInput);
      },
    ],
  ];
  test.each(changes)('is refused when it %s: %s', async (_, code, change) => {
    const scene = await start();
    const { gateway, log, tunnelPort } = scene;
    const credentials = await certified(gateway, 'site-a');
    const check = vi.spyOn(Access.prototype, 'refusalOf');
    const peer = RawPeer.dial(tunnelPort, credentials);
    await vi.waitFor(() => expect(check).toHaveBeenCalled());
    expect(check).toHaveLastReturnedWith(undefined);
    check.mockRestore();

    await change(scene);
    peer.send(FrameType.Hello, HELLO);
    await peer.closed;
    expect(await peer.json(FrameType.Welcome)).toBeUndefined();
    expect(log.filter((line) => line.startsWith('site-a: up'))).toEqual([]);
    expect(log).toContainEqual(
      expect.stringMatching(new RegExp(`^refused \\S*${HOST}: ${code}, `))
    );
  });
});

test('a CA is not retired while a connected edge has not renewed, except by force', async () => {
  const { gateway, log, tunnelPort } = await start();
  const peer = RawPeer.dial(tunnelPort, await certified(gateway, 'site-a'));
  peer.send(FrameType.Hello, HELLO);
  await peer.json(FrameType.Welcome);
  await gateway.rotateCa('prepare');
  await gateway.rotateCa('activate');
  await expect(gateway.rotateCa('retire')).rejects.toThrow(/not renewed yet: site-a/);
  expect(gateway.authority.rollover).toBe('active');
  await gateway.rotateCa('retire', { force: true });
  expect(await peer.json(FrameType.Close)).toMatchObject({ code: 'untrusted' });
  await vi.waitFor(() =>
    expect(log).toContainEqual(expect.stringMatching(/^site-a: down, untrusted/))
  );
});

describe('a desired state without the cloud', () => {
  const reason = 'there is no site with the name "cloud"';
  const fault = new ConfigError('desired.sites', reason);

  test('is refused by apply, and nothing changes', async () => {
    const scene = await start();
    const { gateway } = scene;
    const { state } = gateway.registry;
    scene.file = withSites(['site-a', 'site-b']);
    await expect(gateway.apply(scene.file as DesiredInput)).rejects.toThrow(
      new ConfigError('sites', reason)
    );
    expect(gateway.registry.state).toBe(state);
  });

  test('is refused at the start, and the next start finds the previous state', async () => {
    const home = workspace.newDirectory();
    await expect(start(withSites(['site-c']), home)).rejects.toThrow(fault);
    const { gateway } = await start(withSites(['cloud']), home);
    expect(gateway.registry.state.sites.map(({ name }) => name)).toEqual(['cloud']);
  });
});

test('a site that is revoked while it is not connected is refused until it is reinstated', async () => {
  const home = workspace.newDirectory();
  const first = await start(desired(), home);
  await first.gateway.revoke({ site: 'site-a' });
  await running.pop()!.close();

  const scene = await start(withSites(['cloud']), home);
  const { controller } = scene.gateway;
  scene.file = withSites(['cloud', 'site-a', 'site-b']);
  await scene.gateway.apply(scene.file as DesiredInput);
  await vi.waitFor(() => expect(controller.snapshot('site-b')).toBeDefined());
  expect(controller.snapshot('site-a')).toBeUndefined();

  const socket = join(home, 'admin.sock');
  const answer = await admin(socket, 'DELETE', '/v1/revocations/site-a');
  expect(answer.status).toBe(204);
  expect(controller.snapshot('site-a')).toBeDefined();
});

test('a closed gateway does not listen: its ports are free', async () => {
  const listeners = () =>
    process.getActiveResourcesInfo().filter((each) => /^(TCPServerWrap|UDPWrap)$/.test(each));
  await start();
  // The TCP ports are those of tunnels, enrolment and DNS; the UDP port is that of DNS.
  await vi.waitFor(() => expect(listeners()).toHaveLength(4));
  await running.pop()!.close();
  expect(listeners()).toEqual([]);
});
