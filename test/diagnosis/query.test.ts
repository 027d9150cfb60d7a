import { describe, expect, test } from 'vitest';
import { parseFlow } from '../../src/diagnosis/index.ts';

describe('parseFlow', () => {
  test.each([
    [
      'site-b/10.0.0.9',
      'rabbitmq:5672/tcp',
      { site: 'site-b', address: '10.0.0.9' },
      { to: 'rabbitmq', protocol: 'tcp', port: 5672 },
    ],
    [
      'site-b/[2001:db8::9]',
      '[2001:db8::1]:443/tcp',
      { site: 'site-b', address: '2001:db8::9' },
      { to: '2001:db8::1', protocol: 'tcp', port: 443 },
    ],
    [
      'site-b/2001:db8::9',
      'rabbitmq/icmp',
      { site: 'site-b', address: '2001:db8::9' },
      { to: 'rabbitmq', protocol: 'icmp' },
    ],
    [
      'site-b/console-b',
      'bus.example.test:53/udp',
      { site: 'site-b', service: 'console-b' },
      { to: 'bus.example.test', protocol: 'udp', port: 53 },
    ],
    [
      'site-b',
      '10.0.0.129:47/ip',
      { site: 'site-b' },
      { to: '10.0.0.129', protocol: 'ip', port: 47 },
    ],
    ['cloud', 'rabbitmq', { site: 'cloud' }, { to: 'rabbitmq' }],
    ['cloud', 'rabbitmq:5672', { site: 'cloud' }, { to: 'rabbitmq', port: 5672 }],
  ])('takes %s and %s', (from, to, source, rest) => {
    const flow = parseFlow(from, to);
    expect(JSON.parse(JSON.stringify(flow))).toEqual({ from: source, ...rest });
  });

  test.each([
    ['', 'rabbitmq', 'from: "" is not a site and a host'],
    ['site b', 'rabbitmq', 'from: '],
    ['a/b c', 'rabbitmq', 'from: '],
    ['site-b', '2001:db8::1', 'an IPv6 address is in brackets'],
    ['site-b', 'rabbitmq:70000/tcp', 'to: "rabbitmq:70000/tcp": port: expected'],
    ['site-b', 'rabbitmq:1/gre', 'to: "rabbitmq:1/gre": protocol: "gre" is none of'],
    ['site-b', 'rabbitmq:6/ip', 'write tcp/ and a port'],
    ['site-b', 'rabbitmq:tcp', 'to: '],
    ['site-b', '', 'to: '],
  ])('refuses %j and %j', (from, to, message) => {
    expect(() => parseFlow(from, to)).toThrow(message);
  });
});
