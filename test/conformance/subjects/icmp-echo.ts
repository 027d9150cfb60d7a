/**
 * Echo: which path it may go, its identifier as the session, and its type in the other IP version.
 * @module
 */

import { counting, NOTHING } from '../../support/bytes.ts';
import { ICMP, ICMPV6, icmp, packet, raw } from '../../support/packets.ts';
import type { Case, Subject } from '../corpus.ts';
import { echo } from '../packets.ts';
import {
  back,
  drop,
  PATHS,
  type PathName,
  pass,
  planOf,
  reply,
  request,
  SAME,
  test,
} from '../scene.ts';

export function icmpEcho(): Subject {
  return {
    subject: 'icmp-echo',
    about: 'Echo requests and replies, of one IP version and between both.',
    plans: { base: planOf(), silent: planOf({ ports: ['tcp/5672'] }) },
    cases: [...PATHS.flatMap(pathsOf), ...otherTypes()],
  };
}

function pathsOf(name: PathName): Case[] {
  const path = request(name);
  const answers = reply(name);
  const isMixed = !SAME.includes(name);
  const cites = isMixed
    ? ['RFC 7915 section 4.2', 'RFC 7915 section 5.2']
    : name === '4 to 4'
      ? ['RFC 792', 'RFC 5508 section 3.1']
      : ['RFC 4443 section 4', 'RFC 5508 section 3.1'];
  return [
    test(
      `${name}: an echo request is forwarded${isMixed ? ' as the other version’s' : ''}`,
      cites,
      pass(path, echo())
    ),
    test(
      `${name}: an echo reply to a request is forwarded${isMixed ? ' as the other version’s' : ''}`,
      cites,
      [pass(back(answers), echo()), pass(answers, echo({ reply: true }), {}, {}, { at: 30 })]
    ),
    test(
      `${name}: an echo request without data is forwarded`,
      cites,
      pass(path, echo({ id: 0, sequence: 0, payload: NOTHING }))
    ),
    test(
      `${name}: an echo request of 1000 bytes is forwarded`,
      cites,
      pass(path, echo({ id: 0xffff, sequence: 0xffff, payload: counting(1000) }))
    ),
    test(
      `${name}: an echo reply that nobody asked for has no session`,
      ['RFC 5508 section 3.2', 'RFC 5508 section 3.1'],
      drop(answers.from, packet(answers.before, echo({ reply: true })), 'DropNoSession')
    ),
    test(
      `${name}: an echo reply of another identifier has no session`,
      ['RFC 5508 section 3.1'],
      [
        pass(back(answers), echo({ id: 7 })),
        drop(answers.from, packet(answers.before, echo({ id: 8, reply: true })), 'DropNoSession'),
      ]
    ),
    test(
      `${name}: an echo reply of another sequence number is of the same session`,
      ['RFC 5508 section 3.1'],
      [
        pass(back(answers), echo({ sequence: 1 })),
        pass(answers, echo({ sequence: 2, reply: true })),
      ]
    ),
    test(
      `${name}: an echo request from the service is not permitted, though the client may ask it`,
      ['RFC 5508 section 3.1'],
      [
        pass(back(answers), echo()),
        drop(answers.from, packet(answers.before, echo()), 'DropNotPermitted'),
      ]
    ),
    test(
      `${name}: an echo reply is never a request`,
      ['RFC 5508 section 3.1'],
      drop('site', packet(path.before, echo({ reply: true })), 'DropNotPermitted')
    ),
    test(
      `${name}: echo is not permitted by the ports of other protocols`,
      ['RFC 5508 section 3.1'],
      drop('site', packet(path.before, echo()), 'DropNotPermitted'),
      { plan: 'silent' }
    ),
  ];
}

function otherTypes(): Case[] {
  const four = request('4 to 4').before;
  const six = request('6 to 6').before;
  const types4 = [
    [4, 'source quench', 'RFC 6633 section 1'],
    [5, 'redirect', 'RFC 792'],
    [9, 'router advertisement', 'RFC 1256 section 3'],
    [10, 'router solicitation', 'RFC 1256 section 3'],
    [13, 'timestamp', 'RFC 792'],
    [14, 'timestamp reply', 'RFC 792'],
    [15, 'information request', 'RFC 6918 section 2'],
    [17, 'address mask request', 'RFC 950'],
    [40, 'security failure', 'RFC 2521'],
    [42, 'extended echo request', 'RFC 8335 section 2'],
    [255, 'an unknown type', 'RFC 1812 section 4.3.2.1'],
  ] as const;
  const types6 = [
    [0, 'a reserved error', 'RFC 4443 section 2.1'],
    [5, 'an unknown error', 'RFC 4443 section 2.4'],
    [127, 'a reserved error', 'RFC 4443 section 2.1'],
    [130, 'multicast listener query', 'RFC 2710 section 3'],
    [133, 'router solicitation', 'RFC 4861 section 4.1'],
    [134, 'router advertisement', 'RFC 4861 section 4.2'],
    [135, 'neighbor solicitation', 'RFC 4861 section 4.3'],
    [136, 'neighbor advertisement', 'RFC 4861 section 4.4'],
    [137, 'redirect', 'RFC 4861 section 4.5'],
    [160, 'extended echo request', 'RFC 8335 section 2'],
  ] as const;
  const body = counting(28);
  return [
    ...types4.map(([type, what, cite]) =>
      test(
        `ICMP type ${type} (${what}) is not handled`,
        [cite],
        drop('site', packet(four, icmp({ type, payload: body })), 'DropUnsupported')
      )
    ),
    ...types6.map(([type, what, cite]) =>
      test(
        `ICMPv6 type ${type} (${what}) is not handled`,
        [cite],
        drop('site', packet(six, icmp({ type, payload: body })), 'DropUnsupported')
      )
    ),
    test(
      'ICMP over IPv6 is not handled',
      ['RFC 4443 section 1', 'RFC 7915 section 5.1'],
      drop(
        'site',
        packet(six, raw(ICMP, echo()({ source: '10.0.0.1', destination: '10.0.0.2' }).bytes)),
        'DropUnsupported'
      )
    ),
    test(
      'ICMPv6 over IPv4 is not handled',
      ['RFC 4443 section 1', 'RFC 7915 section 4.1'],
      drop('site', packet(four, raw(ICMPV6, echo()(six).bytes)), 'DropUnsupported')
    ),
  ];
}
