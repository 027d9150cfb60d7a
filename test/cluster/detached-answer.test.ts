/** A machine that is asked for a site, and is detached before the store has taken its answer. */
import { expect, test } from 'vitest';
import { Cloud, TTL_MS } from './cloud.ts';

const SITE = 'site-a';

test('waits with its answer until it is attached, and goes on meanwhile', async () => {
  const cloud = new Cloud();
  const m1 = await cloud.start('m1');
  const m2 = await cloud.start('m2');
  await m1.claims.claim(SITE);
  await cloud.pass(1000);
  // Its tunnel is dead, and the store does not take that it gives the site up.
  m1.store.fail('holder/', 'slow');
  const first = m2.claims.claim(SITE);
  await cloud.pass(500);
  expect(await m1.store.list('want/')).toHaveLength(1);
  m1.store.inner.disconnect();
  await cloud.pass(TTL_MS - 250);
  await m1.store.deliver();
  // With a loop that never waits, this does not end.
  await cloud.pass(1000);
  expect(m1.member.state).toBe('detached');
  await first;
  m1.store.inner.reconnect();
  const second = m2.claims.claim(SITE);
  await cloud.pass(1000);
  expect(await second).toMatchObject({ kind: 'held' });
});
