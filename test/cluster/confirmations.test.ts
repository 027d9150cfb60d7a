import { describe, expect, test } from 'vitest';
import type { ConfirmationReport } from '../../src/cluster/index.ts';
import { Cloud, MAX_DETACHED_MS, type Machine, TTL_MS } from './cloud.ts';

/** The version at which the revocation is stored. */
const VERSION = 100;

async function twoMachines(): Promise<[Cloud, Machine, Machine]> {
  const cloud = new Cloud();
  return [cloud, await cloud.start('m1'), await cloud.start('m2')];
}

/** The report of `m1` as soon as there is one. */
function settled(m1: Machine): { report: ConfirmationReport | undefined } {
  const result: { report: ConfirmationReport | undefined } = { report: undefined };
  void m1.confirmations.settled(VERSION).then((report) => {
    result.report = report;
  });
  return result;
}

describe('a revocation', () => {
  test('waits for each machine that is alive', async () => {
    const [cloud, m1, m2] = await twoMachines();
    const result = settled(m1);
    await cloud.pass(1000);
    expect(result.report).toBeUndefined();
    m2.confirmations.confirm(VERSION);
    await cloud.settle();
    expect(result.report).toEqual({ confirmed: ['m1', 'm2'], unconfirmed: [] });
  });

  test('does not wait for a machine that is cut off, and says when it stops', async () => {
    const [cloud, m1, m2] = await twoMachines();
    m2.store.inner.disconnect();
    const result = settled(m1);
    await cloud.pass(TTL_MS + 500);
    // Counted from when its lease ended, which was some time ago.
    const deadMs = cloud.clock.wallMs() + MAX_DETACHED_MS - 500;
    expect(result.report).toEqual({
      confirmed: ['m1'],
      unconfirmed: [{ machine: 'm2', fencedBy: new Date(deadMs) }],
    });
  });

  test('is confirmed again by a machine that has lost its lease', async () => {
    const [cloud, m1, m2] = await twoMachines();
    m2.confirmations.confirm(VERSION);
    await cloud.settle();
    m2.store.inner.disconnect();
    await cloud.pass(TTL_MS + 500);
    expect(await m1.store.list('confirm/')).toEqual([]);
    m2.store.inner.reconnect();
    await cloud.pass(1000);
    const result = settled(m1);
    await cloud.settle();
    expect(result.report).toEqual({ confirmed: ['m1', 'm2'], unconfirmed: [] });
  });

  test('waits ten seconds for a machine that is alive and does not answer', async () => {
    const [cloud, m1] = await twoMachines();
    const result = settled(m1);
    await cloud.pass(9750);
    expect(result.report).toBeUndefined();
    await cloud.pass(500);
    expect(result.report?.unconfirmed).toEqual([{ machine: 'm2', fencedBy: undefined }]);
  });

  test('is not confirmed by what a machine has put into effect before it', async () => {
    const [cloud, m1, m2] = await twoMachines();
    m2.confirmations.confirm(VERSION - 1);
    const result = settled(m1);
    await cloud.pass(1000);
    expect(result.report).toBeUndefined();
    m2.confirmations.confirm(VERSION + 1);
    await cloud.settle();
    expect(result.report).toEqual({ confirmed: ['m1', 'm2'], unconfirmed: [] });
  });

  test('leaves one entry for each machine', async () => {
    const [cloud, , m2] = await twoMachines();
    for (let n = 1; n <= 300; n++) m2.confirmations.confirm(n);
    await cloud.settle();
    expect(await cloud.handle().list('confirm/')).toMatchObject([
      { key: 'confirm/m2', value: { version: 300 } },
    ]);
  });
});
