/** Exposures that begin and end by the time of day. */
import { describe, expect, test } from 'vitest';
import { FakeClock } from '../support/fake-clock.ts';
import { DESIRED, expectFault, openScene } from './scene.ts';

const START_MS = Date.parse('2026-12-01T08:00:00Z');
const MINUTE_MS = 60_000;
const BOXED = {
  service: 'mq',
  site: 'site-a',
  notBefore: '2026-12-01T09:10:00+01:00',
  notAfter: '2026-12-01T08:20:30.500Z',
};

async function open(exposure: object = BOXED) {
  const clock = new FakeClock({ wallMs: START_MS });
  return { clock, ...(await openScene({ ...DESIRED, exposures: [exposure] }, clock)) };
}

describe('an exposure with a time box', () => {
  test('is in force from notBefore on until notAfter', async () => {
    const { clock, exposed, touched } = await open();
    expect(exposed()).toEqual([]);
    clock.advance(10 * MINUTE_MS - 1);
    expect(exposed()).toEqual([]);
    expect(touched()).toEqual([]);
    clock.advance(1);
    expect(exposed()).toEqual(['site-a/mq']);
    expect(touched()).toEqual(['site-a/mq']);
    clock.advance(10 * MINUTE_MS + 30_499);
    expect(exposed()).toEqual(['site-a/mq']);
    clock.advance(1);
    expect(exposed()).toEqual([]);
    expect(touched()).toEqual(['site-a/mq']);
  });

  test('keeps its instants in UTC, and stays a record', async () => {
    const { clock, registry, store } = await open();
    clock.advance(60 * MINUTE_MS);
    const utc = { notBefore: '2026-12-01T08:10:00.000Z', notAfter: '2026-12-01T08:20:30.500Z' };
    expect(registry.state.exposures).toEqual([{ ...BOXED, ...utc }]);
    expect(await store.get('desired/exposure/site-a/mq')).toMatchObject({ value: { spec: utc } });
  });

  test('follows a wall clock that is set, within a minute', async () => {
    const { clock, exposed, touched } = await open();
    clock.setWall(START_MS + 15 * MINUTE_MS);
    clock.advance(MINUTE_MS);
    expect(exposed()).toEqual(['site-a/mq']);
    clock.setWall(START_MS);
    clock.advance(MINUTE_MS);
    expect(exposed()).toEqual([]);
    clock.setWall(START_MS + 24 * 60 * MINUTE_MS);
    clock.advance(MINUTE_MS);
    expect(exposed()).toEqual([]);
    expect(touched()).toEqual(['site-a/mq']);
  });

  test('keeps its name, its address and its place before selectors while it is not in force', async () => {
    const { registry, exposed } = await open({ ...BOXED, address: '10.0.0.200' });
    await registry.expose({ name: 'all', service: 'mq', siteSelector: {} }, 'admin');
    expect(exposed()).toEqual(['site-b/mq', 'site-c/mq']);
    const web = { service: 'web', site: 'site-a' };
    await expectFault(
      registry.expose({ ...web, dnsName: 'mq' }, 'admin'),
      'dnsName: mq.site-a.test is the name of "mq" in "site-a" already'
    );
    await expectFault(
      registry.expose({ ...web, address: '10.0.0.200' }, 'admin'),
      'address: 10.0.0.200 is the address of "mq" in "site-a" already'
    );
  });

  test('with a selector begins and ends in all its sites', async () => {
    const { site: _site, ...terms } = BOXED;
    const { clock, exposed, touched } = await open({ ...terms, name: 'all', siteSelector: {} });
    clock.advance(10 * MINUTE_MS);
    const all = ['site-a/mq', 'site-b/mq', 'site-c/mq'];
    expect([exposed(), touched()]).toEqual([all, all]);
    clock.advance(11 * MINUTE_MS);
    expect([exposed(), touched()]).toEqual([[], all]);
  });

  test.each<[more: object, message: string]>([
    [
      { notBefore: '2026-12-01T08:10:00' },
      'notBefore: expected a time with its offset such as 2026-12-01T09:00:00+01:00, got "2026-12-01T08:10:00"',
    ],
    [
      { notAfter: '2026-02-30T08:10:00Z' },
      'notAfter: expected a time with its offset such as 2026-12-01T09:00:00+01:00, got "2026-02-30T08:10:00Z"',
    ],
    [
      { notAfter: '2026-12-01T08:10:00Z' },
      'notAfter: 2026-12-01T08:10:00.000Z is not after notBefore, 2026-12-01T08:10:00.000Z',
    ],
  ])('%j is refused', async (more, message) => {
    const { registry } = await openScene();
    await expectFault(registry.expose({ ...BOXED, ...more }, 'admin'), message);
  });
});

test('there is a timer only while there is a box, and it is at most a minute long', async () => {
  const { clock, registry } = await open({ service: 'mq', site: 'site-a' });
  expect(clock.delays).toEqual([]);
  await registry.expose({ ...BOXED, site: 'site-b' }, 'admin');
  expect(clock.delays).toEqual([MINUTE_MS]);
  clock.advance(20 * MINUTE_MS);
  expect(clock.delays).toEqual([30_500]);
  await registry.unexpose({ service: 'mq', site: 'site-b' }, 'admin');
  expect(clock.delays).toEqual([]);
  await registry.expose({ ...BOXED, site: 'site-b' }, 'admin');
  await registry.close();
  expect(clock.delays).toEqual([]);
});
