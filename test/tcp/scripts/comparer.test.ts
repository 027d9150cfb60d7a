import { describe, expect, test } from 'vitest';
import { bytes, u8, u16, u32 } from '../../support/bytes.ts';
import { tcpPacket } from '../../support/packets.ts';
import { describeSegment, differenceOf } from './comparer.ts';
import { Numbering } from './numbering.ts';
import { parseScripts } from './parser.ts';
import { contentOf, decodeSegment, flagBits } from './wire.ts';

const ISN = 0xffff_fffe;

function numbering(): Numbering {
  const numbers = new Numbering();
  numbers.localIsn = ISN;
  return numbers;
}

interface Fields {
  readonly flags?: string;
  readonly start?: number;
  readonly payload?: Uint8Array;
  readonly ack?: number;
  readonly urgent?: number;
  readonly options?: Uint8Array;
  readonly checksum?: number;
}

/** A segment with 10 bytes at 1 that acknowledges 5, unless a test says otherwise. */
function sent(fields: Fields = {}) {
  const numbers = numbering();
  return decodeSegment(
    tcpPacket(
      { source: '192.0.2.1', destination: '198.18.0.1' },
      {
        sourcePort: 1,
        destinationPort: 2,
        sequence: numbers.toLocal(fields.start ?? 1),
        acknowledgment: numbers.toRemote(fields.ack ?? 5),
        flags: flagBits(fields.flags ?? 'P.'),
        window: 1000,
        urgent: fields.urgent ?? 0,
        payload: fields.payload ?? contentOf(fields.start ?? 1, 10),
        tcpOptions: fields.options ?? new Uint8Array(0),
        ...(fields.checksum !== undefined && { checksum: fields.checksum }),
      }
    )
  );
}

function difference(expected: string, fields: Fields = {}): string | undefined {
  const [script] = parseScripts('x', `== x\n+0 > ${expected}`);
  const { action } = script!.events[0]!;
  if (action.type !== 'expect') throw new Error('no segment');
  return differenceOf(action.segment, sent(fields), numbering());
}

const TIMESTAMPS = bytes(u8(8), u8(10), u32(700), u32(100));

describe('differenceOf', () => {
  test.each([
    ['P. 1:11(10) ack 5', {}],
    ['. 1:11(10) ack 5', {}],
    ['. 1:11(10) ack 5 win 1000', {}],
    ['. 1:11(10) ack 5 win >=1000', {}],
    ['. 1:11(10) ack 5 win <1001', {}],
    ['. 1:11(10) ack 5 <*>', { options: TIMESTAMPS }],
    ['. 1:11(10) ack 5 <TS val * ecr 100>', { options: TIMESTAMPS }],
    ['. 1:11(10) ack 5 <TS val $x ecr 100>', { options: bytes(u8(1), u8(1), TIMESTAMPS) }],
    ['. -5:5(10) ack -7', { start: -5, ack: -7 }],
  ] as const)('accepts %s', (expected, fields) => {
    expect(difference(expected, fields)).toBeUndefined();
  });

  test.each([
    ['F. 1:11(10) ack 5', {}, 'the flags differ'],
    ['P. 1:11(10) ack 5', { flags: '.' }, 'PSH is missing'],
    ['. 2:12(10) ack 5', {}, 'it begins at 1 instead of 2'],
    ['. 1:10(9) ack 5', {}, 'the length differs'],
    ['. 1:11(10) ack 5', { payload: contentOf(2, 10) }, 'the byte 1 is not the one'],
    ['. 1:11(10) ack 6', {}, 'the acknowledgment differs'],
    ['. 1:11(10) ack 5 win 999', {}, 'the window differs'],
    ['. 1:11(10) ack 5', { urgent: 1 }, 'the urgent pointer differs'],
    ['. 1:11(10) ack 5', { options: TIMESTAMPS }, 'there is an option TS'],
    ['. 1:11(10) ack 5 <sackOK>', {}, 'the option sackOK is there 0 times'],
    ['. 1:11(10) ack 5 <TS val * ecr 1>', { options: TIMESTAMPS }, 'the option TS differs'],
    ['. 1:11(10) ack 5', { options: bytes(u8(99), u8(4), u16(0)) }, 'there is an option unknown'],
    ['. 1:11(10) ack 5', { checksum: 1 }, 'a wrong TCP checksum'],
  ] as const)('refuses %s for %o', (expected, fields, reason) => {
    expect(difference(expected, fields)).toContain(reason);
  });

  test('compares the order of SACK blocks', () => {
    const numbers = numbering();
    const edges = [11, 21, 31, 41].map((edge) => u32(numbers.toRemote(edge)));
    const options = bytes(u8(5), u8(18), ...edges);
    expect(difference('. 1:11(10) ack 5 <sack 11:21 31:41>', { options })).toBeUndefined();
    expect(difference('. 1:11(10) ack 5 <sack 31:41 11:21>', { options })).toContain('sack');
  });
});

describe('describeSegment', () => {
  test('writes a segment as a script does', () => {
    const segment = sent({ options: bytes(u8(1), u8(1), TIMESTAMPS) });
    expect(describeSegment(segment, numbering())).toBe(
      'P. 1:11(10) ack 5 win 1000 <TS val 700 ecr 100>'
    );
  });
});

describe('Numbering', () => {
  test('scales the window if both sides have the option, but not that of a SYN', () => {
    const numbers = new Numbering();
    const syn = sent({
      flags: 'S.',
      payload: new Uint8Array(0),
      options: bytes(u8(3), u8(3), u8(7)),
    });
    numbers.noteInjected('S', 2);
    numbers.noteSent(syn);
    expect(numbers.windowOf(syn)).toBe(1000);
    expect(numbers.windowOf(sent())).toBe(128_000);
    numbers.noteInjected('S', undefined);
    expect(numbers.windowOf(sent())).toBe(1000);
  });

  test('gives a name its first number, and keeps it', () => {
    const numbers = new Numbering();
    expect(() => numbers.valueOf('$a')).toThrow('$a has no value yet');
    expect(numbers.isEqual('$a', 5)).toBe(true);
    expect(numbers.isEqual('$a', 6)).toBe(false);
    expect(numbers.valueOf('$a')).toBe(5);
  });
});
