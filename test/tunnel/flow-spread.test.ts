import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FlowSpread } from '../../src/tunnel/flow-spread.ts';

/** How many of the flows are on each lane. */
function load(spread: FlowSpread, flows: number, nowMs: number): number[] {
  const lanes = new Array<number>(spread.lanes).fill(0);
  for (let flow = 0; flow < flows; flow++) lanes[spread.laneOf(flow, 100, nowMs)]!++;
  return lanes;
}

describe('FlowSpread', () => {
  test('gives each new flow the lane with the fewest', () => {
    const spread = new FlowSpread();
    spread.setLanes(4, 0);
    expect(load(spread, 8, 1)).toEqual([2, 2, 2, 2]);
    expect(spread.active(1)).toBe(8);
  });

  test('keeps a flow on its lane as long as it sends, and no longer counts it when it has not', () => {
    const spread = new FlowSpread();
    spread.setLanes(3, 0);
    const lane = spread.laneOf(7, 100, 0);
    for (let nowMs = 0; nowMs < 60_000; nowMs += 900) {
      load(spread, 3, nowMs);
      expect(spread.laneOf(7, 100, nowMs)).toBe(lane);
    }
    expect(spread.active(59_500)).toBe(4);
    expect(spread.active(70_000)).toBe(0);
  });

  test('a flow that was quiet goes where there is room', () => {
    const spread = new FlowSpread();
    spread.setLanes(2, 0);
    expect(spread.laneOf(1, 100, 0)).toBe(0);
    expect(spread.laneOf(2, 100, 2_000)).toBe(0);
    expect(spread.laneOf(1, 100, 2_001)).toBe(1);
  });

  test('moves only as many flows to a new lane as balance needs', () => {
    const spread = new FlowSpread();
    load(spread, 8, 0);
    spread.setLanes(2, 1);
    expect(load(spread, 8, 2)).toEqual([4, 4]);
    const before = Array.from({ length: 8 }, (_, flow) => spread.laneOf(flow, 100, 3));
    spread.setLanes(3, 4);
    const after = Array.from({ length: 8 }, (_, flow) => spread.laneOf(flow, 100, 5));
    expect(after.filter((lane, flow) => lane !== before[flow])).toEqual([2, 2]);
  });

  test('moves the flows of a lane that is gone to the others, evenly, and no others', () => {
    const spread = new FlowSpread();
    spread.setLanes(4, 0);
    load(spread, 12, 0);
    const before = Array.from({ length: 12 }, (_, flow) => spread.laneOf(flow, 100, 1));
    spread.setLanes(3, 2);
    const after = Array.from({ length: 12 }, (_, flow) => spread.laneOf(flow, 100, 3));
    expect(load(spread, 12, 3)).toEqual([4, 4, 4]);
    expect(after.filter((lane, flow) => before[flow]! < 3 && lane !== before[flow])).toEqual([]);
  });

  test('a lane that is lost gives its number to the last one, whose flows stay', () => {
    const spread = new FlowSpread();
    spread.setLanes(4, 0);
    load(spread, 12, 0);
    const before = Array.from({ length: 12 }, (_, flow) => spread.laneOf(flow, 100, 1));
    spread.removeLane(1, 2);
    const after = Array.from({ length: 12 }, (_, flow) => spread.laneOf(flow, 100, 3));
    for (const [flow, lane] of before.entries()) {
      if (lane !== 1) expect(after[flow]).toBe(lane === 3 ? 1 : lane);
    }
    expect(load(spread, 12, 3)).toEqual([4, 4, 4]);
  });

  test('parts flows that send much when another lane has none of them, and leaves them then', () => {
    const spread = new FlowSpread();
    spread.setLanes(2, 0);
    // Flows 0 and 2 meet on a lane; only they send much.
    expect([0, 1, 2, 3].map((flow) => spread.laneOf(flow, 100, 10))).toEqual([0, 1, 0, 1]);
    const lanes = (nowMs: number): number[] => {
      for (const flow of [1, 3]) spread.laneOf(flow, 100, nowMs);
      return [0, 2].map((flow) => spread.laneOf(flow, 40_000, nowMs));
    };
    expect([100, 500, 900].map(lanes)).toEqual([
      [0, 0],
      [0, 0],
      [0, 0],
    ]);
    lanes(1_100);
    const parted = lanes(1_200);
    expect([...parted].sort()).toEqual([0, 1]);
    for (let nowMs = 1_300; nowMs < 9_000; nowMs += 100) expect(lanes(nowMs)).toEqual(parted);
  });

  test('only ever names lanes that are there', () => {
    const step = fc.oneof(
      fc.record({ lanes: fc.integer({ min: 1, max: 64 }) }),
      fc.record({ hash: fc.integer() })
    );
    fc.assert(
      fc.property(fc.array(fc.tuple(step, fc.nat(700))), (steps) => {
        const spread = new FlowSpread();
        let nowMs = 0;
        for (const [action, passMs] of steps) {
          nowMs += passMs;
          if ('lanes' in action) spread.setLanes(action.lanes, nowMs);
          else expect(spread.laneOf(action.hash, 50_000, nowMs)).toBeLessThan(spread.lanes);
        }
      })
    );
  });
});
