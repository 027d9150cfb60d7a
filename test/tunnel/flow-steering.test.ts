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
  });

  test('keeps a flow on its connection as long as it sends', () => {
    const steering = new FlowSteering();
    steering.setConnections(3, 0);
    const connection = steering.connectionOf(7, 100, 0);
    for (let nowMs = 0; nowMs < 60_000; nowMs += 900) {
      load(steering, 3, nowMs);
      expect(steering.connectionOf(7, 100, nowMs)).toBe(connection);
    }
  });

  test('counts the flows that send much, soon, and not when they have stopped', () => {
    const steering = new FlowSteering();
    for (let flow = 0; flow < 8; flow++) steering.connectionOf(flow, 65_000, 100);
    expect(steering.busy(100)).toBe(0);
    for (let flow = 0; flow < 8; flow++) steering.connectionOf(flow, 65_000, 200);
    expect(steering.busy(250)).toBe(8);
    // One of them goes on.
    for (let nowMs = 300; nowMs < 4_000; nowMs += 100) steering.connectionOf(5, 65_000, nowMs);
    expect(steering.busy(4_000)).toBe(1);
    expect(steering.busy(9_000)).toBe(0);
  });

  test('counts a flow that sends acknowledgements only', () => {
    const steering = new FlowSteering();
    for (let nowMs = 0; nowMs < 4_000; nowMs += 20) steering.connectionOf(3, 52, nowMs);
    expect(steering.busy(4_000)).toBe(1);
  });

  test.each([500, 2_000, 20_000])('does not count %i short connections a second', (rate) => {
    const steering = new FlowSteering();
    let most = 0;
    for (let connection = 0; connection < 4 * rate; connection++) {
      const nowMs = (1000 * connection) / rate;
      const hash = Math.imul(connection, 0x9e3779b1);
      for (let packet = 0; packet < 8; packet++) steering.connectionOf(hash, 400, nowMs);
      if (connection % (rate / 4) === 0) most = Math.max(most, steering.busy(nowMs));
    }
    expect(most).toBe(0);
  });

  test('counts the streams beside which 2,000 short connections a second pass', () => {
    const steering = new FlowSteering();
    for (let connection = 0; connection < 8_000; connection++) {
      const nowMs = connection / 2;
      const hash = Math.imul(connection, 0x9e3779b1);
      for (let packet = 0; packet < 8; packet++) steering.connectionOf(hash, 400, nowMs);
      for (let stream = 0; stream < 8; stream++) steering.connectionOf(stream, 1_500, nowMs);
    }
    expect(steering.busy(4_000)).toBe(8);
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
