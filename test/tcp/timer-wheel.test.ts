import { expect, test } from 'vitest';
import { type Timed, TimerWheel } from '../../src/tcp/timer-wheel.ts';
import { Random } from '../support/random.ts';

class Item implements Timed {
  timerNext: Timed | undefined = undefined;
  timerPrevious: Timed | undefined = undefined;
  timerSlot = -1;
  timerAtMs = 0;
  readonly id: number;
  constructor(id: number) {
    this.id = id;
  }
}

function fired(wheel: TimerWheel<Item>, now: number): number[] {
  const ids: number[] = [];
  wheel.expire(now, (item) => ids.push(item.id));
  return ids;
}

test('an item fires at the first millisecond that is not before its deadline, and once', () => {
  const wheel = new TimerWheel<Item>(0.5);
  const item = new Item(1);
  wheel.schedule(item, 10.25);
  expect(fired(wheel, 10.9)).toEqual([]);
  expect(fired(wheel, 11)).toEqual([1]);
  expect(fired(wheel, 1e6)).toEqual([]);
  expect(wheel.size).toBe(0);
});

test('a deadline that is past is due at the next call', () => {
  const wheel = new TimerWheel<Item>(1_000);
  wheel.schedule(new Item(1), 3);
  expect(wheel.deadline).toBe(1_000);
  expect(fired(wheel, 1_000)).toEqual([1]);
});

test('an item that is scheduled again moves, and Infinity cancels it', () => {
  const wheel = new TimerWheel<Item>(0);
  const item = new Item(1);
  wheel.schedule(item, 10);
  wheel.schedule(item, 20);
  expect(wheel.size).toBe(1);
  expect(fired(wheel, 15)).toEqual([]);
  wheel.schedule(item, Number.POSITIVE_INFINITY);
  wheel.cancel(item);
  expect(wheel.size).toBe(0);
  expect(wheel.deadline).toBe(Number.POSITIVE_INFINITY);
  expect(fired(wheel, 30)).toEqual([]);
});

test('an item that schedules itself for the past does not fire twice in one call', () => {
  const wheel = new TimerWheel<Item>(0);
  wheel.schedule(new Item(1), 5);
  wheel.schedule(new Item(2), 700);
  let count = 0;
  wheel.expire(1_000, (item) => {
    count++;
    wheel.schedule(item, 5);
  });
  expect(count).toBe(2);
  expect(fired(wheel, 1_000)).toEqual([]);
  expect(fired(wheel, 1_001).sort()).toEqual([1, 2]);
});

test('an item can cancel and move others that are due in the same millisecond', () => {
  const wheel = new TimerWheel<Item>(0);
  const items = [0, 1, 2, 3].map((id) => new Item(id));
  for (const item of items) wheel.schedule(item, 50);
  const ids: number[] = [];
  wheel.expire(60, (item) => {
    ids.push(item.id);
    wheel.cancel(items[1]!);
    if (item.id === 0) wheel.schedule(items[3]!, 70);
  });
  expect(ids).toEqual([0, 2]);
  expect(fired(wheel, 70)).toEqual([3]);
});

test('a call that throws loses no other item', () => {
  const wheel = new TimerWheel<Item>(0);
  for (const id of [0, 1, 2]) wheel.schedule(new Item(id), 50 + id);
  expect(() =>
    wheel.expire(60, () => {
      throw new Error('it throws');
    })
  ).toThrow('it throws');
  expect(fired(wheel, 60)).toEqual([1, 2]);
});

test('time that goes back changes nothing', () => {
  const wheel = new TimerWheel<Item>(0);
  expect(fired(wheel, 1_000)).toEqual([]);
  wheel.schedule(new Item(1), 900);
  expect(fired(wheel, 950)).toEqual([]);
  expect(fired(wheel, 1_000)).toEqual([1]);
});

const DAY = 24 * 3_600_000;
const starts = [0, 0.75, 2 ** 30 - 100, 2 ** 31 - 5_000, 2 ** 32 - 1_000, 5 * 2 ** 32 - 70_000];

test.each(starts)('it fires what a sorted list fires, from the time %d on', (start) => {
  for (let seed = 1; seed <= 4; seed++) {
    const random = new Random(seed);
    let now = start;
    const wheel = new TimerWheel<Item>(now);
    const items = Array.from({ length: 60 }, (_, id) => new Item(id));
    const due = new Map<number, number>();
    const nextDue = (): number => Math.min(...due.values());
    for (let step = 0; step < 600; step++) {
      const item = random.pick(items);
      const action = random.next();
      if (action < 0.6) {
        const ahead = random.pick([0, 1, 63, 64, 65, 300, 4_096, 60_000, 7_200_000, 20 * DAY]);
        const at = now + (random.chance(0.5) ? ahead : ahead * random.next());
        wheel.schedule(item, at);
        due.set(item.id, Math.max(Math.ceil(at), Math.floor(now)));
      } else if (action < 0.7) {
        wheel.cancel(item);
        due.delete(item.id);
      } else {
        const jump = random.pick([0, 0.5, 1, 40, 64, 200, 5_000, 262_144, 7_200_000, 15 * DAY]);
        now = random.chance(0.3) && due.size > 0 ? Math.max(now, nextDue()) : now + jump;
        const ids = fired(wheel, now);
        const ticks = ids.map((id) => due.get(id)!);
        expect(ticks, `seed ${seed}`).toEqual([...ticks].sort((a, b) => a - b));
        const expected = [...due].filter(([, tick]) => tick <= now).map(([id]) => id);
        expect(ids.sort((a, b) => a - b)).toEqual(expected.sort((a, b) => a - b));
        for (const id of ids) due.delete(id);
      }
      expect(wheel.size, `seed ${seed}`).toBe(due.size);
      expect(wheel.deadline).toBeLessThanOrEqual(nextDue());
      if (due.size === 0) expect(wheel.deadline).toBe(Number.POSITIVE_INFINITY);
      else expect(wheel.deadline).toBeGreaterThanOrEqual(Math.floor(now));
    }
  }
});

test('an item fires in its millisecond although no time passed for the wheel for months', () => {
  const wheel = new TimerWheel<Item>(0);
  const item = new Item(1);
  wheel.schedule(item, 100 * DAY + 5);
  expect(fired(wheel, 100 * DAY + 4)).toEqual([]);
  expect(wheel.deadline).toBe(100 * DAY + 5);
  expect(fired(wheel, 100 * DAY + 5)).toEqual([1]);
});

test('whoever calls at each deadline gets every item in its millisecond, after few calls', () => {
  const random = new Random(7);
  let now = 2 ** 31 - 40_000;
  const wheel = new TimerWheel<Item>(now);
  const count = 200;
  for (let id = 0; id < count; id++) wheel.schedule(new Item(id), now + random.below(7_200_000));
  let calls = 0;
  while (wheel.size > 0) {
    now = wheel.deadline;
    calls++;
    wheel.expire(now, (item) => expect(Math.ceil(item.timerAtMs)).toBe(now));
  }
  expect(calls).toBeLessThan(4 * count);
});
