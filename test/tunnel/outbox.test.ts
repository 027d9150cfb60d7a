import { Writable } from 'node:stream';
import { describe, expect, test } from 'vitest';
import { MAX_PACKET_PAYLOAD } from '../../src/tunnel/frame.ts';
import { FrameType } from '../../src/tunnel/index.ts';
import { Commit, Outbox } from '../../src/tunnel/outbox.ts';
import { SlabBudget, SlabPool } from '../../src/tunnel/slab-pool.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { decodeNaively } from '../support/naive-decoder.ts';

/** A socket that takes a write only when the test says so. */
class SlowSocket extends Writable {
  readonly taken: Buffer[] = [];
  isEnded = false;
  #callback: (() => void) | undefined;

  constructor() {
    super({ highWaterMark: 1 });
  }

  override _write(chunk: Buffer, _encoding: string, callback: () => void): void {
    this.taken.push(Buffer.from(chunk));
    this.#callback = callback;
  }

  override _final(callback: () => void): void {
    this.isEnded = true;
    callback();
  }

  /** Finishes the write that is under way. */
  async take(): Promise<void> {
    const callback = this.#callback;
    this.#callback = undefined;
    callback?.();
    await new Promise(setImmediate);
  }

  get frames(): readonly (readonly [number, string])[] {
    return decodeNaively(Buffer.concat(this.taken), 1000).frames;
  }
}

function setUp(maxSlabs = 2) {
  const socket = new SlowSocket();
  const pool = new SlabPool();
  const drains: number[] = [];
  const clock = new FakeClock();
  const paces: number[] = [];
  const outbox = new Outbox(socket, {
    pool,
    // One outbox alone gets half of the budget.
    budget: new SlabBudget(2 * maxSlabs),
    clock,
    onDrain: () => drains.push(socket.taken.length),
    onPace: (bytes) => paces.push(bytes),
  });
  return { socket, pool, drains, outbox, clock, paces };
}

function put(outbox: Outbox, length: number, fill: number): boolean {
  const offset = outbox.reserve();
  if (offset < 0) return false;
  outbox.buffer.fill(fill, offset, offset + length);
  outbox.commit(FrameType.Packet, length);
  return true;
}

const message = (byte: number): Buffer => Buffer.from([FrameType.Control, 0, 0, 1, byte]);

describe('Outbox', () => {
  test('sends nothing before flush, then all frames of a batch in one write', async () => {
    const { outbox, socket } = setUp();
    for (let i = 1; i <= 3; i++) put(outbox, 20, i);
    expect(socket.taken).toHaveLength(0);
    outbox.flush();
    expect(socket.taken).toHaveLength(1);
    expect(socket.frames).toEqual([1, 2, 3].map((i) => [1, Buffer.alloc(20, i).toString('hex')]));
  });

  test('collects what is flushed during a write into the next one', async () => {
    const { outbox, socket } = setUp();
    for (let i = 1; i <= 4; i++) {
      put(outbox, 20, i);
      outbox.flush();
    }
    await socket.take();
    expect(socket.taken.map((write) => write.length)).toEqual([24, 72]);
  });

  test('sends the last frame after all packets and messages, also those that come later', async () => {
    const { outbox, socket } = setUp();
    for (let i = 1; i <= 3; i++) {
      put(outbox, 20, i);
      outbox.flush();
    }
    outbox.sendLast(Buffer.from([FrameType.Drain, 0, 0, 0]));
    outbox.send(message(7));
    for (let i = 0; i < 4; i++) await socket.take();
    const types = socket.frames.map(([type]) => type);
    expect(types).toEqual([1, FrameType.Control, 1, 1, FrameType.Drain]);
    outbox.send(message(8));
    outbox.end();
    await socket.take();
    await socket.take();
    expect(socket.frames.at(-1)![0]).toBe(FrameType.Control);
    expect(socket.isEnded).toBe(true);
  });

  test('a reservation without a commit leaves no trace', async () => {
    const { outbox, socket, pool } = setUp();
    outbox.reserve();
    outbox.reserve();
    outbox.flush();
    expect(socket.taken).toHaveLength(0);
    expect(pool.idle).toBe(1);
    put(outbox, 11, 1);
    outbox.flush();
    expect(socket.frames).toHaveLength(1);
  });

  test('always has space for the largest packet, and flushes a full slab by itself', () => {
    const { outbox, socket, pool } = setUp(3);
    let frames = 0;
    while (put(outbox, MAX_PACKET_PAYLOAD, 7)) frames++;
    expect(frames).toBe(3 * Math.floor(pool.slabBytes / (MAX_PACKET_PAYLOAD + 4)));
    expect(socket.taken).toHaveLength(1);
  });

  test('refuses when all slabs are in use, and drains once when one is free again', async () => {
    const { outbox, socket, drains } = setUp(2);
    let sent = 0;
    while (put(outbox, 60_000, sent & 0xff)) sent++;
    expect(put(outbox, 11, 0)).toBe(false);
    expect(drains).toEqual([]);
    // A slab holds four of them, which the socket takes one by one.
    for (let i = 0; i < 3; i++) await socket.take();
    expect(drains).toEqual([]);
    await socket.take();
    expect(drains).toEqual([4]);
    while (put(outbox, 60_000, sent & 0xff)) sent++;
    while (outbox.packetBytes > 0) {
      outbox.flush();
      await socket.take();
    }
    expect(drains).toHaveLength(2);
    expect(socket.frames.map(([, payload]) => Number.parseInt(payload.slice(0, 2), 16))).toEqual(
      Array.from({ length: sent }, (_, i) => i & 0xff)
    );
  });

  test('drops what does not fit when packets have waited for long, until some have left', async () => {
    const { outbox, socket, clock } = setUp(2);
    let sent = 0;
    while (put(outbox, 60_000, sent & 0xff)) sent++;
    clock.advance(51);
    const before = outbox.packetBytes;
    for (let i = 0; i < 10; i++) {
      expect(outbox.reserve()).toBeGreaterThan(0);
      expect(outbox.commit(FrameType.Packet, 60_000)).toBe(Commit.Full);
    }
    outbox.flush();
    expect(outbox.packetBytes).toBe(before);
    for (let i = 0; i < 4; i++) await socket.take();
    expect(put(outbox, 60_000, sent++ & 0xff)).toBe(true);
    while (outbox.packetBytes > 0) {
      outbox.flush();
      await socket.take();
    }
    expect(socket.frames.map(([, payload]) => Number.parseInt(payload.slice(0, 2), 16))).toEqual(
      Array.from({ length: sent }, (_, i) => i & 0xff)
    );
  });

  test('drops single packets while packets wait for more than a moment', async () => {
    const { outbox, socket, clock } = setUp(8);
    let late = 0;
    let sent = 0;
    // Each packet waits for 12 ms or more: four are there while the socket takes one in 4 ms.
    for (let i = 0; i < 200; i++) {
      while (outbox.packetBytes < 4 * 60_000) {
        expect(outbox.reserve()).toBeGreaterThan(0);
        if (outbox.commit(FrameType.Packet, 60_000) === Commit.Late) late++;
        else sent++;
        outbox.flush();
      }
      clock.advance(4);
      await socket.take();
    }
    expect(late).toBeGreaterThan(10);
    expect(late).toBeLessThan(sent / 4);
    expect(outbox.waitMs).toBeGreaterThan(5);
  });

  test('never drops the packet that waits alone, however slow the socket', async () => {
    const { outbox, socket, clock } = setUp(2);
    for (let i = 0; i < 20; i++) {
      outbox.reserve();
      expect(outbox.commit(FrameType.Packet, 60_000)).toBe(Commit.Taken);
      outbox.flush();
      clock.advance(500);
      await socket.take();
    }
  });

  test('writes as much at a time as the socket takes in a moment', async () => {
    const { outbox, socket, clock, paces } = setUp(4);
    /** The socket takes so many bytes a ms, for so long. */
    const run = async (rate: number, ms: number): Promise<void> => {
      const end = clock.monotonicMs() + ms;
      while (clock.monotonicMs() < end) {
        while (outbox.packetBytes < 400_000) put(outbox, 5_000, 1);
        outbox.flush();
        clock.advance(socket.taken.at(-1)!.length / rate);
        await socket.take();
      }
    };
    expect(paces.splice(0)).toEqual([16 * 1024]);
    await run(3_000, 300);
    expect(paces.splice(0)).toEqual([]);
    expect(socket.taken.at(-1)).toHaveLength(4 * 5_004);
    await run(20_000, 300);
    expect(paces.at(-1)).toBeGreaterThan(45_000);
    expect(paces.at(-1)).toBeLessThan(55_000);
    await run(1_000_000, 300);
    expect(paces.at(-1)).toBe(256 * 1024);
    await run(3_000, 300);
    expect(paces.at(-1)).toBe(16 * 1024);
    expect(decodeNaively(Buffer.concat(socket.taken), 1000).frames.length).toBeGreaterThan(100);
  });

  test('a message waits for no more than a slow socket takes at a time', async () => {
    const { outbox, socket, clock } = setUp(4);
    for (let i = 0; i < 12; i++) {
      while (outbox.packetBytes < 400_000) put(outbox, 5_000, 1);
      outbox.flush();
      clock.advance(5);
      await socket.take();
    }
    const before = socket.taken.length;
    outbox.send(message(0xaa));
    await socket.take();
    expect(socket.taken.length - before).toBe(1);
    expect(socket.taken.at(-1)).toEqual(message(0xaa));
  });

  test('a message overtakes all packets except those of the write under way', async () => {
    const { outbox, socket } = setUp();
    put(outbox, 11, 1);
    outbox.flush();
    put(outbox, 11, 2);
    outbox.flush();
    outbox.send(message(0xaa));
    outbox.send(message(0xbb));
    outbox.sendPong(Buffer.from([FrameType.Pong, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1]));
    outbox.sendPong(Buffer.from([FrameType.Pong, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 2]));
    expect(outbox.messageBytes).toBe(10);
    for (let i = 0; i < 5; i++) await socket.take();
    expect(socket.frames.map(([type, payload]) => [type, payload.slice(-2)])).toEqual([
      [FrameType.Packet, '01'],
      [FrameType.Pong, '02'],
      [FrameType.Control, 'aa'],
      [FrameType.Control, 'bb'],
      [FrameType.Packet, '02'],
    ]);
    expect(outbox.messageBytes).toBe(0);
  });

  test('end sends what was flushed, then the last frame, then ends the stream', async () => {
    const { outbox, socket } = setUp();
    put(outbox, 11, 1);
    outbox.flush();
    put(outbox, 11, 2);
    outbox.flush();
    outbox.end(message(0xcc));
    for (let i = 0; i < 4; i++) await socket.take();
    expect(socket.frames.map(([type]) => type)).toEqual([1, 1, 2]);
    expect(socket.isEnded).toBe(true);
  });

  test('drop discards everything except the write under way', async () => {
    const { outbox, socket, pool } = setUp(4);
    put(outbox, 11, 1);
    outbox.flush();
    while (put(outbox, 60_000, 2));
    outbox.send(message(0xaa));
    outbox.drop();
    expect(pool.idle).toBe(3);
    outbox.end(message(0xcc));
    for (let i = 0; i < 3; i++) await socket.take();
    expect(socket.frames.map(([type]) => type)).toEqual([1, 2]);
    expect(pool.idle).toBe(4);
  });

  test('an idle outbox holds no slab, and free gives all back in the middle of a write', async () => {
    const { outbox, socket, pool } = setUp(3);
    put(outbox, 100, 1);
    outbox.flush();
    await socket.take();
    expect(pool.idle).toBe(1);
    while (put(outbox, 60_000, 2));
    outbox.free();
    expect(pool.idle).toBe(3);
    expect(outbox.buffer).toHaveLength(0);
  });
});

describe('SlabBudget', () => {
  test('gives a connection half of what the others have left', () => {
    const budget = new SlabBudget(16);
    const held = [0, 0, 0];
    const fill = (connection: number): number => {
      while (budget.take(held[connection]!)) held[connection]!++;
      return held[connection]!;
    };
    expect([fill(0), fill(1), fill(2)]).toEqual([8, 4, 2]);
    expect(fill(0)).toBe(8);
    for (; held[0]! > 0; held[0]!--) budget.give();
    expect([fill(1), fill(0)]).toEqual([7, 4]);
  });

  test('leaves every connection one, however much the others hold', () => {
    const budget = new SlabBudget(2);
    expect(budget.take(0)).toBe(true);
    expect(budget.take(1)).toBe(false);
    for (let connection = 1; connection < 8; connection++) {
      expect(budget.take(0)).toBe(true);
      expect(budget.take(1)).toBe(false);
    }
  });
});

describe('SlabPool', () => {
  test('frees the slabs that nobody took for ten seconds, and only those', () => {
    const pool = new SlabPool();
    const slabs = Array.from({ length: 5 }, () => pool.take());
    for (const slab of slabs) pool.give(slab);
    pool.trim(10_000);
    expect(pool.idle).toBe(5);
    pool.give(pool.take());
    pool.give(pool.take());
    pool.trim(19_999);
    expect(pool.idle).toBe(5);
    pool.trim(20_000);
    expect(pool.idle).toBe(1);
    pool.trim(30_000);
    expect(pool.idle).toBe(0);
  });

  test('refuses slabs too small for the largest packet', () => {
    expect(() => new SlabPool(65_548)).toThrow('a slab of 65548 bytes does not hold');
    expect(new SlabPool(65_549).take().buffer).toHaveLength(65_549);
  });
});
