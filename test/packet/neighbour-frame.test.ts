/** The frames that announce an address, byte by byte and as tshark reads them. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { IpAddress } from '../../src/base/address.ts';
import { arpAnnouncement, neighbourAdvertisement } from '../../src/packet/neighbour-frame.ts';

const HARDWARE = Buffer.from('02005e105501', 'hex');
const ARP = arpAnnouncement(HARDWARE, IpAddress.parse('203.0.113.200'));
const ADVERTISEMENT = neighbourAdvertisement(
  HARDWARE,
  IpAddress.parse('fe80::5eff:fe10:5501'),
  IpAddress.parse('2001:db8::ff00:a5')
);

test('an ARP announcement names one address as sender and target (RFC 5227 section 3)', () => {
  expect(ARP.toString('hex')).toBe(
    [
      ['ffffffffffff', '02005e105501', '0806'],
      ['0001', '0800', '06', '04', '0001'],
      ['02005e105501', 'cb0071c8', '000000000000', 'cb0071c8'],
    ]
      .flat()
      .join('')
  );
});

test('a neighbour advertisement overrides what hosts know (RFC 4861 section 7.2.6)', () => {
  expect(ADVERTISEMENT.toString('hex')).toMatch(
    new RegExp(
      [
        ['333300000001', '02005e105501', '86dd'],
        ['60000000', '0020', '3a', 'ff'],
        ['fe8000000000000000005efffe105501', 'ff020000000000000000000000000001'],
        ['8800', '....', 'a0000000', '20010db80000000000000000ff0000a5'],
        ['0201', '02005e105501'],
      ]
        .flat()
        .join('')
    )
  );
});

const hasTshark = spawnSync('tshark', ['-v']).status === 0;
describe.skipIf(!hasTshark)(
  `tshark${hasTshark ? '' : ' (skipped: the Debian package tshark is missing)'}`,
  () => {
    test('reads both without a complaint, and finds the checksum right', () => {
      const directory = mkdtempSync(join(tmpdir(), 'vp-frames-'));
      const path = join(directory, 'frames.pcap');
      writeFileSync(path, pcapOf([ARP, ADVERTISEMENT]));
      const fields = ['arp.isgratuitous', 'arp.src.proto_ipv4', 'arp.src.hw_mac']
        .concat(['icmpv6.nd.na.target_address', 'icmpv6.opt.target_linkaddr'])
        .concat(['icmpv6.nd.na.flag.o', 'icmpv6.nd.na.flag.s', 'icmpv6.checksum.status'])
        .concat(['_ws.expert.severity'])
        .flatMap((field) => ['-e', field]);
      const args = ['-r', path, '-T', 'fields', '-E', 'separator=,', ...fields];
      const { stdout } = spawnSync('tshark', args, { encoding: 'utf8' });
      rmSync(directory, { recursive: true });
      expect(stdout.trimEnd().split('\n')).toEqual([
        '1,203.0.113.200,02:00:5e:10:55:01,,,,,,',
        ',,,2001:db8::ff00:a5,02:00:5e:10:55:01,1,0,1,',
      ]);
    });
  }
);

/** Returns a capture file of Ethernet frames. */
function pcapOf(frames: readonly Buffer[]): Buffer {
  const head = Buffer.alloc(24);
  head.writeUInt32LE(0xa1b2c3d4);
  head.writeUInt16LE(2, 4);
  head.writeUInt16LE(4, 6);
  head.writeUInt32LE(65_535, 16);
  head.writeUInt32LE(1, 20);
  const records = frames.flatMap((frame) => {
    const record = Buffer.alloc(16);
    record.writeUInt32LE(frame.length, 8);
    record.writeUInt32LE(frame.length, 12);
    return [record, frame];
  });
  return Buffer.concat([head, ...records]);
}
