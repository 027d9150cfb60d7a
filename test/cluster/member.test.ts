import { describe, expect, test } from 'vitest';
import { Member } from '../../src/cluster/index.ts';
import { Cloud, MAX_DETACHED_MS, TTL_MS } from './cloud.ts';

describe('a machine', () => {
  test('is alive for the others until it is closed', async () => {
    const cloud = new Cloud();
    const m1 = await cloud.start('m1');
    const m2 = await cloud.start('m2');
    expect(m1.member.machines.list()).toMatchObject([
      { name: 'm1', isLive: true },
      { name: 'm2', isLive: true, endpoints: [{ host: 'm2.example.org', port: 7443 }] },
    ]);
    await m2.member.close();
    expect(m1.member.machines.get('m2')).toMatchObject({ isLive: false, endpoints: [] });
  });

  test('that is killed is not alive when its lease ends, and then comes back', async () => {
    const cloud = new Cloud();
    const m1 = await cloud.start('m1');
    const m2 = await cloud.start('m2');
    await cloud.kill(m2);
    expect(m1.member.machines.get('m2')?.isLive).toBe(true);
    const again = await cloud.start('m2');
    expect(again.member.state).toBe('attached');
    expect(m1.member.machines.get('m2')?.isLive).toBe(true);
  });

  test('cannot have the name of another process that is alive', async () => {
    const cloud = new Cloud();
    await cloud.start('m1');
    await expect(cloud.start('m1')).rejects.toThrow(
      'another process is machine "m1" and is alive; give each machine a name of its own'
    );
  });

  test('refuses a store with the data of another cloud', async () => {
    const cloud = new Cloud();
    const store = cloud.handle();
    await store.commit([{ key: 'meta', value: { cluster: 'x', cloud: 'example.com' } }]);
    const joining = cloud.start('m1', { cloud: 'example.org' });
    await expect(joining).rejects.toThrow('has the data of the cloud "example.com"');
    await store.commit([{ key: 'meta', value: 'not ours' }]);
    await expect(cloud.start('m1')).rejects.toThrow('is not one of a cloud');
  });

  test('says which option is wrong', async () => {
    const cloud = new Cloud();
    const options = { store: cloud.handle(), machine: 'm1', endpoints: [], ttlMs: 2000 };
    await expect(Member.join({ ...options, machine: 'M 1' })).rejects.toThrow('machine: ');
    await expect(Member.join({ ...options, ttlMs: 0 })).rejects.toThrow('ttlMs must be above 0');
  });
});

describe('a machine that loses its lease', () => {
  test('is detached no later than others see it, and attaches again', async () => {
    const cloud = new Cloud();
    const m1 = await cloud.start('m1');
    const m2 = await cloud.start('m2');
    const states: string[] = [];
    m1.member.on('state', ({ state }) => states.push(state));
    m2.member.on('machines', () => {
      const state = `m2 sees ${m2.member.machines.get('m1')?.isLive}`;
      if (!states.includes(state)) states.push(state);
    });
    m1.store.inner.disconnect();
    await cloud.pass(TTL_MS + 500);
    expect(states).toEqual(['detached', 'm2 sees false']);
    expect(m1.member.lease).toBeUndefined();
    m1.store.inner.reconnect();
    await cloud.pass(1000);
    expect(states).toEqual(['detached', 'm2 sees false', 'm2 sees true', 'attached']);
  });

  test('has to stop after maxDetachedMs', async () => {
    const cloud = new Cloud();
    const m1 = await cloud.start('m1');
    let stops = 0;
    m1.member.on('stop', ({ detachedMs }) => {
      stops++;
      expect(detachedMs).toBe(MAX_DETACHED_MS);
    });
    m1.store.inner.disconnect();
    await cloud.pass(TTL_MS + MAX_DETACHED_MS - 500);
    expect(stops).toBe(0);
    await cloud.pass(1000);
    expect(stops).toBe(1);
  });

  test('does not have to stop if it is attached again before', async () => {
    const cloud = new Cloud();
    const m1 = await cloud.start('m1');
    m1.member.on('stop', () => expect.unreachable());
    m1.store.inner.disconnect();
    await cloud.pass(TTL_MS + 500);
    m1.store.inner.reconnect();
    await cloud.pass(MAX_DETACHED_MS + TTL_MS);
    expect(m1.member.state).toBe('attached');
  });
});

describe('a machine that is removed', () => {
  test('must be off, is gone for the others, and does not come back by itself', async () => {
    const cloud = new Cloud();
    const m1 = await cloud.start('m1');
    const m2 = await cloud.start('m2');
    await expect(m1.member.remove('m2')).rejects.toThrow('machine "m2" is alive');
    await expect(m1.member.remove('m3')).rejects.toThrow('there is no machine "m3"');
    let stops = 0;
    m2.member.on('stop', () => stops++);
    m2.store.inner.disconnect();
    await cloud.pass(TTL_MS + 500);
    await m1.member.remove('m2');
    expect(m1.member.machines.list().map(({ name }) => name)).toEqual(['m1']);
    m2.store.inner.reconnect();
    await cloud.pass(5000);
    expect(m2.member.state).toBe('removed');
    expect(stops).toBe(1);
    await expect(m2.member.store.commit([{ key: 'desired/x', value: 1 }])).rejects.toThrow();
    expect(m1.member.machines.list().map(({ name }) => name)).toEqual(['m1']);
  });
});
