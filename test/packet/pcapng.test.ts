import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { PcapngWriter } from '../../src/packet/index.ts';
import { echoPacket, tcpPacket, udpPacket } from '../support/packets.ts';

const ENDS = { source: '10.0.0.5', destination: '100.64.0.1' };
const ENDS6 = { source: 'fd00::5', destination: 'fd64::1' };
const PORTS = { sourcePort: 49_152, destinationPort: 5353 };
const TIME = Date.UTC(2026, 0, 2, 3, 4, 5, 678);

function recorder(snapLength?: number): { writer: PcapngWriter; blocks: Uint8Array[] } {
  const blocks: Uint8Array[] = [];
  const write = (bytes: Uint8Array): void => {
    blocks.push(bytes);
  };
  const writer = new PcapngWriter({ write, ...(snapLength !== undefined && { snapLength }) });
  return { writer, blocks };
}

function hex(...parts: string[]): string {
  return parts.join(' ').replaceAll(' ', '');
}

function hexOf(bytes: Uint8Array | undefined): string {
  return Buffer.from(bytes!).toString('hex');
}

describe('PcapngWriter', () => {
  test('begins with a section header', () => {
    expect(recorder().blocks.map(hexOf)).toEqual([
      hex(
        '0a0d0d0a 1c000000', // section header block, 28 bytes
        '4d3c2b1a', // little-endian
        '0100 0000', // version 1.0
        'ffffffffffffffff', // length of the section: not known
        '1c000000'
      ),
    ]);
  });

  test('describes an interface', () => {
    const { writer, blocks } = recorder(256);
    expect([writer.interface('cloud'), writer.interface('')]).toEqual([0, 1]);
    expect(hexOf(blocks[1])).toBe(
      hex(
        '01000000 2c000000', // interface description block, 44 bytes
        '6500 0000', // LINKTYPE_RAW; reserved
        '00010000', // snap length 256
        '0200 0500 636c6f7564 000000', // if_name, 5 bytes and 3 of padding
        '0900 0100 06 000000', // if_tsresol: microseconds
        '0000 0000', // end of options
        '2c000000'
      )
    );
    expect(hexOf(blocks[2])).toBe(
      hex('01000000 24000000 6500 0000 00010000 0200 0000 0900 0100 06 000000 0000 0000 24000000')
    );
  });

  test('writes a packet with its time, lengths and direction', () => {
    const { writer, blocks } = recorder();
    writer.interface('cloud');
    writer.interface('edge');
    const buffer = Uint8Array.of(0xff, 0x45, 0x01, 0x02, 0x03, 0x04, 0xff);
    writer.packet(1, 2 ** 32 / 1000 + 0.005, 'inbound', buffer, 1, 6);
    expect(hexOf(blocks[3])).toBe(
      hex(
        '06000000 34000000', // enhanced packet block, 52 bytes
        '01000000', // interface 1
        '01000000 05000000', // 2^32 + 5 us
        '05000000 05000000', // captured, original length
        '4501020304 000000', // the packet and 3 bytes of padding
        '0200 0400 01000000', // epb_flags: inbound
        '0000 0000', // end of options
        '34000000'
      )
    );
  });

  test('truncates a packet to the snap length, and adds a comment', () => {
    const { writer, blocks } = recorder(4);
    writer.interface('cloud');
    writer.packet(0, 0, 'outbound', Uint8Array.of(1, 2, 3, 4, 5, 6), 0, 6, 'é');
    expect(hexOf(blocks[2])).toBe(
      hex(
        '06000000 38000000 00000000 00000000 00000000',
        '04000000 06000000', // captured, original length
        '01020304',
        '0200 0400 02000000', // epb_flags: outbound
        '0100 0200 c3a9 0000', // opt_comment, UTF-8
        '0000 0000 38000000'
      )
    );
  });

  test('makes a new array for each block', () => {
    const { writer, blocks } = recorder();
    writer.interface('cloud');
    const packet = new Uint8Array(8);
    writer.packet(0, 0, 'inbound', packet, 0, 8);
    const before = hexOf(blocks[2]);
    packet.fill(1);
    writer.packet(0, 1, 'outbound', packet, 0, 8);
    expect(hexOf(blocks[2])).toBe(before);
    expect(new Set(blocks.map(({ buffer }) => buffer)).size).toBe(4);
  });

  test('throws for a packet that cannot be written, and writes nothing', () => {
    const { writer, blocks } = recorder();
    const packet = new Uint8Array(8);
    const text = 'x'.repeat(65_536);
    const attempt = (index: number, start: number, end: number, comment?: string) => () =>
      writer.packet(index, 0, 'inbound', packet, start, end, comment);
    expect(attempt(0, 0, 8)).toThrow('no interface 0: there are 0');
    writer.interface('cloud');
    for (const index of [1, -1, 0.5, Number.NaN]) expect(attempt(index, 0, 8)).toThrow();
    expect(attempt(0, 4, 9)).toThrow('packet from 4 to 9 is not within a buffer of 8');
    for (const [start, end] of [
      [-1, 8],
      [5, 4],
      [Number.NaN, 8],
    ] as const) {
      expect(attempt(0, start, end)).toThrow('is not within a buffer of 8');
    }
    expect(attempt(0, 0, 8, text)).toThrow('comment of 65536 bytes is longer than 65535');
    expect(() => writer.interface(text)).toThrow('interface name of 65536 bytes');
    expect(blocks).toHaveLength(2);
    attempt(0, 8, 8)();
    expect(blocks).toHaveLength(3);
  });

  test.each([0, -1, 1.5, 65_536, Number.NaN])('refuses a snap length of %s', (snapLength) => {
    expect(() => recorder(snapLength)).toThrow('snapLength must be a whole number from 1 to 65535');
  });
});

const hasTshark = spawnSync('tshark', ['-v']).status === 0;

describe.skipIf(!hasTshark && !process.env.CI)(
  'tshark (skipped where the Debian package tshark is missing)',
  () => {
    const folder = mkdtempSync(join(tmpdir(), 'pcapng-'));
    afterAll(() => rmSync(folder, { recursive: true }));

    const FIELDS = [
      'frame.time_epoch',
      'frame.interface_name',
      'frame.len',
      'frame.cap_len',
      'frame.packet_flags_direction',
      'frame.comment',
      'frame.protocols',
      'udp.dstport',
    ];

    function read(blocks: readonly Uint8Array[]): string[][] {
      const columns = FIELDS.flatMap((field) => ['-e', field]);
      const file = join(folder, 'packets.pcapng');
      writeFileSync(file, Buffer.concat(blocks));
      const { status, stdout, stderr } = spawnSync(
        'tshark',
        ['-r', file, '-n', '-T', 'fields', '-E', 'separator=|', ...columns],
        { encoding: 'utf8' }
      );
      expect([status, stderr.replace(/^Running as user "root".*\n/, '')]).toEqual([0, '']);
      return stdout
        .trimEnd()
        .split('\n')
        .map((line) => line.split('|'));
    }

    test('reads packets of either IP version, truncated or complete, with all their fields', () => {
      const { writer, blocks } = recorder(64);
      const [cloud, edge] = [writer.interface('cloud'), writer.interface('edge site')];
      const payload = new Uint8Array(101);
      const udp = udpPacket(ENDS, { ...PORTS, payload });
      const tcp = tcpPacket(ENDS6, PORTS);
      const echo = echoPacket(ENDS, {});
      writer.packet(cloud, TIME, 'inbound', udp, 0, udp.length, 'in front');
      writer.packet(edge, TIME + 0.25, 'outbound', tcp, 0, tcp.length);
      writer.packet(cloud, TIME + 1000, 'outbound', echo, 0, echo.length, 'a, "b" – c');
      const seconds = TIME / 1000;
      expect(read(blocks)).toEqual([
        [
          `${seconds.toFixed(6)}000`,
          'cloud',
          '129',
          '64',
          '0x00000001',
          'in front',
          'raw:ip:udp:mdns',
          '5353',
        ],
        [
          `${seconds.toFixed(3)}250000`,
          'edge site',
          '60',
          '60',
          '0x00000002',
          '',
          'raw:ipv6:tcp',
          '',
        ],
        [
          `${(seconds + 1).toFixed(6)}000`,
          'cloud',
          '28',
          '28',
          '0x00000002',
          'a, "b" – c',
          'raw:ip:icmp',
          '',
        ],
      ]);
    });
  }
);
