import { expect, test } from 'vitest';
import { IpAddress } from '../../src/base/address.ts';
import { ApiMisuseError } from '../../src/errors.ts';
import { type Flow, sameFlow } from '../../src/tcp/flow.ts';
import { TimeWaitTable } from '../../src/tcp/time-wait.ts';
import { Random } from '../support/random.ts';
import { flowOf } from './flows.ts';

test('an entry keeps what it was given until it is removed', () => {
  const table = new TimeWaitTable();
  for (const remote of ['10.1.0.1', '2001:db8:1::5']) {
    const i = table.add(
      flowOf(remote, 65_535, 65_534),
      -5,
      2 ** 31 - 1,
      true,
      -(2 ** 31),
      17,
      60_000
    );
    expect(table.find(flowOf(remote, 65_535, 65_534))).toBe(i);
    expect([table.sndNxt(i), table.rcvNxt(i), table.tsRecent(i), table.tsOffset(i)]).toEqual([
      -5,
      2 ** 31 - 1,
      -(2 ** 31),
      17,
    ]);
    expect(table.hasTimestamps(i)).toBe(true);
    table.remove(i);
    expect(table.find(flowOf(remote, 65_535, 65_534))).toBe(-1);
  }
  expect(table.hasTimestamps(table.add(flowOf('10.1.0.1', 1), 0, 0, false, 0, 0, 0))).toBe(false);
});

test('flows with the same hash are told apart, also IPv4 from IPv6 addresses with the same words', () => {
  const table = new TimeWaitTable();
  const flows = [
    flowOf('32.1.13.184', 5_000, 80, 7),
    { ...flowOf('2001:db8::', 5_000, 80, 7), local: IpAddress.parse('a00:1::') },
    flowOf('10.1.0.1', 5_000, 80, 7),
    flowOf('10.1.0.1', 5_000, 81, 7),
    flowOf('10.1.0.1', 5_001, 80, 7),
  ];
  const numbers = flows.map((flow) => table.add(flow, 0, 0, false, 0, 0, 60_000));
  expect(new Set(numbers).size).toBe(flows.length);
  expect(flows.map((flow) => table.find(flow))).toEqual(numbers);
});

test('entries end in their order, one that is restarted last', () => {
  const table = new TimeWaitTable();
  expect(table.deadline).toBe(Number.POSITIVE_INFINITY);
  const flows = [1, 2, 3].map((port) => flowOf('10.1.0.1', port));
  for (const [i, flow] of flows.entries()) table.add(flow, 0, 0, false, 0, 0, 60_000 + i);
  expect(table.deadline).toBe(60_000);
  table.restart(table.find(flows[0]!), 90_000);
  expect(table.expire(60_000)).toBe(0);
  expect(table.expire(60_002)).toBe(2);
  expect(table.find(flows[0]!)).toBeGreaterThanOrEqual(0);
  expect(table.deadline).toBe(90_000);
  expect(table.expire(1e12)).toBe(1);
  expect(table.size).toBe(0);
});

test('the oldest entry goes when the table is full', () => {
  const table = new TimeWaitTable(100);
  const flows = Array.from({ length: 250 }, (_, port) => flowOf('10.1.0.1', port));
  for (const flow of flows) {
    table.add(flow, 0, 0, false, 0, 0, 60_000);
    expect(table.size).toBeLessThanOrEqual(100);
  }
  expect(flows.filter((flow) => table.find(flow) >= 0)).toEqual(flows.slice(150));
});

test.each([0, -1, 1.5, Number.NaN])('a limit of %s is misuse', (limit) => {
  expect(() => new TimeWaitTable(limit)).toThrow(ApiMisuseError);
});

test.each([1, 5, 16, 17, 100])('it does what a list does, with %i entries at most', (limit) => {
  const random = new Random(limit);
  const table = new TimeWaitTable(limit);
  let list: { flow: Flow; sndNxt: number; untilMs: number }[] = [];
  let now = 0;
  for (let step = 0; step < 3_000; step++) {
    now += random.below(3);
    const remote = random.pick(['10.1.0.1', '10.1.0.2', '2001:db8::7']);
    const flow = flowOf(remote, random.below(60), 80, random.below(4));
    const known = list.find((entry) => sameFlow(entry.flow, flow));
    const found = table.find(flow);
    expect(found >= 0).toBe(known !== undefined);
    if (known === undefined) {
      if (list.length === limit) list.shift();
      list.push({ flow, sndNxt: step, untilMs: now + 100 });
      table.add(flow, step, 0, false, 0, 0, now + 100);
    } else {
      expect(table.sndNxt(found)).toBe(known.sndNxt);
      list = list.filter((entry) => entry !== known);
      if (random.chance(0.5)) {
        table.remove(found);
      } else {
        list.push({ ...known, untilMs: now + 100 });
        table.restart(found, now + 100);
      }
    }
    if (random.chance(0.02)) {
      now += random.pick([50, 95, 200]);
      const ended = list.filter((entry) => entry.untilMs <= now).length;
      expect(table.expire(now)).toBe(ended);
      list.splice(0, ended);
    }
    expect(table.size).toBe(list.length);
    expect(table.deadline).toBe(list[0]?.untilMs ?? Number.POSITIVE_INFINITY);
  }
});
