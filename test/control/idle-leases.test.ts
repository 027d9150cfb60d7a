/**
 * Client leases that end because nobody has used them for long, by an injected clock.
 */
import { describe, expect, test } from 'vitest';
import { type PresenceUse, PresenceUses } from '../../src/control/index.ts';
import { ApiMisuseError } from '../../src/errors.ts';
import { type PathStatus, Verdict } from '../../src/translator/index.ts';
import { tcpPacket } from '../support/packets.ts';
import { framed, VNET } from '../support/vnet.ts';
import {
  DESIRED,
  type Scene,
  SceneClock,
  type SceneOptions,
  ScriptedStore,
  SITE,
  startScene,
  turn,
} from './scene.ts';

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
/** How often the test looks, in a year. */
const STEP_MS = 4 * HOUR_MS;

/** The pools of cloud.yaml; the hosts of site-a have IPv6 addresses only. */
const cloudOf = (pool: string) => ({
  sites: [
    { name: 'cloud', sources: ['10.0.0.0/24'], pools: [pool], zone: 'cloud.test' },
    { name: 'site-a', sources: ['2001:db8::/64'], pools: ['fd00::/120'], zone: 'a.test' },
    { name: 'site-b', sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'], zone: 'b.test' },
  ],
  services: [{ name: 'rabbitmq', site: 'cloud', address: '10.0.0.5', ports: ['tcp/5672'] }],
  exposures: [
    { service: 'rabbitmq', site: 'site-a' },
    { service: 'rabbitmq', site: 'site-b' },
  ],
});

describe('a year', () => {
  test.each([
    ['10.0.0.128/25', 6, 3],
    ['10.128.0.0/16', 6, 3],
  ])(
    'has no refusal when hosts use 2,000 privacy addresses, with the cloud pool %s',
    async (pool, hostCount, aliveDays) => {
      const inUse = new Map<string, number>();
      const used: PresenceUse[] = [];
      const clock = new SceneClock();
      const { controller, translator, problems } = await startScene(
        cloudOf(pool),
        { ...UNAUDITED, presenceUses: async () => used.splice(0) },
        { clock }
      );
      let made = 0;
      const refusals: string[] = [];
      // RFC 8981: a host makes a new address about every day, and goes on to use those before for some days.
      const betweenMs = (hostCount * 365 * DAY_MS) / 2000;
      const presences = () =>
        new Map(translator.presences.map(({ of, address }) => [of.address, address]));
      for (let atMs = 0; atMs < 365 * DAY_MS; atMs += STEP_MS) {
        while (made < 2000 && (made / hostCount) * betweenMs <= atMs) {
          const address = `2001:db8::${(0x1000 + made++).toString(16)}`;
          inUse.set(address, atMs + aliveDays * DAY_MS);
          await controller
            .admit('site-a', address, 'cloud', 4)
            .catch((error: Error) => refusals.push(`${address}: ${error.message}`));
        }
        for (const [host, endMs] of inUse) if (endMs <= atMs) inUse.delete(host);
        const addresses = presences();
        for (const host of inUse.keys()) {
          // A host that uses an address keeps it.
          if (!addresses.has(host)) refusals.push(`${host} has lost its address`);
          else used.push({ realm: 'cloud', address: addresses.get(host)! });
        }
        if (refusals.length > 0) break;
        await clock.pass(STEP_MS);
      }
      expect(refusals, `after ${made} addresses`).toEqual([]);
      expect(made).toBe(2000);
      expect(problems).toEqual([]);
    },
    120_000
  );
});

/** Days pass in these tests, and each round of the audit would take its time. */
const UNAUDITED = { auditMs: Number.POSITIVE_INFINITY };

/** A scene whose data plane says what the test has put into `used`, and a way to let hours pass. */
async function idleScene(options: SceneOptions = {}, from?: Partial<Scene>) {
  const used: PresenceUse[] = [];
  const asked = { times: 0, isFailing: false };
  const scene = await startScene(
    DESIRED,
    {
      ...UNAUDITED,
      presenceUses: async () => {
        asked.times++;
        if (asked.isFailing) throw new Error('the data plane is away');
        return used.splice(0);
      },
      clientIdleMs: 10 * DAY_MS,
      ...options,
    },
    from
  );
  const { clock, translator } = scene;
  const addressOf = (host: string) => translator.addressOf('cloud', 'site-a', host);
  /** Lets time pass; these hosts of site-a use their presences in the cloud all the while. */
  const pass = async (hours: number, ...hosts: string[]): Promise<void> => {
    for (let i = 0; i < hours; i++) {
      for (const host of hosts) used.push({ realm: 'cloud', address: addressOf(host)! });
      await clock.pass(HOUR_MS);
    }
  };
  return { ...scene, asked, addressOf, pass };
}

const BUSY = '10.0.0.7';
const QUIET = '10.0.0.8';

async function twoClients(options?: SceneOptions) {
  const scene = await idleScene(options);
  await scene.controller.admit('site-a', BUSY, 'cloud', 4);
  await scene.controller.admit('site-a', QUIET, 'cloud', 4);
  return scene;
}

describe('a lease that nobody uses', () => {
  test('ends after the idle time; a used one and that of a service do not', async () => {
    const { pass, addressOf, store, controller, translator } = await twoClients();
    const address = addressOf(QUIET)!;
    await pass(10 * 24 - 1, BUSY);
    expect(addressOf(QUIET)).toBe(address);
    await pass(2, BUSY);
    expect(addressOf(QUIET)).toBeUndefined();
    expect(store.leases.get(`lease/cloud/${address}`)).toHaveProperty('releasedAt');
    expect(addressOf(BUSY)).toBeDefined();
    expect(translator.addressOf('cloud', 'site-a', '10.0.0.5')).toBeDefined();
    expect(translator.unstored).toEqual([]);
    await pass(100 * 24, BUSY);
    expect(translator.addressOf('cloud', 'site-a', '10.0.0.5')).toBeDefined();
    // As long as nobody has needed it, it is its own again.
    await controller.admit('site-a', QUIET, 'cloud', 4);
    expect(addressOf(QUIET)).toBe(address);
  });

  test('ends although the gateway restarts every day; one that is used now and then does not', async () => {
    let scene = await twoClients();
    for (let day = 0; day < 8; day++) {
      // In one hour of a day, and every third day only.
      await scene.pass(1, ...(day % 3 === 0 ? [BUSY] : []));
      await scene.pass(23);
      expect(scene.addressOf(QUIET)).toBeDefined();
      scene = await idleScene({}, scene);
    }
    for (let day = 0; day < 22; day++) {
      await scene.pass(1, ...(day % 3 === 0 ? [BUSY] : []));
      await scene.pass(23);
      expect(scene.addressOf(BUSY)).toBeDefined();
      scene = await idleScene({}, scene);
    }
    expect(scene.addressOf(QUIET)).toBeUndefined();
  });

  test('does not end because the gateway was off for long', async () => {
    const scene = await twoClients();
    await scene.controller.close();
    scene.clock.advance(400 * DAY_MS);
    const again = await idleScene({}, scene);
    await again.pass(9 * 24);
    expect(again.addressOf(QUIET)).toBeDefined();
  });

  test('does not end while the data plane fails to say what was used, which is reported', async () => {
    const { pass, addressOf, asked, problems } = await twoClients();
    asked.isFailing = true;
    await pass(20 * 24);
    expect(addressOf(QUIET)).toBeDefined();
    expect(problems[0]).toBe('the data plane is away');
    asked.isFailing = false;
    await pass(1, BUSY);
    expect([addressOf(BUSY) !== undefined, addressOf(QUIET)]).toEqual([true, undefined]);
  });

  test('never ends without the option presenceUses', async () => {
    const { controller, clock, translator } = await startScene(DESIRED, UNAUDITED);
    await controller.admit('site-a', QUIET, 'cloud', 4);
    await clock.pass(1000 * DAY_MS);
    expect(translator.addressOf('cloud', 'site-a', QUIET)).toBeDefined();
  });

  test('counts as used at the start if the store has no uses, and ends later', async () => {
    const { store, controller, clock } = await twoClients();
    await controller.close();
    const [key, value] = [...store.leases].find(([, lease]) =>
      JSON.stringify(lease).includes(QUIET)
    )! as [string, { endpoint: string }];
    await store.commit([
      { key, value: { endpoint: value.endpoint } },
      { key: 'lease-clock', value: undefined },
    ]);
    const { pass, addressOf } = await idleScene({}, { store, clock });
    await pass(9 * 24);
    expect(addressOf(QUIET)).toBeDefined();
    await pass(2 * 24);
    expect(addressOf(QUIET)).toBeUndefined();
  });

  test('is used by a client that asks for it again', async () => {
    const { pass, addressOf, controller } = await twoClients();
    await pass(9 * 24);
    await controller.admit('site-a', QUIET, 'cloud', 4);
    await pass(9 * 24);
    expect([addressOf(BUSY), addressOf(QUIET) !== undefined]).toEqual([undefined, true]);
  });

  test('is out of use even if that cannot be stored, which is stored later', async () => {
    const { pass, addressOf, store, problems } = await twoClients();
    await pass(10 * 24 - 1);
    store.isFailing = true;
    await pass(2);
    expect(addressOf(QUIET)).toBeUndefined();
    expect(problems).toContain('the disk is full');
    store.isFailing = false;
    await pass(1);
    const ended = [...store.leases.values()].filter((lease) => 'releasedAt' in (lease as object));
    expect(ended).toHaveLength(2);
  });

  test('ends with many others, in slices, between which others are admitted', async () => {
    const sites = DESIRED.sites.map((site) => ({
      ...site,
      sources: ['10.0.0.0/8'],
      pools: ['10.128.0.0/16'],
      maxClients: 5000,
    }));
    const clock = new SceneClock();
    const options = { ...UNAUDITED, presenceUses: async () => [], clientIdleMs: DAY_MS };
    const scene = await startScene({ ...DESIRED, sites }, options, { clock });
    const { controller, translator, store } = scene;
    const hosts = Array.from({ length: 1200 }, (_, i) => `10.1.${i >> 8}.${i & 255}`);
    await Promise.all(hosts.map((host) => controller.admit('site-a', host, 'cloud', 4)));
    await clock.pass(DAY_MS - HOUR_MS);
    const commits = store.leaseCommits;
    translator.changes.length = 0;
    // In a slice are 300 looks at the clock.
    clock.tickMs = 0.01;
    await clock.pass(HOUR_MS);
    await controller.admit('site-a', '10.1.200.1', 'cloud', 4);
    const held = () => translator.presences.length - 4;
    expect(held()).toBeGreaterThan(600);
    while (held() > 0) await turn();
    const sizes = translator.changes.map(({ presences = [] }) => presences.length);
    expect(Math.max(...sizes)).toBeLessThan(150);
    expect(store.leaseCommits - commits).toBeGreaterThan(8);
    expect(translator.addressOf('cloud', 'site-a', '10.1.200.1')).toBeDefined();

    // Leases end also if the gateway is closed while others end.
    await clock.pass(1);
    await controller.close();
    expect(translator.unstored).toEqual([]);
  });
});

describe('a wall clock that jumps', () => {
  test.each([
    ['forward', 400 * DAY_MS],
    ['back', -400 * DAY_MS],
  ])('%s ends no lease and no quarantine, also over a restart', async (_what, jumpMs) => {
    const clock = new SceneClock();
    const options = {
      ...UNAUDITED,
      quarantineMs: 3 * HOUR_MS,
      clientIdleMs: 10 * DAY_MS,
      presenceUses: async () => [],
    };
    const pool = { ...SITE, pools: ['10.0.0.128/30'], serviceReserve: 0 };
    const sites = DESIRED.sites.map((site) =>
      site.name === 'cloud' ? { ...site, ...pool } : site
    );
    const desired = { ...DESIRED, sites, exposures: DESIRED.exposures.slice(0, 3) };
    let scene = await startScene(desired, options, { clock });
    await scene.controller.admit('site-a', QUIET, 'cloud', 4);
    await scene.controller.admit('site-b', QUIET, 'cloud', 4);
    await scene.controller.releaseClients('site-a');
    clock.setWall(clock.wallMs() + jumpMs);
    for (let round = 0; round < 2; round++) {
      await clock.pass(HOUR_MS);
      expect(scene.translator.addressOf('cloud', 'site-b', QUIET)).toBeDefined();
      // The address of site-a is still in quarantine, and another host of it gets none.
      const refused = scene.controller.admit('site-a', BUSY, 'cloud', 4);
      await expect(refused).rejects.toThrow('1 of 2 addresses leased, 1 in quarantine');
      scene = await startScene(desired, options, scene);
    }
    await clock.pass(HOUR_MS);
    await scene.controller.admit('site-a', BUSY, 'cloud', 4);
  });
});

describe('the leases of a suspended site', () => {
  test('are kept, until they have been idle for long', async () => {
    const { controller, store, pass } = await twoClients();
    controller.suspend('site-a', true);
    const ofClients = () =>
      controller.presences().filter(({ of }) => [BUSY, QUIET].includes(`${of.address}`));
    await pass(9 * 24);
    expect(ofClients()).toHaveLength(2);
    await pass(2 * 24);
    expect(ofClients()).toHaveLength(0);
    expect(store.leases.size).toBe(5);
  });

  test('are released at once with releaseSuspended, also those from before the start', async () => {
    const scene = await twoClients({ releaseSuspended: true });
    const { controller, translator } = scene;
    controller.suspend('site-a', true);
    await turn();
    expect(controller.presences().map(({ of }) => of.address)).not.toContain(QUIET);
    controller.suspend('site-a', false);
    expect(translator.addressOf('cloud', 'site-a', '10.0.0.5')).toBeDefined();
    await controller.admit('site-a', QUIET, 'cloud', 4);
    const again = await idleScene({ releaseSuspended: true, suspended: ['site-a'] }, scene);
    await turn();
    expect(again.controller.presences().map(({ of }) => of.address)).not.toContain(QUIET);
  });

  test('are released on request; those of its services stay', async () => {
    const { controller, addressOf, store, translator } = await twoClients();
    const address = addressOf(QUIET)!;
    expect(await controller.releaseClients('site-a')).toBe(2);
    expect(await controller.releaseClients('site-a')).toBe(0);
    expect([addressOf(BUSY), addressOf(QUIET)]).toEqual([undefined, undefined]);
    expect(translator.addressOf('cloud', 'site-a', '10.0.0.5')).toBeDefined();
    expect(store.leases.get(`lease/cloud/${address}`)).toHaveProperty('releasedAt');
    await controller.close();
    await expect(controller.releaseClients('site-a')).rejects.toThrow(ApiMisuseError);
  });
});

test('refuses a store whose clock is not one', async () => {
  const store = new ScriptedStore();
  await store.commit([{ key: 'lease-clock', value: { runMs: 'noon' } }]);
  await expect(startScene(DESIRED, {}, { store })).rejects.toThrow(
    'lease-clock in the store is not a clock: runMs: expected a number, got "noon"'
  );
});

test.each([
  [{ clientIdleMs: 1000, pressedIdleMs: 1001 }, 'clientIdleMs 1000 is shorter than pressedIdleMs'],
  [{ pressedIdleMs: 0 }, 'pressedIdleMs must be more than 0: 0'],
  [{ clientIdleMs: Number.NaN }, 'pressedIdleMs must be more than 0: NaN'],
])('refuses the options %j', async (options, message) => {
  await expect(startScene(DESIRED, options)).rejects.toThrow(message);
});

describe('PresenceUses', () => {
  const path = (packets: number, more: Partial<PathStatus> = {}): PathStatus => ({
    ingress: 'site-a',
    source: QUIET,
    destination: '10.0.0.129',
    egress: 'cloud',
    newSource: '10.0.0.130',
    newDestination: '10.0.0.5',
    packets,
    bytes: 0,
    ...more,
  });
  const both = [
    { realm: 'site-a', address: '10.0.0.129' },
    { realm: 'cloud', address: '10.0.0.130' },
  ];

  test('returns both presences of a path only when its packets have grown', async () => {
    let paths = [path(1)];
    const uses = new PresenceUses(() => paths);
    expect(await uses.since()).toEqual(both);
    expect(await uses.since()).toEqual([]);
    paths = [path(2)];
    expect(await uses.since()).toEqual(both);
  });

  test('adds up the paths of a presence, and counts a path that is gone as a use', async () => {
    const other = { source: BUSY, newSource: '10.0.0.131' };
    let paths = [path(1), path(1, other)];
    const uses = new PresenceUses(() => paths);
    await uses.since();
    paths = [path(1), path(2, other)];
    expect(await uses.since()).toEqual([both[0], { realm: 'cloud', address: '10.0.0.131' }]);
    paths = [path(1)];
    expect(await uses.since()).toEqual([both[0], { realm: 'cloud', address: '10.0.0.131' }]);
    expect(await uses.since()).toEqual([]);
  });

  test('lets the event loop run after every thousand paths', async () => {
    let turns = 0;
    let read = 0;
    const uses = new PresenceUses(function* () {
      for (; read < 10_000; read++) yield path(1);
    });
    const asked = uses.since();
    let isDone = false;
    void asked.then(() => {
      isDone = true;
    });
    while (!isDone) {
      const before = read;
      await turn();
      expect(read - before).toBeLessThanOrEqual(1000);
      turns++;
    }
    expect(turns).toBeGreaterThanOrEqual(10);
  });

  test('notices the packets of a client in a real translator', async () => {
    const { controller, translator } = await startScene();
    await controller.admit('site-a', BUSY, 'cloud', 4);
    const uses = new PresenceUses(() => translator.real.paths());
    expect(await uses.since()).toEqual([]);
    const destination = translator.addressOf('site-a', 'cloud', '10.0.0.5')!;
    const packet = framed(
      tcpPacket({ source: BUSY, destination }, { sourcePort: 4000, destinationPort: 5672 })
    );
    const realm = translator.real.realm('site-a');
    const verdict = translator.real.translate(realm, packet, VNET, packet.length, 0);
    expect(verdict).toBe(Verdict.Forward);
    expect(await uses.since()).toEqual([
      { realm: 'site-a', address: destination },
      { realm: 'cloud', address: translator.addressOf('cloud', 'site-a', BUSY) },
    ]);
  });
});
