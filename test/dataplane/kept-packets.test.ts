import { describe, expect, test } from 'vitest';
import { KeptPackets } from '../../src/dataplane/kept-packets.ts';

const VNET = 10;
const [TCP, UDP, ICMP] = [6, 17, 1];

/** A packet of IPv4 behind a virtio-net header. */
function packet(flow: number, mark: number, { protocol = TCP, length = 40, fragment = 0 } = {}) {
  const frame = Buffer.alloc(VNET + length);
  frame[VNET] = 0x45;
  frame.writeUInt16BE(fragment, VNET + 6);
  frame[VNET + 9] = protocol!;
  frame.writeUInt32BE(flow, VNET + 16);
  frame[frame.length - 1] = mark;
  return frame;
}

function keep(kept: KeptPackets, frame: Buffer, nowMs = 0, tunnel = 1): number {
  return kept.keep(tunnel, frame, 0, frame.length, nowMs);
}

/** The last bytes of what is released. */
function release(kept: KeptPackets, nowMs = 0, tunnel = 1): { marks: number[]; old: number } {
  const marks: number[] = [];
  const old = kept.release(tunnel, nowMs, (buffer, end) => marks.push(buffer[end - 1]!));
  return { marks, old };
}

describe('KeptPackets', () => {
  test('keeps the newest packet of each flow, and gives each once', () => {
    const kept = new KeptPackets();
    const dropped = [packet(1, 1), packet(2, 2), packet(1, 3, { length: 900 }), packet(3, 4)].map(
      (frame) => keep(kept, frame)
    );
    expect(keep(kept, packet(1, 9), 0, 7)).toBe(0);
    expect(dropped).toEqual([0, 0, 1, 0]);
    expect(release(kept)).toEqual({ marks: [2, 3, 4], old: 0 });
    expect(release(kept)).toEqual({ marks: [], old: 0 });
    expect(release(kept, 0, 7).marks).toEqual([9]);
    expect([kept.size, kept.bytes]).toEqual([0, 0]);
  });

  test('gives the whole packet, also where a longer one of the flow was before', () => {
    const kept = new KeptPackets();
    keep(kept, packet(1, 1, { length: 60 }));
    const frame = packet(1, 2, { length: 50 });
    keep(kept, Buffer.concat([Buffer.alloc(5), frame]).subarray(5));
    kept.release(1, 0, (buffer, end) => expect(buffer.subarray(0, end)).toEqual(frame));
  });

  test.each([
    ['of UDP', packet(1, 1, { protocol: UDP })],
    ['of ICMP', packet(1, 1, { protocol: ICMP })],
    ['that is a fragment', packet(1, 1, { fragment: 0x2000 })],
    ['without a header', Buffer.alloc(VNET)],
    [
      'of IPv6 and UDP',
      Buffer.concat([Buffer.alloc(VNET), Buffer.from([0x60]), Buffer.alloc(60, UDP)]),
    ],
  ])('drops a packet %s', (_, frame) => {
    const kept = new KeptPackets();
    expect(keep(kept, frame)).toBe(1);
    expect(kept.size).toBe(0);
  });

  test('keeps a packet of IPv6', () => {
    const kept = new KeptPackets();
    const frame = Buffer.concat([Buffer.alloc(VNET), Buffer.from([0x60]), Buffer.alloc(60, TCP)]);
    expect([keep(kept, frame), kept.size]).toEqual([0, 1]);
  });

  test('gives nothing that is older than 25 s, and nothing from before the clock went back', () => {
    const kept = new KeptPackets();
    keep(kept, packet(1, 1), 1_000);
    keep(kept, packet(2, 2), 2_000);
    expect(release(kept, 26_001)).toEqual({ marks: [2], old: 1 });
    keep(kept, packet(1, 1), 2_000);
    expect(release(kept, 1_000)).toEqual({ marks: [], old: 1 });
  });

  test('stays bounded while a million flows send to each of two tunnels', () => {
    const kept = new KeptPackets();
    const frame = packet(0, 0, { length: 200 });
    let dropped = 0;
    for (let flow = 0; flow < 1_000_000; flow++) {
      frame.writeUInt32BE(flow, VNET + 16);
      dropped += keep(kept, frame, flow / 1_000, 1) + keep(kept, frame, flow / 1_000, 2);
    }
    expect(kept.size).toBe(2_048);
    expect(kept.bytes).toBeLessThanOrEqual(2 * 1024 * 1024);
    // Each packet is kept, or was counted once as dropped.
    expect(dropped + kept.size).toBe(2_000_000);
  });

  test('holds 16 MiB for all tunnels, and makes room of what is too old', () => {
    const kept = new KeptPackets();
    for (let i = 0; i < 2_000; i++) keep(kept, packet(i, 0, { length: 60_000 }), 0, i);
    expect(kept.bytes).toBeGreaterThan(15 * 1024 * 1024);
    expect(kept.bytes).toBeLessThanOrEqual(16 * 1024 * 1024);
    const { size } = kept;
    expect(keep(kept, packet(1, 1, { length: 60_000 }), 25_000, 5_000)).toBe(1);
    expect(keep(kept, packet(1, 1, { length: 60_000 }), 26_001, 5_000)).toBe(size);
    expect(kept.size).toBe(1);
    expect([kept.clear(), kept.size, kept.bytes]).toEqual([1, 0, 0]);
  });
});
