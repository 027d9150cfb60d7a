import { describe, expect, test } from 'vitest';
import { PortRange } from '../../src/base/port-range.ts';
import { PacketKind } from '../../src/packet/index.ts';
import { NOTHING, REPLY, REQUEST } from '../../src/translator/layout.ts';
import { needsSession, PolicyTable, sidesOf } from '../../src/translator/policy.ts';

const { Tcp, Udp, UdpLite, Sctp, Other, EchoRequest, EchoReply } = PacketKind;
const BOTH = REQUEST | REPLY;

function ports(...texts: string[]): PortRange[] {
  return texts.map((text) => PortRange.parse(text));
}

test('NOTHING lets no packet pass', () => {
  const policies = new PolicyTable();
  for (const kind of [Tcp, Udp, UdpLite, Sctp, Other, EchoRequest, EchoReply]) {
    expect(policies.sideOf(NOTHING, kind, BOTH, 0, 0)).toBe(0);
  }
});

describe('a permit', () => {
  const policies = new PolicyTable();
  const services = ports(
    ...['tcp/5672', 'udp/8000-8100', 'icmp', 'tcp/1', 'udp/65535', 'ip/47'],
    ...['udplite/5004', 'sctp/3868-3870']
  );
  const requests = policies.extend(NOTHING, services, REQUEST);
  const replies = policies.extend(NOTHING, services, REPLY);

  test.each([
    ['tcp/5672', Tcp, 5672, true],
    ['a port below', Tcp, 5671, false],
    ['a port above', Tcp, 5673, false],
    ['port 0', Tcp, 0, false],
    ['the least port', Tcp, 1, true],
    ['the same port of UDP', Udp, 5672, false],
    ['the first of a range', Udp, 8000, true],
    ['the middle of a range', Udp, 8050, true],
    ['the last of a range', Udp, 8100, true],
    ['below a range', Udp, 7999, false],
    ['above a range', Udp, 8101, false],
    ['a range of TCP', Tcp, 8050, false],
    ['the greatest port', Udp, 65_535, true],
    ['echo', EchoRequest, 0, true],
    ['udplite/5004', UdpLite, 5004, true],
    ['a port of UDP-Lite as UDP', Udp, 5004, false],
    ['a port of UDP as UDP-Lite', UdpLite, 8050, false],
    ['the last of a range of SCTP', Sctp, 3870, true],
    ['above a range of SCTP', Sctp, 3871, false],
    ['a port of TCP as SCTP', Sctp, 5672, false],
    ['ip/47', Other, 47, true],
    ['another protocol', Other, 50, false],
    ['the number of a protocol as a port', Tcp, 47, false],
  ] as const)('%s: the destination port of a request, the source port of a reply', (...row) => {
    const [, kind, port, passes] = row;
    const hasPorts = kind !== EchoRequest && kind !== Other;
    const other = hasPorts ? 33_000 : port;
    const answer = kind === EchoRequest ? EchoReply : kind;
    expect(policies.sideOf(requests, kind, REQUEST, other, port)).toBe(passes ? REQUEST : 0);
    expect(policies.sideOf(replies, answer, REPLY, port, other)).toBe(passes ? REPLY : 0);
    // With source and destination exchanged no permit applies.
    if (hasPorts) {
      expect(policies.sideOf(requests, kind, REQUEST, port, other)).toBe(0);
      expect(policies.sideOf(replies, kind, REPLY, other, port)).toBe(0);
    }
  });

  test('on one side does not let the other side pass', () => {
    expect(policies.sideOf(requests, Tcp, REPLY, 5672, 5672)).toBe(0);
    expect(policies.sideOf(replies, Tcp, REQUEST, 5672, 5672)).toBe(0);
    expect(policies.sideOf(requests, Tcp, BOTH, 33_000, 5672)).toBe(REQUEST);
    expect(policies.sideOf(replies, Tcp, BOTH, 5672, 33_000)).toBe(REPLY);
  });
});

describe('extend', () => {
  test('keeps what the policy lets pass, and does not change that policy', () => {
    const policies = new PolicyTable();
    const one = policies.extend(NOTHING, ports('tcp/2'), REPLY);
    const two = policies.extend(one, ports('tcp/1', 'icmp'), REQUEST);
    expect(policies.sideOf(two, Tcp, REQUEST, 9, 1)).toBe(REQUEST);
    expect(policies.sideOf(two, EchoRequest, REQUEST, 0, 0)).toBe(REQUEST);
    expect(policies.sideOf(two, Tcp, REPLY, 2, 9)).toBe(REPLY);
    expect(policies.sideOf(one, Tcp, REQUEST, 9, 1)).toBe(0);
    expect(policies.sideOf(NOTHING, Tcp, REPLY, 2, 9)).toBe(0);
    expect([NOTHING, one, two].map((policy) => policies.hasRequests(policy))).toEqual([
      false,
      false,
      true,
    ]);
  });

  test('a request has precedence over a reply', () => {
    const policies = new PolicyTable();
    const both = policies.extend(
      policies.extend(NOTHING, ports('tcp/7'), REPLY),
      ports('tcp/7'),
      REQUEST
    );
    expect(policies.sideOf(both, Tcp, BOTH, 7, 7)).toBe(REQUEST);
    expect(policies.sideOf(both, Tcp, REPLY, 7, 7)).toBe(REPLY);
  });

  test('returns the same policy for equal ports, and another one for another side or other ports', () => {
    const policies = new PolicyTable();
    const first = policies.extend(NOTHING, ports('tcp/1'), REQUEST);
    expect(policies.extend(NOTHING, ports('tcp/1-1'), REQUEST)).toBe(first);
    expect(policies.extend(NOTHING, ports('tcp/1'), REPLY)).not.toBe(first);
    expect(policies.extend(NOTHING, ports('tcp/1-2'), REQUEST)).not.toBe(first);
    expect(policies.extend(NOTHING, ports('udp/1'), REQUEST)).not.toBe(first);
  });

  test('distinguishes thousands of lists of ports', () => {
    const policies = new PolicyTable();
    const lists = Array.from({ length: 3000 }, (_, i) => ports(`tcp/${i + 1}`, 'udp/1-9'));
    const of = lists.map((list) => policies.extend(NOTHING, list, REQUEST));
    expect(new Set(of).size).toBe(3000);
    for (const [i, policy] of of.entries()) {
      expect(policies.sideOf(policy, Tcp, REQUEST, 9, i + 1)).toBe(REQUEST);
      expect(policies.sideOf(policy, Tcp, REQUEST, 9, i + 2)).toBe(0);
      expect(policies.extend(NOTHING, lists[i]!, REQUEST)).toBe(policy);
    }
  });

  test('one policy of many permits lets each of them pass', () => {
    const policies = new PolicyTable();
    let policy: number = NOTHING;
    for (let i = 0; i < 100; i++) policy = policies.extend(policy, ports(`tcp/${i + 1}`), REPLY);
    const passing = Array.from({ length: 102 }, (_, port) => port).filter(
      (port) => policies.sideOf(policy, Tcp, REPLY, port, 9) === REPLY
    );
    expect(passing).toEqual(Array.from({ length: 100 }, (_, i) => i + 1));
  });
});

describe('a policy', () => {
  test('is gone, with all its rules, when nobody holds it or a longer one', () => {
    const policies = new PolicyTable();
    const held = (...texts: string[]): number => {
      const policy = policies.extend(NOTHING, ports(...texts), REQUEST);
      policies.hold(policy);
      return policy;
    };
    // A record has three rules.
    const short = held('tcp/3', 'tcp/2', 'tcp/1');
    const long = held('tcp/5', 'tcp/4', 'tcp/3', 'tcp/2', 'tcp/1');
    expect(held('tcp/3', 'tcp/2', 'tcp/1')).toBe(short);
    expect(policies.size).toBe(1 + 2);
    policies.drop(short);
    policies.drop(short);
    expect(policies.size).toBe(1 + 2);
    expect(policies.sideOf(long, Tcp, REQUEST, 9, 1)).toBe(REQUEST);
    const other = held('udp/9', 'tcp/3', 'tcp/2', 'tcp/1');
    expect(policies.size).toBe(1 + 3);
    policies.drop(long);
    expect(policies.size).toBe(1 + 2);
    expect(policies.sideOf(other, Udp, REQUEST, 1, 9)).toBe(REQUEST);
    policies.drop(other);
    expect(policies.size).toBe(1);
    policies.drop(NOTHING);
    expect(policies.sideOf(NOTHING, Tcp, BOTH, 1, 1)).toBe(0);
  });
});

test.each([
  ['a TCP segment', Tcp, false, BOTH],
  ['a SYN', Tcp, true, REQUEST],
  ['a datagram', Udp, false, BOTH],
  ['an echo request', EchoRequest, false, REQUEST],
  ['an echo reply', EchoReply, false, REPLY],
  ['an SCTP packet', Sctp, false, BOTH],
  ['an INIT', Sctp, true, REQUEST],
  ['a UDP-Lite datagram', UdpLite, false, BOTH],
  ['a packet of another protocol', Other, false, BOTH],
] as const)('%s is a request, a reply or either', (_name, kind, opensSession, sides) => {
  expect(sidesOf(kind, opensSession)).toBe(sides);
});

test('needsSession is false for TCP and SCTP, and true for all others', () => {
  const kinds = [Tcp, Sctp, Udp, UdpLite, Other, EchoReply];
  expect(kinds.map(needsSession)).toEqual([false, false, true, true, true, true]);
});
