import { expect, test } from 'vitest';
import { IpAddress } from '../../src/base/address.ts';
import { IPV4_DONT_FRAGMENT } from '../../src/packet/fields.ts';
import {
  pseudoHeaderSum,
  sourceOffset,
  writeAddresses,
  writeIpv4Header,
  writeIpv6Header,
} from '../../src/packet/ip-writer.ts';
import { checksumOf, wordsOf } from '../support/checksum.ts';

test('writes every byte of an IPv4 header, whatever was there', () => {
  const bytes = Buffer.alloc(24, 0xa5);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  writeAddresses(view, 2, IpAddress.parse('192.168.0.1'), IpAddress.parse('192.168.0.199'));
  writeIpv4Header(view, 2, 0x73, 17, 0, IPV4_DONT_FRAGMENT);
  // The example of many textbooks: its checksum is 0xb861.
  expect(bytes.toString('hex')).toBe('a5a545000073000040004011b861c0a80001c0a800c7a5a5');
});

test('writes identification and fragment offset of an IPv4 header with a checksum that is right', () => {
  const bytes = Buffer.alloc(20, 0xff);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  writeAddresses(view, 0, IpAddress.parse('255.255.255.255'), IpAddress.parse('10.0.0.1'));
  writeIpv4Header(view, 0, 65_535, 1, 0xfffe, 0x2001);
  expect(bytes.toString('hex', 0, 10)).toBe('4500fffffffe20014001');
  expect(checksumOf(wordsOf(bytes))).toBe(0);
});

test('writes every byte of an IPv6 header', () => {
  const bytes = Buffer.alloc(40, 0xa5);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  writeAddresses(view, 0, IpAddress.parse('2001:db8::1'), IpAddress.parse('fe80::ffff:2'));
  writeIpv6Header(view, 0, 0xfedc, 58);
  expect(bytes.toString('hex')).toBe(
    '60000000fedc3a4020010db8000000000000000000000001fe8000000000000000000000ffff0002'
  );
  const sum = pseudoHeaderSum(view, sourceOffset(6), 6, 58, 0x1_0005);
  expect(sum).toBe(0x2001 + 0x0db8 + 1 + 0xfe80 + 0xffff + 2 + 58 + 0x1_0005);
});
