/**
 * Which commands the kernel gets when routes change: those of what has changed, and again what has failed. A mock replaces
 * the machine.
 */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { IpPrefix } from '../../src/base/prefix.ts';
import type { RouteSetting } from '../../src/device/index.ts';
import { EnvironmentError } from '../../src/errors.ts';
import { silentLogger } from '../../src/observe/index.ts';
import { KernelRoutes, metricOf, type RouteTarget } from '../../src/worker/kernel-routes.ts';
import { FakeClock } from '../support/fake-clock.ts';

const { commands, machine } = vi.hoisted(() => ({
  commands: [] as string[],
  machine: { isFailing: false },
}));

vi.mock('../../src/device/index.ts', async (original) => ({
  ...(await original<typeof import('../../src/device/index.ts')>()),
  changeRoutes: async (settings: readonly RouteSetting[]) => {
    commands.push(settings.map(textOf).join(', '));
    if (machine.isFailing) throw new EnvironmentError('ip refuses');
  },
}));

function textOf({ prefix, device, metric }: RouteSetting): string {
  return `${prefix} ${device}${metric === undefined ? '' : ` ${metric}`}`;
}

let clock: FakeClock;
let targets: Map<string, RouteTarget>;
/** What the routes report, one line for each call. */
let changes: string[];
let routes: KernelRoutes;

beforeEach(async () => {
  commands.length = 0;
  machine.isFailing = false;
  clock = new FakeClock();
  changes = [];
  targets = new Map([
    ['a', { device: 'vp0' }],
    ['b', { device: 'vp1' }],
  ]);
  routes = new KernelRoutes({
    targetOf: (site) => targets.get(site),
    onChanged: async ({ added, removed }) => {
      changes.push(`added ${added.join(' ')}, removed ${removed.join(' ')}`);
    },
    logger: silentLogger,
    clock,
  });
  update({ '10.0.0.128/28': 'a', '10.0.0.144/28': 'b', '10.0.0.160/28': 'a' });
  await routes.open();
});
afterEach(() => routes.close());

function update(changes: Readonly<Record<string, string | undefined>>): void {
  routes.update(
    Object.entries(changes).map(([text, site]) => ({ prefix: IpPrefix.parse(text), site }))
  );
}

test('sets what is new, and removes what is gone after that', async () => {
  expect(commands).toEqual(['10.0.0.128/28 vp0, 10.0.0.144/28 vp1, 10.0.0.160/28 vp0']);
  update({ '10.0.0.144/28': undefined, '10.0.0.145/32': 'b', '10.0.0.146/32': 'a' });
  // The same again changes nothing.
  update({ '10.0.0.128/28': 'a' });
  await routes.sync();
  expect(commands.slice(1)).toEqual([
    '10.0.0.145/32 vp1, 10.0.0.146/32 vp0, 10.0.0.144/28 undefined',
  ]);
  await routes.sync();
  expect(commands).toHaveLength(2);
});

test('moves the routes of a site, and only these', async () => {
  targets.set('a', { device: 'vp1' });
  await routes.moved('a');
  expect(commands.slice(1)).toEqual(['10.0.0.128/28 vp1, 10.0.0.160/28 vp1']);
});

test('sets the routes of an interface that was created again', async () => {
  routes.forget('vp1');
  await routes.sync();
  expect(commands.slice(1)).toEqual(['10.0.0.144/28 vp1']);
});

test('tries again what has failed, as it is wanted then', async () => {
  machine.isFailing = true;
  update({ '10.0.0.144/28': undefined, '10.0.0.176/28': 'a' });
  await routes.sync();
  machine.isFailing = false;
  update({ '10.0.0.176/28': 'b' });
  await routes.sync();
  expect(commands.slice(1)).toEqual([
    '10.0.0.176/28 vp0, 10.0.0.144/28 undefined',
    '10.0.0.176/28 vp1, 10.0.0.144/28 undefined',
  ]);
  clock.advance(1000);
  await routes.sync();
  expect(commands).toHaveLength(3);
});

test('removes what a failed batch may have set, if it is not wanted any more', async () => {
  machine.isFailing = true;
  update({ '10.0.0.176/28': 'a' });
  await routes.sync();
  machine.isFailing = false;
  update({ '10.0.0.176/28': undefined });
  await routes.sync();
  expect(commands.slice(1)).toEqual(['10.0.0.176/28 vp0', '10.0.0.176/28 undefined']);
});

test('sets and removes the routes of a site as it is held and lost, also when nothing else changes', async () => {
  commands.length = 0;
  targets.set('b', { device: 'vp1', metric: metricOf(7) });
  await routes.moved('b');
  targets.delete('b');
  await routes.moved('b');
  await routes.moved('b');
  update({ '10.0.0.176/28': 'b' });
  await routes.sync();
  expect(commands).toEqual([
    '10.0.0.144/28 vp1 4294967289, 10.0.0.144/28 undefined',
    '10.0.0.144/28 undefined 4294967289',
  ]);
});

test('sets the route of a new epoch before it removes that of the last one', async () => {
  targets.set('a', { device: 'vp0', metric: metricOf(10) });
  await routes.moved('a');
  commands.length = 0;
  targets.set('a', { device: 'vp1', metric: metricOf(12) });
  await routes.moved('a');
  expect(commands).toEqual([
    '10.0.0.128/28 vp1 4294967284, 10.0.0.160/28 vp1 4294967284, 10.0.0.128/28 undefined 4294967286, 10.0.0.160/28 undefined 4294967286',
  ]);
});

test('removes every route that a failed change of epochs may have left', async () => {
  targets.set('b', { device: 'vp1', metric: 9 });
  await routes.moved('b');
  commands.length = 0;
  machine.isFailing = true;
  targets.set('b', { device: 'vp1', metric: 8 });
  await routes.moved('b');
  targets.set('b', { device: 'vp1', metric: 7 });
  await routes.moved('b');
  machine.isFailing = false;
  targets.delete('b');
  await routes.moved('b');
  expect(commands.at(-1)).toBe(
    '10.0.0.144/28 undefined 7, 10.0.0.144/28 undefined 8, 10.0.0.144/28 undefined 9'
  );
});

test('reports what has changed in the kernel, and again what has failed', async () => {
  expect(changes).toEqual(['added 10.0.0.128/28 10.0.0.144/28 10.0.0.160/28, removed ']);
  machine.isFailing = true;
  targets.delete('b');
  await routes.moved('b');
  expect(changes).toHaveLength(1);
  machine.isFailing = false;
  clock.advance(1000);
  await routes.sync();
  expect(changes.slice(1)).toEqual(['added , removed 10.0.0.144/28']);
});

test('gives a later epoch the smaller metric, from 1 to 2^32 - 1, and begins again after that', () => {
  expect([1, 2, 2 ** 32 - 1].map(metricOf)).toEqual([2 ** 32 - 1, 2 ** 32 - 2, 1]);
  expect([2 ** 32, 2 ** 32 + 1, 2 ** 33 - 2].map(metricOf)).toEqual([2 ** 32 - 1, 2 ** 32 - 2, 1]);
  expect(metricOf(Number.MAX_SAFE_INTEGER)).toBeGreaterThanOrEqual(1);
});
