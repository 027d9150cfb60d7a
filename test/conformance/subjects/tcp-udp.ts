/**
 * TCP and UDP between realms of one IP version: what changes, and all that does not.
 * @module
 */

import { counting, NOTHING } from '../../support/bytes.ts';
import { ACK, DONT_FRAGMENT, FIN, PSH, packet, RST, SYN } from '../../support/packets.ts';
import type { Case, Subject } from '../corpus.ts';
import { tcp, udp } from '../packets.ts';
import { drop, type PathName, pass, planOf, reply, request, SAME, test } from '../scene.ts';

export function tcpUdp(): Subject {
  return {
    subject: 'tcp-udp',
    about: 'TCP and UDP between realms of one IP version.',
    plans: { base: planOf() },
    cases: SAME.flatMap((name) => [...requests(name), ...replies(name), ...fields(name)]),
  };
}

function requests(name: PathName): Case[] {
  const path = request(name);
  const isAt = (port: number): string => `udp/${port}`;
  const twice = ['RFC 2663 section 4.3'];
  return [
    test(`${name}: a SYN to a permitted port is forwarded`, twice, [
      pass(path, tcp({ flags: SYN })),
    ]),
    test(
      `${name}: a TCP segment without SYN passes though nothing was seen before it`,
      ['RFC 9293 section 3.1'],
      pass(path, tcp({ flags: ACK | PSH, payload: counting(33) })),
      { comment: 'No table of connections, so a restart loses none.' }
    ),
    test(
      `${name}: FIN, RST and odd flags pass alike`,
      ['RFC 9293 section 3.1'],
      [FIN | ACK, RST, RST | ACK, SYN | FIN, 0, 0xff].map((flags) => pass(path, tcp({ flags })))
    ),
    test(`${name}: a UDP datagram to a permitted port is forwarded`, twice, pass(path, udp())),
    test(
      `${name}: an empty UDP datagram is forwarded`,
      ['RFC 768'],
      pass(path, udp({ payload: NOTHING }))
    ),
    ...[8000, 8100].map((to) =>
      test(
        `${name}: ${isAt(to)} is within udp/8000-8100`,
        ['RFC 768', 'RFC 4787 section 5'],
        pass(path, udp({ destinationPort: to }))
      )
    ),
    ...[7999, 8101].map((to) =>
      test(
        `${name}: ${isAt(to)} is outside of udp/8000-8100`,
        ['RFC 768', 'RFC 4787 section 5'],
        drop('site', packet(path.before, udp({ destinationPort: to })), 'DropNotPermitted')
      )
    ),
    test(
      `${name}: a TCP port does not open the UDP port of the same number`,
      ['RFC 6335 section 3'],
      [
        drop('site', packet(path.before, udp({ destinationPort: 5672 })), 'DropNotPermitted'),
        drop('site', packet(path.before, tcp({ destinationPort: 53 })), 'DropNotPermitted'),
      ]
    ),
    test(
      `${name}: port 0 is a port that no permit names`,
      ['RFC 6335 section 6'],
      [
        drop('site', packet(path.before, tcp({ destinationPort: 0 })), 'DropNotPermitted'),
        drop('site', packet(path.before, udp({ destinationPort: 0 })), 'DropNotPermitted'),
      ]
    ),
    test(
      `${name}: the source port of a request is any`,
      ['RFC 4787 section 4.2.1'],
      [0, 1, 53, 65_535].map((from) => pass(path, udp({ sourcePort: from })))
    ),
  ];
}

function replies(name: PathName): Case[] {
  const path = reply(name);
  const answer = { sourcePort: 5672, destinationPort: 40_000 };
  return [
    test(
      `${name}: a SYN-ACK from a permitted port is forwarded`,
      ['RFC 9293 section 3.5'],
      pass(path, tcp({ ...answer, flags: SYN | ACK }))
    ),
    test(
      `${name}: data, FIN and RST from a permitted port are forwarded`,
      ['RFC 9293 section 3.1'],
      [PSH | ACK, FIN | ACK, RST, RST | ACK].map((flags) =>
        pass(path, tcp({ ...answer, flags, payload: counting(8) }))
      )
    ),
    test(
      `${name}: a SYN from a permitted port opens a session, so it is no reply`,
      ['RFC 9293 section 3.5'],
      [SYN, SYN | FIN, SYN | RST, SYN | PSH].map((flags) =>
        drop('cloud', packet(path.before, tcp({ ...answer, flags })), 'DropNotPermitted')
      )
    ),
    test(
      `${name}: a segment from another port of the service is not permitted`,
      ['RFC 4787 section 5'],
      drop(
        'cloud',
        packet(path.before, tcp({ sourcePort: 22, destinationPort: 40_000 })),
        'DropNotPermitted'
      )
    ),
    test(
      `${name}: a segment to the permitted port number, but of the client, is not permitted`,
      ['RFC 4787 section 5'],
      drop(
        'cloud',
        packet(path.before, tcp({ sourcePort: 40_000, destinationPort: 5672 })),
        'DropNotPermitted'
      )
    ),
    test(
      `${name}: a UDP request and its reply are forwarded`,
      ['RFC 4787 section 4.3'],
      [
        pass(request(name), udp()),
        pass(
          path,
          udp({ sourcePort: 53, destinationPort: 40_000, payload: counting(40) }),
          {},
          {},
          { at: 20 }
        ),
      ]
    ),
  ];
}

function fields(name: PathName): Case[] {
  const path = request(name);
  const isIpv4 = name === '4 to 4';
  const cites = isIpv4 ? ['RFC 791 section 3.1'] : ['RFC 8200 section 3'];
  const cases = [
    test(
      `${name}: the hop limit is not changed`,
      [...cites, 'RFC 3022 section 4'],
      [0, 1, 2, 255].map((ttl) => pass(path, udp(), { hopLimit: ttl })),
      { comment: 'It is the work of the kernels at both ends of the way.' }
    ),
    test(
      `${name}: the DS field and ECN are not changed`,
      [...cites, 'RFC 2474 section 3', 'RFC 3168 section 5'],
      [0xb8, 0x01, 0x03, 0xff].map((tos) => pass(path, tcp(), { trafficClass: tos }))
    ),
    test(
      `${name}: sequence numbers, window, urgent pointer and options of TCP are not changed`,
      ['RFC 9293 section 3.1'],
      pass(
        path,
        tcp({
          sequence: 0xffffffff,
          acknowledgment: 0x80000000,
          flags: ACK | 0x20 | 0x80,
          window: 1,
          urgent: 0xffff,
          tcpOptions: Uint8Array.of(1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8),
          payload: counting(101),
        })
      )
    ),
    test(
      `${name}: a TCP header of the greatest length is passed over whole`,
      ['RFC 9293 section 3.1'],
      pass(path, tcp({ tcpOptions: new Uint8Array(40).fill(1), payload: counting(3) }))
    ),
    test(
      `${name}: addresses in the payload are not changed`,
      ['RFC 3022 section 2', 'RFC 2663 section 2.9'],
      pass(path, udp({ payload: packet(path.before, udp()) }))
    ),
  ];
  if (isIpv4) {
    cases.push(
      test(
        `${name}: identification and flags are not changed`,
        ['RFC 791 section 3.1', 'RFC 6864 section 4'],
        [
          pass(path, udp(), { identification: 0, fragment: DONT_FRAGMENT }),
          pass(path, udp(), { identification: 0xffff, fragment: DONT_FRAGMENT }),
          pass(path, udp(), { identification: 7, fragment: 0 }),
        ]
      )
    );
  } else {
    cases.push(
      test(
        `${name}: the flow label is not changed`,
        ['RFC 8200 section 3', 'RFC 6437 section 2'],
        [0x00001, 0xfffff, 0xabcde].map((flow) => pass(path, udp(), { flowLabel: flow }))
      )
    );
  }
  return cases;
}
