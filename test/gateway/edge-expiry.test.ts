/**
 * An edge gateway without its cloud: until its snapshot expires it answers names, also after a restart; then it stops
 * that and says so, until the cloud is back.
 */
import { Resolver } from 'node:dns/promises';
import { afterEach, expect, test, vi } from 'vitest';
import type { HostPort } from '../../src/base/host-port.ts';
import { SnapshotExpiredError } from '../../src/errors.ts';
import type { CloudGateway, EdgeGateway, EdgeGatewayOptions } from '../../src/gateway/index.ts';
import { JumpingClock } from '../support/jumping-clock.ts';
import { ANY_PORT, desired, Gateways, Hosts, memory } from './scene.ts';

const DAY_MS = 86_400_000;
const HOUR_MS = 3_600_000;
const PATIENCE = { signal: AbortSignal.timeout(600_000) };

const gateways = new Gateways();
afterEach(() => gateways.close());

function text({ host, port }: HostPort): string {
  return `${host}:${port}`;
}

/** A cloud and an edge that can be started again, in the same state and at the same ports. */
class Scene {
  readonly clock = new JumpingClock();
  readonly hosts = new Hosts();
  readonly #cloudState = memory();
  readonly #edgeState = memory();
  cloud!: CloudGateway;
  edge!: EdgeGateway;
  readonly problems: Error[] = [];
  #ports = { tunnel: ANY_PORT, enrolment: ANY_PORT };

  static async start(): Promise<Scene> {
    const scene = new Scene();
    await scene.startCloud();
    const token = await scene.cloud.createToken({ site: 'site-a' });
    await scene.startEdge({ token, device: scene.hosts.device });
    await scene.edge.ready(PATIENCE);
    return scene;
  }

  async startCloud(): Promise<void> {
    const service = new Hosts();
    service.serve(({ payload }) => `echo ${Buffer.from(payload)}`);
    this.cloud = await gateways.cloud({
      ...this.#cloudState,
      tunnel: this.#ports.tunnel,
      enrolment: { listen: this.#ports.enrolment },
      desired: desired('site-a'),
      device: service.device,
    });
    const { tunnels, enrolment } = this.cloud.addresses;
    this.#ports = { tunnel: text(tunnels[0]!), enrolment: text(enrolment) };
  }

  async startEdge(options: Partial<EdgeGatewayOptions> = {}): Promise<void> {
    this.edge = await gateways.edge({
      ...this.#edgeState,
      clock: this.clock,
      dns: { listen: ANY_PORT },
      ...options,
    });
    this.edge.on('problem', ({ error }) => this.problems.push(error));
  }

  /** What a host of the site gets for the name: the address, or the code of the error. */
  async ask(): Promise<unknown> {
    const { host, port } = this.edge.addresses.dns!;
    const resolver = new Resolver({ timeout: 10_000, tries: 2 });
    resolver.setServers([`${host}:${port}`]);
    return resolver.resolve4('bus.example.test').catch(({ code }) => code);
  }

  expectExpired(): void {
    const { revision, names, expired, validUntil, state } = this.edge.status();
    expect({ revision, names, state }).toEqual({
      revision: undefined,
      names: 0,
      state: 'connecting',
    });
    expect(expired).toBeInstanceOf(SnapshotExpiredError);
    expect(validUntil!.getTime()).toBeLessThanOrEqual(this.clock.wallMs());
    expect(this.edge.lookup('bus')).toEqual([]);
    expect(gateways.log.filter((line) => line === expired!.message)).toHaveLength(1);
  }
}

test('an edge without its cloud stops after seven days, and goes on when the cloud is back', async () => {
  const scene = await Scene.start();
  const [address] = scene.edge.lookup('bus')[0]!.addresses;
  expect(await scene.hosts.request(address!, 'one')).toBe('echo one');
  expect(scene.edge.status().validUntil!.getTime()).toBeGreaterThan(
    scene.clock.wallMs() + 6 * DAY_MS
  );

  // With the tunnel up, time means nothing.
  scene.clock.jump(8 * DAY_MS);
  expect(scene.edge.lookup('bus')).toHaveLength(1);

  await scene.cloud.close();
  await vi.waitFor(() => expect(scene.edge.state).toBe('connecting'));
  scene.clock.jump(6 * DAY_MS);
  expect(await scene.ask()).toEqual([String(address)]);
  scene.clock.jump(DAY_MS);
  scene.expectExpired();
  expect(scene.problems).toEqual([scene.edge.status().expired]);
  expect(await scene.ask()).toBe('ESERVFAIL');

  await scene.startCloud();
  await scene.edge.ready(PATIENCE);
  expect(scene.edge.status()).toMatchObject({ names: 1, expired: undefined });
  expect(await scene.ask()).toEqual([String(address)]);
  expect(await scene.hosts.request(address!, 'two')).toBe('echo two');
});

test('an edge that is started without its cloud answers names until the end, and not after it', async () => {
  const scene = await Scene.start();
  await scene.cloud.close();
  await scene.edge.close();

  scene.clock.jump(6 * DAY_MS);
  await scene.startEdge();
  expect(await scene.ask()).toHaveLength(1);
  await scene.edge.close();

  scene.clock.jump(2 * DAY_MS);
  await scene.startEdge();
  scene.expectExpired();
  expect(await scene.ask()).toBe('ESERVFAIL');
  await scene.edge.close();

  // The operator decides that it may hold longer.
  await scene.startEdge({ snapshotValidMs: 30 * DAY_MS });
  expect(await scene.ask()).toHaveLength(1);
  scene.clock.jumpWall(-100 * DAY_MS);
  scene.clock.jump(21 * DAY_MS);
  expect(await scene.ask()).toHaveLength(1);
  scene.clock.jump(2 * DAY_MS);
  expect(await scene.ask()).toBe('ESERVFAIL');
});

test('a wall clock that jumps, as after a sleep of the machine, ends it too, and set back does not prolong it', async () => {
  const scene = await Scene.start();
  const [address] = scene.edge.lookup('bus')[0]!.addresses;
  // With the tunnel up, the wall clock means nothing either.
  scene.clock.jumpWall(100 * DAY_MS);
  scene.clock.jumpWall(-200 * DAY_MS);
  expect(scene.edge.lookup('bus')).toHaveLength(1);
  expect(await scene.hosts.request(address!, 'one')).toBe('echo one');

  await scene.cloud.close();
  await vi.waitFor(() => expect(scene.edge.state).toBe('connecting'));
  scene.clock.jump(4 * DAY_MS);
  scene.clock.jumpWall(-50 * DAY_MS);
  scene.clock.jump(3 * DAY_MS - HOUR_MS);
  expect(await scene.ask()).toEqual([String(address)]);
  scene.clock.jump(HOUR_MS);
  expect(await scene.ask()).toBe('ESERVFAIL');
  expect(scene.problems).toHaveLength(1);

  await scene.startCloud();
  await scene.edge.ready(PATIENCE);
  expect(await scene.hosts.request(address!, 'two')).toBe('echo two');
  await scene.cloud.close();
  await vi.waitFor(() => expect(scene.edge.state).toBe('connecting'));
  // The monotonic clock stands still while the machine sleeps.
  scene.clock.jumpWall(8 * DAY_MS);
  scene.expectExpired();
  expect(await scene.ask()).toBe('ESERVFAIL');
  expect(scene.problems).toHaveLength(2);
  scene.clock.jumpWall(-8 * DAY_MS);
  expect(await scene.ask()).toBe('ESERVFAIL');
  expect(scene.problems).toHaveLength(2);
});

test('an edge whose certificate has expired too keeps to the same end', async () => {
  const scene = await Scene.start();
  await scene.cloud.close();
  await scene.edge.close();
  scene.clock.jump(60 * DAY_MS);
  await scene.startEdge({ snapshotValidMs: 70 * DAY_MS });
  expect(await scene.ask()).toHaveLength(1);
  expect(scene.edge.state).not.toBe('connecting');
  scene.clock.jump(11 * DAY_MS);
  expect(await scene.ask()).toBe('ESERVFAIL');
  expect(scene.problems).toContain(scene.edge.status().expired);
});

test('with sockets, connections end when the snapshot expires, and new ones fail at once', async () => {
  const scene = await Scene.start();
  await scene.edge.close();
  await scene.startEdge({ device: { type: 'sockets', address: '10.0.0.5' } });
  await scene.edge.ready(PATIENCE);
  const { sockets } = scene.edge;
  await scene.cloud.close();
  await vi.waitFor(() => expect(scene.edge.state).toBe('connecting'));
  const waiting = sockets.connect(7, 'bus.example.test');
  const failed = new Promise<unknown>((resolve) => waiting.on('error', resolve));
  scene.clock.jump(8 * DAY_MS);
  const { expired } = scene.edge.status();
  expect(await failed).toMatchObject({ cause: expired });
  const late = sockets.connect(7, 'bus.example.test');
  const error = await new Promise((resolve) => late.on('error', resolve));
  expect(error).toMatchObject({ cause: expired });
});
