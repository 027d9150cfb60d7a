import { describe, expect, test } from 'vitest';
import { flowHash } from '../../src/packet/index.ts';

const bytes = (hex: string): Buffer => Buffer.from(hex.replace(/\s/g, ''), 'hex');

/** IPv4, 10.0.0.1 to 10.0.0.2, identification 0. */
const ipv4 = (protocol: string, fragment: string, payload: string): Buffer =>
  bytes(`4500 0020 0000 ${fragment} 40 ${protocol} 0000 0a000001 0a000002 ${payload}`);

const UDP = '1388 1389 000c 0000 00000000';
const OTHER_UDP = '1388 138a 000c 0000 00000000';

const ipv6 = (nextHeader: string, payload: string): Buffer =>
  bytes(`60000000 000c ${nextHeader} 40 20010db8000000000000000000000001
    20010db8000000000000000000000002 ${payload}`);

const hash = (packet: Buffer): number => flowHash(packet, 0, packet.length);

describe('flowHash', () => {
  test.each([
    ['IPv4', ipv4('11', '0000', UDP), ipv4('11', '0000', OTHER_UDP)],
    ['IPv6', ipv6('11', UDP), ipv6('11', OTHER_UDP)],
  ])('distinguishes ports of %s', (_, one, other) => {
    expect(hash(one)).not.toBe(hash(other));
    expect(hash(one)).toBe(hash(Buffer.from(one)));
  });

  test('differs between the two directions', () => {
    const back = ipv4('11', '0000', '1389 1388 000c 0000 00000000');
    bytes('0a000002 0a000001').copy(back, 12);
    expect(hash(back)).not.toBe(hash(ipv4('11', '0000', UDP)));
  });

  test('is the same for all fragments of a datagram, whatever their payload', () => {
    const first = hash(ipv4('11', '2000', UDP));
    expect(hash(ipv4('11', '2001', OTHER_UDP))).toBe(first);
    expect(hash(ipv4('11', '0002', 'ffffffff 000c 0000 00000000'))).toBe(first);
    const ipv6First = hash(ipv6('2c', '11000001 00000007 13881389'));
    expect(hash(ipv6('2c', '11000008 00000007 ffffffff'))).toBe(ipv6First);
  });

  test('ignores bytes that are not ports', () => {
    expect(hash(ipv4('32', '0000', UDP))).toBe(hash(ipv4('32', '0000', OTHER_UDP)));
    expect(hash(ipv6('00', UDP))).toBe(hash(ipv6('00', OTHER_UDP)));
  });

  test('finds the ports behind IPv4 options', () => {
    const withOptions = (ports: string): Buffer =>
      bytes(
        `4600 0024 0000 0000 40 11 0000 0a000001 0a000002 01010101 ${ports} 000c 0000 00000000`
      );
    expect(hash(withOptions('13881389'))).not.toBe(hash(withOptions('1388138a')));
  });

  test('does not depend on what is around the packet', () => {
    const packet = ipv4('11', '0000', UDP);
    const around = Buffer.concat([Buffer.alloc(7, 0xee), packet, Buffer.alloc(9, 0xee)]);
    expect(flowHash(around, 7, 7 + packet.length)).toBe(hash(packet));
  });

  test('accepts any bytes of any length', () => {
    const whole = ipv4('11', '0000', UDP);
    for (let length = 0; length < whole.length; length++) {
      const cut = Buffer.concat([whole.subarray(0, length), Buffer.alloc(40, 0xee)]);
      const other = Buffer.concat([whole.subarray(0, length), Buffer.alloc(40, 0x11)]);
      expect(flowHash(cut, 0, length)).toBe(flowHash(other, 0, length));
    }
    for (let first = 0; first < 256; first++) {
      expect(Number.isInteger(hash(Buffer.alloc(60, first)))).toBe(true);
    }
  });

  test('spreads connections that differ in one port evenly', () => {
    const buckets = new Int32Array(8);
    for (let port = 0; port < 8_000; port++) {
      const packet = ipv4('06', '0000', `${(40_000 + port).toString(16)} 1f90 ${'00'.repeat(16)}`);
      buckets[hash(packet) & 7]!++;
    }
    for (const count of buckets) expect(Math.abs(count - 1_000)).toBeLessThan(120);
  });
});
