/**
 * Unusual actions of host programs: they close gateways during the start, pass several tokens at once, throw in
 * listeners, and pass invalid arguments.
 */
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { ApiMisuseError, ConfigError, EnrolmentError } from '../../src/errors.ts';
import {
  CloudGateway,
  type CloudGatewayOptions,
  EdgeGateway,
  type EdgeGatewayOptions,
} from '../../src/gateway/index.ts';
import { FileSecrets, MemorySecrets } from '../../src/store/index.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { FaultySecrets } from './faulty-secrets.ts';
import { desired, Gateways, Hosts, memory } from './scene.ts';

const gateways = new Gateways();
const PATIENCE = { signal: AbortSignal.timeout(600_000) };

/** Errors that were not caught. */
const uncaught: unknown[] = [];
const note = (error: unknown): void => void uncaught.push(error);
/** The listeners of the test runner, which would fail the test. */
let before: { readonly name: 'uncaughtException' | 'unhandledRejection'; readonly fns: never[] }[];

beforeEach(() => {
  uncaught.length = 0;
  before = (['uncaughtException', 'unhandledRejection'] as const).map((name) => {
    const fns = process.listeners(name as never) as never[];
    process.removeAllListeners(name);
    process.on(name, note);
    return { name, fns };
  });
});
afterEach(async () => {
  await gateways.close();
  for (const { name, fns } of before) {
    process.removeAllListeners(name);
    for (const fn of fns) process.on(name, fn);
  }
});

/** Returns a listener that throws. */
function thrower(message: string): () => never {
  return () => {
    throw new Error(message);
  };
}

async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
}

/** A server that accepts connections and sends nothing. */
class Silence {
  readonly server: Server = createServer((socket) => {
    this.sockets.push(socket);
    socket.on('error', () => {});
  });
  readonly sockets: { destroy(): unknown }[] = [];

  async open(): Promise<string> {
    await new Promise<void>((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    return `https://127.0.0.1:${(this.server.address() as { port: number }).port}`;
  }

  close(): void {
    for (const socket of this.sockets) socket.destroy();
    this.server.close();
  }
}

describe('a listener of the host that throws', () => {
  test('stops neither the gateway nor other listeners, and raises an uncaught exception', async () => {
    const cloud = await gateways.cloud({ desired: desired('site-a') });
    cloud.on('edge', thrower('edge'));
    cloud.on('state', thrower('cloud state'));
    const heard: string[] = [];
    const edge = await gateways.edge({ token: await cloud.createToken({ site: 'site-a' }) });
    edge.on('state', thrower('state'));
    edge.on('snapshot', thrower('snapshot'));
    edge.on('state', ({ state }) => heard.push(state));
    await edge.ready(PATIENCE);
    expect(edge.lookup('bus')).toHaveLength(1);
    await cloud.revoke({ site: 'site-a' });
    await vi.waitFor(() => expect(edge.state).toBe('rejected'));
    await cloud.reinstate('site-a');
    await edge.enrol(await cloud.createToken({ site: 'site-a' }));
    await edge.ready(PATIENCE);
    const { sites } = await cloud.status();
    expect(sites.find(({ name }) => name === 'site-a')!.edge).toBeDefined();
    await edge.close();
    await cloud.close();
    expect(heard).toEqual(
      expect.arrayContaining(['connecting', 'online', 'rejected', 'online', 'closed'])
    );
    await turns(2);
    const messages = uncaught.map((error) => (error as Error).message);
    expect(new Set(messages)).toEqual(new Set(['edge', 'cloud state', 'state', 'snapshot']));
  });

  test('can be removed, also if it was added by `once`', async () => {
    const cloud = await gateways.cloud();
    const calls: string[] = [];
    const removed = () => calls.push('removed');
    cloud.on('state', removed);
    cloud.once('state', removed);
    cloud.off('state', removed);
    cloud.once('state', () => calls.push('once'));
    expect(cloud.listenerCount('state')).toBe(1);
    await cloud.close();
    expect(calls).toEqual(['once']);
    expect(cloud.listenerCount('state')).toBe(0);
  });
});

describe('close', () => {
  test('emits one event when it is called in a `state` listener', async () => {
    const cloud = await gateways.cloud({ desired: desired('site-a') });
    const edge = await gateways.edge({ token: await cloud.createToken({ site: 'site-a' }) });
    const states: string[] = [];
    const closings: Promise<void>[] = [];
    edge.on('state', ({ state }) => {
      states.push(state);
      closings.push(edge.close());
    });
    await expect(edge.ready(PATIENCE)).rejects.toThrow(ApiMisuseError);
    await Promise.all(closings);
    expect(states).toEqual(['connecting', 'closed']);
    expect(new Set(closings).size).toBe(1);
    expect(uncaught).toEqual([]);
  });

  test('makes `enrol` and `ready` reject at once during an enrolment', async () => {
    const cloud = await gateways.cloud({ desired: desired('site-a') });
    const token = await cloud.createToken({ site: 'site-a' });
    const silence = new Silence();
    const edge = await gateways.edge();
    const enrolling = edge.enrol(withEndpoint(token, await silence.open()));
    const next = edge.enrol(token);
    enrolling.catch(() => {});
    next.catch(() => {});
    await vi.waitFor(() => expect(silence.sockets).toHaveLength(1));
    await edge.close();
    silence.close();
    await expect(enrolling).rejects.toThrow(/the gateway is closed/);
    await expect(next).rejects.toThrow(/the gateway is closed/);
    await expect(edge.enrol(token)).rejects.toThrow(ApiMisuseError);
    await expect(edge.ready()).rejects.toThrow(ApiMisuseError);
    expect(uncaught).toEqual([]);
  });

  test('succeeds while the option `token` does not return', async () => {
    const cloud = await gateways.cloud({ desired: desired('site-a') });
    const token = await cloud.createToken({ site: 'site-a' });
    let isAnswering = true;
    const edge = await gateways.edge({
      token: () => (isAnswering ? token : new Promise(() => {})),
    });
    await edge.ready(PATIENCE);
    isAnswering = false;
    await cloud.revoke({ site: 'site-a' });
    await vi.waitFor(() => expect(edge.failure?.kind).toBe('revoked'));
    await edge.close();
    expect(uncaught).toEqual([]);
  });

  test('succeeds while the option `authorize` does not return', async () => {
    let isOpen = false;
    const cloud = await gateways.cloud({
      desired: desired('site-a'),
      authorize: () => (isOpen ? undefined : new Promise(() => {})),
    });
    const token = await cloud.createToken({ site: 'site-a' });
    const edge = await gateways.edge({ token });
    await vi.waitFor(async () => expect((await cloud.status()).enrolment.connections).toBe(2));
    await cloud.close();
    isOpen = true;
    await edge.close();
    expect(uncaught).toEqual([]);
  });

  test('makes every later call reject, and none throw synchronously', async () => {
    const cloud = await gateways.cloud({ desired: desired('site-a') });
    await cloud.close();
    const calls: (() => Promise<unknown>)[] = [
      () => cloud.apply(desired()),
      () => cloud.expose({ service: 'bus', site: 'site-a' }),
      () => cloud.unexpose({ service: 'bus', site: 'site-a' }),
      () => cloud.createToken({ site: 'site-a' }),
      () => cloud.revoke({ site: 'site-a' }),
      () => cloud.reinstate('site-a'),
      () => cloud.rotateCa('prepare'),
      () => cloud.explain({ from: { site: 'site-a' }, packet: new Uint8Array(20) }),
      () => cloud.paths(),
      () => cloud.releaseClients('site-a'),
      () => cloud.moveSite('site-a', 0),
      () => cloud.drain(),
      () => cloud.resume(),
      () => cloud.removeMachine('one'),
      () => cloud.reload(),
      () => cloud.status(),
      () => cloud.ready(),
    ];
    for (const call of calls) {
      const promise = call();
      await expect(promise, String(call)).rejects.toThrow(ApiMisuseError);
    }
    expect(() => cloud.whois('site-a', '10.0.0.1')).toThrow(ApiMisuseError);
    expect(() => cloud.machines()).toThrow(ApiMisuseError);
  });
});

describe('`ready`', () => {
  test('leaves no listener when it is aborted before or during the call', async () => {
    const edge = await gateways.edge({ token: () => new Promise(() => {}) });
    const aborting = new AbortController();
    const all = [1, 2, 3].map(() => edge.ready({ signal: aborting.signal }));
    expect(edge.listenerCount('state')).toBeGreaterThan(0);
    aborting.abort(new Error('enough'));
    for (const one of all) await expect(one).rejects.toThrow('enough');
    await expect(edge.ready({ signal: aborting.signal })).rejects.toThrow('enough');
    expect(edge.listenerCount('state')).toBe(0);
  });

  test.each([null, 7, { signal: 7 }, { signal: {} }])(
    'rejects %j as options with a typed error',
    async (options) => {
      const cloud = await gateways.cloud();
      const edge = await gateways.edge({ token: () => new Promise(() => {}) });
      await expect(cloud.ready(options as never)).rejects.toThrow(ApiMisuseError);
      await expect(edge.ready(options as never)).rejects.toThrow(ApiMisuseError);
      expect(edge.listenerCount('state')).toBe(0);
    }
  );
});

describe('enrol', () => {
  test('tries every token, also while another one is tried', async () => {
    const cloud = await gateways.cloud({ desired: desired('site-a') });
    const used = await cloud.createToken({ site: 'site-a' });
    const other = await gateways.edge({ token: used });
    await other.ready(PATIENCE);
    await other.close();
    const edge = await gateways.edge({ token: () => new Promise(() => {}) });
    const first = edge.enrol(used);
    const second = edge.enrol(await cloud.createToken({ site: 'site-a' }));
    await expect(first).rejects.toMatchObject({ code: 'ERR_PRESENCE_ENROLMENT_USED' });
    await second;
    await edge.ready(PATIENCE);
  });

  test('does not wait for the option `token` to return', async () => {
    const cloud = await gateways.cloud({ desired: desired('site-a') });
    const state = memory();
    const token = () => new Promise<string>(() => {});
    const edge = await gateways.edge({ ...state, token });
    await turns(5);
    expect(edge).toMatchObject({ state: 'enrolling', failure: undefined });
    await edge.enrol(await cloud.createToken({ site: 'site-a' }));
    await edge.ready(PATIENCE);
    // The same holds later, when there is a certificate.
    await cloud.revoke({ site: 'site-a' });
    await vi.waitFor(() => expect(edge.failure?.kind).toBe('revoked'));
    await cloud.reinstate('site-a');
    await turns(5);
    await edge.enrol(await cloud.createToken({ site: 'site-a' }));
    await edge.ready(PATIENCE);
  });

  test('uses a token once; after that the option `token` is called', {
    timeout: 90_000,
  }, async () => {
    const cloud = await gateways.cloud({ desired: desired('site-a') });
    const clock = new FakeClock({ wallMs: Date.now() });
    let fresh: string | undefined;
    const edge = await gateways.edge({
      clock,
      token: () => {
        if (fresh === undefined) throw new Error('there is none now');
        return fresh;
      },
    });
    await expect(edge.ready(PATIENCE)).rejects.toThrow('there is none now');
    await edge.enrol(await cloud.createToken({ site: 'site-a' }));
    await edge.ready(PATIENCE);
    await cloud.revoke({ site: 'site-a' });
    await vi.waitFor(() => expect(edge.state).toBe('rejected'));
    await cloud.reinstate('site-a');
    fresh = await cloud.createToken({ site: 'site-a' });
    // An attempt that is under way has time to end before more time passes.
    let nextMs = 0;
    await vi.waitFor(
      () => {
        if (performance.now() >= nextMs) {
          clock.advance(30_000);
          nextMs = performance.now() + 5_000;
        }
        expect(edge.state).toBe('online');
      },
      { timeout: 60_000 }
    );
  });

  test('refuses a token that is not a text, or is empty', async () => {
    const edge = await gateways.edge({ token: (() => 7) as never });
    await expect(edge.ready(PATIENCE)).rejects.toThrow(/token.*must be a text, not 7/);
    for (const bad of [7, '', null, undefined, {}]) {
      await expect(edge.enrol(bad as never)).rejects.toThrow(/token must be a text/);
    }
    await expect(edge.enrol('malformed')).rejects.toThrow(EnrolmentError);
  });

  test('uses the certificate of a token again if it could not be stored', async () => {
    const cloud = await gateways.cloud({ desired: desired('site-a') });
    const token = await cloud.createToken({ site: 'site-a' });
    const secrets = new FaultySecrets(new MemorySecrets());
    const clock = new FakeClock({ wallMs: Date.now() });
    // The two commits of the write test succeed; the commit of the certificate and all later ones fail.
    secrets.failAfter = 2;
    secrets.isBroken = true;
    const edge = await gateways.edge({ store: memory().store, secrets, token, clock });
    await expect(edge.ready(PATIENCE)).rejects.toThrow(/the disk is full/);
    expect(edge.failure).toMatchObject({ kind: 'local', party: 'local' });
    secrets.failAfter = undefined;
    secrets.isBroken = false;
    clock.advance(30_000);
    await vi.waitFor(() => expect(edge.state).toBe('online'));
  });
});

describe('a device that is passed in', () => {
  /** Counts how often it is closed. */
  function counted(): { readonly hosts: Hosts; closings: () => number } {
    const hosts = new Hosts();
    const close = vi.spyOn(hosts.device, 'close');
    return { hosts, closings: () => close.mock.calls.length };
  }

  test('is closed once with the gateway', async () => {
    const ofCloud = counted();
    const cloud = await gateways.cloud({ device: ofCloud.hosts.device });
    const ofEdge = counted();
    const edge = await gateways.edge({ device: ofEdge.hosts.device });
    await edge.close();
    await cloud.close();
    expect([ofCloud.closings(), ofEdge.closings()]).toEqual([1, 1]);
  });

  test('is closed once when the start fails, at whatever step', async () => {
    const taken = createServer();
    await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
    const { port } = taken.address() as { port: number };
    const broken = {
      get: async () => Promise.reject(new Error('no secrets')),
      commit: async () => {},
    };
    const store = { ...memory().store, get: async () => Promise.reject(new Error('no store')) };
    const ofCloud: Partial<CloudGatewayOptions>[] = [
      { workers: 0 },
      { desired: { sites: [] } },
      { secrets: broken },
      { tunnel: `127.0.0.1:${port}`, enrolment: { listen: '127.0.0.1:0' } },
      { enrolment: { listen: `127.0.0.1:${port}` } },
      { dns: { listen: `127.0.0.1:${port}` } },
      { adminSocket: '/nowhere/at/all' },
      { signal: AbortSignal.abort(new Error('enough')) },
    ];
    for (const fault of ofCloud) {
      const { hosts, closings } = counted();
      const starting = CloudGateway.start(cloudOptions({ device: hosts.device, ...fault }));
      await expect(starting, JSON.stringify(fault)).rejects.toThrow();
      expect(closings(), JSON.stringify(fault)).toBe(1);
    }
    const ofEdge: Partial<EdgeGatewayOptions>[] = [
      { cloud: [] },
      { secrets: broken },
      { store: store as never, secrets: undefined, stateDirectory: undefined },
      { dns: { listen: `127.0.0.1:${port}` } },
      { signal: AbortSignal.abort(new Error('enough')) },
    ];
    for (const fault of ofEdge) {
      const { hosts, closings } = counted();
      const starting = EdgeGateway.start({ device: hosts.device, ...memory(), ...fault });
      await expect(starting, JSON.stringify(fault)).rejects.toThrow();
      expect(closings(), JSON.stringify(fault)).toBe(1);
    }
    taken.close();
    expect(uncaught).toEqual([]);
  });
});

describe('a store and secrets of the host program', () => {
  test('may be encrypted files in the state directory, at the second start too', async () => {
    const stateDirectory = mkdtempSync(join(tmpdir(), 'vp-state-'));
    try {
      const of = async (name: string) => {
        const path = join(stateDirectory, name);
        const secrets = await FileSecrets.open(path, { passphrase: 'correct horse' });
        return { stateDirectory: path, secrets };
      };
      for (let start = 0; start < 2; start++) {
        const cloud = await gateways.cloud({
          ...(await of('cloud')),
          desired: desired('site-a'),
        });
        const edge = await gateways.edge({
          ...(await of('edge')),
          cloud: cloud.addresses.tunnels,
          ...(start === 0 && { token: await cloud.createToken({ site: 'site-a' }) }),
        });
        await edge.ready(PATIENCE);
        await edge.close();
        await cloud.close();
      }
      for (const path of ['cloud/ca-key.pem', 'edge/key.pem']) {
        expect(readFileSync(join(stateDirectory, path), 'latin1')).not.toContain('PRIVATE KEY');
      }
      // A directory that does not exist is created, also if it holds no secrets.
      const path = join(stateDirectory, 'other');
      await gateways.cloud({ stateDirectory: path, secrets: new MemorySecrets() });
      expect(statSync(path).mode & 0o777).toBe(0o700);
    } finally {
      await gateways.close();
      rmSync(stateDirectory, { recursive: true, force: true });
    }
  });

  test.each(['store', 'secrets'] as const)(
    'may fail at any step (%s): the start rejects, or the gateway reports it, and it closes',
    async (which) => {
      const cloud = await gateways.cloud({ desired: desired('site-a') });
      const outcomes = new Set<string>();
      for (let step = 0; step < 12; step++) {
        for (const start of [
          async (state: ReturnType<typeof memory>) => CloudGateway.start(cloudOptions(state)),
          async (state: ReturnType<typeof memory>) => {
            const token = await cloud.createToken({ site: 'site-a' });
            return EdgeGateway.start({ device: new Hosts().device, ...state, token });
          },
        ]) {
          const state = memory();
          const faulty = failingAt(step, state[which]);
          const reported: string[] = [];
          try {
            // Both classes have the members that are used here.
            const gateway = (await start({ ...state, [which]: faulty })) as EdgeGateway;
            gateway.on('problem', ({ error }) => void reported.push(error.message));
            await gateway.ready(PATIENCE).catch((error: Error) => reported.push(error.message));
            await gateway.close();
          } catch (error) {
            reported.push((error as Error).message);
          }
          outcomes.add(reported.join());
        }
      }
      // Some steps come after the last one that runs; then nothing fails.
      outcomes.delete('');
      expect([...outcomes]).toEqual(['failed on purpose']);
      expect(uncaught).toEqual([]);
    }
  );
});

function cloudOptions(options: Partial<CloudGatewayOptions>): CloudGatewayOptions {
  return {
    trustDomain: 'example.test',
    tunnel: '127.0.0.1:0',
    device: new Hosts().device,
    ...memory(),
    ...options,
  };
}

/** Returns the same object, except that one call of a method fails. */
function failingAt<T extends object>(step: number, target: T): T {
  let calls = 0;
  return new Proxy(target, {
    get: (_target, name) => {
      const value = Reflect.get(target, name) as unknown;
      if (typeof value !== 'function') return value;
      const method = value.bind(target) as (...args: unknown[]) => unknown;
      if (!['get', 'list', 'commit'].includes(String(name))) return method;
      return (...args: unknown[]) =>
        calls++ === step ? Promise.reject(new Error('failed on purpose')) : method(...args);
    },
  });
}

describe('an invalid argument from plain JavaScript', () => {
  const cases: [method: string, args: unknown[], path: string, says: RegExp][] = [
    ['unexpose', [undefined], '', /is missing|expected a mapping/],
    ['unexpose', [7], '', /expected a mapping, got 7/],
    ['unexpose', [{ site: 'site-a', service: 7 }], 'service', /expected a string, got 7/],
    ['createToken', [undefined], '', /is missing|expected a mapping/],
    ['createToken', [{}], 'site', /is missing/],
    ['createToken', [{ site: 7 }], 'site', /expected a string, got 7/],
    ['createToken', [{ site: 'site-a', endpoints: [] }], 'endpoints', /is not a known key/],
    ['createToken', [{ site: 'site-a', lifetimeMs: '7' }], 'lifetimeMs', /expected a number/],
    ['revoke', [undefined], '', /is missing|expected a mapping/],
    ['revoke', [{}], 'scope', /one of site, serial and spki, got none/],
    ['revoke', [{ site: 'site-a', serial: '01' }], 'scope', /got site and serial/],
    ['revoke', [{ site: 7 }], 'site', /expected a string, got 7/],
    ['revoke', [{ serial: 7 }], 'serial', /expected a string, got 7/],
    ['reinstate', [{ site: 'site-a' }], 'site', /expected a string/],
    ['rotateCa', ['close'], 'step', /"prepare" or "activate" or "retire", got "close"/],
    ['rotateCa', [undefined], 'step', /"prepare"/],
    ['rotateCa', ['prepare', null], '', /expected a mapping, got null/],
    ['rotateCa', ['prepare', { ca: 'PEM' }], 'ca', /certificatePem and privateKeyPem/],
    ['releaseClients', ['site-z'], 'site', /"site-z" is not a site/],
    ['moveSite', ['site-z', 0], 'site', /"site-z" is not a site/],
    ['moveSite', ['site-a', 'x'], 'worker', /numbered from 0/],
    ['moveSite', ['site-a', { machine: 'NO' }], 'machine', /expected a name/],
    ['moveSite', ['site-a', null], 'machine', /is missing/],
    ['apply', [undefined], '', /is missing/],
    ['expose', [7], '', /expected a mapping, got 7/],
  ];

  test.each(cases)('is refused: %s(%j) names the place "%s"', async (method, args, path, says) => {
    const cloud = await gateways.cloud({ desired: desired('site-a') });
    const call = (cloud as unknown as Record<string, (...args: unknown[]) => Promise<unknown>>)[
      method
    ]!.bind(cloud);
    const promise = call(...args);
    await expect(promise).rejects.toThrow(ConfigError);
    await expect(promise).rejects.toMatchObject({ path, message: expect.stringMatching(says) });
    expect(cloud.state).toBe('ready');
  });

  test('is refused by whois', async () => {
    const cloud = await gateways.cloud({ desired: desired('site-a') });
    expect(() => cloud.whois('site-a', 7 as never)).toThrow(ApiMisuseError);
    expect(() => cloud.whois(undefined as never, '10.0.0.1')).toThrow(ApiMisuseError);
  });
});

/** Returns the same token with another enrolment endpoint. */
function withEndpoint(token: string, endpoint: string): string {
  const json = JSON.parse(Buffer.from(token.slice(4), 'base64url').toString()) as object;
  const changed = JSON.stringify({ ...json, endpoints: [endpoint] });
  return `vp1.${Buffer.from(changed).toString('base64url')}`;
}
