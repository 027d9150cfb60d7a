import { describe, expect, test } from 'vitest';
import { type Ready, ReadyClass, type ReadyItems, ReadyQueue } from '../../src/tcp/ready-queue.ts';
import { Random } from '../support/random.ts';

const { Control, New, Bulk, None } = ReadyClass;
const QUANTUM = 65_536;

class Flow implements Ready {
  readyNext: Ready | undefined = undefined;
  readyPrevious: Ready | undefined = undefined;
  readyClass: ReadyClass = None;
  readyAfter: ReadyClass = None;
  readyList: ReadyItems | undefined = undefined;
  readyDeficit = 0;
  readyRound = -1;
  sent = 0;
  readonly segment: number;
  constructor(segment = 1_500) {
    this.segment = segment;
  }
}

/** Lets the next flow send a packet, and returns the flow. */
function serve(queue: ReadyQueue<Flow>): Flow | undefined {
  const flow = queue.next();
  if (flow === undefined) return undefined;
  const bytes = flow.readyClass === Control ? 60 : flow.segment;
  flow.sent += bytes;
  queue.charge(flow, bytes);
  return flow;
}

function flowsOf(segments: readonly number[], queue: ReadyQueue<Flow>, as: ReadyClass): Flow[] {
  return segments.map((segment) => {
    const flow = new Flow(segment);
    queue.add(flow, as);
    return flow;
  });
}

test('an empty queue has no next item, and removing what is not in it does nothing', () => {
  const queue = new ReadyQueue<Flow>();
  const flow = new Flow();
  queue.remove(flow);
  expect(queue.next()).toBeUndefined();
  expect(queue.size).toBe(0);
});

describe('fairness', () => {
  test.each([New, Bulk])('flows with segments of any size send the same bytes (class %i)', (as) => {
    const queue = new ReadyQueue<Flow>();
    const flows = flowsOf([100, 576, 1_500, 1_500, 9_000, 65_515], queue, as);
    for (let i = 0; i < 20_000; i++) serve(queue);
    const sent = flows.map((flow) => flow.sent);
    expect(Math.min(...sent)).toBeGreaterThan(20 * QUANTUM);
    expect(Math.max(...sent) - Math.min(...sent)).toBeLessThanOrEqual(2 * QUANTUM);
  });

  test('a flow keeps its turn until it has sent a quantum', () => {
    const queue = new ReadyQueue<Flow>();
    const flows = flowsOf([16_384, 16_384], queue, Bulk);
    const order = Array.from({ length: 12 }, () => flows.indexOf(serve(queue)!));
    expect(order).toEqual([0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0]);
  });

  test('packets larger than the quantum are paid for in later rounds', () => {
    const queue = new ReadyQueue<Flow>(1_000);
    const flows = flowsOf([5_500, 100], queue, Bulk);
    for (let i = 0; i < 10_000; i++) serve(queue);
    expect(Math.abs(flows[0]!.sent - flows[1]!.sent)).toBeLessThanOrEqual(6_500);
  });

  test('a flow that leaves and comes back as new within a round gets no more than the others', () => {
    const queue = new ReadyQueue<Flow>();
    const [steady, other, leaving] = flowsOf([9_000, 1_500, 9_000], queue, Bulk);
    for (let i = 0; i < 20_000; i++) {
      if (serve(queue) !== leaving) continue;
      queue.remove(leaving!);
      queue.add(leaving!, New);
    }
    expect(leaving!.sent).toBeLessThanOrEqual(steady!.sent + 2 * QUANTUM);
    expect(leaving!.sent).toBeGreaterThanOrEqual(other!.sent - 2 * QUANTUM);
  });
});

describe('a new flow', () => {
  test('is served before the rest, also in the middle of a turn', () => {
    const queue = new ReadyQueue<Flow>();
    flowsOf([1_500, 1_500], queue, Bulk);
    for (let i = 0; i < 10; i++) serve(queue);
    const fresh = new Flow(200);
    queue.add(fresh, New);
    expect(serve(queue)).toBe(fresh);
  });

  test('that sends little at a time is served at once each time, for a quantum in a round', () => {
    const queue = new ReadyQueue<Flow>();
    flowsOf(Array(20).fill(65_515), queue, Bulk);
    const sparse = new Flow(200);
    for (let i = 0; i < 40; i++) {
      queue.add(sparse, New);
      expect(serve(queue)).toBe(sparse);
      queue.remove(sparse);
      serve(queue);
    }
  });

  test('waits with the rest once it has sent a quantum', () => {
    const queue = new ReadyQueue<Flow>();
    const [bulk] = flowsOf([1_500], queue, Bulk);
    const [fresh] = flowsOf([1_500], queue, New);
    const order = Array.from({ length: 88 }, () => serve(queue));
    expect(order.slice(0, 44)).toEqual(Array(44).fill(fresh));
    expect(order.slice(44)).toEqual(Array(44).fill(bulk));
  });

  test('does not starve the rest, however many new ones there are', () => {
    const queue = new ReadyQueue<Flow>();
    const bulk = flowsOf([1_500, 1_500], queue, Bulk);
    let bytesOfNew = 0;
    for (let i = 0; i < 20_000; i++) {
      const fresh = new Flow(9_000);
      queue.add(fresh, New);
      const served = serve(queue)!;
      if (bulk.includes(served)) continue;
      bytesOfNew += 9_000;
      queue.remove(served);
    }
    const [first, second] = bulk.map((flow) => flow.sent);
    expect(Math.abs(first! - second!)).toBeLessThanOrEqual(2 * QUANTUM);
    expect((first! + second!) / bytesOfNew).toBeGreaterThan(0.2);
  });
});

test('whoever sent much while nobody waited is new again', () => {
  const queue = new ReadyQueue<Flow>();
  const [flow] = flowsOf([65_515], queue, New);
  for (let i = 0; i < 10; i++) serve(queue);
  queue.remove(flow!);
  queue.add(flow!, New);
  expect(flow!.readyClass).toBe(New);
  flowsOf([1_500], queue, Bulk);
  expect(serve(queue)).toBe(flow);
});

test('new flows are served again after one turn of the rest, however short it was', () => {
  const queue = new ReadyQueue<Flow>();
  const bulk = flowsOf([1_500, 1_500], queue, Bulk);
  const fresh = flowsOf(Array(10).fill(QUANTUM), queue, New);
  for (let i = 0; i < 4; i++) expect(serve(queue)).toBe(fresh[i]);
  expect(serve(queue)).toBe(bulk[0]);
  expect(queue.next()).toBe(bulk[0]);
  queue.remove(bulk[0]!);
  expect(queue.next()).toBe(fresh[4]);
});

test('what new flows sent while nobody waited does not delay them', () => {
  const queue = new ReadyQueue<Flow>();
  const fresh = flowsOf(Array(10).fill(60_000), queue, New);
  for (let i = 0; i < 5; i++) {
    queue.remove(serve(queue)!);
  }
  flowsOf([1_500], queue, Bulk);
  expect(queue.next()).toBe(fresh[5]);
});

describe('an item that owes only an ACK', () => {
  test('is served first, and leaves the queue with it', () => {
    const queue = new ReadyQueue<Flow>();
    flowsOf([1_500], queue, Bulk);
    flowsOf([1_500], queue, New);
    const owing = new Flow();
    queue.add(owing, Control);
    expect(queue.size).toBe(3);
    expect(serve(queue)).toBe(owing);
    expect(owing.readyClass).toBe(None);
    expect(queue.size).toBe(2);
    expect(serve(queue)).not.toBe(owing);
  });

  test('keeps its place for data when it also has some', () => {
    const queue = new ReadyQueue<Flow>();
    const [bulk] = flowsOf([1_500], queue, Bulk);
    queue.add(bulk!, Control);
    expect(bulk!.readyClass).toBe(Control);
    serve(queue);
    expect(bulk!.readyClass).toBe(Bulk);

    const late = new Flow();
    queue.add(late, Control);
    queue.add(late, New);
    queue.add(late, Bulk);
    serve(queue);
    expect(late.readyClass).toBe(New);
    queue.remove(late);
    expect(queue.size).toBe(1);
  });

  test('pays with its turns for the data that it sends with its ACKs', () => {
    const queue = new ReadyQueue<Flow>();
    const [plain, owing] = flowsOf([16_384, QUANTUM], queue, Bulk);
    for (let i = 0; i < 10; i++) {
      queue.add(owing!, Control);
      queue.charge(owing!, QUANTUM);
    }
    while (serve(queue) !== owing);
    expect(plain!.sent).toBe(10 * QUANTUM);
  });

  test('does not get more for its data by owing ACKs', () => {
    const queue = new ReadyQueue<Flow>();
    const [plain, owing] = flowsOf([9_000, 9_000], queue, Bulk);
    for (let i = 0; i < 20_000; i++) {
      serve(queue);
      if (i % 2 === 0) queue.add(owing!, Control);
    }
    expect(owing!.sent).toBeLessThanOrEqual(plain!.sent + 2 * QUANTUM);
    expect(owing!.sent).toBeGreaterThan(0.9 * plain!.sent);
  });
});

test.each([1, 2, 3, 4])('it keeps every item, and serves each that stays (seed %i)', (seed) => {
  const random = new Random(seed);
  const queue = new ReadyQueue<Flow>();
  const flows = Array.from({ length: 12 }, (_, i) => new Flow(i % 2 === 0 ? 1_500 : 60_000));
  const isIn = (flow: Flow): boolean => flow.readyClass !== None;
  for (let step = 0; step < 5_000; step++) {
    const flow = random.pick(flows);
    const as = random.pick([Control, New, Bulk]);
    const before = flow.readyClass;
    switch (random.below(4)) {
      case 0:
        queue.add(flow, as);
        expect(isIn(flow)).toBe(true);
        if (as === Control) expect(flow.readyClass).toBe(Control);
        else if (before !== None) expect(flow.readyClass).toBe(before);
        break;
      case 1:
        queue.remove(flow);
        expect(isIn(flow)).toBe(false);
        break;
      default: {
        const hasControl = flows.some((other) => other.readyClass === Control);
        const next = queue.next();
        expect(next === undefined).toBe(!flows.some(isIn));
        if (hasControl) expect(next!.readyClass).toBe(Control);
        serve(queue);
      }
    }
    expect(queue.size).toBe(flows.filter(isIn).length);
  }
  for (const flow of flows) queue.remove(flow);
  expect(queue.next()).toBeUndefined();
  for (const flow of flows) queue.add(flow, random.pick([New, Bulk]));
  const served = new Set<Flow | undefined>();
  for (let i = 0; i < 2 * 12 * 45; i++) served.add(serve(queue));
  expect(served).toEqual(new Set(flows));
});
