import { describe, expect, test } from 'vitest';
import { drain } from '../../src/cluster/index.ts';
import { Cloud, type Machine } from './cloud.ts';

const SITES = Array.from({ length: 60 }, (_, n) => `site-${n}`);

async function hold(cloud: Cloud, machine: Machine): Promise<void> {
  for (const site of SITES) {
    await machine.claims.claim(site);
    machine.tunnels.add(site);
  }
  await cloud.pass(1000);
}

describe('a drain', () => {
  test('divides the sites among the others, 50 in a second', async () => {
    const cloud = new Cloud();
    const m1 = await cloud.start('m1');
    const m2 = await cloud.start('m2');
    const m3 = await cloud.start('m3');
    await hold(cloud, m1);
    const report = drain(m1.member, m1.claims);
    // The steps of the clock are longer than the pauses, so each step hands one over.
    let steps = 0;
    while (m1.claims.held.size > 0) {
      cloud.clock.advance(20);
      await cloud.settle();
      expect(steps++).toBeLessThanOrEqual(SITES.length);
    }
    cloud.clock.advance(20);
    expect(steps).toBeGreaterThanOrEqual(SITES.length - 2);
    expect(await report).toEqual({ handedOver: SITES.length, kept: [] });
    expect(m2.claims.sitesOf('m2').length).toBeGreaterThan(15);
    expect(m3.claims.sitesOf('m3').length).toBeGreaterThan(15);
    expect(m1.tunnels.size).toBe(0);
    expect(m2.member.machines.get('m1')).toMatchObject({ isDraining: true });
    // An edge that comes is told where to go.
    expect(await m1.claims.claim('site-new')).toMatchObject({ kind: 'moved' });
  });

  test('keeps the sites if there is no other machine', async () => {
    const cloud = new Cloud();
    const m1 = await cloud.start('m1');
    await hold(cloud, m1);
    expect(await drain(m1.member, m1.claims)).toMatchObject({
      handedOver: 0,
      kept: { length: 60 },
    });
    expect(m1.tunnels.size).toBe(60);
    // An edge that comes has nowhere else to go.
    expect(await m1.claims.claim('site-new')).toMatchObject({ kind: 'held' });
  });
});
