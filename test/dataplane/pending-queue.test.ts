import { describe, expect, test } from 'vitest';
import { PendingQueue } from '../../src/dataplane/index.ts';

const bytes = (length: number, value: number) => Buffer.alloc(length, value);

describe('PendingQueue', () => {
  test('copies packets and returns them in order', () => {
    const queue = new PendingQueue();
    const buffer = Buffer.from([0, 1, 2, 3, 4]);
    expect(queue.hold(1, 'a', buffer, 1, 3)).toBe('first');
    expect(queue.hold(1, 'a', buffer, 3, 5)).toBe('queued');
    buffer.fill(9);
    expect(queue.release(1, 'a')).toEqual([Buffer.from([1, 2]), Buffer.from([3, 4])]);
    expect(queue.release(1, 'a')).toEqual([]);
    expect(queue.hold(1, 'a', buffer, 0, 1)).toBe('first');
  });

  test('is full at the limit of packets of one realm, and has room for others', () => {
    const queue = new PendingQueue({ maxPackets: 2 });
    expect(queue.hold(1, 'a', bytes(1, 0), 0, 1)).toBe('first');
    expect(queue.hold(1, 'b', bytes(1, 0), 0, 1)).toBe('first');
    expect(queue.hold(1, 'a', bytes(1, 0), 0, 1)).toBe('full');
    expect(queue.hold(1, 'c', bytes(1, 0), 0, 1)).toBe('full');
    expect(queue.hold(2, 'd', bytes(1, 0), 0, 1)).toBe('first');
    queue.release(1, 'b');
    expect(queue.hold(1, 'c', bytes(1, 0), 0, 1)).toBe('first');
  });

  test('is full at the limit of bytes of one realm, to the byte', () => {
    const queue = new PendingQueue({ maxBytes: 10 });
    expect(queue.hold(1, 'a', bytes(11, 0), 0, 11)).toBe('full');
    expect(queue.hold(1, 'a', bytes(6, 0), 0, 6)).toBe('first');
    expect(queue.hold(1, 'a', bytes(5, 0), 0, 5)).toBe('full');
    expect(queue.hold(1, 'a', bytes(4, 0), 0, 4)).toBe('queued');
    expect(queue.hold(2, 'b', bytes(10, 0), 0, 10)).toBe('first');
    expect(queue.release(1, 'a').map(({ length }) => length)).toEqual([6, 4]);
    expect(queue.hold(1, 'a', bytes(10, 0), 0, 10)).toBe('first');
  });

  test('returns packets with headroom in front, and does not count the headroom', () => {
    const queue = new PendingQueue({ maxBytes: 4 }, 3);
    expect(queue.hold(1, 'a', Buffer.from([1, 2, 3, 4]), 0, 4)).toBe('first');
    expect(queue.hold(1, 'a', bytes(1, 0), 0, 1)).toBe('full');
    const [packet] = queue.release(1, 'a');
    expect(packet!.length).toBe(7);
    expect(packet!.subarray(3)).toEqual(Buffer.from([1, 2, 3, 4]));
    expect(queue.hold(1, 'a', bytes(5, 0), 0, 5)).toBe('full');
    expect(queue.hold(1, 'a', bytes(4, 0), 0, 4)).toBe('first');
  });
});
