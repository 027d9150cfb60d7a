import { describe, expect, test } from 'vitest';
import { type Faults, MemoryDevice } from '../../src/device/index.ts';
import { ApiMisuseError } from '../../src/errors.ts';
import { VNET_GSO_TCPV4, VNET_GSO_TYPE, VNET_HEADER_LENGTH } from '../../src/packet/virtio.ts';
import { plainDatagram, plainFrame } from '../support/datagrams.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { describeDevice, readFrame } from './conformance.ts';

describeDevice(
  'MemoryDevice.pair',
  async () => {
    const [first, second] = MemoryDevice.pair({ queueLength: 8 });
    return { first, second };
  },
  { offload: true, queueLength: 8 }
);

describeDevice(
  'MemoryDevice.pair without offload',
  async () => {
    const [first, second] = MemoryDevice.pair({ queueLength: 8, offload: false });
    return { first, second };
  },
  { offload: false, queueLength: 8 }
);

function frameNumber(id: number): Buffer {
  return plainFrame(plainDatagram({ source: '10.0.0.1', destination: '10.0.0.2', id }));
}

/** Writes `count` packets through the faults, and reads after each `batch` of them. */
function transfer(
  faults: Faults,
  count: number,
  batch = count
): { device: MemoryDevice; frames: Buffer[] } {
  const [first, second] = MemoryDevice.pair({ queueLength: 2 * count, faults: { first: faults } });
  const frames: Buffer[] = [];
  for (let id = 0; id < count; id++) {
    const frame = frameNumber(id);
    expect(first.write(frame, 0, frame.length)).toBe(true);
    if ((id + 1) % batch > 0) continue;
    for (let read = readFrame(second); read.length > 0; read = readFrame(second)) frames.push(read);
  }
  return { device: first, frames };
}

function idOf(frame: Buffer): number {
  return frame.readUInt16BE(VNET_HEADER_LENGTH + 4);
}

describe('MemoryDevice', () => {
  test('passes a super-packet with its header unchanged', () => {
    const [first, second] = MemoryDevice.pair();
    const frame = plainFrame(Buffer.alloc(65_535, 0x42));
    frame[VNET_GSO_TYPE] = VNET_GSO_TCPV4;
    expect(first.write(frame, 0, frame.length)).toBe(true);
    expect(readFrame(second).equals(frame)).toBe(true);
  });

  test('keeps order and bytes while its queue wraps around and slots grow', () => {
    const [first, second] = MemoryDevice.pair({ queueLength: 3 });
    const frames = Array.from({ length: 50 }, (_, id) =>
      plainFrame(
        plainDatagram({
          source: '10.0.0.1',
          destination: '10.0.0.2',
          id,
          length: id % 7 === 0 ? 9000 : 40 + id,
        })
      )
    );
    for (const [id, frame] of frames.entries()) {
      expect(first.write(frame, 0, frame.length)).toBe(true);
      // One packet always stays in the queue.
      if (id > 0) expect(readFrame(second)).toEqual(frames[id - 1]);
    }
  });

  test('uses the schedule that it was given, for one turn at a time', () => {
    const due: (() => void)[] = [];
    const [first, second] = MemoryDevice.pair({ schedule: (callback) => due.push(callback) });
    let calls = 0;
    second.start(() => {
      calls++;
    });
    const frame = frameNumber(1);
    first.write(frame, 0, frame.length);
    first.write(frame, 0, frame.length);
    expect(due).toHaveLength(1);
    due.shift()!();
    expect([calls, due.length]).toEqual([1, 1]);
    readFrame(second);
    readFrame(second);
    due.shift()!();
    expect([calls, due.length]).toEqual([1, 0]);
  });

  test('continues delivery after the reader has thrown', () => {
    const due: (() => void)[] = [];
    const [first, second] = MemoryDevice.pair({ schedule: (callback) => due.push(callback) });
    second.start(() => {
      throw new Error('reader');
    });
    const frame = frameNumber(1);
    first.write(frame, 0, frame.length);
    expect(() => due.shift()!()).toThrow('reader');
    expect(due).toHaveLength(1);
  });

  test('takes no packets after its peer was closed', async () => {
    const [first, second] = MemoryDevice.pair();
    await second.close();
    const frame = frameNumber(1);
    expect(first.write(frame, 0, frame.length)).toBe(false);
    expect(first.counters.writeDrops).toBe(1);
  });

  test.each([
    ['mtu 67', { mtu: 67 }],
    ['mtu 65536', { mtu: 65_536 }],
    ['mtu 1500.5', { mtu: 1500.5 }],
    ['queueLength 0', { queueLength: 0 }],
    ['loss 1.1', { faults: { first: { loss: 1.1 } } }],
    ['corrupt -0.1', { faults: { second: { corrupt: -0.1 } } }],
    ['reorder NaN', { faults: { second: { reorder: Number.NaN } } }],
    ['delayMs -1', { faults: { first: { delayMs: -1 } } }],
    ['delayMs Infinity', { faults: { first: { delayMs: Number.POSITIVE_INFINITY } } }],
    ['jitterMs 60001', { faults: { second: { jitterMs: 60_001 } } }],
  ])('refuses %s', (_, options) => {
    expect(() => MemoryDevice.pair(options)).toThrow(ApiMisuseError);
  });
});

describe('fault injection', () => {
  const faults: Faults = { loss: 0.1, duplicate: 0.1, reorder: 0.1, corrupt: 0.1, seed: 7 };

  test('does nothing by default', () => {
    const { device, frames } = transfer({}, 100);
    expect(frames.map(idOf)).toEqual(Array.from({ length: 100 }, (_, id) => id));
    expect(device.faults).toEqual({
      lost: 0,
      duplicated: 0,
      reordered: 0,
      corrupted: 0,
      delayed: 0,
    });
  });

  test('gives the same faults for the same seed, and others for another seed', () => {
    const once = transfer(faults, 500);
    const again = transfer(faults, 500);
    const other = transfer({ ...faults, seed: 8 }, 500);
    expect(again.frames).toEqual(once.frames);
    expect(again.device.faults).toEqual(once.device.faults);
    expect(other.frames).not.toEqual(once.frames);
  });

  test('happens about as often as the probability says', () => {
    const { device } = transfer(faults, 5000);
    const { delayed, ...counts } = device.faults;
    expect(delayed).toBe(0);
    for (const count of Object.values(counts)) {
      expect(count).toBeGreaterThan(350);
      expect(count).toBeLessThan(650);
    }
  });

  test('loses the packets that it counts as lost, and reports that they were taken', () => {
    const { device, frames } = transfer({ loss: 0.5 }, 200);
    expect(frames).toHaveLength(200 - device.faults.lost);
    expect(device.counters).toMatchObject({ writtenPackets: 200, writeDrops: 0 });
  });

  test('duplicates every packet with probability 1', () => {
    const { device, frames } = transfer({ duplicate: 1 }, 3);
    expect(frames.map(idOf)).toEqual([0, 0, 1, 1, 2, 2]);
    expect(device.faults.duplicated).toBe(3);
  });

  test('moves every packet before the previous one with probability 1', () => {
    const { device, frames } = transfer({ reorder: 1 }, 4);
    expect(frames.map(idOf)).toEqual([1, 2, 3, 0]);
    expect(device.faults.reordered).toBe(3);
  });

  test('does not reorder a packet that waits alone, and does not count it', () => {
    const { device, frames } = transfer({ reorder: 1 }, 4, 1);
    expect(frames.map(idOf)).toEqual([0, 1, 2, 3]);
    expect(device.faults.reordered).toBe(0);
  });

  test('inverts one bit of a corrupted packet, never of its virtio-net header', () => {
    const { device, frames } = transfer({ corrupt: 1 }, 200);
    expect(device.faults.corrupted).toBe(200);
    for (const [id, frame] of frames.entries()) {
      const difference = frame.map((byte, i) => byte ^ frameNumber(id)[i]!);
      expect(difference.subarray(0, VNET_HEADER_LENGTH).every((byte) => byte === 0)).toBe(true);
      const bits = difference.reduce(
        (sum, byte) => sum + byte.toString(2).split('1').length - 1,
        0
      );
      expect(bits).toBe(1);
    }
  });
});

describe('delay', () => {
  /** A pair whose second device notes when it could read which packet. */
  function delayed(faults: Faults, queueLength = 1_024) {
    const clock = new FakeClock({ monotonicMs: 0 });
    const schedule = (callback: () => void): void => void clock.after(0, callback);
    const options = { faults: { first: faults }, schedule, clock };
    const [first, second] = MemoryDevice.pair({ queueLength, ...options });
    const arrivals: { id: number; atMs: number }[] = [];
    second.start(() => {
      for (let frame = readFrame(second); frame.length > 0; frame = readFrame(second)) {
        arrivals.push({ id: idOf(frame), atMs: clock.monotonicMs() });
      }
    });
    const send = (id: number): boolean => {
      const frame = frameNumber(id);
      return first.write(frame, 0, frame.length);
    };
    return { clock, first, second, arrivals, send };
  }

  test('keeps each packet for as long as it says, and counts it', () => {
    const { clock, first, arrivals, send } = delayed({ delayMs: 5 });
    send(1);
    clock.advance(2);
    send(2);
    clock.advance(2.5);
    expect(arrivals).toEqual([]);
    clock.advance(100);
    send(3);
    clock.advance(100);
    expect(arrivals).toEqual([
      { id: 1, atMs: 5 },
      { id: 2, atMs: 7 },
      { id: 3, atMs: 109.5 },
    ]);
    expect(first.faults.delayed).toBe(3);
    expect(clock.delays).toEqual([]);
  });

  test('delays one direction only', () => {
    const { second, first } = delayed({ delayMs: 5 });
    const frame = frameNumber(9);
    second.write(frame, 0, frame.length);
    expect(idOf(readFrame(first))).toBe(9);
  });

  test('with jitter is between its bounds, keeps the order and is the same for the same seed', () => {
    const run = () => {
      const { clock, arrivals, send } = delayed({ delayMs: 10, jitterMs: 4, seed: 3 });
      for (let id = 0; id < 200; id++) {
        send(id);
        clock.advance(0.5);
      }
      clock.advance(100);
      return arrivals;
    };
    const arrivals = run();
    expect(arrivals.map(({ id }) => id)).toEqual(Array.from({ length: 200 }, (_, id) => id));
    const delays = arrivals.map(({ id, atMs }) => atMs - id / 2);
    expect(Math.min(...delays)).toBeGreaterThanOrEqual(10);
    expect(Math.max(...delays)).toBeLessThanOrEqual(14);
    expect(Math.max(...delays) - Math.min(...delays)).toBeGreaterThan(2);
    expect(run()).toEqual(arrivals);
  });

  test('goes with reordering: the packets change places, not the times at which one arrives', () => {
    const { clock, first, arrivals, send } = delayed({ delayMs: 5, reorder: 1 });
    send(1);
    clock.advance(1);
    send(2);
    clock.advance(100);
    expect(arrivals).toEqual([
      { id: 2, atMs: 5 },
      { id: 1, atMs: 6 },
    ]);
    expect(first.faults).toMatchObject({ reordered: 1, delayed: 2 });
  });

  test('holds no more packets on their way than the queue has places', () => {
    const { clock, first, arrivals, send } = delayed({ delayMs: 5 }, 2);
    expect([send(1), send(2), send(3)]).toEqual([true, true, false]);
    expect(first.counters.writeDrops).toBe(1);
    clock.advance(5);
    expect(send(4)).toBe(true);
    clock.advance(5);
    expect(arrivals.map(({ id }) => id)).toEqual([1, 2, 4]);
  });

  test('goes on while the reader is paused; the packets wait for it then', () => {
    const { clock, second, arrivals, send } = delayed({ delayMs: 5 });
    send(1);
    second.pause();
    clock.advance(50);
    expect(arrivals).toEqual([]);
    second.resume();
    clock.advance(0);
    expect(arrivals).toEqual([{ id: 1, atMs: 50 }]);
  });

  test('leaves no timer behind when the device is closed', async () => {
    const { clock, second, send } = delayed({ delayMs: 5 });
    send(1);
    await second.close();
    expect(clock.delays).toEqual([]);
  });
});
