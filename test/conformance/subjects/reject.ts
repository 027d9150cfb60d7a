/**
 * The answers that a realm with `reject` gets to refused packets, and the packets that get none.
 * @module
 */

import { counting, NOTHING } from '../../support/bytes.ts';
import {
  ACK,
  DESTINATION,
  type Ends,
  FIN,
  fragment,
  icmp,
  isIpv6,
  optionsHeader,
  PSH,
  packet,
  RST,
  raw,
  SYN,
  type Transport,
} from '../../support/packets.ts';
import { NEEDS_CSUM } from '../../support/vnet.ts';
import type { Case, Step, Subject } from '../corpus.ts';
import { echo, sctp, tcp, udp, udpLite } from '../packets.ts';
import {
  answer,
  back,
  drop,
  type Extras,
  error,
  errorPacket,
  NEW_CLIENT4,
  NEW_CLIENT6,
  PATHS,
  type PathName,
  pass,
  planOf,
  ROUTER4,
  ROUTER6,
  refusal,
  request,
  SAME,
  test,
  UNBOUND4,
  UNBOUND6,
} from '../scene.ts';

export function reject(): Subject {
  const both = (kind: 'drop' | 'unreachable' | 'reset') =>
    planOf({ site: { reject: kind }, cloud: { reject: kind } });
  return {
    subject: 'reject',
    about: 'Replies to what is refused: ICMP errors and RSTs, to whom, and how many.',
    plans: {
      base: planOf(),
      drop: both('drop'),
      unreachable: both('unreachable'),
      reset: both('reset'),
      'only site resets': planOf({ site: { reject: 'reset' } }),
    },
    cases: PATHS.flatMap((name) => [
      ...answers(name),
      ...(SAME.includes(name) ? [...resets(name), ...quotes(name), ...silent(name)] : []),
    ]),
  };
}

const UNREACHABLE = ['RFC 1812 section 5.2.7.1', 'RFC 4443 section 3.1'];
const RESET = 'RFC 9293 section 3.5.2';

/** Administratively prohibited. */
function prohibited(ends: Ends, data: Uint8Array): Uint8Array {
  return isIpv6(ends) ? refusal(ends, data, 1, 1) : refusal(ends, data, 3, 13);
}

function portUnreachable(ends: Ends, data: Uint8Array): Uint8Array {
  return isIpv6(ends) ? refusal(ends, data, 1, 4) : refusal(ends, data, 3, 3);
}

function refused(
  ends: Ends,
  transport: Transport,
  by: typeof prohibited,
  verdict: 'DropNotPermitted' | 'DropNoPresence' = 'DropNotPermitted',
  extras: Extras = {}
): Step {
  const data = packet(ends, transport);
  return drop('site', data, verdict, { ...extras, reply: by(ends, data) });
}

/** Protocols that the plan does not permit on these ports. */
const REFUSED: readonly (readonly [string, Transport])[] = [
  ['UDP', udp({ destinationPort: 54 })],
  ['UDP-Lite', udpLite({ destinationPort: 8 })],
  ['SCTP', sctp({ destinationPort: 443 })],
  ['a protocol by number', raw(41, counting(30))],
  ['an echo reply', echo({ reply: true })],
];

function answers(name: PathName): Case[] {
  const path = request(name);
  const { before } = path;
  const unbound = { ...before, destination: isIpv6(before) ? UNBOUND6 : UNBOUND4 };
  const outside = { ...before, destination: isIpv6(before) ? '2001:db8::50' : '192.0.2.50' };
  const syn = tcp({ destinationPort: 22, flags: SYN });
  return [
    test(
      `${name}: by default there is no answer`,
      ['RFC 1812 section 4.3.2.7'],
      ['base', 'drop'].flatMap((load) => [
        drop('site', packet(before, syn), 'DropNotPermitted', { load }),
        drop('site', packet(before, udp({ destinationPort: 54 })), 'DropNotPermitted'),
        drop('site', packet(unbound, syn), 'DropNoPresence'),
      ])
    ),
    ...[['TCP', syn] as const, ...REFUSED].map(([what, transport]) =>
      test(
        `${name}: reject "unreachable": ${what} gets the answer that it is prohibited`,
        UNREACHABLE,
        refused(before, transport, prohibited),
        { plan: 'unreachable' }
      )
    ),
    ...REFUSED.map(([what, transport]) =>
      test(
        `${name}: reject "reset": ${what} gets the answer that the port is unreachable`,
        UNREACHABLE,
        refused(before, transport, portUnreachable),
        { plan: 'reset' }
      )
    ),
    test(
      `${name}: reject "unreachable": an address of the pools without a presence gets the same answer`,
      UNREACHABLE,
      [syn, udp(), echo()].map((one) => refused(unbound, one, prohibited, 'DropNoPresence')),
      { plan: 'unreachable', comment: 'So that a client learns nothing of what is there.' }
    ),
    test(
      `${name}: reject "reset": an address of the pools without a presence gets the same answer`,
      [RESET, ...UNREACHABLE],
      [
        refused(unbound, udp(), portUnreachable, 'DropNoPresence'),
        refused(unbound, echo(), portUnreachable, 'DropNoPresence'),
        reset(unbound, tcp({ destinationPort: 22, flags: SYN }), SYN_ANSWER, 'DropNoPresence'),
      ],
      { plan: 'reset' }
    ),
    test(
      `${name}: addresses outside of the pools get no answer`,
      ['RFC 1812 section 4.3.2.7'],
      ['unreachable', 'reset'].flatMap((load) => [
        drop('site', packet(outside, syn), 'DropNoPresence', { load }),
        drop('site', packet(outside, udp()), 'DropNoPresence'),
      ])
    ),
  ];
}

const SEQUENCE = 0x01020304;
/** What answers the SYN of `tcp` where it has no ACK. */
const SYN_ANSWER = { sequence: 0, acknowledgment: SEQUENCE + 1, flags: RST | ACK };

interface Answer {
  readonly sequence: number;
  readonly acknowledgment: number;
  readonly flags: number;
}

function reset(
  ends: Ends,
  transport: Transport,
  fields: Answer,
  verdict: 'DropNotPermitted' | 'DropNoPresence' = 'DropNotPermitted',
  ip = {}
): Step {
  return drop('site', packet(ends, transport, ip), verdict, {
    reply: answer(ends, tcp({ sourcePort: 22, destinationPort: 40_000, window: 0, ...fields })),
  });
}

function resets(name: PathName): Case[] {
  const { before } = request(name);
  const to = 22;
  const acknowledged = { sequence: 0xfffefdfc, acknowledgment: 0, flags: RST };
  const unacknowledged = (length: number): Answer => ({
    sequence: 0,
    acknowledgment: SEQUENCE + length,
    flags: RST | ACK,
  });
  const rows: readonly (readonly [string, Transport, Answer])[] = [
    ['a SYN', tcp({ destinationPort: to, flags: SYN }), unacknowledged(1)],
    [
      'a SYN with data',
      tcp({ destinationPort: to, flags: SYN, payload: counting(9) }),
      unacknowledged(10),
    ],
    [
      'a SYN with options',
      tcp({
        destinationPort: to,
        flags: SYN,
        tcpOptions: Uint8Array.of(2, 4, 5, 0xb4, 4, 2, 1, 1),
      }),
      unacknowledged(1),
    ],
    ['a SYN-ACK', tcp({ destinationPort: to, flags: SYN | ACK }), acknowledged],
    ['a segment with ACK', tcp({ destinationPort: to, flags: ACK }), acknowledged],
    [
      'a segment with ACK and data',
      tcp({ destinationPort: to, flags: ACK | PSH, payload: counting(50) }),
      acknowledged,
    ],
    ['a FIN with ACK', tcp({ destinationPort: to, flags: FIN | ACK }), acknowledged],
    ['a FIN without ACK', tcp({ destinationPort: to, flags: FIN }), unacknowledged(1)],
    [
      'a SYN with FIN',
      tcp({ destinationPort: to, flags: SYN | FIN, payload: counting(3) }),
      unacknowledged(5),
    ],
    [
      'a segment without flags',
      tcp({ destinationPort: to, flags: 0, payload: counting(4) }),
      unacknowledged(4),
    ],
    [
      'a SYN of the greatest sequence number',
      tcp({ destinationPort: to, flags: SYN, sequence: 0xffffffff }),
      { sequence: 0, acknowledgment: 0, flags: RST | ACK },
    ],
    [
      'data that goes round the sequence numbers',
      tcp({ destinationPort: to, flags: 0, sequence: 0xfffffffe, payload: counting(5) }),
      { sequence: 0, acknowledgment: 3, flags: RST | ACK },
    ],
  ];
  const extensions = [optionsHeader(DESTINATION, NOTHING)];
  return [
    ...rows.map(([what, transport, fields]) =>
      test(
        `${name}: reject "reset": ${what} is answered with a RST`,
        [RESET, 'RFC 9293 section 3.10.7.1'],
        reset(before, transport, fields),
        { plan: 'reset' }
      )
    ),
    test(
      `${name}: reject "reset": behind IP options or extension headers, too`,
      [RESET],
      reset(
        before,
        tcp({ destinationPort: to, flags: SYN, payload: counting(2) }),
        unacknowledged(3),
        undefined,
        {
          extensions,
          options: Uint8Array.of(1, 1, 1, 1),
        }
      ),
      { plan: 'reset' }
    ),
    test(
      `${name}: a RST is never answered`,
      [RESET],
      ['reset', 'unreachable'].flatMap((load) => [
        drop('site', packet(before, tcp({ destinationPort: to, flags: RST })), 'DropNotPermitted', {
          load,
        }),
        drop(
          'site',
          packet(before, tcp({ destinationPort: to, flags: RST | ACK })),
          'DropNotPermitted'
        ),
      ])
    ),
  ];
}

function quotes(name: PathName): Case[] {
  const { before } = request(name);
  const isV6 = isIpv6(before);
  const room = isV6 ? 1232 : 548;
  const header = isV6 ? 48 : 28;
  const sized = (size: number): Transport =>
    udp({ destinationPort: 54, payload: counting(size - header) });
  const cites = isV6 ? ['RFC 4443 section 2.4'] : ['RFC 1812 section 4.3.2.3'];
  const limit = isV6 ? 1280 : 576;
  const partial = packet(before, udp({ destinationPort: 54, checksum: 'partial' }));
  const vnet = { flags: NEEDS_CSUM, checksumStart: isV6 ? 40 : 20, checksumOffset: 6 };
  const marked = packet(before, udp({ destinationPort: 54 }), {
    trafficClass: 0xb8,
    hopLimit: 3,
    flowLabel: 0x1234,
  });
  const first = fragment(before, udp({ destinationPort: 54, payload: counting(56) }), [0, 32]);
  return [
    test(
      `${name}: a reply of ${limit} bytes quotes a packet of ${room} bytes whole`,
      cites,
      refused(before, sized(room), prohibited),
      { plan: 'unreachable' }
    ),
    test(
      `${name}: a reply quotes the first ${room} bytes of a larger packet`,
      cites,
      [room + 1, 1400].map((size) => refused(before, sized(size), prohibited)),
      { plan: 'unreachable' }
    ),
    test(
      `${name}: a reply has traffic class 0 and hop limit 64 of its own`,
      ['RFC 1812 section 4.3.2.5', ...cites],
      drop('site', marked, 'DropNotPermitted', { reply: prohibited(before, marked) }),
      { plan: 'unreachable' }
    ),
    test(
      `${name}: a reply to a packet with a partial checksum quotes it as it came`,
      ['virtio 1.2 5.1.6.2', ...cites],
      drop('site', partial, 'DropNotPermitted', { vnet, reply: prohibited(before, partial) }),
      { plan: 'unreachable' }
    ),
    test(
      `${name}: a reply to a first fragment quotes it`,
      ['RFC 1812 section 4.3.2.7', ...cites],
      [
        drop('site', first, 'DropNotPermitted', { reply: prohibited(before, first) }),
        drop(
          'site',
          fragment(before, udp({ destinationPort: 54, payload: counting(56) }), [32, 64]),
          'DropFragmentOrphan'
        ),
      ],
      { plan: 'unreachable', comment: 'None is made to a later fragment.' }
    ),
  ];
}

function silent(name: PathName): Case[] {
  const path = request(name);
  const { before } = path;
  const isV6 = isIpv6(before);
  const foreign = isV6 ? ROUTER6 : ROUTER4;
  const unbound = isV6 ? UNBOUND6 : UNBOUND4;
  const newClient = isV6 ? NEW_CLIENT6 : NEW_CLIENT4;
  const side = isV6 ? { type: 1, code: 4 } : { type: 3, code: 3 };
  const both = (steps: (load: string) => readonly Step[]): Step[] =>
    ['unreachable', 'reset'].flatMap(steps);
  const cites = ['RFC 1812 section 4.3.2.7', 'RFC 4443 section 2.4'];
  const malformed = packet(before, udp({ destinationPort: 54, udpLength: 3 }));
  return [
    test(
      `${name}: an ICMP error is never answered`,
      cites,
      both((load) => [
        drop('cloud', errorPacket(path, tcp({ destinationPort: 22 }), side), 'DropNotPermitted', {
          load,
        }),
        drop(
          'site',
          packet(
            { ...before, destination: unbound },
            icmp({
              ...side,
              payload: packet({ source: unbound, destination: before.source }, udp()),
            })
          ),
          'DropNoPresence'
        ),
      ]),
      { plan: 'unreachable' }
    ),
    test(
      `${name}: an SCTP ABORT is never answered`,
      ['RFC 9260 section 8.4'],
      both((load) => [
        drop('site', packet(before, sctp({ destinationPort: 443, chunk: 6 })), 'DropNotPermitted', {
          load,
        }),
      ]),
      { plan: 'unreachable' }
    ),
    test(
      `${name}: a source that the realm may not use is never answered`,
      ['RFC 2827 section 3', ...cites],
      both((load) => [
        drop(
          'site',
          packet({ ...before, source: foreign }, udp({ destinationPort: 54 })),
          'DropSpoofed',
          {
            load,
          }
        ),
        drop(
          'site',
          packet({ source: foreign, destination: unbound }, tcp({ flags: SYN })),
          'DropNoPresence'
        ),
        drop(
          'site',
          packet({ source: before.destination, destination: unbound }, udp()),
          'DropNoPresence'
        ),
      ]),
      { plan: 'unreachable' }
    ),
    test(
      `${name}: malformed and unsupported packets are never answered`,
      cites,
      both((load) => [
        drop('site', malformed, 'DropMalformed', { load }),
        drop('site', packet(before, raw(33, counting(20))), 'DropUnsupported'),
        drop('site', packet(before, tcp({ destinationPort: 22, dataOffset: 4 })), 'DropMalformed'),
      ]),
      { plan: 'unreachable' }
    ),
    test(
      `${name}: a reply without a session is never answered`,
      ['RFC 4787 section 5'],
      both((load) => [
        drop(
          'cloud',
          packet(back(path).before, udp({ sourcePort: 53, destinationPort: 40_000 })),
          'DropNoSession',
          {
            load,
          }
        ),
      ]),
      { plan: 'unreachable' }
    ),
    test(
      `${name}: a source that has no presence yet gets no answer to what is not permitted to it`,
      UNREACHABLE,
      refused({ ...before, source: newClient }, udp({ destinationPort: 54 }), portUnreachable),
      { plan: 'reset', comment: 'It gets the same reply as one that has a presence.' }
    ),
    test(
      `${name}: each realm says for itself whether it gets answers`,
      UNREACHABLE,
      [
        refused(before, udp({ destinationPort: 54 }), portUnreachable),
        drop(
          'cloud',
          packet(back(path).before, udp({ sourcePort: 54, destinationPort: 53 })),
          'DropNotPermitted'
        ),
      ],
      { plan: 'only site resets' }
    ),
    test(
      `${name}: no more replies are made than maxRepliesPerSecond`,
      ['RFC 1812 section 4.3.2.8', 'RFC 4443 section 2.4'],
      [0, 1000].flatMap((at) => [
        refused(before, udp({ destinationPort: 54 }), portUnreachable, 'DropNotPermitted', { at }),
        reset(before, tcp({ destinationPort: 22, flags: SYN }), SYN_ANSWER),
        drop('site', packet(before, udp({ destinationPort: 54 })), 'DropNotPermitted'),
        drop('site', packet(before, tcp({ destinationPort: 22, flags: SYN })), 'DropNotPermitted'),
      ]),
      { plan: 'reset', options: { maxRepliesPerSecond: 2 } }
    ),
    test(
      `${name}: what is permitted gets no reply`,
      [RESET],
      [pass(path, tcp({ flags: SYN })), pass(path, udp()), error(path, udp(), side)],
      { plan: 'reset' }
    ),
  ];
}
