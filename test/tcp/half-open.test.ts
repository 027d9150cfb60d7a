import { expect, test } from 'vitest';
import { HalfOpen, type HalfOpenBounds, HalfOpenTable } from '../../src/tcp/half-open.ts';
import { Random } from '../support/random.ts';
import { flowOf } from './flows.ts';

function tableOf(bounds?: HalfOpenBounds): HalfOpenTable {
  return new HalfOpenTable(0, bounds);
}

test('an entry is found by its ends, of which a copy is enough', () => {
  const table = tableOf();
  const entry = new HalfOpen(flowOf('10.1.0.1', 5_000));
  expect(table.add(entry)).toBeUndefined();
  expect(table.find(flowOf('10.1.0.1', 5_000))).toBe(entry);
  expect(table.find(flowOf('10.1.0.1', 5_001))).toBeUndefined();
  expect(table.remove(entry)).toBe(true);
  expect(table.remove(entry)).toBe(false);
  expect(table.find(entry.flow)).toBeUndefined();
  expect(table.size).toBe(0);
});

test('entries with the same hash are told apart, and each can be removed', () => {
  const flows = [
    flowOf('10.1.0.1', 5_000, 80, 7),
    flowOf('10.1.0.2', 5_000, 80, 7),
    flowOf('2001:db8::2', 5_000, 80, 7),
    flowOf('10.1.0.1', 5_000, 81, 7),
  ];
  for (const first of flows.keys()) {
    const table = tableOf();
    const entries = flows.map((flow) => new HalfOpen(flow));
    for (const entry of entries) table.add(entry);
    expect([...table]).toHaveLength(4);
    table.remove(entries[first]!);
    expect(flows.map((flow) => table.find(flow))).toEqual(
      entries.map((entry, i) => (i === first ? undefined : entry))
    );
    expect(table.size).toBe(3);
    for (const entry of table) table.remove(entry);
    expect(table.size).toBe(0);
  }
});

test('one client gets no more than its share, and others still get theirs', () => {
  const table = tableOf({ limit: 10, perClient: 4 });
  const entries = Array.from({ length: 6 }, (_, i) => new HalfOpen(flowOf('10.1.0.1', i)));
  // Half of the table is for whoever comes.
  expect(entries.map((entry) => table.add(entry) === entry)).toEqual([
    false,
    false,
    false,
    false,
    false,
    true,
  ]);
  expect(table.countOf(entries[0]!.flow)).toBe(5);
  expect(table.find(entries[5]!.flow)).toBeUndefined();
  expect(table.add(new HalfOpen(flowOf('10.1.0.2', 1)))).toBeUndefined();
  table.remove(entries[0]!);
  table.remove(entries[1]!);
  expect(table.add(entries[5]!)).toBeUndefined();
});

test('no more entries than the limit are kept', () => {
  const table = tableOf();
  for (let i = 0; i < 2_000; i++) {
    const flow = flowOf(`10.1.${i >> 8}.${i & 255}`, 1, 80, i);
    const gone = table.add(new HalfOpen(flow));
    // The oldest goes.
    const number = gone === undefined ? -1 : gone.flow.remote.words[0]! & 0xffff;
    expect(number).toBe(i < 1_024 ? -1 : i - 1_024);
  }
  expect(table.size).toBe(1_024);
});

test('entries are due in the order of their deadlines, and are delayed or removed then', () => {
  const table = tableOf();
  const entries = [3_000, 1_000, 2_000].map((deadlineMs, i) => {
    const entry = new HalfOpen(flowOf('10.1.0.1', i));
    entry.deadlineMs = deadlineMs;
    table.add(entry);
    return entry;
  });
  const due: number[] = [];
  table.expire(2_500, (entry) => {
    due.push(entry.flow.remotePort);
    if (entry === entries[1]) table.delay(entry, 4_000);
    else table.remove(entry);
  });
  expect(due).toEqual([1, 2]);
  table.delay(entries[0]!, 5_000);
  expect(table.deadline).toBeLessThanOrEqual(4_000);
  table.expire(4_000, (entry) => {
    due.push(entry.flow.remotePort);
    table.remove(entry);
  });
  expect(due).toEqual([1, 2, 1]);
  table.remove(entries[0]!);
  expect(table.deadline).toBe(Number.POSITIVE_INFINITY);
});

test('it does what a list does, with many collisions', () => {
  const random = new Random(11);
  const table = tableOf({ limit: 40, perClient: 8 });
  let list: HalfOpen[] = [];
  for (let step = 0; step < 3_000; step++) {
    expect(table.clients).toBe(new Set(list.map((entry) => `${entry.flow.remote}`)).size);
    const remote = `10.1.0.${random.below(8)}`;
    const flow = flowOf(remote, random.below(12), 80, random.below(3));
    const known = list.find(
      (entry) =>
        entry.flow.hash === flow.hash &&
        entry.flow.remotePort === flow.remotePort &&
        entry.flow.remote.equals(flow.remote)
    );
    expect(table.find(flow)).toBe(known);
    const count = list.filter((entry) => entry.flow.remote.equals(flow.remote)).length;
    expect(table.countOf(flow)).toBe(count);
    if (known !== undefined) {
      table.remove(known);
      list = list.filter((entry) => entry !== known);
    } else {
      const entry = new HalfOpen(flow);
      const gone = table.add(entry);
      expect(gone === entry).toBe(list.length >= 20 && count >= 8);
      if (gone !== entry) {
        expect(gone !== undefined).toBe(list.length === 40);
        list = [...list.filter((one) => one !== gone), entry];
      }
    }
    expect(table.size).toBe(list.length);
  }
  expect(new Set(table)).toEqual(new Set(list));
});
