import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FlowSteering } from '../../src/tunnel/flow-steering.ts';

/** How many of the flows are on each connection. */
function load(spread: FlowSteering, flows: number, nowMs: number): number[] {
  const connections = new Array<number>(spread.connections).fill(0);
  for (let flow = 0; flow < flows; flow++) connections[spread.connectionOf(flow, 100, nowMs)]!++;
  return connections;
}

describe('FlowSteering', () => {
  test('gives each new flow the connection with the fewest', () => {
    const spread = new FlowSteering();
    spread.setConnections(4, 0);
    expect(load(spread, 8, 1)).toEqual([2, 2, 2, 2]);
    expect(spread.active(1)).toBe(8);
  });

  test('keeps a flow on its connection as long as it sends, and no longer counts it when it has not', () => {
    const spread = new FlowSteering();
    spread.setConnections(3, 0);
    const connection = spread.connectionOf(7, 100, 0);
    for (let nowMs = 0; nowMs < 60_000; nowMs += 900) {
      load(spread, 3, nowMs);
      expect(spread.connectionOf(7, 100, nowMs)).toBe(connection);
    }
    expect(spread.active(59_500)).toBe(4);
    expect(spread.active(70_000)).toBe(0);
  });

  test('a flow that was quiet goes where there is room', () => {
    const spread = new FlowSteering();
    spread.setConnections(2, 0);
    expect(spread.connectionOf(1, 100, 0)).toBe(0);
    expect(spread.connectionOf(2, 100, 2_000)).toBe(0);
    expect(spread.connectionOf(1, 100, 2_001)).toBe(1);
  });

  test('moves only as many flows to a new connection as balance needs', () => {
    const spread = new FlowSteering();
    load(spread, 8, 0);
    spread.setConnections(2, 1);
    expect(load(spread, 8, 2)).toEqual([4, 4]);
    const before = Array.from({ length: 8 }, (_, flow) => spread.connectionOf(flow, 100, 3));
    spread.setConnections(3, 4);
    const after = Array.from({ length: 8 }, (_, flow) => spread.connectionOf(flow, 100, 5));
    expect(after.filter((connection, flow) => connection !== before[flow])).toEqual([2, 2]);
  });

  test('moves the flows of a connection that is gone to the others, evenly, and no others', () => {
    const spread = new FlowSteering();
    spread.setConnections(4, 0);
    load(spread, 12, 0);
    const before = Array.from({ length: 12 }, (_, flow) => spread.connectionOf(flow, 100, 1));
    spread.setConnections(3, 2);
    const after = Array.from({ length: 12 }, (_, flow) => spread.connectionOf(flow, 100, 3));
    expect(load(spread, 12, 3)).toEqual([4, 4, 4]);
    expect(
      after.filter((connection, flow) => before[flow]! < 3 && connection !== before[flow])
    ).toEqual([]);
  });

  test('a connection that is lost gives its number to the last one, whose flows stay', () => {
    const spread = new FlowSteering();
    spread.setConnections(4, 0);
    load(spread, 12, 0);
    const before = Array.from({ length: 12 }, (_, flow) => spread.connectionOf(flow, 100, 1));
    spread.removeConnection(1, 2);
    const after = Array.from({ length: 12 }, (_, flow) => spread.connectionOf(flow, 100, 3));
    for (const [flow, connection] of before.entries()) {
      if (connection !== 1) expect(after[flow]).toBe(connection === 3 ? 1 : connection);
    }
    expect(load(spread, 12, 3)).toEqual([4, 4, 4]);
  });

  test('parts flows that send much when another connection has none of them, and leaves them then', () => {
    const spread = new FlowSteering();
    spread.setConnections(2, 0);
    // Flows 0 and 2 meet on a connection; only they send much.
    expect([0, 1, 2, 3].map((flow) => spread.connectionOf(flow, 100, 10))).toEqual([0, 1, 0, 1]);
    const connections = (nowMs: number): number[] => {
      for (const flow of [1, 3]) spread.connectionOf(flow, 100, nowMs);
      return [0, 2].map((flow) => spread.connectionOf(flow, 40_000, nowMs));
    };
    expect([100, 500, 900].map(connections)).toEqual([
      [0, 0],
      [0, 0],
      [0, 0],
    ]);
    connections(1_100);
    const parted = connections(1_200);
    expect([...parted].sort()).toEqual([0, 1]);
    for (let nowMs = 1_300; nowMs < 9_000; nowMs += 100) expect(connections(nowMs)).toEqual(parted);
  });

  test('only ever names connections that are there', () => {
    const step = fc.oneof(
      fc.record({ connections: fc.integer({ min: 1, max: 64 }) }),
      fc.record({ hash: fc.integer() })
    );
    fc.assert(
      fc.property(fc.array(fc.tuple(step, fc.nat(700))), (steps) => {
        const spread = new FlowSteering();
        let nowMs = 0;
        for (const [action, passMs] of steps) {
          nowMs += passMs;
          if ('connections' in action) spread.setConnections(action.connections, nowMs);
          else
            expect(spread.connectionOf(action.hash, 50_000, nowMs)).toBeLessThan(
              spread.connections
            );
        }
      })
    );
  });
});
