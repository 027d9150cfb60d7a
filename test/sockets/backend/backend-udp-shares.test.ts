import { expect, test } from 'vitest';
import { type FlowPlace, FlowShares } from '../../../src/sockets/backend/backend-udp-shares.ts';
import { QueueMemory } from '../../../src/sockets/ip/datagram-queue.ts';
import { Random } from '../../support/random.ts';

interface Flow {
  readonly id: number;
  readonly site: string | undefined;
}

function sharesOf(maxFlows: number): FlowShares<Flow> {
  const onRefused = (): void => {};
  const memory = new QueueMemory(1000, onRefused);
  return new FlowShares({ maxFlows, memory, siteBytes: 100, onRefused });
}

/** The rule, said again over a plain list, the oldest first. */
function naiveVictim(flows: readonly Flow[], site: string | undefined, max: number): Flow[] {
  const sites = new Set(flows.map((flow) => flow.site));
  const of = (one: string | undefined): Flow[] => flows.filter((flow) => flow.site === one);
  if (of(site).length >= Math.max(1, Math.floor(max / 4)) && sites.size > 1) {
    return [of(site)[0]!];
  }
  if (flows.length < max) return [];
  const most = Math.max(...[...sites].map((one) => of(one).length));
  return [...sites].filter((one) => of(one).length === most).map((one) => of(one)[0]!);
}

test('the flow that has to go is that of the rule, whatever is added, used and removed', () => {
  for (let seed = 1; seed <= 30; seed++) {
    const random = new Random(seed);
    const max = random.pick([1, 3, 8, 20]);
    const shares = sharesOf(max);
    const places = new Map<Flow, FlowPlace<Flow>>();
    let flows: Flow[] = [];
    const remove = (flow: Flow): void => {
      shares.remove(places.get(flow)!);
      flows = flows.filter((each) => each !== flow);
    };
    for (let id = 0; id < 400; id++) {
      const used = flows.length > 0 ? random.pick(flows) : undefined;
      const action = random.below(4);
      if (action === 0 && used !== undefined) {
        remove(used);
      } else if (action === 1 && used !== undefined) {
        shares.touch(places.get(used)!);
        flows = [...flows.filter((each) => each !== used), used];
      } else {
        const site = random.pick([undefined, 'a', 'a', 'a', 'b', 'c', 'd', 'e']);
        const victim = shares.victimFor(site);
        const possible = naiveVictim(flows, site, max);
        if (possible.length === 0) expect(victim).toBeUndefined();
        else expect(possible).toContain(victim);
        if (victim !== undefined) remove(victim);
        const flow = { id, site };
        places.set(flow, shares.add(flow, site));
        flows.push(flow);
      }
      expect(shares.size).toBe(flows.length);
      expect(shares.size).toBeLessThanOrEqual(max);
      expect(shares.oldest).toBe(flows[0]);
      expect(shares.sites).toBe(new Set(flows.map(({ site }) => site)).size);
    }
  }
});

test('a site has a part of the memory as long as it has flows; flows of no site have all of it', () => {
  const shares = sharesOf(8);
  const a = shares.add({ id: 1, site: 'a' }, 'a');
  const again = shares.add({ id: 2, site: 'a' }, 'a');
  const b = shares.add({ id: 3, site: 'b' }, 'b');
  expect(again.share.memory).toBe(a.share.memory);
  expect(b.share.memory).not.toBe(a.share.memory);
  a.share.memory.take(80);
  expect([a.share.memory.admits(30), b.share.memory.admits(30)]).toEqual([false, true]);
  const none = shares.add({ id: 4, site: undefined }, undefined);
  expect(none.share.memory.bytes).toBe(80);
  expect([none.share.memory.admits(920), none.share.memory.admits(921)]).toEqual([true, false]);
});
