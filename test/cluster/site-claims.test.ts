import { describe, expect, test } from 'vitest';
import type { Claim } from '../../src/cluster/index.ts';
import { Cloud, MAX_DETACHED_MS, type Machine, TTL_MS } from './cloud.ts';

const SITE = 'site-a';

/** The edge of a site connects, and its tunnel comes up if it may. */
async function dial(cloud: Cloud, machine: Machine, last?: Claim): Promise<Claim> {
  const epoch = last?.kind === 'held' ? last.epoch : undefined;
  let claim: Claim | undefined;
  void machine.claims.claim(SITE, epoch).then((answer) => {
    claim = answer;
  });
  for (let turn = 0; claim === undefined; turn++) {
    expect(turn).toBeLessThan(40);
    if (turn === 0) await cloud.settle();
    else await cloud.pass(250);
  }
  if (claim.kind === 'held') machine.tunnels.add(SITE);
  return claim;
}

function epochOf(claim: Claim): number {
  expect(claim.kind).toBe('held');
  return claim.kind === 'held' ? claim.epoch.number : 0;
}

async function twoMachines(): Promise<[Cloud, Machine, Machine]> {
  const cloud = new Cloud();
  return [cloud, await cloud.start('m1'), await cloud.start('m2')];
}

describe('a claim', () => {
  test('of a site that nobody has is held', async () => {
    const [cloud, m1, m2] = await twoMachines();
    const claim = await dial(cloud, m1);
    expect(m2.claims.holderOf(SITE)).toMatchObject({ machine: 'm1', isHere: false });
    expect(m1.events).toEqual([`held ${SITE} ${epochOf(claim)}`]);
    expect(m2.claims.sitesOf('m1')).toEqual([SITE]);
  });

  test('of a site that is here keeps its epoch', async () => {
    const [cloud, m1] = await twoMachines();
    const first = await dial(cloud, m1);
    expect(await dial(cloud, m1)).toEqual(first);
  });

  test('is won by one of two machines that claim at once', async () => {
    const [cloud, m1, m2] = await twoMachines();
    const claims = [m1.claims.claim(SITE), m2.claims.claim(SITE)];
    m1.tunnels.add(SITE);
    await cloud.pass(3000);
    const kinds = (await Promise.all(claims)).map(({ kind }) => kind);
    expect(kinds).toEqual(['held', 'moved']);
  });

  test('of a site with a live tunnel elsewhere is moved', async () => {
    const [cloud, m1, m2] = await twoMachines();
    await dial(cloud, m1);
    await cloud.pass(1000);
    expect(await dial(cloud, m2)).toEqual({
      kind: 'moved',
      endpoints: [{ host: 'm1.example.org', port: 7443 }],
    });
    expect(await m1.store.list('want/')).toEqual([]);
    expect(m1.tunnels).toContain(SITE);
  });

  test('of a site whose tunnel elsewhere is dead is held, with a higher epoch', async () => {
    const [cloud, m1, m2] = await twoMachines();
    const first = await dial(cloud, m1);
    await cloud.pass(1000);
    // The holder has not noticed it: it finds out because it is asked.
    m1.tunnels.delete(SITE);
    const second = await dial(cloud, m2);
    expect(epochOf(second)).toBeGreaterThan(epochOf(first));
    expect(m1.events.at(-1)).toBe(`lost ${SITE} `);
    expect(await m1.store.list('want/')).toEqual([]);
  });

  test('waits for the lease of a machine that is killed', async () => {
    const [cloud, m1, m2] = await twoMachines();
    const first = await dial(cloud, m1);
    await cloud.kill(m1);
    await cloud.pass(500);
    const second = await dial(cloud, m2);
    expect(epochOf(second)).toBeGreaterThan(epochOf(first));
  });

  test('is busy if the other machine does not answer in two seconds', async () => {
    const [cloud, m1, m2] = await twoMachines();
    await dial(cloud, m1);
    // Its lease is renewed, and its process does nothing else.
    await m1.claims.close();
    const startMs = cloud.clock.monotonicMs();
    expect(await dial(cloud, m2)).toEqual({ kind: 'busy', retryAfterMs: 1000 });
    expect(cloud.clock.monotonicMs() - startMs).toBeLessThanOrEqual(2250);
    expect(await m1.store.list('want/')).toEqual([]);
  });

  test('that got no answer from the store is held if it was applied, and otherwise busy', async () => {
    const [cloud, m1, m2] = await twoMachines();
    m1.store.fail('holder/', 'applied');
    epochOf(await dial(cloud, m1));
    m1.claims.release(SITE);
    m1.tunnels.delete(SITE);
    await cloud.pass(2000);
    m2.store.fail('holder/', 'late');
    expect(await dial(cloud, m2)).toMatchObject({ kind: 'busy' });
    await m2.store.deliver();
    expect(m1.claims.holderOf(SITE)).toBeUndefined();
  });

  test('is given up if its tunnel does not come up', async () => {
    const [cloud, m1, m2] = await twoMachines();
    await dial(cloud, m1);
    m1.tunnels.delete(SITE);
    await cloud.pass(9000);
    expect(m2.claims.holderOf(SITE)).toBeDefined();
    await cloud.pass(1500);
    expect(m2.claims.holderOf(SITE)).toBeUndefined();
  });
});

describe('a release', () => {
  test('lets others claim', async () => {
    const [cloud, m1, m2] = await twoMachines();
    await dial(cloud, m1);
    await cloud.pass(1500);
    m1.tunnels.delete(SITE);
    m1.claims.release(SITE);
    await cloud.settle();
    expect(m2.claims.holderOf(SITE)).toBeUndefined();
  });

  test('by the end of an earlier tunnel leaves the one that was just let in', async () => {
    const [cloud, m1, m2] = await twoMachines();
    await dial(cloud, m1);
    await cloud.pass(1500);
    m1.tunnels.delete(SITE);
    const claim = m1.claims.claim(SITE);
    m1.claims.release(SITE);
    await claim;
    m1.claims.release(SITE);
    m1.tunnels.add(SITE);
    await cloud.pass(20_000);
    expect(m2.claims.holderOf(SITE)).toMatchObject({ machine: 'm1' });
    expect(m1.tunnels).toContain(SITE);
    expect(m1.events).toHaveLength(1);
  });
});

describe('a machine that loses its lease', () => {
  test('keeps its tunnels, and makes its keys again', async () => {
    const [cloud, m1, m2] = await twoMachines();
    const first = await dial(cloud, m1);
    m1.store.inner.disconnect();
    await cloud.pass(TTL_MS + 500);
    expect(m2.claims.holderOf(SITE)).toBeUndefined();
    expect(m1.tunnels).toContain(SITE);
    m1.store.inner.reconnect();
    await cloud.pass(1000);
    expect(m2.claims.holderOf(SITE)).toMatchObject({ machine: 'm1' });
    expect(m1.tunnels).toContain(SITE);
    const { number } = m1.claims.held.get(SITE)!.epoch;
    expect(number).toBeGreaterThan(epochOf(first));
    expect(m1.events.at(-1)).toBe(`held ${SITE} ${number}`);
  });

  test('loses a site that another one has claimed meanwhile', async () => {
    const [cloud, m1, m2] = await twoMachines();
    await dial(cloud, m1);
    m1.store.inner.disconnect();
    await cloud.pass(TTL_MS + 500);
    epochOf(await dial(cloud, m2));
    m1.store.inner.reconnect();
    await cloud.pass(1000);
    expect(m1.events.at(-1)).toBe(`lost ${SITE} m2.example.org`);
    expect(m2.tunnels).toContain(SITE);
  });

  test('takes an edge back whose last epoch is its own, and nobody else', async () => {
    const [cloud, m1] = await twoMachines();
    const first = await dial(cloud, m1);
    m1.store.inner.disconnect();
    await cloud.pass(TTL_MS + 500);
    m1.tunnels.delete(SITE);
    m1.claims.release(SITE);
    expect(await dial(cloud, m1)).toMatchObject({ kind: 'busy' });
    const { epoch } = first as Extract<Claim, { kind: 'held' }>;
    const higher = { kind: 'held', epoch: { ...epoch, number: epoch.number + 1 } } as const;
    expect(await dial(cloud, m1, higher)).toMatchObject({ kind: 'busy' });
    const elsewhere = { kind: 'held', epoch: { ...epoch, cluster: 'restored' } } as const;
    expect(await dial(cloud, m1, elsewhere)).toMatchObject({ kind: 'busy' });
    expect(await dial(cloud, m1, first)).toEqual(first);
  });

  test('gives up a site whose edge has not come back when it is attached', async () => {
    const [cloud, m1, m2] = await twoMachines();
    await dial(cloud, m1);
    m1.store.inner.disconnect();
    await cloud.pass(TTL_MS + 500);
    m1.tunnels.delete(SITE);
    m1.claims.release(SITE);
    m1.store.inner.reconnect();
    await cloud.pass(1000);
    expect(m2.claims.holderOf(SITE)).toBeUndefined();
    expect(m1.claims.held.size).toBe(0);
  });

  test('loses all sites after maxDetachedMs', async () => {
    const [cloud, m1] = await twoMachines();
    const first = await dial(cloud, m1);
    m1.store.inner.disconnect();
    await cloud.pass(TTL_MS + MAX_DETACHED_MS + 500);
    expect(m1.events.at(-1)).toBe(`lost ${SITE} `);
    expect(await dial(cloud, m1, first)).toMatchObject({ kind: 'busy' });
  });
});

test('a key that somebody has deleted by hand is made again', async () => {
  const [cloud, m1] = await twoMachines();
  await dial(cloud, m1);
  await cloud.handle().commit([{ key: `holder/${SITE}`, value: undefined }]);
  await cloud.settle();
  expect(m1.claims.holderOf(SITE)).toMatchObject({ isCurrent: true });
});

test('a machine that is detached while it looks for the tunnel of a site does not look again', async () => {
  const [cloud, m1, m2] = await twoMachines();
  await dial(cloud, m1);
  await cloud.pass(1000);
  let looks = 0;
  let found = (_: boolean): void => {};
  const isAlive = new Promise<boolean>((resolve) => {
    found = resolve;
  });
  m1.tunnels.has = () => {
    // So that a test that fails ends.
    if (++looks === 100) void m1.claims.close();
    return isAlive as unknown as boolean;
  };
  void m2.claims.claim(SITE);
  await cloud.settle();
  expect(looks).toBe(1);
  m1.store.inner.disconnect();
  await cloud.pass(TTL_MS);
  expect(m1.member.state).toBe('detached');
  found(false);
  await cloud.settle();
  expect(looks).toBe(1);
});

describe('a hand-over', () => {
  test('moves the key under the lease of the next machine, with a higher epoch', async () => {
    const [cloud, m1, m2] = await twoMachines();
    const first = await dial(cloud, m1);
    await m1.claims.handOver(SITE, 'm2');
    expect(m1.events.at(-1)).toBe(`lost ${SITE} m2.example.org`);
    // The key does not end with the lease of the machine that has handed it over.
    await m1.member.close();
    expect(m2.claims.holderOf(SITE)).toMatchObject({ machine: 'm2' });
    const second = await dial(cloud, m2);
    expect(epochOf(second)).toBeGreaterThan(epochOf(first));
    await cloud.kill(m2);
    const m3 = await cloud.start('m3');
    await cloud.pass(TTL_MS + 500);
    expect(m3.claims.holderOf(SITE)).toBeUndefined();
  });

  test('to a machine that the edge cannot reach does not lock the site out', async () => {
    const [cloud, m1, m2] = await twoMachines();
    await dial(cloud, m1);
    await m1.claims.handOver(SITE, 'm2');
    epochOf(await dial(cloud, m1));
    expect(m2.claims.holderOf(SITE)).toMatchObject({ machine: 'm1' });
  });

  test('fails if the other machine drains meanwhile', async () => {
    const [cloud, m1, m2] = await twoMachines();
    await dial(cloud, m1);
    m1.store.fail('holder/', 'slow');
    const move = m1.claims.handOver(SITE, 'm2');
    await m2.member.setDraining(true);
    await m1.store.deliver();
    await expect(move).rejects.toThrow('site "site-a" or machine "m2" has just changed');
    expect(m1.tunnels).toContain(SITE);
  });

  test('fails for a site that is elsewhere, and to a machine that is not alive', async () => {
    const [cloud, m1, m2] = await twoMachines();
    await dial(cloud, m1);
    await expect(m2.claims.handOver(SITE, 'm1')).rejects.toThrow('is not at this machine');
    await expect(m1.claims.handOver(SITE, 'm3')).rejects.toThrow('machine "m3" is not alive');
  });
});
