import { describe, expect, test } from 'vitest';
import { type PacketSource, SourceRing } from '../../src/sockets/source-ring.ts';

/** A source with frames of one length. */
class Frames implements PacketSource {
  count: number;
  refusals = 0;
  readonly #length: number;
  onRead: () => void = () => {};

  constructor(count: number, length: number) {
    this.count = count;
    this.#length = length;
  }

  read(): number {
    this.onRead();
    if (this.count === 0) return 0;
    this.count--;
    return this.#length;
  }

  refused(): void {
    this.refusals++;
  }
}

const buffer = Buffer.alloc(0);

/** Reads until nothing is left. Returns the lengths. */
function drain(ring: SourceRing): number[] {
  const lengths: number[] = [];
  for (let n = ring.read(buffer, 0); n > 0; n = ring.read(buffer, 0)) lengths.push(n);
  return lengths;
}

describe('a ring of sources', () => {
  test('reads only those that are ready, and forgets them when they have no more', () => {
    const sources = [new Frames(3, 1), new Frames(2, 2), new Frames(1, 3)];
    const ring = new SourceRing(sources);
    expect([ring.isReady, ring.read(buffer, 0)]).toEqual([false, 0]);
    ring.markReady(1);
    expect(ring.isReady).toBe(true);
    expect(drain(ring)).toEqual([2, 2]);
    expect(ring.isReady).toBe(false);
    ring.markReady(0);
    ring.markReady(2);
    ring.markReady(2);
    expect(drain(ring).sort()).toEqual([1, 1, 1, 3]);
    expect(ring.isReady).toBe(false);
  });

  test('gives each source about the same number of bytes while several have frames', () => {
    const sources = [new Frames(1e6, 65_545), new Frames(1e6, 1510), new Frames(1e6, 100)];
    const ring = new SourceRing(sources);
    for (const index of sources.keys()) ring.markReady(index);
    const bytes = new Map<number, number>();
    for (let total = 0; total < 100 * 65_545; ) {
      const length = ring.read(buffer, 0);
      total += length;
      bytes.set(length, (bytes.get(length) ?? 0) + length);
    }
    const shares = [...bytes.values()].sort((a, b) => a - b);
    expect(shares).toHaveLength(3);
    expect(shares[2]! / shares[0]!).toBeLessThan(1.1);
  });

  test('goes on at once with the only source that has frames', () => {
    const ring = new SourceRing([new Frames(0, 1), new Frames(50, 65_545), new Frames(0, 1)]);
    for (const index of [0, 1, 2]) ring.markReady(index);
    expect(drain(ring)).toHaveLength(50);
  });

  test('keeps a source that becomes ready while it is read', () => {
    const source = new Frames(0, 1);
    const ring = new SourceRing([source]);
    source.read = () => {
      source.read = () => source.count--;
      source.count = 1;
      ring.markReady(0);
      return 0;
    };
    ring.markReady(0);
    expect(drain(ring)).toEqual([1]);
    expect(ring.isReady).toBe(false);
  });

  test('tells the source of the frame read last that it was refused, once', () => {
    const [first, second] = [new Frames(1, 65_545), new Frames(1, 65_545)];
    const ring = new SourceRing([first, second]);
    ring.refused();
    ring.markReady(0);
    ring.markReady(1);
    ring.read(buffer, 0);
    ring.read(buffer, 0);
    ring.refused();
    ring.refused();
    expect([first.refusals, second.refusals]).toEqual([0, 1]);
    ring.read(buffer, 0);
    ring.refused();
    expect([first.refusals, second.refusals]).toEqual([0, 1]);
  });
});
