import { describe, expect, test } from 'vitest';
import { Cloud, DNS_TTL_MS, MAX_DETACHED_MS, TTL_MS } from './cloud.ts';

describe('the horizon', () => {
  test('is what the last machine has applied, a TTL later', async () => {
    const cloud = new Cloud();
    const m1 = await cloud.start('m1');
    const m2 = await cloud.start('m2');
    m1.member.setApplied(100);
    await cloud.pass(DNS_TTL_MS + 1000);
    expect(m1.horizon.version).toBe(0);
    m2.member.setApplied(90);
    await cloud.settle();
    await cloud.pass(DNS_TTL_MS - 250);
    expect(m1.horizon.version).toBe(0);
    await cloud.pass(250);
    expect(m1.horizon.version).toBe(90);
    expect(m2.horizon.version).toBe(90);
  });

  test('waits for a machine that is cut off until it must have stopped, and a TTL', async () => {
    const cloud = new Cloud();
    const m1 = await cloud.start('m1');
    const m2 = await cloud.start('m2');
    m1.member.setApplied(50);
    m2.member.setApplied(50);
    await cloud.pass(DNS_TTL_MS + 250);
    m2.store.inner.disconnect();
    m1.member.setApplied(80);
    await cloud.pass(TTL_MS + MAX_DETACHED_MS + DNS_TTL_MS - 250);
    expect(m1.horizon.version).toBe(50);
    await cloud.pass(500);
    expect(m1.horizon.version).toBe(80);
  });

  test('waits for a machine that was cut off and is back until it has applied', async () => {
    const cloud = new Cloud();
    const m1 = await cloud.start('m1');
    const m2 = await cloud.start('m2');
    m1.member.setApplied(50);
    m2.member.setApplied(50);
    await cloud.pass(DNS_TTL_MS + 250);
    m2.store.inner.disconnect();
    m1.member.setApplied(80);
    await cloud.pass(TTL_MS + 1000);
    m2.store.inner.reconnect();
    await cloud.pass(MAX_DETACHED_MS + 2 * DNS_TTL_MS);
    expect(m1.horizon.version).toBe(50);
    m2.member.setApplied(80);
    await cloud.pass(DNS_TTL_MS + 1250);
    expect(m1.horizon.version).toBe(80);
  });

  test('waits for a machine that may go on for ever until it is removed, and a TTL', async () => {
    const cloud = new Cloud();
    const m1 = await cloud.start('m1');
    const m2 = await cloud.start('m2', { maxDetachedMs: Number.POSITIVE_INFINITY });
    await cloud.kill(m2);
    m1.member.setApplied(80);
    await cloud.pass(2 * MAX_DETACHED_MS);
    expect(m1.horizon.version).toBe(0);
    await m1.member.remove('m2');
    await cloud.pass(DNS_TTL_MS - 250);
    expect(m1.horizon.version).toBe(0);
    let calls = 0;
    m1.allocation.watch(() => calls++);
    await cloud.pass(250);
    expect(m1.allocation.horizon).toBe(80);
    expect(calls).toBe(1);
  });

  test('of a process that starts later counts from when that one saw it', async () => {
    const cloud = new Cloud();
    const m1 = await cloud.start('m1');
    m1.member.setApplied(80);
    await cloud.pass(DNS_TTL_MS + 250);
    const m2 = await cloud.start('m2');
    m2.member.setApplied(80);
    expect(m2.horizon.version).toBe(0);
    await cloud.pass(DNS_TTL_MS + 250);
    expect(m2.horizon.version).toBe(80);
  });

  test('writes what is applied once in a while', async () => {
    const cloud = new Cloud();
    const m1 = await cloud.start('m1');
    let writes = 0;
    cloud.handle().watch('applied/', () => writes++);
    for (let version = 1; version <= 40; version++) {
      m1.member.setApplied(version);
      await cloud.pass(100);
    }
    await cloud.pass(1000);
    expect(writes).toBeGreaterThan(2);
    expect(writes).toBeLessThanOrEqual(6);
    expect(await m1.store.get('applied/m1')).toMatchObject({ value: { version: 40 } });
  });
});
