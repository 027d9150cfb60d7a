import { describe, expect, test } from 'vitest';
import { PacketKind } from '../../src/packet/index.ts';
import { compilePermit } from '../../src/translator/plan.ts';
import {
  NOTHING,
  type NumberedPermit,
  PolicyTable,
  REPLY,
  REQUEST,
  sidesOf,
} from '../../src/translator/policy.ts';

const { Tcp, Udp, EchoRequest, EchoReply } = PacketKind;
const BOTH = REQUEST | REPLY;

function permit(number: number, ...ports: string[]): NumberedPermit {
  const service = { realm: 'cloud', address: '10.0.0.5' };
  return { number, permit: compilePermit({ realm: 'site-a', service, ports }, 'permit') };
}

test('nothing lets nothing pass', () => {
  const policies = new PolicyTable();
  for (const kind of [Tcp, Udp, EchoRequest, EchoReply]) {
    expect(policies.allows(NOTHING, kind, BOTH, 0, 0)).toBe(false);
  }
});

describe('a permit', () => {
  const policies = new PolicyTable();
  const services = permit(0, 'tcp/5672', 'udp/8000-8100', 'icmp', 'tcp/1', 'udp/65535');
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
  ] as const)('%s: the destination port of a request, the source port of a reply', (...row) => {
    const [, kind, port, passes] = row;
    const other = kind === EchoRequest ? 0 : 33_000;
    const answer = kind === EchoRequest ? EchoReply : kind;
    expect(policies.allows(requests, kind, REQUEST, other, port)).toBe(passes);
    expect(policies.allows(replies, answer, REPLY, port, other)).toBe(passes);
    // The other way round it is nobody's.
    if (kind !== EchoRequest) {
      expect(policies.allows(requests, kind, REQUEST, port, other)).toBe(false);
      expect(policies.allows(replies, kind, REPLY, other, port)).toBe(false);
    }
  });

  test('on one side does not let the other side pass', () => {
    expect(policies.allows(requests, Tcp, REPLY, 5672, 5672)).toBe(false);
    expect(policies.allows(replies, Tcp, REQUEST, 5672, 5672)).toBe(false);
    expect(policies.allows(requests, Tcp, BOTH, 33_000, 5672)).toBe(true);
    expect(policies.allows(replies, Tcp, BOTH, 5672, 33_000)).toBe(true);
  });
});

describe('extend', () => {
  test('keeps what the policy let pass, and leaves that policy as it was', () => {
    const policies = new PolicyTable();
    const one = policies.extend(NOTHING, permit(0, 'tcp/1', 'icmp'), REQUEST);
    const two = policies.extend(one, permit(1, 'tcp/2'), REPLY);
    expect(policies.allows(two, Tcp, REQUEST, 9, 1)).toBe(true);
    expect(policies.allows(two, EchoRequest, REQUEST, 0, 0)).toBe(true);
    expect(policies.allows(two, Tcp, REPLY, 2, 9)).toBe(true);
    expect(policies.allows(one, Tcp, REPLY, 2, 9)).toBe(false);
    expect(policies.allows(NOTHING, Tcp, REQUEST, 9, 1)).toBe(false);
  });

  test('gives the same policy for the same permits, another for another side or permit', () => {
    const policies = new PolicyTable();
    const [a, b] = [permit(0, 'tcp/1'), permit(1, 'tcp/1')];
    const first = policies.extend(NOTHING, a, REQUEST);
    expect(policies.extend(NOTHING, a, REQUEST)).toBe(first);
    expect(policies.extend(NOTHING, a, REPLY)).not.toBe(first);
    expect(policies.extend(NOTHING, b, REQUEST)).not.toBe(first);
    expect(policies.extend(first, b, REQUEST)).toBe(policies.extend(first, b, REQUEST));
  });

  test('tells thousands of permits apart', () => {
    const policies = new PolicyTable();
    const permits = Array.from({ length: 3000 }, (_, i) => permit(i, `tcp/${i + 1}`, 'udp/1-9'));
    const of = permits.map((permit) => policies.extend(NOTHING, permit, REQUEST));
    expect(new Set(of).size).toBe(3000);
    for (const [i, policy] of of.entries()) {
      expect(policies.allows(policy, Tcp, REQUEST, 9, i + 1)).toBe(true);
      expect(policies.allows(policy, Tcp, REQUEST, 9, i + 2)).toBe(false);
      expect(policies.extend(NOTHING, permits[i]!, REQUEST)).toBe(policy);
    }
  });

  test('one policy of many permits lets each of them pass', () => {
    const policies = new PolicyTable();
    let policy: number = NOTHING;
    for (let i = 0; i < 100; i++)
      policy = policies.extend(policy, permit(i, `tcp/${i + 1}`), REPLY);
    const passing = Array.from({ length: 102 }, (_, port) => port).filter((port) =>
      policies.allows(policy, Tcp, REPLY, port, 9)
    );
    expect(passing).toEqual(Array.from({ length: 100 }, (_, i) => i + 1));
  });
});

test.each([
  ['a TCP segment', Tcp, false, BOTH],
  ['a SYN', Tcp, true, REQUEST],
  ['a datagram', Udp, false, BOTH],
  ['an echo request', EchoRequest, false, REQUEST],
  ['an echo reply', EchoReply, false, REPLY],
] as const)('%s is a request, a reply or either', (_name, kind, isPureSyn, sides) => {
  expect(sidesOf(kind, isPureSyn)).toBe(sides);
});
