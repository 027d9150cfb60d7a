import { describe, expect, test } from 'vitest';
import { PortRange } from '../../src/base/port-range.ts';
import { ConfigError } from '../../src/errors.ts';

describe('PortRange.parse', () => {
  test.each([
    ['tcp/1', { protocol: 'tcp', first: 1, last: 1 }],
    ['tcp/5672', { protocol: 'tcp', first: 5672, last: 5672 }],
    ['udp/8000-8100', { protocol: 'udp', first: 8000, last: 8100 }],
    ['udp/1-65535', { protocol: 'udp', first: 1, last: 65_535 }],
    ['tcp/7-7', { protocol: 'tcp', first: 7, last: 7 }],
    ['udplite/5004-5005', { protocol: 'udplite', first: 5004, last: 5005 }],
    ['sctp/3868', { protocol: 'sctp', first: 3868, last: 3868 }],
    ['icmp', { protocol: 'icmp', first: 0, last: 0 }],
    ['ip/2', { protocol: 'ip', first: 2, last: 2 }],
    ['ip/47', { protocol: 'ip', first: 47, last: 47 }],
    ['ip/051', { protocol: 'ip', first: 51, last: 51 }],
    ['ip/255', { protocol: 'ip', first: 255, last: 255 }],
  ])('reads %s', (text, range) => {
    expect(PortRange.parse(text)).toEqual(range);
  });

  test.each([
    '',
    'tcp',
    'tcp/',
    'tcp/0',
    'tcp/65536',
    'tcp/99999',
    'tcp/100000',
    'tcp/-1',
    'tcp/1-',
    'tcp/2-1',
    'tcp/0-5',
    'tcp/1-65536',
    'tcp/1-2-3',
    'tcp/1.5',
    'tcp/0x10',
    'tcp/ 80',
    'tcp/80 ',
    'tcp/80\n',
    'TCP/80',
    'sctp/0',
    'sctp',
    'udplite/65536',
    'udplite/9-8',
    'udp-lite/80',
    'dccp/80',
    'icmp/8',
    'icmp ',
    'icmpv6',
    '80',
    'ip',
    'ip/',
    'ip/-1',
    'ip/1-2',
    'ip/47 ',
    'ip/47\n',
    'ip/0x2f',
    'ip/1000',
    'IP/47',
    'gre',
  ])('refuses %j and names the place', (text) => {
    expectFault(text, `"${text}" is not a port such as tcp/5672, udp/8000-8100, icmp or ip/47`);
  });

  test.each<[string, string]>([
    ['ip/1', 'write icmp'],
    ['ip/58', 'write icmp'],
    ['ip/6', 'write tcp/ and a port'],
    ['ip/006', 'write tcp/ and a port'],
    ['ip/17', 'write udp/ and a port'],
    ['ip/132', 'write sctp/ and a port'],
    ['ip/136', 'write udplite/ and a port'],
    ['ip/33', 'the checksum of DCCP covers the addresses, which is not supported'],
    ...[0, 43, 44, 60, 135, 139, 140, 253, 254].map((number): [string, string] => [
      `ip/${number}`,
      'it is an IPv6 extension header, or experimental',
    ]),
    ['ip/256', 'protocol numbers end at 255'],
    ['ip/999', 'protocol numbers end at 255'],
  ])('refuses %s, says why and names the place', (text, reason) => {
    expectFault(text, `"${text}" cannot be exposed: ${reason}`);
  });
});

function expectFault(text: string, message: string): void {
  let fault: unknown;
  try {
    PortRange.parse(text, 'ports[3]');
  } catch (error) {
    fault = error;
  }
  expect(fault).toBeInstanceOf(ConfigError);
  expect(fault).toHaveProperty('path', 'ports[3]');
  expect((fault as Error).message).toBe(`ports[3]: ${message}`);
}
