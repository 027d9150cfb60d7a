/**
 * Which commands the kernel gets when routes change: those of what has changed, and again what has failed. A mock replaces
 * the machine.
 */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { IpPrefix } from '../../src/base/prefix.ts';
import { EnvironmentError } from '../../src/errors.ts';
import { silentLogger } from '../../src/observe/index.ts';
import { KernelRoutes } from '../../src/worker/kernel-routes.ts';
import { FakeClock } from '../support/fake-clock.ts';

const { commands, machine } = vi.hoisted(() => ({
  commands: [] as string[],
  machine: { isFailing: false },
}));

vi.mock('../../src/device/index.ts', async (original) => ({
  ...(await original<typeof import('../../src/device/index.ts')>()),
  changeRoutes: async (settings: readonly { prefix: IpPrefix; device?: string }[]) => {
    commands.push(settings.map(({ prefix, device }) => `${prefix} ${device}`).join(', '));
    if (machine.isFailing) throw new EnvironmentError('ip refuses');
  },
}));

let clock: FakeClock;
let devices: Map<string, string>;
let routes: KernelRoutes;

beforeEach(async () => {
  commands.length = 0;
  machine.isFailing = false;
  clock = new FakeClock();
  devices = new Map([
    ['a', 'vp0'],
    ['b', 'vp1'],
  ]);
  const deviceOf = (site: string) => devices.get(site)!;
  routes = new KernelRoutes({ deviceOf, logger: silentLogger, clock });
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
  devices.set('a', 'vp1');
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
