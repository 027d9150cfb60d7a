import { describe, expect, test } from 'vitest';
import { ConfigError } from '../src/errors.ts';
import { parsePortRange } from '../src/port-range.ts';

describe('parsePortRange', () => {
  test.each([
    ['tcp/1', { protocol: 'tcp', first: 1, last: 1 }],
    ['tcp/5672', { protocol: 'tcp', first: 5672, last: 5672 }],
    ['udp/8000-8100', { protocol: 'udp', first: 8000, last: 8100 }],
    ['udp/1-65535', { protocol: 'udp', first: 1, last: 65_535 }],
    ['tcp/7-7', { protocol: 'tcp', first: 7, last: 7 }],
    ['icmp', { protocol: 'icmp', first: 0, last: 0 }],
  ])('reads %s', (text, range) => {
    expect(parsePortRange(text)).toEqual(range);
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
    'sctp/80',
    'icmp/8',
    'icmp ',
    '80',
  ])('refuses %j and names the place', (text) => {
    let fault: unknown;
    try {
      parsePortRange(text, 'ports[3]');
    } catch (error) {
      fault = error;
    }
    expect(fault).toBeInstanceOf(ConfigError);
    expect(fault).toHaveProperty('path', 'ports[3]');
    expect((fault as Error).message).toBe(
      `ports[3]: "${text}" is not a port such as tcp/5672, udp/8000-8100 or icmp`
    );
  });
});
