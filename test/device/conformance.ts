/**
 * The tests that every packet device must pass.
 * @module
 */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { DeviceCounters, PacketDevice } from '../../src/device/index.ts';
import { ApiMisuseError } from '../../src/errors.ts';
import { MAX_PACKET_LENGTH, VNET_HEADER_LENGTH } from '../../src/packet/virtio.ts';
import { plainDatagram, plainFrame } from '../support/datagrams.ts';
import { titled } from '../support/titled.ts';

/** Two devices, each of which reads what is written to the other, and how a packet changes in between. */
export interface DevicePair {
  readonly first: PacketDevice;
  readonly second: PacketDevice;
  /** The packet as the other device reads it; unchanged by default. */
  arrives?(packet: Buffer): Buffer;
}

export interface ConformanceOptions {
  /** Whether the devices of `open` have offload. */
  readonly offload: boolean;
  /** The number of packets that the queues of `open` hold; undefined if the kernel decides. */
  readonly queueLength?: number;
  /** Why the device cannot be opened here; skips the suite. */
  readonly skipReason?: string | undefined;
}

export const READ_LENGTH: number = VNET_HEADER_LENGTH + MAX_PACKET_LENGTH;

/** Reads one frame; returns an empty buffer if none waits. */
export function readFrame(device: PacketDevice): Buffer {
  const buffer = Buffer.alloc(READ_LENGTH);
  return buffer.subarray(0, device.read(buffer, 0));
}

/** Reads one frame as soon as one waits. */
export async function nextFrame(device: PacketDevice): Promise<Buffer> {
  let frame = readFrame(device);
  await until(() => {
    if (frame.length === 0) frame = readFrame(device);
    return frame.length > 0;
  });
  return frame;
}

/** Waits turns of the event loop until `condition` holds; the time limit of the test ends it otherwise. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await turn();
}

export function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

export function describeDevice(
  title: string,
  open: () => Promise<DevicePair>,
  { offload, queueLength, skipReason }: ConformanceOptions
): void {
  describe.skipIf(skipReason !== undefined)(titled(title, skipReason), () => {
    let pair: DevicePair;
    let first: PacketDevice;
    let second: PacketDevice;
    let countersBefore: DeviceCounters;

    beforeEach(async () => {
      pair = await open();
      ({ first, second } = pair);
      countersBefore = { ...first.counters };
    });
    afterEach(async () => {
      await Promise.all([first.close(), second.close()]);
    });

    /** Returns what the first device has counted since the test began. */
    const counted = (counter: keyof DeviceCounters): number =>
      first.counters[counter] - countersBefore[counter];
    const packetTo2 = (id: number, length = 60): Buffer =>
      plainDatagram({ source: '10.9.1.5', destination: '10.9.2.5', id, length });
    const packetTo1 = (id: number, length = 60): Buffer =>
      plainDatagram({ source: '10.9.2.5', destination: '10.9.1.5', id, length });
    const arrived = (packet: Buffer): Buffer => plainFrame(pair.arrives?.(packet) ?? packet);
    const write = (device: PacketDevice, packet: Buffer): boolean => {
      const frame = plainFrame(packet);
      return device.write(frame, 0, frame.length);
    };
    /** Starts the device with a reader that takes `batch` packets a call. */
    const collect = (device: PacketDevice, batch: number): { frames: Buffer[]; calls: number } => {
      const seen = { frames: [] as Buffer[], calls: 0 };
      device.start(() => {
        seen.calls++;
        for (let i = 0; i < batch; i++) {
          const frame = readFrame(device);
          if (frame.length === 0) break;
          seen.frames.push(frame);
        }
      });
      return seen;
    };

    test.each([29, 64, 576, 1499, 1500])('carries a packet of %i bytes whole', async (length) => {
      const seen = collect(second, 1);
      expect(write(first, packetTo2(1, length))).toBe(true);
      await until(() => seen.frames.length === 1);
      expect(seen.frames[0]).toEqual(arrived(packetTo2(1, length)));
    });

    test('carries packets in both directions, in order, and counts them', async () => {
      const there = collect(second, 16);
      const back = collect(first, 16);
      const ids = Array.from({ length: 7 }, (_, i) => i + 1);
      for (const id of ids) {
        expect(write(first, packetTo2(id, 60 + id))).toBe(true);
        expect(write(second, packetTo1(id, 90 + id))).toBe(true);
      }
      await until(() => there.frames.length === 7 && back.frames.length === 7);
      expect(there.frames).toEqual(ids.map((id) => arrived(packetTo2(id, 60 + id))));
      expect(back.frames).toEqual(ids.map((id) => arrived(packetTo1(id, 90 + id))));
      expect(counted('writtenPackets')).toBe(7);
      expect(counted('writtenBytes')).toBe(7 * 60 + 28);
      expect(counted('readPackets')).toBe(7);
      expect(counted('readBytes')).toBe(7 * 90 + 28);
      expect(counted('writeDrops')).toBe(0);
    });

    test('calls a reader that takes one packet per call until it has all packets', async () => {
      for (let id = 1; id <= 7; id++) write(first, packetTo2(id));
      const seen = collect(second, 1);
      await until(() => seen.frames.length === 7);
      expect(seen.frames).toEqual([1, 2, 3, 4, 5, 6, 7].map((id) => arrived(packetTo2(id))));
      expect(seen.calls).toBeGreaterThanOrEqual(7);
    });

    test('calls a reader that takes nothing again, at most once in each turn', async () => {
      let calls = 0;
      let turns = 0;
      let isCounting = true;
      const countTurns = (): void => {
        turns++;
        if (isCounting) setImmediate(countTurns);
      };
      second.start(() => {
        calls++;
        if (calls === 1) setImmediate(countTurns);
        if (calls === 20) second.pause();
      });
      write(first, packetTo2(1));
      await until(() => calls === 20);
      isCounting = false;
      expect(turns).toBeGreaterThanOrEqual(18);
      expect(readFrame(second)).toEqual(arrived(packetTo2(1)));
    });

    test('makes no call while paused, keeps the packets, and goes on when resumed', async () => {
      const seen = collect(second, 1);
      second.pause();
      for (let id = 1; id <= 3; id++) write(first, packetTo2(id));
      const waiting = await nextFrame(second);
      for (let i = 0; i < 5; i++) await turn();
      expect(waiting).toEqual(arrived(packetTo2(1)));
      expect(seen.calls).toBe(0);
      second.resume();
      await until(() => seen.frames.length === 2);
      expect(seen.frames).toEqual([arrived(packetTo2(2)), arrived(packetTo2(3))]);
    });

    test('delivers nothing until it is resumed, if it was paused before start', async () => {
      second.pause();
      const seen = collect(second, 8);
      write(first, packetTo2(1));
      for (let i = 0; i < 5; i++) await turn();
      expect(seen.calls).toBe(0);
      second.resume();
      await until(() => seen.frames.length === 1);
    });

    test('reads 0 bytes when nothing waits, and changes no byte of the buffer', async () => {
      const buffer = Buffer.alloc(READ_LENGTH, 0xa5);
      expect(second.read(buffer, 0)).toBe(0);
      const seen = collect(second, 8);
      write(first, packetTo2(1));
      await until(() => seen.frames.length === 1);
      expect(second.read(buffer, 0)).toBe(0);
      expect(buffer.equals(Buffer.alloc(READ_LENGTH, 0xa5))).toBe(true);
    });

    test('does not change the bytes around a packet that it reads', async () => {
      const buffer = Buffer.alloc(READ_LENGTH + 100, 0xa5);
      write(first, packetTo2(1));
      let length = 0;
      await until(() => {
        length = second.read(buffer, 37);
        return length > 0;
      });
      expect(buffer.subarray(0, 37)).toEqual(Buffer.alloc(37, 0xa5));
      expect(buffer.subarray(37, 37 + length)).toEqual(arrived(packetTo2(1)));
      expect(buffer.subarray(37 + length).every((byte) => byte === 0xa5)).toBe(true);
    });

    test('has copied a packet when write returns', async () => {
      const seen = collect(second, 8);
      const buffer = Buffer.alloc(200, 0xa5);
      const frame = plainFrame(packetTo2(1));
      frame.copy(buffer, 50);
      expect(first.write(buffer, 50, frame.length)).toBe(true);
      buffer.fill(0x5a);
      await until(() => seen.frames.length === 1);
      expect(seen.frames[0]).toEqual(arrived(packetTo2(1)));
    });

    if (queueLength !== undefined) {
      test('refuses and counts packets that its queue cannot hold', async () => {
        const accepted: boolean[] = [];
        for (let id = 0; id < queueLength + 5; id++) accepted.push(write(first, packetTo2(id)));
        expect(accepted.filter((ok) => !ok)).toHaveLength(5);
        expect(accepted.slice(-5)).toEqual([false, false, false, false, false]);
        expect([counted('writeDrops'), counted('writtenPackets')]).toEqual([5, queueLength]);
        const seen = collect(second, 8);
        await until(() => seen.frames.length === queueLength);
        expect(seen.frames.at(-1)).toEqual(arrived(packetTo2(queueLength - 1)));
      });
    }

    test.each([0, 1, VNET_HEADER_LENGTH])('refuses and counts a frame of %i bytes', (length) => {
      expect(first.write(Buffer.alloc(64), 0, length)).toBe(false);
      expect(counted('writeDrops')).toBe(1);
    });

    if (!offload) {
      test('refuses and counts a packet that is longer than the MTU or not complete', () => {
        expect([first.offload, second.offload]).toEqual([false, false]);
        expect(write(first, packetTo2(1, first.mtu + 1))).toBe(false);
        for (let i = 0; i < VNET_HEADER_LENGTH; i++) {
          const frame = plainFrame(packetTo2(1));
          frame[i] = 1;
          expect(first.write(frame, 0, frame.length)).toBe(false);
        }
        expect(counted('writeDrops')).toBe(1 + VNET_HEADER_LENGTH);
      });
    }

    test.each([
      ['offset -1', -1, 20],
      ['a fraction as offset', 0.5, 20],
      ['offset NaN', Number.NaN, 20],
      ['an end behind the buffer', 90, 11],
      ['a negative length', 50, -1],
    ])('throws ApiMisuseError on a write with %s', (_, offset, length) => {
      expect(() => first.write(Buffer.alloc(100), offset, length)).toThrow(ApiMisuseError);
    });

    test.each([4, 6] as const)(
      'throws ApiMisuseError on an IPv%i packet without a virtio-net header',
      (family) => {
        const packet = packetTo2(1);
        packet[0] = (family << 4) | 5;
        expect(() => first.write(packet, 0, packet.length)).toThrow(
          'virtio-net header of 10 bytes'
        );
        expect(counted('writtenPackets')).toBe(0);
      }
    );

    test.each([
      ['a buffer one byte short', READ_LENGTH - 1, 0],
      ['an offset that leaves too little', READ_LENGTH, 1],
      ['a negative offset', READ_LENGTH + 10, -1],
      ['a fraction as offset', READ_LENGTH + 10, 0.5],
    ])('throws ApiMisuseError on a read with %s', (_, length, offset) => {
      expect(() => first.read(Buffer.alloc(length), offset)).toThrow(ApiMisuseError);
    });

    test('throws ApiMisuseError when started a second time', () => {
      first.start(() => {});
      expect(() => first.start(() => {})).toThrow(ApiMisuseError);
    });

    test('closes from within its own delivery', async () => {
      let calls = 0;
      const closed = new Promise<void>((resolve) => {
        second.start(() => {
          calls++;
          second.close().then(resolve);
        });
      });
      write(first, packetTo2(1));
      write(first, packetTo2(2));
      await closed;
      await turn();
      expect(calls).toBe(1);
    });

    test('reads nothing, takes nothing and cannot start after it was closed twice', async () => {
      await Promise.all([first.close(), first.close()]);
      await first.close();
      expect(readFrame(first)).toHaveLength(0);
      expect(write(first, packetTo2(1))).toBe(false);
      expect(counted('writeDrops')).toBe(1);
      expect(() => first.start(() => {})).toThrow(ApiMisuseError);
      first.pause();
      first.resume();
    });
  });
}
