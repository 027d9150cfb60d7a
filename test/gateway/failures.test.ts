/**
 * The failures that an edge reports, and the faults that a cloud reports.
 */
import { createServer as createHttpServer } from 'node:http';
import type { AddressInfo, Server } from 'node:net';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { ConfigError } from '../../src/errors.ts';
import type { CloudGateway, EdgeGateway, EdgeStateChange } from '../../src/gateway/index.ts';
import { generateCa } from '../../src/pki/index.ts';
import { clockOf } from '../support/clock-of.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { refusingTcpPort } from '../support/refusing-port.ts';
import { desired, Gateways, memory } from './scene.ts';

const gateways = new Gateways();
const servers: Server[] = [];
afterEach(async () => {
  await gateways.close();
  for (const server of servers.splice(0)) server.close();
});

const PATIENCE = { signal: AbortSignal.timeout(600_000) };
const DAY_MS = 86_400_000;

async function portOf(server: Server): Promise<number> {
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as AddressInfo).port;
}

/** Returns the state of an edge that was enrolled with this cloud as `site-a`, and is closed. */
async function enrolled(cloud: CloudGateway): Promise<ReturnType<typeof memory>> {
  const state = memory();
  const edge = await gateways.edge({
    ...state,
    token: await cloud.createToken({ site: 'site-a' }),
  });
  await edge.ready(PATIENCE);
  await edge.close();
  return state;
}

function changesOf(edge: EdgeGateway): EdgeStateChange[] {
  const changes: EdgeStateChange[] = [];
  edge.on('state', (change) => changes.push(change));
  return changes;
}

describe('an edge whose cloud endpoint is wrong', () => {
  test('reports a server without TLS, and one of another protocol', async () => {
    const cloud = await gateways.cloud({ desired: desired('site-a') });
    const state = await enrolled(cloud);
    const port = await portOf(createHttpServer((_request, response) => void response.end()));
    const edge = await gateways.edge({ ...state, cloud: [{ host: '127.0.0.1', port }] });
    await expect(edge.ready(PATIENCE)).rejects.toThrow(/wrong version number/);
    expect(edge.failure).toMatchObject({
      kind: 'not-tls',
      party: 'operator',
      remedy: 'configuration',
    });
    await edge.close();
    const other = await gateways.edge({ ...state, cloud: [cloud.addresses.enrolment] });
    await expect(other.ready(PATIENCE)).rejects.toThrow();
    expect(other.failure).toMatchObject({ kind: 'protocol', remedy: 'configuration' });
  });

  test('reports a cloud of another CA, and skips it if another endpoint is right', async () => {
    const cloud = await gateways.cloud({ desired: desired('site-a') });
    const foreignCloud = await gateways.cloud({ desired: desired('site-a') });
    const state = await enrolled(cloud);
    const wrong = await gateways.edge({ ...state, cloud: foreignCloud.addresses.tunnels });
    await expect(wrong.ready(PATIENCE)).rejects.toThrow(/self-signed certificate/);
    expect(wrong.failure).toMatchObject({ kind: 'peer-untrusted', remedy: 'token' });
    await wrong.close();
    const both = await gateways.edge({
      ...state,
      cloud: [foreignCloud, cloud].flatMap(({ addresses }, priority) =>
        addresses.tunnels.map((tunnel) => ({ ...tunnel, priority }))
      ),
    });
    const changes = changesOf(both);
    await both.ready(PATIENCE);
    expect(changes.map(({ state, failure }) => [state, failure?.kind])).toEqual([
      ['connecting', 'peer-untrusted'],
      ['online', undefined],
    ]);
  });

  test('is not rejected for one wrong endpoint while another one does not answer', async () => {
    const cloud = await gateways.cloud({ desired: desired('site-a') });
    const state = await enrolled(cloud);
    const wrong = createHttpServer((_request, response) => void response.end());
    let attempts = 0;
    wrong.on('connection', () => attempts++);
    const port = await portOf(wrong);
    const away = await refusingTcpPort();
    const edge = await gateways.edge({
      ...state,
      cloud: [
        { host: '127.0.0.1', port },
        { host: '127.0.0.1', port: away.port },
      ],
    });
    const changes = changesOf(edge);
    await vi.waitFor(() => expect(attempts).toBeGreaterThan(3));
    expect(changes.map(({ failure }) => failure?.kind)).toContain('not-tls');
    expect(changes.map((change) => change.state)).not.toContain('rejected');
    away.close();
  });

  test('reports that the cloud’s certificate has expired by the clock of the edge', async () => {
    const cloud = await gateways.cloud({ desired: desired('site-a') });
    const edge = await gateways.edge({
      token: await cloud.createToken({ site: 'site-a' }),
      clock: clockOf(() => Date.now() + 40 * DAY_MS),
    });
    await expect(edge.ready(PATIENCE)).rejects.toThrow(/the clock here/);
    expect(edge.failure).toMatchObject({
      kind: 'peer-untrusted',
      party: 'peer',
      remedy: 'report',
    });
  });
});

describe('an edge whose certificate has expired before the start', () => {
  const later = clockOf(() => Date.now() + 40 * DAY_MS);

  test('reports it, and answers names meanwhile', async () => {
    const cloud = await gateways.cloud({ desired: desired('site-a') });
    const state = await enrolled(cloud);
    const edge = await gateways.edge({ ...state, clock: later, snapshotValidMs: 60 * DAY_MS });
    expect(edge.lookup('bus')).toHaveLength(1);
    expect(edge.site).toBe('site-a');
    await expect(edge.ready(PATIENCE)).rejects.toThrow(/expired on .*enrol with a new token/);
    expect(edge.failure).toMatchObject({
      kind: 'certificate-expired',
      party: 'operator',
      remedy: 'token',
    });
  });

  test('waits for a cloud that does not answer', async () => {
    const cloud = await gateways.cloud({ desired: desired('site-a') });
    const state = await enrolled(cloud);
    const token = await cloud.createToken({ site: 'site-a' });
    const away = await refusingTcpPort();
    const edge = await gateways.edge({
      ...state,
      token: withEndpoint(token, `https://127.0.0.1:${away.port}`),
      clock: later,
    });
    await vi.waitFor(() => expect(edge.failure?.kind).toBe('unreachable'));
    expect(edge.state).toBe('enrolling');
    away.close();
  });
});

describe('an edge that was refused', () => {
  test('comes up by itself when the host program admits it, after a refused enrolment', async () => {
    let answer: string | undefined = 'not yet';
    const cloud = await gateways.cloud({ desired: desired('site-a'), authorize: () => answer });
    const clock = new FakeClock({ wallMs: Date.now() });
    const edge = await gateways.edge({ clock, token: await cloud.createToken({ site: 'site-a' }) });
    await expect(edge.ready(PATIENCE)).rejects.toThrow(/not yet/);
    answer = undefined;
    clock.advance(30_000);
    await vi.waitFor(() => expect(edge.state).toBe('online'));
    expect(edge.failure).toBeUndefined();
  });

  test('comes up by itself when the host program admits it, after a refused handshake', async () => {
    let answer: string | undefined;
    const cloud = await gateways.cloud({ desired: desired('site-a'), authorize: () => answer });
    const state = await enrolled(cloud);
    answer = 'not yet';
    const clock = new FakeClock({ wallMs: Date.now() });
    const edge = await gateways.edge({ ...state, clock });
    const changes = changesOf(edge);
    await expect(edge.ready(PATIENCE)).rejects.toThrow(/not yet/);
    answer = undefined;
    clock.advance(30_000);
    await vi.waitFor(() => expect(edge.state).toBe('online'));
    expect(changes.map(({ state }) => state)).toEqual(['rejected', 'online']);
  });
});

describe('the option authorize, for handshakes', () => {
  test.each([
    [
      'throws',
      () => Promise.reject(new Error('the identity provider is away')),
      /provider is away/,
    ],
    ['returns an invalid value', () => true, /authorize must return undefined or a reason/],
  ])('refuses every site when it %s, and the cloud reports it', async (_what, answer, says) => {
    const problems: { error: Error; site?: string }[] = [];
    const cloud = await gateways.cloud({
      desired: desired('site-a'),
      authorize: ({ at }) => (at === 'enrolment' ? undefined : (answer() as never)),
    });
    cloud.on('problem', (problem) => problems.push(problem));
    const edge = await gateways.edge({ token: await cloud.createToken({ site: 'site-a' }) });
    await expect(edge.ready(PATIENCE)).rejects.toThrow(/could not be decided/);
    expect(edge.failure).toMatchObject({ kind: 'refused', party: 'operator', remedy: 'report' });
    expect(problems).toContainEqual({
      error: expect.objectContaining({ message: expect.stringMatching(says) }),
      site: 'site-a',
    });
  });

  test('sends the beginning of a reason of any length to the edge', async () => {
    const cloud = await gateways.cloud({
      desired: desired('site-a'),
      authorize: ({ at }) => (at === 'enrolment' ? undefined : `no: ${'x\n'.repeat(100_000)}`),
    });
    const edge = await gateways.edge({ token: await cloud.createToken({ site: 'site-a' }) });
    await expect(edge.ready(PATIENCE)).rejects.toThrow(/no: x\?x/);
    expect(edge.failure).toMatchObject({ kind: 'refused' });
  });
});

describe('the tunnel endpoints of the cloud', () => {
  test('must be an option if the cloud has not sent them', async () => {
    const cloud = await gateways.cloud({ desired: desired('site-a') });
    const state = await enrolled(cloud);
    await state.secrets.commit({ 'cloud.json': undefined });
    const starting = gateways.edge(state);
    await expect(starting).rejects.toThrow(ConfigError);
    await expect(starting).rejects.toMatchObject({ path: 'cloud' });
  });

  test.each(['', '{', 'null', '{}', '{"tunnels":["x"]}', '{"tunnels":7}'])(
    'are refused with the file name if they are stored as %j, and the option replaces them',
    async (text) => {
      const cloud = await gateways.cloud({ desired: desired('site-a') });
      const state = await enrolled(cloud);
      await state.secrets.commit({ 'cloud.json': Buffer.from(text) });
      const starting = gateways.edge(state);
      await expect(starting).rejects.toThrow(ConfigError);
      await expect(starting).rejects.toThrow(/^cloud\.json/);
      const edge = await gateways.edge({ ...state, cloud: cloud.addresses.tunnels });
      await edge.ready(PATIENCE);
    }
  );

  test('are sent at a shared port, and not sent if the cloud listens on the unspecified address', async () => {
    const shared = await gateways.cloud({
      desired: desired('site-a'),
      enrolment: { listen: 'shared' },
    });
    expect(shared.addresses.enrolment).toEqual(shared.addresses.tunnels[0]);
    await enrolled(shared);
    const everywhere = await gateways.cloud({
      desired: desired('site-a'),
      tunnel: '0.0.0.0:0',
      enrolment: { endpoints: ['https://127.0.0.1:0'] },
    });
    const token = await everywhere.createToken({ site: 'site-a' });
    const unconfigured = await gateways.edge({ token });
    await expect(unconfigured.ready(PATIENCE)).rejects.toMatchObject({ path: 'cloud' });
    expect(unconfigured.failure).toMatchObject({ kind: 'local', remedy: 'configuration' });
    const { port } = everywhere.addresses.tunnels[0]!;
    const configured = await gateways.edge({
      token: await everywhere.createToken({ site: 'site-a' }),
      cloud: [{ host: '127.0.0.1', port }],
    });
    await configured.ready(PATIENCE);
  });
});

describe('a cloud whose CA expires', () => {
  test('is degraded with a reason, and is ready again with another CA', async () => {
    const clock = new FakeClock({ wallMs: Date.now() });
    const state = memory();
    const ca = generateCa({
      trustDomain: 'example.test',
      rootLifetimeMs: 100 * DAY_MS,
      clock,
    } as never);
    await state.secrets.commit({
      'ca.pem': Buffer.from(ca.certificatePem),
      'ca-key.pem': Buffer.from(ca.privateKeyPem),
    });
    const cloud = await gateways.cloud({ ...state, clock, desired: desired('site-a') });
    const changes: unknown[] = [];
    const problems: string[] = [];
    cloud.on('state', ({ state, previous, reasons }) => changes.push([previous, state, reasons]));
    cloud.on('problem', ({ error }) => problems.push(error.message));
    expect(cloud.state).toBe('ready');
    clock.setWall(clock.wallMs() + 50 * DAY_MS);
    clock.advance(3_600_000);
    expect(cloud.state).toBe('ready');
    expect(problems.at(-1)).toMatch(/the CA expires on/);
    expect(cloud.readiness().ready).toBe(true);
    clock.setWall(clock.wallMs() + 60 * DAY_MS);
    // Readiness looks at the clock itself; the state follows once an hour.
    expect(cloud.readiness()).toEqual({
      ready: false,
      reasons: [{ subject: 'certificate', message: expect.stringMatching(/the CA expired on/) }],
    });
    clock.advance(3_600_000);
    expect(cloud.state).toBe('degraded');
    const ready = cloud.ready(PATIENCE);
    await cloud.rotateCa('prepare');
    expect(cloud.state).toBe('degraded');
    await cloud.rotateCa('activate');
    await ready;
    expect(cloud.readiness()).toEqual({ ready: true, reasons: [] });
    expect(changes).toEqual([
      ['ready', 'degraded', [expect.stringMatching(/the CA expired on .*prepare and activate/)]],
      ['degraded', 'ready', []],
    ]);
  });
});

/** Returns the same token with another enrolment endpoint. */
function withEndpoint(token: string, endpoint: string): string {
  const json = JSON.parse(Buffer.from(token.slice(4), 'base64url').toString()) as object;
  const changed = JSON.stringify({ ...json, endpoints: [endpoint] });
  return `vp1.${Buffer.from(changed).toString('base64url')}`;
}
