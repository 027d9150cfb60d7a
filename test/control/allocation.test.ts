/**
 * Several controllers on one store, of which one allocates.
 */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  AllocatorUnavailableError,
  NotAdmittedError,
  PresenceController,
  type PresenceControllerOptions,
} from '../../src/control/index.ts';
import { ApiMisuseError, PoolExhaustedError, QuotaExceededError } from '../../src/errors.ts';
import { Registry } from '../../src/registry/index.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { CONTROLLER, FakeAllocation, Machine } from './cluster-machine.ts';
import { DESIRED, turn } from './scene.ts';
import { type MachineStore, SharedStore } from './shared-store.ts';

let shared: SharedStore;
let clock: FakeClock;
let horizon: number;
let machines: Machine[];
/** What each commit has written, by whom. */
let commits: { readonly by: string; readonly keys: string[] }[];

beforeEach(async () => {
  shared = new SharedStore();
  clock = new FakeClock();
  horizon = Number.POSITIVE_INFINITY;
  machines = [];
  commits = [];
  const store = shared.machine('first');
  const registry = await Registry.open(store, { clock });
  await registry.apply(DESIRED, 'file');
  await registry.close();
  shared.onCommit = (writes, { name }) => {
    commits.push({ by: name, keys: writes.map(({ key }) => key) });
  };
});

afterEach(async () => {
  for (const { controller, registry, store } of machines) {
    store.isLagging = false;
    await controller.close();
    await registry.close();
  }
});

async function start(
  name: string,
  options: Partial<PresenceControllerOptions> = {},
  maxWrites?: number
): Promise<Machine> {
  const machine = new Machine(name, shared.machine(name, maxWrites), clock);
  await machine.open(new FakeAllocation(machine.store, () => horizon), options);
  machines.push(machine);
  return machine;
}

async function elect(name: string | undefined): Promise<void> {
  const by = { name: 'election' } as unknown as MachineStore;
  shared.apply([{ key: CONTROLLER, value: name }], [], by);
  await turn();
}

async function pass(ms: number): Promise<void> {
  for (let left = ms; left > 0; left -= 1000) {
    clock.advance(1000);
    await turn();
  }
}

/** The address of a host in a realm, by the plan of a machine. */
function addressOf({ plan }: Machine, realm: string, host: string): string | undefined {
  return plan
    .presences()
    .find((each) => each.realm === realm && each.of.key === host)
    ?.address.toString();
}

const leases = (): string[] => [...shared.entries.keys()].filter((key) => key.startsWith('lease/'));
const requests = (): string[] =>
  [...shared.entries.keys()].filter((key) => /^(admit|uses|release)\//.test(key));

describe('following', () => {
  test('allocates nothing, writes nothing and reports no missing address', async () => {
    const one = await start('m1');
    await pass(30_000);
    expect(commits).toEqual([]);
    expect(one.problems).toEqual([]);
    expect(one.controller.presences()).toEqual([]);
    await elect('m1');
    expect(leases()).toHaveLength(3);
    expect(one.controller.presences()).toHaveLength(3);
  });

  test('uses each lease when the watch shows it, and none that the desired state does not need', async () => {
    const [one, two] = [await start('m1'), await start('m2')];
    await elect('m1');
    expect(two.controller.presences()).toEqual(one.controller.presences());
    // The allocating machine sees the change of the desired state later.
    one.store.isLagging = true;
    void two.registry.unexpose({ service: 'rabbitmq', site: 'site-b' }, 'file');
    await turn();
    expect(addressOf(one, 'site-b', 'cloud/10.0.0.5')).toBeDefined();
    expect(addressOf(two, 'site-b', 'cloud/10.0.0.5')).toBeUndefined();
    void two.registry.expose({ service: 'rabbitmq', site: 'site-b' }, 'file');
    await turn();
    expect(addressOf(two, 'site-b', 'cloud/10.0.0.5')).toBeDefined();
    expect(two.loads).toBe(1);
  });

  test('a change costs what it touches', async () => {
    const two = await start('m2');
    await start('m1');
    await elect('m1');
    const sizes: number[] = [];
    const apply = two.apply.bind(two);
    two.apply = (changes) => {
      sizes.push(changes.presences?.length ?? 0);
      apply(changes);
    };
    await machines[1]!.controller.admit('site-a', '10.0.0.9', 'cloud', 4);
    expect(sizes).toEqual([1]);
  });
});

describe('an admission at a machine that does not allocate', () => {
  test('resolves when its watch shows the lease, and leaves no request', async () => {
    const [one, two] = [await start('m1'), await start('m2')];
    await elect('m1');
    await two.controller.admit('site-a', '10.0.0.9', 'cloud', 4);
    expect(addressOf(two, 'cloud', 'site-a/10.0.0.9')).toBeDefined();
    expect(addressOf(one, 'cloud', 'site-a/10.0.0.9')).toBeDefined();
    expect(requests()).toEqual([]);
    // The request is deleted in the commit that has the lease.
    const { keys } = commits.findLast(({ by }) => by === 'm1')!;
    expect(keys.map((key) => key.split('/')[0]).sort()).toEqual(['admit', 'lease']);
    expect(two.controller.measures).toBeDefined();
  });

  test('many are admitted in one commit, at most 32 of a site at a time', async () => {
    const two = await start('m2');
    await start('m1');
    await elect('m1');
    commits.length = 0;
    let most = 0;
    const onCommit = shared.onCommit;
    shared.onCommit = (writes, by) => {
      onCommit(writes, by);
      const asked = writes.filter(({ key, value }) => key.startsWith('admit/') && value);
      most = Math.max(most, requests().length + asked.length);
    };
    const hosts = Array.from({ length: 50 }, (_, i) => `10.0.0.${10 + i}`);
    await Promise.all(hosts.map((host) => two.controller.admit('site-a', host, 'cloud', 4)));
    expect(most).toBe(32);
    expect(commits.filter(({ by }) => by === 'm1').length).toBeLessThan(15);
  });

  test('is refused by what is known here, without a request', async () => {
    const two = await start('m2');
    await start('m1');
    await two.registry.putSite({ ...DESIRED.sites[1]!, maxClients: 1 }, 'file');
    await elect('m1');
    await two.controller.admit('site-a', '10.0.0.9', 'cloud', 4);
    commits.length = 0;
    const admit = (host: string, to = 'cloud') => two.controller.admit('site-a', host, to, 4);
    await expect(admit('10.0.0.10')).rejects.toBeInstanceOf(QuotaExceededError);
    await expect(admit('192.0.2.1')).rejects.toBeInstanceOf(NotAdmittedError);
    await expect(admit('10.0.0.9', 'site-b')).rejects.toBeInstanceOf(NotAdmittedError);
    expect(commits).toEqual([]);
    expect(two.controller.measures.admissions).toMatchObject({ refused: 2, quotaExceeded: 1 });
  });

  test('is refused by the machine that allocates with the reason', async () => {
    const two = await start('m2');
    await start('m1');
    const pools = ['10.0.0.128/30'];
    await two.registry.putSite({ ...DESIRED.sites[0]!, pools, serviceReserve: 0 }, 'file');
    await elect('m1');
    await two.controller.admit('site-a', '10.0.0.9', 'cloud', 4);
    const refused = two.controller.admit('site-b', '10.0.0.9', 'cloud', 4);
    await expect(refused).rejects.toBeInstanceOf(PoolExhaustedError);
    expect(requests()).toEqual([]);
  });

  test('waits until the machine that allocates has derived an exposure that is known here', async () => {
    const [one, two] = [await start('m1'), await start('m2')];
    await elect('m1');
    // It has so much to derive that its turns come after the request.
    one.store.isLagging = true;
    const services = Array.from({ length: 400 }, (_, i) => ({
      name: `web-${i}`,
      site: 'cloud',
      address: '10.0.0.20',
      ports: ['tcp/80'],
    }));
    const exposures = services.map(({ name }) => ({ service: name, site: 'site-a' }));
    const everything = {
      sites: DESIRED.sites,
      services: [...DESIRED.services, ...services],
      exposures: [...DESIRED.exposures, ...exposures, { service: 'console-a', site: 'site-b' }],
    };
    await two.registry.apply(everything, 'file');
    await two.controller.settled();
    const admitted = two.controller.admit('site-b', '10.0.0.9', 'site-a', 4);
    await turn();
    expect(requests()).toHaveLength(1);
    one.store.isLagging = false;
    await admitted;
  });

  test('ends with an error while no machine allocates, and its request too', async () => {
    const two = await start('m2');
    const admitted = two.controller.admit('site-a', '10.0.0.9', 'cloud', 4);
    const ended = expect(admitted).rejects.toBeInstanceOf(AllocatorUnavailableError);
    await turn();
    expect(requests()).toHaveLength(1);
    await pass(10_000);
    await ended;
    await turn();
    expect(requests()).toEqual([]);
    expect(two.controller.measures.admissions.failed).toBe(1);
  });

  test('waits for the machine that is elected next, also for this one', async () => {
    const [, two] = [await start('m1'), await start('m2')];
    await elect('m1');
    await elect(undefined);
    const admitted = two.controller.admit('site-a', '10.0.0.9', 'cloud', 4);
    await turn();
    await elect('m2');
    await admitted;
    expect(addressOf(two, 'cloud', 'site-a/10.0.0.9')).toBeDefined();
    expect(requests()).toEqual([]);
  });

  test('ends with an error when the machine is closed', async () => {
    const two = await start('m2');
    const admitted = two.controller.admit('site-a', '10.0.0.9', 'cloud', 4);
    const ended = expect(admitted).rejects.toBeInstanceOf(AllocatorUnavailableError);
    await turn();
    await two.controller.close();
    await ended;
  });
});

describe('a machine that was replaced', () => {
  test('writes nothing any more, and asks the new one for its clients', async () => {
    const [one, two] = [await start('m1'), await start('m2')];
    await elect('m1');
    one.store.isLagging = true;
    await elect('m2');
    commits.length = 0;
    const admitted = one.controller.admit('site-a', '10.0.0.9', 'cloud', 4);
    await turn();
    expect(commits.filter(({ by }) => by === 'm1').flatMap(({ keys }) => keys)).toEqual([
      expect.stringMatching(/^admit\/m1\/site-a\//),
    ]);
    one.store.isLagging = false;
    await admitted;
    expect(addressOf(one, 'cloud', 'site-a/10.0.0.9')).toBe(
      addressOf(two, 'cloud', 'site-a/10.0.0.9')
    );
    expect([one.loads, two.loads]).toEqual([1, 1]);
  });

  test('drops what it could not store', async () => {
    const [one, two] = [await start('m1'), await start('m2')];
    await elect('m1');
    one.store.isFailing = true;
    await expect(one.controller.admit('site-a', '10.0.0.9', 'cloud', 4)).rejects.toThrow('down');
    await elect('m2');
    await two.controller.admit('site-a', '10.0.0.10', 'cloud', 4);
    one.store.isFailing = false;
    await elect('m1');
    await pass(10_000);
    expect(one.controller.presences()).toEqual(two.controller.presences());
    expect(addressOf(one, 'cloud', 'site-a/10.0.0.9')).toBeUndefined();
  });
});

describe('a released address', () => {
  const holder = (): string | undefined => addressOf(machines[0]!, 'cloud', 'site-b/10.0.0.9');

  /** One address is left for clients, and a client has released it. */
  async function release(): Promise<Machine> {
    const one = await start('m1');
    const pools = ['10.0.0.128/30'];
    await one.registry.putSite({ ...DESIRED.sites[0]!, pools, serviceReserve: 0 }, 'file');
    await elect('m1');
    await one.controller.admit('site-a', '10.0.0.9', 'cloud', 4);
    horizon = shared.version;
    await one.controller.releaseClients('site-a');
    return one;
  }

  test('is leased to another host when the quarantine is over and all machines have applied that', async () => {
    const one = await release();
    const admit = () => one.controller.admit('site-b', '10.0.0.9', 'cloud', 4);
    await pass(120_000);
    await expect(admit()).rejects.toBeInstanceOf(PoolExhaustedError);
    horizon = shared.version;
    await admit();
    expect(holder()).toBe('10.0.0.130');
  });

  test('waits for the quarantine when all machines have applied it before', async () => {
    const one = await release();
    horizon = shared.version;
    await pass(59_000);
    const admit = () => one.controller.admit('site-b', '10.0.0.9', 'cloud', 4);
    await expect(admit()).rejects.toBeInstanceOf(PoolExhaustedError);
    await pass(1000);
    await admit();
  });

  test('goes to its host again at once', async () => {
    const one = await release();
    await one.controller.admit('site-a', '10.0.0.9', 'cloud', 4);
    expect(addressOf(one, 'cloud', 'site-a/10.0.0.9')).toBe('10.0.0.130');
  });

  test.each(['has followed', 'starts'])('waits too at a machine that %s', async (how) => {
    const early = how === 'starts' ? undefined : await start('m2');
    await release();
    const two = early ?? (await start('m2'));
    await elect('m2');
    await pass(120_000);
    const admit = () => two.controller.admit('site-b', '10.0.0.9', 'cloud', 4);
    await expect(admit()).rejects.toBeInstanceOf(PoolExhaustedError);
    horizon = shared.version;
    await admit();
  });

  test('whose pool is gone stays in the store until all machines have applied that', async () => {
    const one = await release();
    await one.registry.putSite({ ...DESIRED.sites[0]!, pools: ['10.0.1.0/28'] }, 'file');
    await pass(1_000_000);
    expect(leases()).toContain('lease/cloud/10.0.0.130');
    horizon = shared.version;
    await pass(10_000);
    expect(leases()).not.toContain('lease/cloud/10.0.0.130');
  });
});

describe('a store that limits commits', () => {
  test('gets releases first, and what a part has stored is in use', async () => {
    const one = await start('m1', {}, 3);
    await elect('m1');
    const hosts = Array.from({ length: 10 }, (_, i) => `10.0.0.${10 + i}`);
    await Promise.all(hosts.map((host) => one.controller.admit('site-a', host, 'cloud', 4)));
    commits.length = 0;
    const released = one.controller.releaseClients('site-a');
    const admitted = one.controller.admit('site-b', '10.0.0.9', 'cloud', 4);
    expect(await released).toBe(10);
    await admitted;
    // With the guard, each commit has three.
    expect(commits.map(({ keys }) => keys.length)).toEqual([2, 2, 2, 2, 2, 1]);
  });

  test('that fails in the middle has what it has', async () => {
    const one = await start('m1', {}, 3);
    await elect('m1');
    let left = 1;
    const onCommit = shared.onCommit;
    shared.onCommit = (writes, by) => {
      onCommit(writes, by);
      if (left-- === 0) throw new Error('broken');
    };
    const hosts = ['10.0.0.10', '10.0.0.11', '10.0.0.12'];
    const admitted = hosts.map((host) => one.controller.admit('site-a', host, 'cloud', 4));
    await Promise.allSettled(admitted);
    const used = hosts.filter((host) => addressOf(one, 'cloud', `site-a/${host}`) !== undefined);
    expect(used).toEqual(['10.0.0.10', '10.0.0.11']);
    await pass(5000);
    expect(addressOf(one, 'cloud', 'site-a/10.0.0.12')).toBeDefined();
  });
});

test('a lease that changes by another hand is adopted while this machine allocates', async () => {
  const [one, two] = [await start('m1'), await start('m2')];
  await elect('m1');
  const value = { endpoint: 'site-a/10.0.0.99', usedAt: 1 };
  await two.store.commit([{ key: 'lease/cloud/10.0.0.200', value }]);
  await turn();
  await turn();
  for (const each of [one, two]) {
    expect(addressOf(each, 'cloud', 'site-a/10.0.0.99')).toBe('10.0.0.200');
  }
});

test('an entry that is no lease is reported, and the rest stays in force', async () => {
  const [one, two] = [await start('m1'), await start('m2')];
  await elect('m1');
  one.store.isLagging = true;
  void one.store.commit([{ key: 'lease/cloud/10.0.0.200', value: 'nonsense' }]);
  await turn();
  expect(two.problems).toEqual([expect.stringContaining('is not a lease')]);
  expect(two.controller.presences()).toHaveLength(3);
  void one.store.commit([{ key: 'lease/cloud/10.0.0.200', value: undefined }]);
});

test('the clients of a site lose their leases at any machine', async () => {
  const [one, two] = [await start('m1'), await start('m2')];
  await elect('m1');
  await two.controller.admit('site-a', '10.0.0.9', 'cloud', 4);
  expect(await two.controller.releaseClients('site-a')).toBe(1);
  await turn();
  for (const each of [one, two])
    expect(addressOf(each, 'cloud', 'site-a/10.0.0.9')).toBeUndefined();
});

test('a suspended site loses its leases by the machine that allocates', async () => {
  const options = { releaseSuspended: true };
  const [one, two] = [await start('m1', options), await start('m2', options)];
  await elect('m1');
  await two.controller.admit('site-a', '10.0.0.9', 'cloud', 4);
  await elect(undefined);
  for (const { controller } of [one, two]) controller.suspend('site-a', true);
  await elect('m2');
  await turn();
  const { value } = shared.entries.get('lease/cloud/10.0.0.130')!;
  expect(value).toMatchObject({ endpoint: 'site-a/10.0.0.9', releasedAt: expect.any(Number) });
});

test('what one machine has seen in use does not end for lack of use at another one', async () => {
  const presenceUses = async () => [{ realm: 'cloud', address: '10.0.0.130' }];
  const options = { clientIdleMs: 40_000, pressedIdleMs: 40_000 };
  const one = await start('m1', { ...options, presenceUses: async () => [] });
  const two = await start('m2', { ...options, presenceUses });
  await elect('m1');
  await two.controller.admit('site-a', '10.0.0.9', 'cloud', 4);
  await two.controller.admit('site-a', '10.0.0.10', 'cloud', 4);
  await pass(200_000);
  expect(addressOf(one, 'cloud', 'site-a/10.0.0.9')).toBe('10.0.0.130');
  expect(addressOf(two, 'cloud', 'site-a/10.0.0.10')).toBeUndefined();
  expect([one.problems, two.problems]).toEqual([[], []]);
});

test('what is no allocation is refused before anything is read', async () => {
  const { registry, store } = await start('m1');
  const translator = { load: () => {}, apply: () => {} };
  for (const allocation of [{ name: 'm1' }, { name: '', watch: () => () => {} }]) {
    const started = PresenceController.start({
      registry,
      store,
      translator,
      allocation: allocation as unknown as FakeAllocation,
    });
    await expect(started).rejects.toBeInstanceOf(ApiMisuseError);
  }
});
