/** What changes at a machine while its registration is on its way to the store. */
import { expect, test } from 'vitest';
import { Cloud, TTL_MS } from './cloud.ts';

test('a machine that is resumed while it registers does not stay a draining one for the others', async () => {
  const cloud = new Cloud();
  const m1 = await cloud.start('m1');
  const m2 = await cloud.start('m2');
  await m1.member.setDraining(true);
  m1.store.inner.disconnect();
  await cloud.pass(TTL_MS + 500);
  m1.store.fail('worker/', 'slow');
  m1.store.inner.reconnect();
  await cloud.pass(1000);
  expect(m1.member.state).toBe('detached');
  await m1.member.setDraining(false);
  await m1.store.deliver();
  await cloud.pass(500);
  expect(m1.member.state).toBe('attached');
  expect(m2.member.machines.get('m1')).toMatchObject({ isLive: true, isDraining: false });
});

test('what a machine has applied while it registers is written when it is attached', async () => {
  const cloud = new Cloud();
  const m1 = await cloud.start('m1');
  const m2 = await cloud.start('m2');
  m1.member.setApplied(1);
  await cloud.pass(1000);
  m1.store.inner.disconnect();
  await cloud.pass(TTL_MS + 500);
  m1.store.fail('worker/', 'slow');
  m1.store.inner.reconnect();
  await cloud.pass(1000);
  expect(m1.member.state).toBe('detached');
  m1.member.setApplied(2);
  await cloud.pass(2000);
  await m1.store.deliver();
  await cloud.pass(2000);
  expect(m1.member.state).toBe('attached');
  expect(await m2.store.inner.get('applied/m1')).toMatchObject({ value: { version: 2 } });
});
