/**
 * `CloudGateway` and `EdgeGateway` together: real certificates, tunnels and packets, over devices in memory.
 */
import { chmodSync, cpSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { IpAddress } from '../../src/base/address.ts';
import { ApiMisuseError, ConfigError, EnrolmentError } from '../../src/errors.ts';
import { CloudGateway, EdgeGateway, type EdgeStateChange } from '../../src/gateway/index.ts';
import { FileSecrets } from '../../src/store/index.ts';
import { desired, Gateways, Hosts, LAN, memory, SERVICE } from './scene.ts';

const gateways = new Gateways();
afterEach(() => gateways.close());

const PATIENCE = { signal: AbortSignal.timeout(600_000) };

test('two sites with the same addresses as the cloud reach its service by name, and whois distinguishes them', async () => {
  const behindCloud = new Hosts();
  behindCloud.serve(({ source }) => `you are ${source}`);
  const cloud = await gateways.cloud({ device: behindCloud.device });
  await cloud.apply(desired('site-a', 'site-b'));
  for (const site of ['site-a', 'site-b']) {
    const hosts = new Hosts();
    const edge = await gateways.edge({
      device: hosts.device,
      token: await cloud.createToken({ site }),
    });
    await edge.ready(PATIENCE);
    expect(edge).toMatchObject({ site, state: 'online', failure: undefined });
    for (const name of ['bus', 'bus.example.test', 'BUS.Example.test.']) {
      expect(edge.lookup(name)).toEqual([
        { name: 'bus.example.test', addresses: [expect.any(IpAddress)], ports: ['udp/7'] },
      ]);
    }
    const [presence] = edge.lookup('bus')[0]!.addresses;
    const answer = await hosts.request(presence!, 'who am I?');
    const seenAs = answer.replace('you are ', '');
    expect(cloud.whois('cloud', seenAs)).toMatchObject({ site, address: '10.0.0.5' });
    expect(edge.lookup('nobody')).toEqual([]);
    const status = edge.status();
    expect(status).toMatchObject({ site, state: 'online', names: 1, tunnel: { connections: 1 } });
    expect(status.counters['tunnel.sentPackets']).toBeGreaterThan(0);
  }
  const { sites } = await cloud.status();
  expect(sites.map(({ name, edge }) => [name, edge !== undefined])).toEqual([
    ['cloud', false],
    ['site-a', true],
    ['site-b', true],
  ]);
});

describe('an edge without a certificate', () => {
  test('is rejected without a token, reports it, and comes up with one', async () => {
    const cloud = await gateways.cloud({ desired: desired('site-a') });
    const edge = await gateways.edge();
    await expect(edge.ready(PATIENCE)).rejects.toThrow(/there is no enrolment token/);
    expect(edge.state).toBe('rejected');
    expect(edge.failure).toMatchObject({ kind: 'token', party: 'operator', remedy: 'token' });
    await edge.enrol(await cloud.createToken({ site: 'site-a' }));
    await edge.ready(PATIENCE);
  });

  test('is rejected with a used token and with a malformed one', async () => {
    const cloud = await gateways.cloud({ desired: desired('site-a') });
    const token = await cloud.createToken({ site: 'site-a' });
    const first = await gateways.edge({ token });
    await first.ready(PATIENCE);
    const second = await gateways.edge({ token });
    await expect(second.ready(PATIENCE)).rejects.toMatchObject({
      code: 'ERR_PRESENCE_ENROLMENT_USED',
    });
    expect(second.failure).toMatchObject({ kind: 'token', remedy: 'token' });
    const enrolling = second.enrol('vp1.malformed');
    expect(second.state).toBe('enrolling');
    await expect(enrolling).rejects.toThrow(EnrolmentError);
    expect(second.state).toBe('rejected');
    await expect(second.enrol(7 as never)).rejects.toThrow(ApiMisuseError);
  });

  test('keeps trying while the cloud does not answer', async () => {
    const cloud = await gateways.cloud({ desired: desired('site-a') });
    const token = await cloud.createToken({ site: 'site-a' });
    const { port } = cloud.addresses.enrolment;
    const reached = new URL(`https://127.0.0.1:${port}`);
    // The same token with a port without TLS: the connection is closed at once.
    const closer = createServer((socket) => void socket.destroy());
    await new Promise<void>((resolve) => closer.listen(0, '127.0.0.1', resolve));
    const { port: closed } = closer.address() as { port: number };
    const misdirected = withEndpoint(token, `https://127.0.0.1:${closed}`);
    let current = misdirected;
    const changes: EdgeStateChange[] = [];
    const edge = await gateways.edge({ token: () => current });
    edge.on('state', (change) => changes.push(change));
    await vi.waitFor(() => expect(edge.failure?.kind).toBe('unreachable'));
    expect(edge.state).toBe('enrolling');
    await expect(edge.ready({ signal: AbortSignal.timeout(50) })).rejects.toMatchObject({
      name: 'TimeoutError',
    });
    current = withEndpoint(token, reached.origin);
    await edge.ready(PATIENCE);
    closer.close();
    expect(changes.map(({ state }) => state)).toEqual(
      expect.arrayContaining(['connecting', 'online'])
    );
  });
});

describe('an edge that is revoked', () => {
  test('is rejected with the reason, and comes back with a token when it is reinstated', async () => {
    const cloud = await gateways.cloud({ desired: desired('site-a') });
    const edge = await gateways.edge({ token: await cloud.createToken({ site: 'site-a' }) });
    await edge.ready(PATIENCE);
    const receipt = await cloud.revoke({ site: 'site-a' });
    expect(receipt.tunnelsClosed).toBe(1);
    await vi.waitFor(() => expect(edge.state).toBe('rejected'));
    expect(edge.failure).toMatchObject({ kind: 'revoked', party: 'operator', remedy: 'token' });
    await expect(edge.ready()).rejects.toBe(edge.failure!.error);
    await cloud.reinstate('site-a');
    const enrolling = edge.enrol(await cloud.createToken({ site: 'site-a' }));
    // `ready` waits for the new outcome, not for the failure before.
    await edge.ready(PATIENCE);
    await enrolling;
    expect(edge.failure).toBeUndefined();
  });

  test('does not affect another site', async () => {
    const cloud = await gateways.cloud({ desired: desired('site-a', 'site-b') });
    const a = await gateways.edge({ token: await cloud.createToken({ site: 'site-a' }) });
    const b = await gateways.edge({ token: await cloud.createToken({ site: 'site-b' }) });
    await Promise.all([a.ready(PATIENCE), b.ready(PATIENCE)]);
    const changes: EdgeStateChange[] = [];
    b.on('state', (change) => changes.push(change));
    await cloud.revoke({ site: 'site-a' });
    await vi.waitFor(() => expect(a.state).toBe('rejected'));
    expect(changes).toEqual([]);
  });
});

describe('a running cloud gateway', () => {
  test('adds, changes and removes a site and a service', async () => {
    const behindCloud = new Hosts();
    behindCloud.serve(() => 'here');
    const cloud = await gateways.cloud({ device: behindCloud.device });
    await expect(cloud.createToken({ site: 'site-a' })).rejects.toThrow(ConfigError);
    await cloud.apply({ sites: [{ name: 'cloud', ...LAN }] });
    await expect(cloud.createToken({ site: 'cloud' })).rejects.toThrow(/has no edge gateway/);
    await cloud.apply(desired('site-a'));
    const hosts = new Hosts();
    const edge = await gateways.edge({
      device: hosts.device,
      token: await cloud.createToken({ site: 'site-a' }),
    });
    await edge.ready(PATIENCE);
    expect(await hosts.request(edge.lookup('bus')[0]!.addresses[0]!, 'hello')).toBe('here');

    await cloud.unexpose({ service: 'bus', site: 'site-a' });
    await vi.waitFor(() => expect(edge.lookup('bus')).toEqual([]));
    await cloud.expose({ service: 'bus', site: 'site-a', dnsName: 'queue' });
    await vi.waitFor(() => expect(edge.lookup('queue')).toHaveLength(1));
    await cloud.registry.putService({ ...SERVICE, name: 'log', address: '10.0.0.6' }, 'file');
    await cloud.expose({ service: 'log', site: 'site-a' });
    await vi.waitFor(() => expect(edge.lookup('log')).toHaveLength(1));
    await expect(cloud.expose({ service: 'nothing', site: 'site-a' })).rejects.toThrow(ConfigError);

    await cloud.apply({ sites: [{ name: 'cloud', ...LAN }] });
    await vi.waitFor(() => expect(edge.state).toBe('rejected'));
    expect(edge.failure).toMatchObject({ kind: 'unknown-site', remedy: 'configuration' });
  });
});

describe('the option authorize', () => {
  test('decides about enrolments and handshakes, after everything else has passed', async () => {
    const requests: string[] = [];
    let answer: string | undefined = 'the posture of the site is not known';
    const cloud = await gateways.cloud({
      desired: desired('site-a'),
      authorize: async ({ site, at }) => {
        requests.push(`${site} ${at}`);
        return answer;
      },
    });
    const token = await cloud.createToken({ site: 'site-a' });
    const edge = await gateways.edge({ token });
    await expect(edge.ready(PATIENCE)).rejects.toThrow(/the posture of the site is not known/);
    expect(edge.failure).toMatchObject({ kind: 'refused', party: 'operator' });
    expect(requests).toEqual(['site-a enrolment']);
    answer = undefined;
    await edge.enrol(token);
    await edge.ready(PATIENCE);
    expect(requests).toEqual(['site-a enrolment', 'site-a enrolment', 'site-a handshake']);
  });

  test('refuses at the handshake an edge that has a certificate', async () => {
    let answer: string | undefined;
    const cloud = await gateways.cloud({ desired: desired('site-a'), authorize: () => answer });
    const state = memory();
    const first = await gateways.edge({
      ...state,
      token: await cloud.createToken({ site: 'site-a' }),
    });
    await first.ready(PATIENCE);
    await first.close();
    answer = 'the licence has expired';
    const second = await gateways.edge(state);
    await expect(second.ready(PATIENCE)).rejects.toThrow(/the licence has expired/);
    expect(second.failure).toMatchObject({ kind: 'refused', remedy: 'report' });
  });

  test('refuses every site when it throws', async () => {
    const cloud = await gateways.cloud({
      desired: desired('site-a'),
      authorize: () => {
        throw new Error('the identity provider is away');
      },
    });
    const edge = await gateways.edge({ token: await cloud.createToken({ site: 'site-a' }) });
    await expect(edge.ready(PATIENCE)).rejects.toThrow();
    expect(edge.state).toBe('rejected');
  });
});

test('the cloud answers the names of the services that are exposed to it', async () => {
  const service = { name: 'console', site: 'site-a', address: '10.0.0.5', ports: ['tcp/6080'] };
  const { sites } = desired('site-a');
  const cloud = await gateways.cloud();
  expect(cloud.lookup('console')).toEqual([]);
  const exposures = [{ service: 'console', site: 'cloud' }];
  await cloud.apply({ sites, services: [service], exposures });
  expect(cloud.lookup('console')).toEqual([
    { name: 'console.example.test', addresses: [expect.any(IpAddress)], ports: ['tcp/6080'] },
  ]);
});

test('encrypted secrets of the host program may be in the state directory', async () => {
  const stateDirectory = mkdtempSync(join(tmpdir(), 'vp-state-'));
  try {
    for (let start = 0; start < 2; start++) {
      const secrets = await FileSecrets.open(stateDirectory, { passphrase: 'open sesame' });
      await gateways.cloud({ stateDirectory, secrets, desired: desired('site-a') });
      await gateways.close();
    }
  } finally {
    rmSync(stateDirectory, { recursive: true, force: true });
  }
});

describe('a gateway that starts again', () => {
  test('has its addresses, names and certificates from the files of an earlier version', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'vp-state-'));
    try {
      const cloudState = copyState('cloud', directory);
      const edgeState = copyState('edge', directory);
      const behindCloud = new Hosts();
      behindCloud.serve(({ source }) => source);
      const cloud = await gateways.cloud({
        trustDomain: 'openstack.test',
        stateDirectory: cloudState,
        device: behindCloud.device,
      });
      expect(cloud.authority.isSiteRevoked('site-c')).toBe(true);
      const hosts = new Hosts();
      const edge = await gateways.edge({
        stateDirectory: edgeState,
        cloud: cloud.addresses.tunnels,
        device: hosts.device,
      });
      // The tunnel is not up yet.
      expect(edge.lookup('rabbitmq')[0]!.addresses).toEqual(['10.0.0.129']);
      await edge.ready(PATIENCE);
      expect(edge.lookup('rabbitmq')[0]!.addresses).toEqual(['10.0.0.129']);
      expect(edge.lookup('neutron')[0]!.addresses).toEqual(['10.0.0.130']);
      expect(cloud.controller.presences()).toContainEqual({
        realm: 'cloud',
        address: '10.0.0.129',
        of: { realm: 'site-a', address: '10.0.0.9' },
      });
      hosts.send({
        source: '10.0.0.9',
        sourcePort: 40_000,
        destination: '10.0.0.129',
        destinationPort: 5672,
        payload: Buffer.from('hello'),
      });
      await vi.waitFor(async () => {
        const paths = await cloud.paths();
        expect(paths.length).toBeGreaterThan(0);
      });
    } finally {
      await gateways.close();
      rmSync(directory, { recursive: true, force: true });
    }
  });

  test('keeps its tunnel endpoints with the certificate of the token', async () => {
    const cloud = await gateways.cloud({ desired: desired('site-a') });
    const state = memory();
    const first = await gateways.edge({
      ...state,
      token: await cloud.createToken({ site: 'site-a' }),
    });
    await first.ready(PATIENCE);
    await first.close();
    const second = await gateways.edge(state);
    await second.ready(PATIENCE);
  });
});

describe('options that are not usable', () => {
  const device = new Hosts().device;
  const cloudOptions = { trustDomain: 'example.test', tunnel: '127.0.0.1:0', device, ...memory() };
  const edgeOptions = { device, ...memory() };
  const both: [change: object, path: string, says: RegExp][] = [
    [{ colour: 'red' }, 'colour', /is not a known key/],
    [{ device: undefined }, 'device', /is missing/],
    [{ device: 'vp0' }, 'device', /expected .*got "vp0"/],
    [
      { device: { type: 'tap' } },
      'device.type',
      /"tun" or "udp" or "unix"(?: or "sockets")?, got "tap"/,
    ],
    [
      { device: { type: 'tun', name: 'much-too-long-a-name' } },
      'device.name',
      /1 to 15 characters/,
    ],
    [{ store: {} }, 'store', /expected a store with the methods get, list, commit and watch/],
    [{ secrets: 7 }, 'secrets', /expected secrets with the methods get and commit, got 7/],
    [{ store: undefined }, 'stateDirectory', /is missing: expected a directory/],
    [{ stateDirectory: 7 }, 'stateDirectory', /expected a string, got 7/],
    [{ dns: {} }, 'dns.listen', /is missing/],
    [{ dns: { listen: 'localhost:53' } }, 'dns.listen', /an IP address, not a name/],
    [{ logger: console.log }, 'logger', /expected a logger with the methods debug/],
    [{ clock: {} }, 'clock', /expected a clock with the methods wallMs/],
    [{ signal: {} }, 'signal', /expected an AbortSignal/],
  ];
  const ofCloud: typeof both = [
    [{ trustDomain: 'Example.test' }, 'trustDomain', /lower-case domain name, got "Example\.test"/],
    [{ trustDomain: undefined }, 'trustDomain', /is missing/],
    [{ tunnel: undefined }, 'tunnel', /is missing/],
    [
      { tunnel: '127.0.0.1' },
      'tunnel',
      /a host and port such as 192\.0\.2\.1:7443, got "127\.0\.0\.1"/,
    ],
    [{ tunnel: { host: '127.0.0.1', port: 70_000 } }, 'tunnel', /a port from 0 to 65535/],
    [
      { tunnel: '0.0.0.0:0' },
      'enrolment.endpoints',
      /is missing: edges cannot connect to 0\.0\.0\.0/,
    ],
    [
      { tunnel: { host: 'fe80::1%eth0', port: 0 } },
      'enrolment.endpoints',
      /is missing: edges cannot connect to fe80::1%eth0/,
    ],
    [
      { enrolment: { tunnels: [{ host: 'fe80::1%eth0', port: 7443 }] } },
      'enrolment.tunnels[0]',
      /a host that edges can connect to/,
    ],
    [{ enrolment: { tunnels: ['0.0.0.0:7443'] } }, 'enrolment.tunnels[0]', /can connect to/],
    [{ enrolment: { endpoints: ['http://a'] } }, 'enrolment.endpoints[0]', /https:\/\/HOST:PORT/],
    [{ enrolment: { tunnels: [] } }, 'enrolment.tunnels', /1 to 16 endpoints/],
    [{ workers: 0 }, 'workers', /a whole number from 1 to 64/],
    [{ workers: 2 }, 'workers', /2 need a device of type tun, one for each/],
    [{ limits: { maxHandshakes: 0 } }, 'limits.maxHandshakes', /whole number from 1/],
    [{ ttlSeconds: 0 }, 'ttlSeconds', /whole number from 1 to 86400, got 0/],
    [{ trust: { keyType: 'dsa' } }, 'trust.keyType', /"p256"/],
    [{ trust: { passphrase: '' } }, 'trust.passphrase', /a text that is not empty/],
    [{ leases: { idleMs: 60_000, pressedIdleMs: 60_001 } }, 'leases', /must not be longer/],
    [{ authorize: 'everybody' }, 'authorize', /expected a function, got "everybody"/],
    [{ reload: true }, 'reload', /expected a function, got true/],
    [{ desired: { sites: [] } }, 'desired.sites', /no site with the name "cloud"/],
    [{ desired: [] }, 'desired.sites', /is missing/],
  ];
  const ofEdge: typeof both = [
    [{ token: 7 }, 'token', /expected a string, got 7/],
    [{ cloud: [] }, 'cloud', /at least one host and port/],
    [{ cloud: '192.0.2.1:7443' }, 'cloud', /expected a list/],
    [{ cloud: ['192.0.2.1:0'] }, 'cloud[0]', /a port from 1 to 65535/],
    [{ proxy: 'socks://192.0.2.1' }, 'proxy', /its scheme is socks/],
    [{ proxy: 7 }, 'proxy', /expected a string, got 7/],
  ];

  test.each([...both, ...ofCloud])(
    'a cloud gateway with %j names %s',
    async (change, path, says) => {
      const started = CloudGateway.start({ ...cloudOptions, ...change } as never);
      await expect(started).rejects.toThrow(ConfigError);
      await expect(started).rejects.toMatchObject({ path, message: expect.stringMatching(says) });
    }
  );

  test.each([...both, ...ofEdge])(
    'an edge gateway with %j names %s',
    async (change, path, says) => {
      const started = EdgeGateway.start({ ...edgeOptions, ...change } as never);
      await expect(started).rejects.toThrow(ConfigError);
      await expect(started).rejects.toMatchObject({ path, message: expect.stringMatching(says) });
    }
  );

  test.each([undefined, null, 7, 'options'])('%j is refused as options', async (options) => {
    await expect(CloudGateway.start(options as never)).rejects.toThrow(ConfigError);
    await expect(EdgeGateway.start(options as never)).rejects.toThrow(ConfigError);
  });
});

/** Returns the same token with another enrolment endpoint. */
function withEndpoint(token: string, endpoint: string): string {
  const json = JSON.parse(Buffer.from(token.slice(4), 'base64url').toString()) as object;
  const changed = JSON.stringify({ ...json, endpoints: [endpoint] });
  return `vp1.${Buffer.from(changed).toString('base64url')}`;
}

/** Copies a directory of an earlier version, with the file modes of that version. */
function copyState(which: 'cloud' | 'edge', into: string): string {
  const path = join(into, which);
  cpSync(new URL(`./state-before/${which}`, import.meta.url), path, { recursive: true });
  chmodSync(path, 0o700);
  for (const name of readdirSync(path)) chmodSync(join(path, name), 0o600);
  return path;
}
