import { describe, expect, test } from 'vitest';
import type { Allocation } from '../../src/control/index.ts';
import { Cloud, type Machine, TTL_MS } from './cloud.ts';

const leaders = (...machines: readonly Machine[]): readonly string[] =>
  machines.filter(({ election }) => election.guards !== undefined).map(({ name }) => name);

describe('the election', () => {
  test('has one winner, whom all know', async () => {
    const cloud = new Cloud();
    const m1 = await cloud.start('m1');
    const m2 = await cloud.start('m2');
    expect(leaders(m1, m2)).toEqual(['m1']);
    expect(m2.election.controller).toBe('m1');
    expect(m1.allocation satisfies Allocation).toMatchObject({ name: 'm1' });
  });

  test('has another winner with a higher epoch when the controller is killed', async () => {
    const cloud = new Cloud();
    const m1 = await cloud.start('m1');
    const m2 = await cloud.start('m2');
    const { epoch } = m1.election;
    await cloud.kill(m1);
    await cloud.pass(TTL_MS + 500);
    expect(leaders(m2)).toEqual(['m2']);
    expect(m2.election.epoch).toBeGreaterThan(epoch!);
  });

  test('leaves a stale controller unable to write', async () => {
    const cloud = new Cloud();
    const m1 = await cloud.start('m1');
    const m2 = await cloud.start('m2');
    const stale = m1.election.guards!;
    // It is cut off; its transaction arrives when another one is the controller.
    m1.store.inner.disconnect();
    await cloud.pass(TTL_MS + 500);
    expect(leaders(m1, m2)).toEqual(['m2']);
    const write = { key: 'lease/cloud/100.64.0.5', value: 'K', expect: 0 };
    await expect(cloud.handle().commit([write], stale)).rejects.toMatchObject({
      code: 'ERR_PRESENCE_STORE_CONFLICT',
    });
    await m2.member.store.commit([write], m2.election.guards);
    m1.store.inner.reconnect();
    await cloud.pass(1000);
    expect(leaders(m1, m2)).toEqual(['m2']);
  });

  test('gives the guards when the watch of the winner has seen all earlier commits', async () => {
    const cloud = new Cloud();
    const m1 = await cloud.start('m1');
    const m2 = await cloud.start('m2');
    const seen: string[] = [];
    m2.store.watch('lease/', (changes) => seen.push(...changes.map(({ key }) => key)));
    let seenAtElection: number | undefined;
    m2.election.on('change', () => {
      if (m2.election.guards !== undefined) seenAtElection ??= seen.length;
    });
    await m1.member.store.commit([{ key: 'lease/cloud/a', value: 1 }], m1.election.guards);
    m2.store.inner.disconnect();
    await m1.member.store.commit([{ key: 'lease/cloud/b', value: 1 }], m1.election.guards);
    await cloud.kill(m1);
    await cloud.pass(TTL_MS + 500);
    m2.store.inner.reconnect();
    await cloud.pass(2000);
    expect(leaders(m2)).toEqual(['m2']);
    expect(seenAtElection).toBe(2);
  });

  test('is won again after a claim that got no answer', async () => {
    const cloud = new Cloud();
    const m1 = await cloud.start('m1');
    const m2 = await cloud.start('m2');
    m2.store.fail('controller', 'late');
    await m1.election.close();
    await cloud.pass(1000);
    await m2.store.deliver();
    await cloud.pass(1000);
    expect(leaders(m1, m2)).toEqual(['m2']);
  });

  test('passes a machine that drains over', async () => {
    const cloud = new Cloud();
    const m1 = await cloud.start('m1');
    const m2 = await cloud.start('m2');
    await m1.member.setDraining(true);
    await m1.election.resign();
    await cloud.pass(500);
    expect(leaders(m1, m2)).toEqual(['m2']);
  });

  test('is won again by the only machine when it takes sites again', async () => {
    const cloud = new Cloud();
    const m1 = await cloud.start('m1');
    await m1.member.setDraining(true);
    await m1.election.resign();
    await cloud.pass(500);
    expect(leaders(m1)).toEqual([]);
    await m1.member.setDraining(false);
    await cloud.pass(500);
    expect(leaders(m1)).toEqual(['m1']);
  });

  test('ends for a controller whose lease ends, which stands again when it is attached', async () => {
    const cloud = new Cloud();
    const m1 = await cloud.start('m1');
    const { epoch } = m1.election;
    const changes: (number | undefined)[] = [];
    m1.allocation.watch(() => changes.push(m1.allocation.guards?.[0]?.version));
    m1.store.inner.disconnect();
    await cloud.pass(TTL_MS + 250);
    expect(leaders(m1)).toEqual([]);
    m1.store.inner.reconnect();
    await cloud.pass(TTL_MS + 1000);
    expect(m1.election.epoch).toBeGreaterThan(epoch!);
    expect(changes).toContain(undefined);
    expect(changes.at(-1)).toBe(m1.election.epoch);
  });
});
