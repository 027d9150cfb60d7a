import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FlowSteering } from '../../src/tunnel/flow-steering.ts';

/** How many of the flows are on each connection. */
function load(steering: FlowSteering, flows: number, nowMs: number): number[] {
  const connections = new Array<number>(steering.connections).fill(0);
  for (let flow = 0; flow < flows; flow++) connections[steering.connectionOf(flow, 100, nowMs)]!++;
  return connections;
}

describe('FlowSteering', () => {
  test('gives each new flow the connection with the fewest', () => {
    const steering = new FlowSteering();
    steering.setConnections(4, 0);
    expect(load(steering, 8, 1)).toEqual([2, 2, 2, 2]);
    expect(steering.active(1)).toBe(8);
  });

  test('keeps a flow on its connection as long as it sends, and no longer counts it when it has not', () => {
    const steering = new FlowSteering();
    steering.setConnections(3, 0);
    const connection = steering.connectionOf(7, 100, 0);
    for (let nowMs = 0; nowMs < 60_000; nowMs += 900) {
      load(steering, 3, nowMs);
      expect(steering.connectionOf(7, 100, nowMs)).toBe(connection);
    }
    expect(steering.active(59_500)).toBe(4);
    expect(steering.active(70_000)).toBe(0);
  });

  test('moves a flow that was quiet to the connection with the fewest', () => {
    const steering = new FlowSteering();
    steering.setConnections(2, 0);
    expect(steering.connectionOf(1, 100, 0)).toBe(0);
    expect(steering.connectionOf(2, 100, 2_000)).toBe(0);
    expect(steering.connectionOf(1, 100, 2_001)).toBe(1);
  });

  test('moves only as many flows to a new connection as balance needs', () => {
    const steering = new FlowSteering();
    load(steering, 8, 0);
    steering.setConnections(2, 1);
    expect(load(steering, 8, 2)).toEqual([4, 4]);
    const before = Array.from({ length: 8 }, (_, flow) => steering.connectionOf(flow, 100, 3));
    steering.setConnections(3, 4);
    const after = Array.from({ length: 8 }, (_, flow) => steering.connectionOf(flow, 100, 5));
    expect(after.filter((connection, flow) => connection !== before[flow])).toEqual([2, 2]);
  });

  test('moves the flows of a connection that is gone to the others, evenly, and no others', () => {
    const steering = new FlowSteering();
    steering.setConnections(4, 0);
    load(steering, 12, 0);
    const before = Array.from({ length: 12 }, (_, flow) => steering.connectionOf(flow, 100, 1));
    steering.setConnections(3, 2);
    const after = Array.from({ length: 12 }, (_, flow) => steering.connectionOf(flow, 100, 3));
    expect(load(steering, 12, 3)).toEqual([4, 4, 4]);
    expect(
      after.filter((connection, flow) => before[flow]! < 3 && connection !== before[flow])
    ).toEqual([]);
  });

  test('gives the number of a lost connection to the last one, whose flows stay', () => {
    const steering = new FlowSteering();
    steering.setConnections(4, 0);
    load(steering, 12, 0);
    const before = Array.from({ length: 12 }, (_, flow) => steering.connectionOf(flow, 100, 1));
    steering.removeConnection(1, 2);
    const after = Array.from({ length: 12 }, (_, flow) => steering.connectionOf(flow, 100, 3));
    for (const [flow, connection] of before.entries()) {
      if (connection !== 1) expect(after[flow]).toBe(connection === 3 ? 1 : connection);
    }
    expect(load(steering, 12, 3)).toEqual([4, 4, 4]);
  });

  test('separates busy flows when another connection has none of them, and then leaves them', () => {
    const steering = new FlowSteering();
    steering.setConnections(2, 0);
    // Flows 0 and 2 meet on a connection; only they send much.
    expect([0, 1, 2, 3].map((flow) => steering.connectionOf(flow, 100, 10))).toEqual([0, 1, 0, 1]);
    const connections = (nowMs: number): number[] => {
      for (const flow of [1, 3]) steering.connectionOf(flow, 100, nowMs);
      return [0, 2].map((flow) => steering.connectionOf(flow, 40_000, nowMs));
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
        const steering = new FlowSteering();
        let nowMs = 0;
        for (const [action, passMs] of steps) {
          nowMs += passMs;
          if ('connections' in action) steering.setConnections(action.connections, nowMs);
          else
            expect(steering.connectionOf(action.hash, 50_000, nowMs)).toBeLessThan(
              steering.connections
            );
        }
      })
    );
  });
});
