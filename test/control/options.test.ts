/**
 * What the classes of this module refuse to begin with, also from plain JavaScript, and how they end.
 */
import type { X509Certificate } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import {
  CONTROL_CLIENT_DEFAULTS,
  CONTROL_SERVER_DEFAULTS,
  ControlClient,
  type ControlClientOptions,
  ControlServer,
  type ControlServerOptions,
  PlanPartition,
  type PlanPartitionOptions,
  PRESENCE_CONTROLLER_DEFAULTS,
  PresenceController,
  type PresenceControllerOptions,
  PresenceUses,
} from '../../src/control/index.ts';
import { ApiMisuseError, EnvironmentError } from '../../src/errors.ts';
import { Registry } from '../../src/registry/index.ts';
import { MemoryStore } from '../../src/store/index.ts';
import { FakeChannel } from './link.ts';
import { DESIRED, SceneClock, ScriptedStore, startScene, turn } from './scene.ts';

async function misuseOf(use: () => unknown): Promise<string> {
  try {
    await use();
  } catch (error) {
    expect(error).toBeInstanceOf(ApiMisuseError);
    return (error as Error).message;
  }
  return 'was accepted';
}

/** Fails if anything is read or written. */
class UntouchedStore extends MemoryStore {
  override get(): never {
    throw new Error('the store was read');
  }
  override list(): never {
    throw new Error('the store was read');
  }
}

const NOT_A_CLOCK = 'clock must be an object with the methods wallMs, monotonicMs, after, not 5';

describe('PresenceController', () => {
  test.each<[options: object | undefined, message: string]>([
    [
      { registry: undefined },
      'registry must be an object with the methods site, on, off, not undefined',
    ],
    [
      { store: {} },
      'store must be an object with the methods get, list, commit, not an object of another kind',
    ],
    [{ translator: 'x' }, 'translator must be an object with the methods load, apply, not "x"'],
    [{ ttlSeconds: '30' }, 'ttlSeconds must be a whole number from 0 to 2147483647, not "30"'],
    [{ ttlSeconds: 0.5 }, 'ttlSeconds must be a whole number from 0 to 2147483647, not 0.5'],
    [
      { quarantineMs: Number.NaN },
      'quarantineMs must be a number from 0 to 4294967294000, not NaN',
    ],
    [
      { quarantineMs: 29_999 },
      'quarantineMs 29999 is shorter than the TTL of 30 s: cached names would lead to other hosts',
    ],
    [
      { overlapMs: 2 ** 52 },
      'overlapMs must be a whole number from 0 to 4294967294000, not 4503599627370496',
    ],
    [{ presenceUses: 5 }, 'presenceUses must be a function, not 5'],
    [{ clientIdleMs: 1, pressedIdleMs: 2 }, 'clientIdleMs 1 is shorter than pressedIdleMs, 2'],
    [{ pressedIdleMs: 'long' }, 'pressedIdleMs must be more than 0: long'],
    [{ releaseSuspended: 1 }, 'releaseSuspended must be true or false, not 1'],
    [{ coalesceMs: -1 }, 'coalesceMs must be a number from 0 to 2147483647, not -1'],
    [{ retryMs: 2 ** 31 }, 'retryMs must be a number from 0 to 2147483647, not 2147483648'],
    [{ auditMs: 999 }, 'auditMs must be a number from 1000 to 2147483647, or Infinity, not 999'],
    [{ suspended: 'site-a' }, 'suspended must be a list of names, not "site-a"'],
    [{ suspended: ['site-a', 5] }, 'suspended[1] must be a text, not 5'],
    [{ transit: 5 }, 'transit must be a text, not 5'],
    [{ clock: 5 }, NOT_A_CLOCK],
    [undefined, 'options must be an object, not undefined'],
  ])('refuses %j before anything is read', async (options, message) => {
    const registry = await Registry.open(new MemoryStore());
    const store = new UntouchedStore();
    const whole = options && {
      registry,
      store,
      translator: { load() {}, apply() {} },
      ...options,
    };
    const start = () => PresenceController.start(whole as unknown as PresenceControllerOptions);
    expect(await misuseOf(start)).toBe(message);
    expect(registry.listenerCount('change')).toBe(0);
  });

  test('has the defaults that the docs state', () => {
    expect(PRESENCE_CONTROLLER_DEFAULTS).toEqual({
      ttlSeconds: 30,
      quarantineMs: 60_000,
      overlapMs: 330_000,
      clientIdleMs: 30 * 86_400_000,
      pressedIdleMs: 86_400_000,
      releaseSuspended: false,
      coalesceMs: 20,
      retryMs: 5000,
      auditMs: 60_000,
    });
    expect(Object.isFrozen(PRESENCE_CONTROLLER_DEFAULTS)).toBe(true);
  });

  test('ends once, also with the block that it is used in', async () => {
    const { controller, registry, clock } = await startScene();
    const closing = controller.close();
    expect(controller.close()).toBe(closing);
    expect(controller[Symbol.asyncDispose]()).toBe(closing);
    await closing;
    expect(clock.delays).toEqual([]);
    expect(registry.close()).toBe(registry[Symbol.asyncDispose]());
    await registry.close();
  });
});

test('Registry refuses an object that is not a store', async () => {
  const open = (store: unknown) => misuseOf(() => Registry.open(store as MemoryStore));
  expect(await open(undefined)).toBe(
    'store must be an object with the methods get, list, commit, watch, not undefined'
  );
});

describe('PlanPartition', () => {
  test.each<[options: object | undefined, message: string]>([
    [undefined, 'options must be an object, not undefined'],
    [{ shared: 5 }, 'shared must be a text, not 5'],
    [{ targets: {} }, 'targets must be a list, not an object of another kind'],
    [
      { targets: [{}] },
      'targets[0] must be an object with the methods load, apply, not an object of another kind',
    ],
    [{ holderOf: 5 }, 'holderOf must be a function, not 5'],
    [{ onRoutes: 5 }, 'onRoutes must be a function, not 5'],
  ])('refuses %j', async (options, message) => {
    const whole = options && { shared: 'cloud', targets: [], holderOf: () => 0, ...options };
    const make = () => new PlanPartition(whole as unknown as PlanPartitionOptions);
    expect(await misuseOf(make)).toBe(message);
  });
});

test('PresenceUses refuses an argument that is not a function', async () => {
  const make = () => new PresenceUses(5 as unknown as () => []);
  expect(await misuseOf(make)).toBe('paths must be a function, not 5');
});

describe('ControlServer', () => {
  test.each<[options: object | undefined | null, message: string]>([
    [null, 'options must be an object, not null'],
    [{ retryMs: '500' }, 'retryMs must be a number from 0 to 2147483647, not "500"'],
    [
      { trust: {} },
      'trust must be an object with the methods trust, renew, not an object of another kind',
    ],
    [{ maxRenewalsPerHour: 0 }, 'maxRenewalsPerHour must be 1 or more, not 0'],
    [{ maxRenewalsPerHour: 'many' }, 'maxRenewalsPerHour must be 1 or more, not many'],
    [{ renewalSpreadMs: -1 }, 'renewalSpreadMs must be 0 to 3600000, not -1'],
    [{ clock: 5 }, NOT_A_CLOCK],
  ])('refuses %j, and adds no listener', async (options, message) => {
    const { controller } = await startScene();
    const make = () => new ControlServer(controller, options as ControlServerOptions);
    expect(await misuseOf(make)).toBe(message);
    expect(controller.listenerCount('snapshot')).toBe(0);
  });

  test('refuses a wrong controller, channel and function', async () => {
    const { controller } = await startScene();
    expect(await misuseOf(() => new ControlServer({} as PresenceController))).toMatch(
      /^controller must/
    );
    const server = new ControlServer(controller);
    const attach = (channel: unknown, onFault: unknown) =>
      misuseOf(() => server.attach('site-a', channel as FakeChannel, onFault as () => void));
    expect(await attach(undefined, () => {})).toMatch(
      /^channel must be an object with the methods/
    );
    expect(await attach(new FakeChannel(), undefined)).toBe(
      'onFault must be a function, not undefined'
    );
  });

  test('treats an option that is undefined as absent, and has the defaults that the docs state', async () => {
    const { controller } = await startScene();
    const options = {
      retryMs: undefined,
      renewalSpreadMs: undefined,
      maxRenewalsPerHour: undefined,
    };
    expect(
      () => new ControlServer(controller, options as unknown as ControlServerOptions)
    ).not.toThrow();
    expect(CONTROL_SERVER_DEFAULTS).toEqual({
      retryMs: 500,
      maxRenewalsPerHour: 12,
      renewalSpreadMs: 300_000,
    });
  });

  test('ends once, and serves no edge afterwards', async () => {
    const { controller, clock } = await startScene(DESIRED, { auditMs: Number.POSITIVE_INFINITY });
    const server = new ControlServer(controller, { clock });
    const closing = server.close();
    expect(server.close()).toBe(closing);
    expect(server[Symbol.asyncDispose]()).toBe(closing);
    await closing;
    const channel = new FakeChannel();
    channel.isFull = true;
    clock.advance(5000);
    server.attach('site-a', channel, () => {})();
    expect(channel.listeners).toBe(0);
    expect(clock.delays).toEqual([]);
  });
});

test('ControlServer is closed when the renewals under way have ended', async () => {
  const { controller } = await startScene();
  let fail!: (error: Error) => void;
  const trust = {
    trust: () => ({ caPem: 'ca', renew: false }),
    renew: () =>
      new Promise<never>((_, reject) => {
        fail = reject;
      }),
  };
  const server = new ControlServer(controller, { trust });
  const channel = new FakeChannel();
  channel.certificate = {} as X509Certificate;
  server.attach('site-a', channel, () => {});
  channel.receive({ type: 'renew', csrPem: 'csr' });
  channel.sent.length = 0;
  let isClosed = false;
  const closing = server.close().then(() => {
    isClosed = true;
  });
  await turn();
  expect(isClosed).toBe(false);
  fail(new Error('the store is closed'));
  await closing;
  expect(server.renewals).toMatchObject({ failed: 1 });
  // Nobody is served any more.
  expect(channel.sent).toEqual([]);
});

describe('ControlClient', () => {
  test.each<[options: object | undefined, message: string]>([
    [undefined, 'options must be an object, not undefined'],
    [{}, 'site must be a text, not undefined'],
    [{ site: 5 }, 'site must be a text, not 5'],
    [
      { site: 'site-a', store: {} },
      'store must be an object with the methods get, commit, not an object of another kind',
    ],
    [
      { site: 'site-a', counters: {} },
      'counters must be a function, not an object of another kind',
    ],
    [
      { site: 'site-a', snapshotValidMs: 0 },
      'snapshotValidMs must be a whole number from 1 to 315360000000, not 0',
    ],
    [
      { site: 'site-a', statusIntervalMs: 0 },
      'statusIntervalMs must be a whole number from 1 to 2147483647, not 0',
    ],
    [
      { site: 'site-a', renewalTimeoutMs: '1' },
      'renewalTimeoutMs must be a whole number from 1 to 2147483647, not "1"',
    ],
    [{ site: 'site-a', clock: 5 }, NOT_A_CLOCK],
  ])('refuses %j', async (options, message) => {
    const open = () => ControlClient.open(options as ControlClientOptions);
    expect(await misuseOf(open)).toBe(message);
  });

  test('has the defaults that the docs state', () => {
    expect(CONTROL_CLIENT_DEFAULTS).toEqual({
      snapshotValidMs: 604_800_000,
      statusIntervalMs: 1000,
      renewalTimeoutMs: 10_000,
    });
  });

  test('ends once, and takes no channel afterwards', async () => {
    const clock = new SceneClock();
    const client = await ControlClient.open({ site: 'site-a', clock });
    const closing = client.close();
    expect(client.close()).toBe(closing);
    expect(client[Symbol.asyncDispose]()).toBe(closing);
    await closing;
    expect(await misuseOf(() => client.attach(new FakeChannel()))).toBe(
      'the control client is closed'
    );
    expect(clock.delays).toEqual([]);
  });

  test('is closed when its last snapshot is stored', async () => {
    const store = new ScriptedStore();
    const scene = await startScene();
    const client = await ControlClient.open({ site: 'site-a', store, clock: scene.clock });
    const channel = new FakeChannel();
    client.attach(channel);
    let open!: () => void;
    const released = new Promise<void>((resolve) => {
      open = resolve;
    });
    const commit = store.commit.bind(store);
    store.commit = async (writes) => {
      await released;
      await commit(writes);
    };
    const snapshot = scene.controller.snapshot('site-a')!;
    channel.receive(JSON.parse(JSON.stringify({ type: 'snapshot', snapshot })));
    let isClosed = false;
    const closing = client.close().then(() => {
      isClosed = true;
    });
    await turn();
    expect(isClosed).toBe(false);
    open();
    await closing;
    expect((await store.get('snapshot'))?.value).toEqual(snapshot);
  });

  test('waits for a certificate no longer than the caller wishes', async () => {
    const clock = new SceneClock();
    const client = await ControlClient.open({ site: 'site-a', clock });
    const channel = new FakeChannel();
    client.attach(channel);
    const before = clock.delays;
    const reason = new Error('enough');
    const ended = client.renew('csr', { signal: AbortSignal.abort(reason) });
    await expect(ended).rejects.toBe(reason);
    expect(channel.sent).toEqual([]);

    const controller = new AbortController();
    const renewal = client.renew('csr', { signal: controller.signal });
    controller.abort(reason);
    await expect(renewal).rejects.toBe(reason);
    expect(clock.delays).toEqual(before);
    // The answer that comes now is nobody's, and the next request can be made.
    channel.receive({ type: 'certificate', certificatePem: 'late', caPem: 'late' });
    const next = client.renew('csr');
    const failed = expect(next).rejects.toThrow(EnvironmentError);
    await client.close();
    await failed;
  });

  test.each<[csrPem: unknown, options: unknown, message: string]>([
    [5, {}, 'csrPem must be a text, not 5'],
    ['csr', 5, 'options must be an object, not 5'],
    ['csr', { signal: {} }, 'signal must be an AbortSignal, not an object of another kind'],
  ])('refuses to renew %j with %j', async (csrPem, options, message) => {
    const client = await ControlClient.open({ site: 'site-a', clock: new SceneClock() });
    client.attach(new FakeChannel());
    expect(await misuseOf(() => client.renew(csrPem as string, options as object))).toBe(message);
  });
});
