import { describe, expect, test } from 'vitest';
import { ApiMisuseError } from '../../src/errors.ts';
import { readUdpFrame, udpFrame, VNET_HEADER_LENGTH } from '../../src/packet/index.ts';
import { onesSum, wordsOf } from '../support/checksum.ts';

const IPV4 = { source: '10.0.0.5', destination: '192.0.2.1' };
const IPV6 = { source: '2001:db8::5', destination: '2001:db8::1:0:0:1' };
const PORTS = { sourcePort: 40_000, destinationPort: 53 };

describe.each([
  ['IPv4', IPV4, 20, 12],
  ['IPv6', IPV6, 40, 8],
] as const)('a datagram over %s', (_, addresses, headerLength, addressesAt) => {
  test.each([0, 1, 2, 1400])(
    'of %i bytes has right checksums, and is read as written',
    (length) => {
      const payload = Buffer.alloc(length, 'virtual');
      const frame = udpFrame({ ...addresses, ...PORTS, payload });
      expect(frame.subarray(0, VNET_HEADER_LENGTH)).toEqual(Buffer.alloc(VNET_HEADER_LENGTH));
      const ip = frame.subarray(VNET_HEADER_LENGTH);
      if (headerLength === 20) expect(onesSum(wordsOf(ip.subarray(0, 20)))).toBe(0xffff);
      const udp = ip.subarray(headerLength);
      const pseudoHeader = [...wordsOf(ip.subarray(addressesAt, headerLength)), 17, udp.length];
      expect(onesSum([...pseudoHeader, ...wordsOf(udp)])).toBe(0xffff);
      expect(readUdpFrame(frame)).toEqual({ ...addresses, ...PORTS, payload });
    }
  );

  test('with a checksum of zero is sent with 0xffff (RFC 768)', () => {
    const frame = udpFrame({ ...addresses, ...PORTS, payload: Buffer.alloc(2) });
    const checksum = frame.readUInt16BE(VNET_HEADER_LENGTH + headerLength + 6);
    const payload = Buffer.from([checksum >>> 8, checksum & 0xff]);
    const zero = udpFrame({ ...addresses, ...PORTS, payload });
    expect(zero.readUInt16BE(VNET_HEADER_LENGTH + headerLength + 6)).toBe(0xffff);
  });
});

test.each([
  ['nothing', (frame: Buffer) => frame.subarray(0, 0)],
  ['a truncated packet', (frame: Buffer) => frame.subarray(0, -1)],
  [
    'another protocol',
    (frame: Buffer) => frame.fill(6, VNET_HEADER_LENGTH + 9, VNET_HEADER_LENGTH + 10),
  ],
  [
    'a fragment',
    (frame: Buffer) => frame.fill(0x20, VNET_HEADER_LENGTH + 6, VNET_HEADER_LENGTH + 7),
  ],
  ['a super-packet', (frame: Buffer) => frame.fill(5, 1, 2)],
  [
    'another IP version',
    (frame: Buffer) => frame.fill(0x55, VNET_HEADER_LENGTH, VNET_HEADER_LENGTH + 1),
  ],
])('%s is no datagram', (_, spoil) => {
  const frame = udpFrame({ ...IPV4, ...PORTS, payload: Buffer.from('hello') });
  expect(readUdpFrame(spoil(frame))).toBeUndefined();
});

test.each([
  [{ source: '10.0.0' }, /"10\.0\.0" is not an IP address/],
  [{ destination: '::1' }, /not of one IP version/],
  [{ sourcePort: 65_536 }, /a port is a whole number from 0 to 65535, not 65536/],
  [{ destinationPort: 0.5 }, /not 0\.5/],
  [{ payload: Buffer.alloc(65_508) }, /at most 65507 bytes, not 65508/],
])('%j is refused', (change, message) => {
  const datagram = { ...IPV4, ...PORTS, payload: Buffer.alloc(0), ...change };
  expect(() => udpFrame(datagram)).toThrow(ApiMisuseError);
  expect(() => udpFrame(datagram)).toThrow(message);
});
