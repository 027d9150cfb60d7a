import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  drainedLimits,
  FrameFault,
  handshakeLimits,
  openLimits,
  writeFrameHeader,
} from '../../src/tunnel/frame.ts';
import { FrameDecoder } from '../../src/tunnel/frame-decoder.ts';
import { FrameType } from '../../src/tunnel/index.ts';
import { SlabPool } from '../../src/tunnel/slab-pool.ts';
import { type Decoded, decodeNaively } from '../support/naive-decoder.ts';

const MAX_CONTROL = 100_000;

function frame(type: number, payload: Buffer): Buffer {
  const bytes = Buffer.concat([Buffer.alloc(4, 0xa5), payload]);
  writeFrameHeader(bytes, 0, type, payload.length);
  return bytes;
}

/** `length` bytes that differ from place to place. */
function pattern(length: number, seed = 1): Buffer {
  return Buffer.from(Array.from({ length }, (_, i) => (i * 31 + seed * 17) & 0xff));
}

/** Decodes the pieces; the handler spoils all it may, to prove that nothing depends on it after. */
function decode(pieces: readonly Buffer[], limits = openLimits(MAX_CONTROL)): Decoded {
  const decoder = new FrameDecoder(limits);
  const frames: [number, string][] = [];
  let fault: FrameFault = FrameFault.None;
  for (const piece of pieces) {
    fault = decoder.push(Buffer.from(piece), (type, buffer, start, end) => {
      frames.push([type, buffer.toString('hex', start, end)]);
      buffer.fill(0xee, start - 4, end);
      return true;
    });
    if (fault !== FrameFault.None) break;
  }
  return { frames, fault };
}

const several = Buffer.concat([
  frame(FrameType.Packet, pattern(11)),
  frame(0x80, pattern(0)),
  frame(FrameType.Ping, pattern(8, 2)),
  frame(0xff, pattern(5)),
  frame(FrameType.Control, Buffer.from('{"a":1}')),
  frame(FrameType.Packet, pattern(60, 3)),
  frame(FrameType.Close, Buffer.from('{"code":"shutdown","reason":""}')),
]);

describe('FrameDecoder', () => {
  test('finds the same frames wherever a stream is split in two', () => {
    const whole = decodeNaively(several, MAX_CONTROL);
    expect(whole.frames).toHaveLength(5);
    for (let at = 0; at <= several.length; at++) {
      expect(decode([several.subarray(0, at), several.subarray(at)])).toEqual(whole);
    }
  });

  test('finds the same frames wherever a stream is split in three', () => {
    const stream = several.subarray(0, 60);
    const whole = decodeNaively(stream, MAX_CONTROL);
    for (let first = 0; first <= stream.length; first++) {
      for (let second = first; second <= stream.length; second++) {
        const pieces = [
          stream.subarray(0, first),
          stream.subarray(first, second),
          stream.subarray(second),
        ];
        expect(decode(pieces)).toEqual(whole);
      }
    }
  });

  test('finds the same frames when every byte comes alone', () => {
    const bytes = Array.from(several, (byte) => Buffer.from([byte]));
    expect(decode(bytes)).toEqual(decodeNaively(several, MAX_CONTROL));
  });

  test('agrees with the naive decoder over any frames in any pieces', () => {
    const sized = (min: number, max: number) => fc.integer({ min, max });
    const any = fc.oneof(
      fc.tuple(fc.constant(FrameType.Packet), sized(10, 300)),
      fc.tuple(fc.constant(FrameType.Packet), sized(65_000, 65_546)),
      fc.tuple(fc.constant(FrameType.Control), sized(0, 5_000)),
      fc.tuple(fc.constant(FrameType.Control), sized(MAX_CONTROL - 1, MAX_CONTROL + 1)),
      fc.tuple(fc.constantFrom(FrameType.Ping, FrameType.Pong), fc.constant(8)),
      fc.tuple(fc.constant(FrameType.Drain), sized(0, 1)),
      fc.tuple(sized(0, 255), sized(0, 20)),
      fc.tuple(sized(0x80, 0xff), sized(0, MAX_CONTROL + 1))
    );
    const seen = new Set<FrameFault>();
    fc.assert(
      fc.property(
        fc.array(any, { maxLength: 8 }),
        fc.array(fc.integer({ min: 1, max: 70_000 }), { minLength: 1, maxLength: 30 }),
        (specs, sizes) => {
          const stream = Buffer.concat(
            specs.map(([type, length], i) => frame(type, Buffer.alloc(length, i + 1)))
          );
          const pieces: Buffer[] = [];
          for (let at = 0, i = 0; at < stream.length; i++) {
            const end = at + sizes[i % sizes.length]!;
            pieces.push(stream.subarray(at, end));
            at = end;
          }
          const outcome = decode(pieces);
          seen.add(outcome.fault);
          expect(outcome).toEqual(decodeNaively(stream, MAX_CONTROL));
        }
      ),
      { numRuns: 300, seed: 7 }
    );
    expect(seen).toEqual(new Set([FrameFault.None, FrameFault.BadType, FrameFault.BadLength]));
  });

  test.each<[string, number, number, FrameFault]>([
    ['type 0', 0x00, 11, FrameFault.BadType],
    ['an unknown type below 0x80', 0x09, 11, FrameFault.BadType],
    ['the last type below 0x80', 0x7f, 0, FrameFault.BadType],
    ['a second HELLO', FrameType.Hello, 20, FrameFault.BadType],
    ['a WELCOME', FrameType.Welcome, 20, FrameFault.BadType],
    ['a packet of no byte', FrameType.Packet, 0, FrameFault.BadLength],
    ['a packet that is only a virtio-net header', FrameType.Packet, 10, FrameFault.BadLength],
    ['a packet one byte too long', FrameType.Packet, 65_546, FrameFault.BadLength],
    ['a packet of the greatest length there is', FrameType.Packet, 0xffffff, FrameFault.BadLength],
    ['an empty control message', FrameType.Control, 0, FrameFault.BadLength],
    ['a control message one byte too long', FrameType.Control, 100_001, FrameFault.BadLength],
    ['a PING of 7 bytes', FrameType.Ping, 7, FrameFault.BadLength],
    ['a PONG of 9 bytes', FrameType.Pong, 9, FrameFault.BadLength],
    ['a CLOSE of 4 KiB and a byte', FrameType.Close, 4097, FrameFault.BadLength],
    ['a DRAIN that says something', FrameType.Drain, 1, FrameFault.BadLength],
    ['an extension longer than a control message', 0x80, 100_001, FrameFault.BadLength],
  ])('refuses %s as soon as its header is there', (_, type, length, fault) => {
    const header = Buffer.alloc(4);
    writeFrameHeader(header, 0, type, length);
    const good = frame(FrameType.Packet, pattern(20));
    const frames = [[FrameType.Packet, pattern(20).toString('hex')]];
    expect(decode([Buffer.concat([good, header])])).toEqual({ frames, fault });
    expect(decode([good, header.subarray(0, 3), header.subarray(3)])).toEqual({ frames, fault });
  });

  test.each<[string, number, number]>([
    ['a packet', FrameType.Packet, 60],
    ['a control message', FrameType.Control, 10],
    ['a second DRAIN', FrameType.Drain, 0],
  ])('refuses %s behind DRAIN', (_, type, length) => {
    const header = Buffer.alloc(4);
    writeFrameHeader(header, 0, type, length);
    const limits = drainedLimits(MAX_CONTROL);
    expect(decode([header], limits)).toEqual({ frames: [], fault: FrameFault.BadType });
    const ping = frame(FrameType.Ping, Buffer.alloc(8));
    expect(decode([ping], limits).frames).toHaveLength(1);
  });

  test.each<[string, number, number, FrameFault]>([
    ['a packet', FrameType.Packet, 60, FrameFault.BadType],
    ['a control message', FrameType.Control, 10, FrameFault.BadType],
    ['a PING', FrameType.Ping, 8, FrameFault.BadType],
    ['a WELCOME from the dialling side', FrameType.Welcome, 10, FrameFault.BadType],
    ['an extension', 0x80, 10, FrameFault.BadType],
    ['a HELLO of 4 KiB and a byte', FrameType.Hello, 4097, FrameFault.BadLength],
    ['an HTTP request', 0x47, 0x455420, FrameFault.BadType],
  ])('refuses %s before the handshake is done', (_, type, length, fault) => {
    const header = Buffer.alloc(4);
    writeFrameHeader(header, 0, type, length);
    expect(decode([header], handshakeLimits(FrameType.Hello))).toEqual({ frames: [], fault });
  });

  test('delivers frames where they were put, in one piece', () => {
    const pool = new SlabPool();
    const decoder = new FrameDecoder(openLimits(MAX_CONTROL), pool);
    const stream = Buffer.concat([
      frame(FrameType.Packet, pattern(100)),
      frame(FrameType.Packet, pattern(60_000, 2)),
      frame(FrameType.Packet, pattern(100, 3)),
    ]);
    const places: Buffer[] = [];
    const payloads: Buffer[] = [];
    const fill = (from: number, to: number): void => {
      const count = stream.copy(decoder.space, 0, from, to);
      expect(count).toBe(to - from);
      decoder.filled(count, (_, buffer, start, end) => {
        places.push(buffer);
        payloads.push(Buffer.from(buffer.subarray(start, end)));
        return true;
      });
    };
    fill(0, 16_000);
    // The first lay in the inlet; the second has a buffer, for the rest of it too.
    const own = decoder.space.buffer;
    expect(own).not.toBe(pool.inlet.buffer);
    for (let at = 16_000; at < stream.length; at += 16_000) {
      fill(at, Math.min(at + 16_000, stream.length));
    }
    expect(places.map(({ buffer }) => buffer)).toEqual([pool.inlet.buffer, own, own]);
    expect(payloads).toEqual([pattern(100), pattern(60_000, 2), pattern(100, 3)]);
    expect(decoder.space.buffer).toBe(pool.inlet.buffer);
    expect(pool.idle).toBe(1);
  });

  test('holds a small buffer only for an unauthenticated peer, and none when it is freed', () => {
    const pool = new SlabPool();
    const unauthenticated = new FrameDecoder(handshakeLimits(FrameType.Hello), pool);
    unauthenticated.push(frame(FrameType.Hello, pattern(4096)).subarray(0, 4000), () => true);
    expect(unauthenticated.space.buffer.byteLength).toBeLessThan(8_192);
    const peer = new FrameDecoder(openLimits(MAX_CONTROL), pool);
    peer.push(Buffer.from([FrameType.Packet]), () => true);
    expect(pool.idle).toBe(0);
    peer.free();
    expect(pool.idle).toBe(1);
    expect(peer.push(several, () => true)).toBe(FrameFault.None);
  });

  test('puts a message together that is longer than a slab', () => {
    const message = frame(FrameType.Control, pattern(900_000));
    const decoder = new FrameDecoder(openLimits(1_000_000));
    const frames: number[] = [];
    for (let at = 0; at < message.length; at += 16_384) {
      decoder.push(message.subarray(at, at + 16_384), (_, buffer, start, end) => {
        expect(buffer.subarray(start, end).equals(pattern(900_000))).toBe(true);
        return frames.push(end - start) > 0;
      });
    }
    decoder.push(several, (type) => frames.push(type) > 0);
    expect(frames).toEqual([900_000, 1, 5, 2, 1, 7]);
  });

  test('decodes nothing behind a frame whose handler says stop', () => {
    const decoder = new FrameDecoder(openLimits(MAX_CONTROL));
    let frames = 0;
    decoder.push(several, () => {
      frames++;
      return frames < 2;
    });
    expect(frames).toBe(2);
  });

  test('takes new limits between two frames of one chunk', () => {
    const decoder = new FrameDecoder(handshakeLimits(FrameType.Welcome));
    const stream = Buffer.concat([
      frame(FrameType.Welcome, Buffer.from('{}')),
      frame(FrameType.Packet, pattern(20)),
    ]);
    const types: number[] = [];
    const fault = decoder.push(stream, (type) => {
      types.push(type);
      if (type === FrameType.Welcome) decoder.limits = openLimits(MAX_CONTROL);
      return true;
    });
    expect([fault, types]).toEqual([FrameFault.None, [FrameType.Welcome, FrameType.Packet]]);
  });

  test('skips an extension of any length without holding it', () => {
    const decoder = new FrameDecoder(openLimits(16 * 1024 * 1024 - 1));
    const header = Buffer.alloc(4);
    writeFrameHeader(header, 0, 0x90, 0xffffff);
    const piece = Buffer.alloc(64 * 1024);
    const types: number[] = [];
    const handler = (type: number): boolean => types.push(type) > 0;
    const before = process.memoryUsage().arrayBuffers;
    decoder.push(header, handler);
    for (let sent = 0; sent < 0xffffff; sent += piece.length) {
      decoder.push(piece.subarray(0, Math.min(piece.length, 0xffffff - sent)), handler);
    }
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(4 * 1024 * 1024);
    decoder.push(frame(FrameType.Ping, pattern(8)), handler);
    expect(types).toEqual([FrameType.Ping]);
  });
});
