import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { CaptureError } from '../../src/errors.ts';
import { PcapngWriter } from '../../src/packet/index.ts';
import { CaptureReader } from '../../src/replay/capture-reader.ts';
import { echoPacket, tcpPacket, udpPacket } from '../support/packets.ts';
import { Random } from '../support/random.ts';
import {
  block,
  enhanced,
  interfaceBlock,
  joined,
  pcapOf,
  section,
  u16,
  u32,
} from './capture-bytes.ts';

interface Read {
  readonly number: number;
  readonly timeMs: number;
  readonly linkType: number;
  readonly wireLength: number;
  readonly hex: string;
}

/** Reads a capture in pieces of a size. */
function readAll(file: Uint8Array, pieceLength = file.length): Read[] {
  const packets: Read[] = [];
  const reader = new CaptureReader(
    ({ number, timeMs, linkType, wireLength, bytes, start, end }) => {
      const hex = Buffer.from(bytes.subarray(start, end)).toString('hex');
      packets.push({ number, timeMs, linkType, wireLength, hex });
    }
  );
  // The memory of a piece is used again, as a file reader does.
  const piece = new Uint8Array(pieceLength);
  for (let at = 0; at < file.length; at += pieceLength) {
    const part = file.subarray(at, at + pieceLength);
    piece.set(part);
    reader.push(piece.subarray(0, part.length));
    piece.fill(0xee);
  }
  reader.end();
  return packets;
}

function faultOf(file: Uint8Array): CaptureError {
  try {
    readAll(file);
  } catch (error) {
    expect(error).toBeInstanceOf(CaptureError);
    return error as CaptureError;
  }
  throw new Error('it was read without a fault');
}

const ENDS = { source: '10.0.0.5', destination: '10.0.0.9' };
const PORTS = { sourcePort: 40_000, destinationPort: 5353 };
const PACKETS = [
  udpPacket(ENDS, { ...PORTS, payload: new Uint8Array(33) }),
  tcpPacket(ENDS, { ...PORTS, payload: new Uint8Array(1000) }),
  echoPacket({ source: 'fd00::5', destination: 'fd00::9' }, {}),
];
const TIME = Date.UTC(2026, 10, 30, 17, 0, 0);
const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const EXPECTED = PACKETS.map((bytes, i) => ({
  number: i + 1,
  timeMs: TIME + i,
  linkType: 101,
  wireLength: bytes.length,
  hex: hexOf(bytes),
}));

/** The same packets in every form that the readers know. */
const FORMS: Readonly<Record<string, Uint8Array>> = {
  ...Object.fromEntries(
    [true, false].flatMap((isLittle) =>
      [true, false].map((isNano) => [
        `pcap, ${isLittle ? 'little' : 'big'}-endian, ${isNano ? 'ns' : 'us'}`,
        pcapOf(
          PACKETS.map((bytes, i) => ({ bytes, timeMs: TIME + i })),
          { isLittle, isNano }
        ),
      ])
    )
  ),
  ...Object.fromEntries(
    [true, false].map((isLittle) => [
      `pcapng, ${isLittle ? 'little' : 'big'}-endian`,
      joined([
        section(isLittle),
        interfaceBlock(101, [[2, Buffer.from('eth0')]], isLittle),
        ...PACKETS.map((bytes, i) => enhanced(bytes, { isLittle, time: BigInt(TIME + i) * 1000n })),
      ]),
    ])
  ),
  'pcapng of the PcapngWriter': writtenByUs(),
};

function writtenByUs(): Uint8Array {
  const parts: Uint8Array[] = [];
  const writer = new PcapngWriter({ write: (bytes) => parts.push(bytes) });
  const index = writer.interface('cloud');
  for (const [i, bytes] of PACKETS.entries()) {
    writer.packet(index, TIME + i, 'inbound', bytes, 0, bytes.length, 'a comment');
  }
  return joined(parts);
}

describe('CaptureReader', () => {
  test.each(Object.entries(FORMS))('reads %s, in pieces of any size', (_, file) => {
    for (const size of [file.length, 1, 2, 3, 7, 64, 1021]) {
      const read = readAll(file, size);
      expect(read.map(({ timeMs, ...rest }) => rest)).toEqual(
        EXPECTED.map(({ timeMs, ...rest }) => rest)
      );
      for (const [i, { timeMs }] of read.entries()) expect(timeMs).toBeCloseTo(TIME + i, 2);
    }
  });

  test.each(Object.entries(FORMS))(
    'says of %s, cut at any byte, that it is cut, or reads the whole packets before a boundary',
    (name, file) => {
      let boundaries = 0;
      for (let length = 1; length < file.length; length++) {
        const cut = file.subarray(0, length);
        let read: Read[];
        try {
          read = readAll(cut);
        } catch (error) {
          expect(error, `${name} cut at ${length}`).toBeInstanceOf(CaptureError);
          expect((error as CaptureError).message).toContain('the capture is cut: it ends at byte');
          expect((error as CaptureError).offset).toBe(length);
          continue;
        }
        boundaries++;
        expect(read.length).toBeLessThan(PACKETS.length);
      }
      // Behind the header of the file, and behind each block or packet but the last.
      expect(boundaries).toBe(name.startsWith('pcapng') ? 4 : 3);
    }
  );

  test('keeps both lengths of a packet that the snap length has cut', () => {
    const bytes = PACKETS[1]!;
    const files = [
      pcapOf([{ bytes, captured: 60 }]),
      joined([section(), interfaceBlock(101), enhanced(bytes, { captured: 60 })]),
    ];
    for (const file of files) {
      expect(readAll(file)).toMatchObject([
        { wireLength: bytes.length, hex: hexOf(bytes.subarray(0, 60)) },
      ]);
    }
  });

  test('reads simple packet blocks by the snap length of the first interface, and the obsolete packet block', () => {
    const bytes = PACKETS[1]!;
    const simple = block(3, joined([u32(bytes.length), bytes.subarray(0, 64)]));
    const fields = joined([u16(0), u16(7), u32(0), u32(5_000_000), u32(64), u32(bytes.length)]);
    const obsolete = block(2, joined([fields, bytes.subarray(0, 64)]));
    const read = readAll(joined([section(), interfaceBlock(1, [], true, 64), simple, obsolete]));
    const same = { linkType: 1, wireLength: bytes.length, hex: hexOf(bytes.subarray(0, 64)) };
    expect(read).toMatchObject([
      { ...same, timeMs: 0 },
      { ...same, timeMs: 5000 },
    ]);
  });

  test('takes interfaces and byte order anew with each section, and each interface has its units', () => {
    const offset = new Uint8Array(8);
    new DataView(offset.buffer).setBigInt64(0, -1n, false);
    const file = joined([
      section(true),
      interfaceBlock(101, [[9, Uint8Array.of(9)]], true),
      interfaceBlock(1, [[9, Uint8Array.of(0x80 | 10)]], true),
      enhanced(PACKETS[0]!, { time: 1_500_000_000n }),
      enhanced(PACKETS[0]!, { time: 2048n, index: 1 }),
      block(0x0bad, new Uint8Array(20)), // unknown
      section(false),
      interfaceBlock(113, [[14, offset]], false),
      enhanced(PACKETS[0]!, { isLittle: false, time: 3_000_000n }),
    ]);
    expect(readAll(file).map(({ linkType, timeMs }) => [linkType, Math.round(timeMs)])).toEqual([
      [101, 1500],
      [1, 2000],
      [113, 2000],
    ]);
  });
});

describe('a file that is no capture is refused with one sentence', () => {
  const pcap = pcapOf(PACKETS.map((bytes) => ({ bytes })));
  const start = joined([section(), interfaceBlock(101)]);
  const patched = (file: Uint8Array, at: number, value: number): Uint8Array => {
    const copy = file.slice();
    new DataView(copy.buffer).setUint32(at, value, true);
    return copy;
  };

  test.each([
    ['empty', new Uint8Array(0), 0, 'the capture is empty'],
    ['of three bytes', Uint8Array.of(0xd4, 0xc3, 0xb2), 3, 'it ends at byte 3, in the header of'],
    ['of text', Buffer.from('hello, world'), 0, 'neither a pcap nor a pcapng capture'],
    ['of gzip', Uint8Array.of(0x1f, 0x8b, 8, 0), 0, 'unpack it first, with gunzip'],
    ['of zstd', Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd), 0, 'unpack it first, with unzstd'],
    ['of another version', patched(pcap, 4, 3), 4, 'version 3 of the pcap format'],
    [
      'with a huge packet',
      patched(pcap, 32, 0xffffffff),
      24,
      'packet 1, at byte 24, claims 4294967295',
    ],
    [
      'with a block of 4 GiB',
      joined([start, u32(0x0bad), u32(0xfffffffc), new Uint8Array(64)]),
      start.length + 72,
      `it ends at byte ${start.length + 72}, in the block of 4294967292 bytes`,
    ],
    [
      'with a packet of 4 GiB',
      joined([start, u32(6), u32(0xfffffffc), new Uint8Array(12), u32(0xfffffff0), u32(0)]),
      start.length,
      'claims 4294967280 captured bytes, and a packet has at most 262144',
    ],
    [
      'with a short block',
      joined([start, u32(6), u32(16), u32(0), u32(16)]),
      start.length,
      'claims a length of 16 bytes, and needs a multiple of 4 from 32',
    ],
    [
      'with a block of no length',
      joined([start, u32(9), u32(0), u32(0)]),
      start.length,
      'claims a length of 0 bytes',
    ],
    [
      'with an odd length',
      joined([start, u32(9), u32(13), u32(0), u32(0)]),
      start.length,
      'claims a length of 13',
    ],
    [
      'with a packet larger than its block',
      joined([start, block(6, joined([new Uint8Array(12), u32(8), u32(8), u32(0)]))]),
      start.length,
      'claims 8 captured bytes, and has room for 4',
    ],
    [
      'without an interface',
      joined([section(), enhanced(PACKETS[0]!)]),
      28,
      'is a packet of interface 0, and its section has described 0',
    ],
    [
      'without a simple packet’s interface',
      joined([section(), block(3, u32(0))]),
      28,
      'is a packet of interface 0',
    ],
    [
      'with two lengths',
      joined([start, u32(9), u32(16), u32(0), u32(20)]),
      start.length,
      'has the length 16 at its beginning and 20 at its end',
    ],
    [
      'with an option beyond its block',
      joined([section(), block(1, joined([u32(1), u32(0), u16(9), u16(99)]))]),
      28,
      'has an option of 99 bytes',
    ],
    [
      'without a byte order',
      patched(section(), 8, 0),
      0,
      'without the magic number of a byte order',
    ],
  ])('%s', (_, file, offset, says) => {
    const fault = faultOf(file);
    expect(fault.message).toContain(says);
    expect(fault.offset).toBe(offset);
    expect(fault.code).toBe('ERR_PRESENCE_CAPTURE');
  });

  test('a section with more interfaces than are kept', () => {
    const file = joined([section(), ...Array<Uint8Array>(65_537).fill(interfaceBlock(1))]);
    expect(faultOf(file).message).toContain('one more interface than the 65536');
  });
});

/** `npm run fuzz:capture` runs 1,000,000. */
const CASES = Number(process.env.VP_CAPTURES ?? 1000);

test(`${CASES} damaged captures are read or refused, whatever is in them`, () => {
  const random = new Random(Number(process.env.VP_SEED ?? 1));
  const forms = Object.values(FORMS);
  let refused = 0;
  for (let n = 0; n < CASES; n++) {
    const file = random.pick(forms).slice();
    const changes = random.between(1, 8);
    for (let i = 0; i < changes; i++) {
      const at = random.below(file.length);
      if (random.chance(0.3)) file.fill(random.pick([0, 0xff, 0x7f, 0x80]), at, at + 4);
      else file[at] = random.below(256);
    }
    const cut = file.subarray(0, random.chance(0.3) ? random.below(file.length + 1) : file.length);
    try {
      const read = readAll(cut, random.pick([cut.length, 5, 100]) || 1);
      // Each packet that is read has bytes of the file.
      expect(read.reduce((sum, { hex }) => sum + hex.length / 2, 0)).toBeLessThanOrEqual(
        cut.length
      );
    } catch (error) {
      if (!(error instanceof CaptureError)) throw new Error(`case ${n}`, { cause: error });
      refused++;
    }
  }
  expect(refused).toBeGreaterThan(CASES / 10);
});

test('a reader that gets a gigabyte of an unknown block keeps none of it', () => {
  const reader = new CaptureReader(() => {});
  reader.push(joined([section(), u32(0x0bad), u32(1 << 30)]));
  const piece = new Uint8Array(1 << 20);
  const before = process.memoryUsage().arrayBuffers;
  for (let n = 0; n < 1023; n++) reader.push(piece);
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(64 << 20);
});

const missing = ['tcpdump', 'tshark', 'editcap'].filter(
  (program) => spawnSync(program, ['--version']).status !== 0
);

describe.skipIf(missing.length > 0 && !process.env.CI)(
  `files of Wireshark's programs and of tcpdump (skipped where the Debian packages tshark and tcpdump are missing)`,
  () => {
    const folder = mkdtempSync(join(tmpdir(), 'vp-captures-'));
    afterAll(() => rmSync(folder, { recursive: true }));
    const ours = join(folder, 'ours.pcapng');
    writeFileSync(ours, FORMS['pcapng of the PcapngWriter']!);

    test.each(['pcap', 'nsecpcap', 'pcapng', 'modpcap'])('editcap -F %s', (format) => {
      const path = join(folder, format);
      execFileSync('editcap', ['-F', format, ours, path]);
      const file = readFileSync(path);
      if (format === 'modpcap') {
        expect(faultOf(file).message).toContain('editcap -F pcapng converts');
        return;
      }
      expect(readAll(file).map(({ hex }) => hex)).toEqual(EXPECTED.map(({ hex }) => hex));
    });

    test('tcpdump writes what it has read', () => {
      const path = join(folder, 'tcpdump');
      execFileSync('tcpdump', ['-r', ours, '-w', path, '-Z', 'root'], { stdio: 'ignore' });
      expect(readAll(readFileSync(path)).map(({ hex }) => hex)).toEqual(
        EXPECTED.map(({ hex }) => hex)
      );
    });

    test('tshark sees the same times and lengths', () => {
      const fields = ['frame.time_epoch', 'frame.len', 'frame.cap_len'].flatMap((f) => ['-e', f]);
      const path = join(folder, 'short.pcapng');
      execFileSync('editcap', ['-s', '50', ours, path]);
      const lines = execFileSync('tshark', ['-r', path, '-T', 'fields', ...fields], {
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'ignore'],
      });
      const read = readAll(readFileSync(path));
      const rows = lines
        .trim()
        .split('\n')
        .map((line) => line.split('\t').map(Number));
      for (const [i, [seconds, length, captured]] of rows.entries()) {
        const { timeMs, wireLength, hex } = read[i]!;
        expect([wireLength, hex.length / 2]).toEqual([length, captured]);
        expect(timeMs / 1000).toBeCloseTo(seconds!, 6);
      }
      expect(rows).toHaveLength(PACKETS.length);
    });
  }
);
