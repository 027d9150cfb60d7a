import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { LengthPrefixReader } from '../../src/device/length-prefix.ts';

function framed(...packets: Buffer[]): Buffer {
  return Buffer.concat(
    packets.flatMap((packet) => {
      const prefix = Buffer.alloc(4);
      prefix.writeUInt32BE(packet.length);
      return [prefix, packet];
    })
  );
}

function newReader(): { packets: Buffer[]; reader: LengthPrefixReader } {
  const packets: Buffer[] = [];
  const reader = new LengthPrefixReader((buffer, offset, length) => {
    packets.push(Buffer.from(buffer.subarray(offset, offset + length)));
  });
  return { packets, reader };
}

describe('LengthPrefixReader', () => {
  test('finds the packets wherever the stream is split', () => {
    const packet = fc.uint8Array({ minLength: 1, maxLength: 40 });
    fc.assert(
      fc.property(
        fc.array(packet, { maxLength: 8 }),
        fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 60 }),
        (input, cuts) => {
          const expected = input.map((bytes) => Buffer.from(bytes));
          const stream = framed(...expected);
          const { packets, reader } = newReader();
          let at = 0;
          for (let i = 0; at < stream.length; i++) {
            const end = at + cuts[i % cuts.length]!;
            expect(reader.push(stream.subarray(at, end))).toBe(true);
            at = end;
          }
          expect(packets).toEqual(expected);
        }
      )
    );
  });

  test('accepts the longest packet, in one piece and in two', () => {
    const longest = Buffer.alloc(65_535, 7);
    const stream = framed(longest, longest);
    const { packets, reader } = newReader();
    expect(reader.push(stream.subarray(0, 70_000))).toBe(true);
    expect(reader.push(stream.subarray(70_000))).toBe(true);
    expect(packets).toEqual([longest, longest]);
  });

  test.each([
    ['a length of 0', '00000000'],
    ['a length of 65,536', '00010000'],
    ['the greatest length', 'ffffffff'],
  ])('refuses %s, wherever the stream is split', (_, hex) => {
    const stream = Buffer.concat([framed(Buffer.from('ok')), Buffer.from(hex, 'hex')]);
    for (let cut = 0; cut <= stream.length; cut++) {
      const { packets, reader } = newReader();
      const taken = [reader.push(stream.subarray(0, cut)), reader.push(stream.subarray(cut))];
      expect(taken).toContain(false);
      expect(packets).toEqual([Buffer.from('ok')]);
    }
  });
});
