/**
 * The rules for sources, destinations and protocols, the order of the checks, and how long an answer may take.
 * @module
 */
import type { TranslationPlanInput } from '../../../src/translator/plan.ts';
import { counting } from '../../support/bytes.ts';
import { ACK, GRE, isIpv6, packet, raw, SYN, type Transport } from '../../support/packets.ts';
import type { Case, Step, Subject } from '../corpus.ts';
import { echo, tcp, udp, udpLite } from '../packets.ts';
import {
  back,
  CLIENT4,
  CLIENT6,
  drop,
  error,
  NEW_CLIENT4,
  NEW_CLIENT6,
  needsPresence,
  PATHS,
  type PacketPath,
  type PathName,
  pass,
  planOf,
  presencesWith,
  ROUTER4,
  ROUTER6,
  refusal,
  reply,
  request,
  SAME,
  SERVICE4,
  SERVICE6,
  small,
  test,
  UNBOUND4,
  UNBOUND6,
} from '../scene.ts';

export function policySessions(): Subject {
  const services = [SERVICE4, SERVICE6];
  return {
    subject: 'policy-sessions',
    about: 'The order of the rule’s steps, permits, and sessions.',
    plans: {
      base: planOf(),
      same: planOf(),
      'cloud 600': planOf({ cloud: { mtu: 600 } }),
      newClients: planOf({ presences: presencesWith(NEW_CLIENTS) }),
      'named clients': planOf({
        presences: presencesWith(NEW_CLIENTS),
        permits: services.map((address) => ({
          realm: 'site',
          service: { realm: 'cloud', address },
          ports: ['tcp/5672', 'udp/53'],
          clients: ['10.0.0.4/31', 'fd00::4/127'],
        })),
      }),
      'three realms': THREE_REALMS,
      mutual: planOf({
        permits: [
          ...services.map((address) => ({
            realm: 'site',
            service: { realm: 'cloud', address },
            ports: ['udp/53', 'tcp/5672'],
          })),
          ...[CLIENT4, CLIENT6].map((address) => ({
            realm: 'cloud',
            service: { realm: 'site', address },
            ports: ['udp/40000', 'tcp/40000'],
          })),
        ],
      }),
    },
    cases: [
      ...SAME.flatMap(order),
      ...PATHS.flatMap(timing),
      ...SAME.flatMap(keys),
      ...realms(),
      ...tables(),
    ],
  };
}

/** Presences of the hosts that have none in the other plans. */
const NEW_CLIENTS = [
  { realm: 'cloud', address: '100.64.0.12', of: { realm: 'site', address: NEW_CLIENT4 } },
  { realm: 'cloud', address: 'fd64::12', of: { realm: 'site', address: NEW_CLIENT6 } },
];

/** Two sites of the same addresses, with a presence of the same address that stands for two hosts. */
const THREE_REALMS: TranslationPlanInput = {
  realms: ['site', 'cloud', 'other site'].map((name) => ({
    name,
    sources: ['10.0.0.0/24'],
    pools: ['100.64.0.0/24'],
  })),
  presences: [
    { realm: 'site', address: '100.64.0.1', of: { realm: 'cloud', address: SERVICE4 } },
    { realm: 'cloud', address: '100.64.0.11', of: { realm: 'site', address: CLIENT4 } },
    { realm: 'other site', address: '100.64.0.1', of: { realm: 'site', address: CLIENT4 } },
    { realm: 'site', address: '100.64.0.11', of: { realm: 'other site', address: CLIENT4 } },
  ],
  permits: [
    { realm: 'site', service: { realm: 'cloud', address: SERVICE4 }, ports: ['tcp/5672'] },
    { realm: 'other site', service: { realm: 'site', address: CLIENT4 }, ports: ['tcp/5672'] },
  ],
};

function realms(): Case[] {
  const others: PacketPath = {
    from: 'other site',
    to: 'site',
    before: { source: CLIENT4, destination: '100.64.0.1' },
    after: { source: '100.64.0.11', destination: CLIENT4 },
  };
  const syn = tcp({ flags: SYN });
  const answer = tcp({ sourcePort: 5672, destinationPort: 40_000, flags: SYN | ACK });
  return [
    test(
      'a presence and a source mean what they mean in the realm a packet comes from',
      [RULE, 'RFC 2663 section 2.1'],
      [
        pass(request('4 to 4'), syn),
        pass(others, syn),
        pass(back(request('4 to 4')), answer),
        pass(back(others), answer),
      ],
      { plan: 'three realms', comment: 'The very same packet enters from both sites.' }
    ),
    test(
      'a permit of one realm is none of another',
      [FILTER],
      drop('cloud', packet(back(request('4 to 4')).before, syn), 'DropNotPermitted'),
      { plan: 'three realms' }
    ),
  ];
}

const RULE = 'RFC 2663 section 4.3';
const FILTER = 'RFC 4787 section 5';

function hosts(name: PathName) {
  return name === '4 to 4'
    ? { foreign: ROUTER4, pool: '100.64.0.9', unbound: UNBOUND4, newClient: NEW_CLIENT4 }
    : { foreign: ROUTER6, pool: 'fd64::9', unbound: UNBOUND6, newClient: NEW_CLIENT6 };
}

/** The path of the unauthenticated peer, once it has a presence. */
function foreignPath(name: PathName): PacketPath {
  const path = request(name);
  const source = hosts(name).newClient;
  return {
    ...path,
    before: { ...path.before, source },
    after: { ...path.after, source: isIpv6(path.after) ? 'fd64::12' : '100.64.0.12' },
  };
}

function order(name: PathName): Case[] {
  const path = request(name);
  const { foreign, pool, unbound, newClient } = hosts(name);
  const from = (source: string, transport: Transport): Uint8Array =>
    packet({ ...path.before, source }, transport);
  const to = (destination: string, transport: Transport): Uint8Array =>
    packet({ ...path.before, destination }, transport);
  const ingress = 'RFC 2827 section 3';
  return [
    test(
      `${name}: an address of the pool that stands for nobody has no presence`,
      [RULE],
      drop('site', to(unbound, udp()), 'DropNoPresence')
    ),
    test(
      `${name}: the real address of a service has no presence`,
      [RULE],
      drop('site', to(path.after.destination, tcp({ flags: SYN })), 'DropNoPresence')
    ),
    test(
      `${name}: a presence of another realm is none here`,
      [RULE],
      drop('site', to(path.after.source, udp()), 'DropNoPresence')
    ),
    test(
      `${name}: a missing presence is reported before a wrong source`,
      [RULE, ingress],
      drop('site', packet({ source: foreign, destination: unbound }, udp()), 'DropNoPresence')
    ),
    test(
      `${name}: a source outside of the realm’s is spoofed`,
      [ingress],
      drop('site', from(foreign, udp()), 'DropSpoofed')
    ),
    test(
      `${name}: a source in the realm’s own pools is spoofed`,
      [ingress],
      drop('site', from(pool, udp()), 'DropSpoofed')
    ),
    test(
      `${name}: a service’s presence as source is spoofed`,
      [ingress],
      drop('site', from(path.before.destination, udp()), 'DropSpoofed')
    ),
    test(
      `${name}: a wrong source is reported before a missing permit`,
      [ingress, FILTER],
      drop('site', from(foreign, udp({ destinationPort: 54 })), 'DropSpoofed')
    ),
    test(
      `${name}: a missing permit is reported before a missing presence of the source`,
      [FILTER],
      drop('site', from(newClient, udp({ destinationPort: 54 })), 'DropNotPermitted')
    ),
    test(
      `${name}: a permitted source without a presence needs one, and then passes`,
      [RULE],
      [
        needsPresence(path, from(newClient, tcp({ flags: SYN })), isIpv6(path.before) ? 6 : 4),
        pass(foreignPath(name), tcp({ flags: SYN }), {}, {}, { load: 'newClients' }),
      ]
    ),
    test(
      `${name}: what is unsupported is reported before a missing presence`,
      ['RFC 4340 section 9.1', RULE],
      drop('site', to(unbound, raw(33, counting(16))), 'DropUnsupported')
    ),
    test(
      `${name}: a permit may name its clients`,
      [FILTER],
      [
        pass(path, udp()),
        pass(path, tcp({ flags: SYN })),
        drop('site', from(newClient, udp()), 'DropNotPermitted'),
        drop('site', from(newClient, tcp({ flags: SYN })), 'DropNotPermitted'),
      ],
      { plan: 'named clients' }
    ),
    test(
      `${name}: a reply to a client that the permit does not name is not permitted`,
      [FILTER],
      drop(
        'cloud',
        packet(back(foreignPath(name)).before, tcp({ sourcePort: 5672, destinationPort: 40_000 })),
        'DropNotPermitted'
      ),
      { plan: 'named clients' }
    ),
    test(
      `${name}: services may not open sessions to their clients`,
      [FILTER],
      [
        drop('cloud', packet(back(path).before, tcp({ flags: SYN })), 'DropNotPermitted'),
        drop('cloud', packet(back(path).before, udp()), 'DropNotPermitted'),
        drop('cloud', packet(back(path).before, echo()), 'DropNotPermitted'),
      ]
    ),
  ];
}

/** A kind of session: its request, its reply, and for how long the one allows the other. */
const KINDS: readonly (readonly [string, number, string, Transport, Transport])[] = [
  ['UDP', 300_000, 'RFC 4787 section 4.3', udp(), udp({ sourcePort: 53, destinationPort: 40_000 })],
  ['echo', 60_000, 'RFC 5508 section 3.2', echo(), echo({ reply: true })],
];

const NUMBERED: readonly (readonly [string, number, string, Transport, Transport])[] = [
  [
    'UDP-Lite',
    300_000,
    'RFC 4787 section 4.3',
    udpLite(),
    udpLite({ sourcePort: 7, destinationPort: 40_000 }),
  ],
  ['GRE', 300_000, 'RFC 4787 section 4.3', raw(GRE, counting(20)), raw(GRE, counting(24))],
];

function timing(name: PathName): Case[] {
  const answers = reply(name);
  const asks = back(answers);
  /** The second request, if requests become small IPv4 packets. */
  const again = name === '4 to 6' ? { identification: 1 } : {};
  const late = (answer: Transport, at: number): Step =>
    drop(answers.from, packet(answers.before, answer), 'DropNoSession', { at });
  const kinds = SAME.includes(name) ? [...KINDS, ...NUMBERED] : KINDS;
  return [
    ...kinds.flatMap(([what, timeout, cite, ask, answer]) => [
      test(
        `${name}: a ${what} reply ${timeout / 1000} s less 1 ms after its request passes`,
        [cite],
        [
          pass(asks, ask, {}, {}, { at: 1000 }),
          pass(answers, answer, {}, {}, { at: 1000 + timeout - 1 }),
        ]
      ),
      test(
        `${name}: a ${what} reply ${timeout / 1000} s and 1 ms after its request has no session`,
        [cite],
        [pass(asks, ask, {}, {}, { at: 1000 }), late(answer, 1000 + timeout + 1)]
      ),
      test(
        `${name}: a ${what} request makes its session last longer`,
        [cite],
        [
          pass(asks, ask, {}, {}, { at: 0 }),
          pass(asks, ask, {}, again, { at: timeout - 10 }),
          pass(answers, answer, {}, {}, { at: 2 * timeout - 20 }),
          late(answer, 2 * timeout),
        ]
      ),
      test(
        `${name}: a ${what} reply does not make its session last longer`,
        [cite, 'RFC 4787 section 4.3 REQ-6'],
        [
          pass(asks, ask, {}, {}, { at: 0 }),
          pass(answers, answer, {}, {}, { at: timeout - 10 }),
          late(answer, timeout + 1),
        ]
      ),
      test(
        `${name}: a ${what} request opens a session again`,
        [cite],
        [
          pass(asks, ask, {}, {}, { at: 0 }),
          late(answer, timeout + 5000),
          pass(asks, ask, {}, again, { at: timeout + 6000 }),
          pass(answers, answer, {}, {}, { at: timeout + 6001 }),
        ]
      ),
    ]),
    test(
      `${name}: a TCP reply needs no session, however late`,
      ['RFC 9293 section 3.1', 'RFC 5382 section 5'],
      pass(
        answers,
        tcp({ sourcePort: 5672, destinationPort: 40_000, flags: ACK }),
        {},
        {},
        { at: 86_400_000 }
      )
    ),
    test(
      `${name}: a UDP session serves any number of replies`,
      ['RFC 4787 section 4.3'],
      [
        pass(asks, udp()),
        ...[0, 1, 2].map((n) =>
          pass(
            answers,
            udp({ sourcePort: 53, destinationPort: 40_000, payload: counting(n) }),
            {},
            small(name, n)
          )
        ),
      ]
    ),
  ];
}

function keys(name: PathName): Case[] {
  const path = request(name);
  const answers = back(path);
  const none = (transport: Transport, extras = {}): Step =>
    drop('cloud', packet(answers.before, transport), 'DropNoSession', extras);
  const answer = udp({ sourcePort: 53, destinationPort: 40_000 });
  const newClient = foreignPath(name);
  const large = packet(path.before, udp({ payload: counting(1300) }));
  const [type, code] = isIpv6(path.before) ? [2, 0] : [3, 4];
  return [
    test(
      `${name}: a UDP reply to another port of the client has no session`,
      ['RFC 4787 section 5'],
      [pass(path, udp()), none(udp({ sourcePort: 53, destinationPort: 40_001 }))]
    ),
    test(
      `${name}: a UDP reply from another permitted port has no session`,
      ['RFC 4787 section 5'],
      [
        pass(path, udp({ destinationPort: 8000 })),
        none(udp({ sourcePort: 8001, destinationPort: 40_000 })),
      ]
    ),
    test(
      `${name}: a UDP session is none of UDP-Lite’s`,
      ['RFC 3828 section 3'],
      [
        pass(path, udp({ destinationPort: 53 })),
        none(udpLite({ sourcePort: 7, destinationPort: 40_000 })),
      ]
    ),
    test(
      `${name}: a UDP session of one client is none of another’s`,
      ['RFC 4787 section 5'],
      [
        pass(path, udp()),
        drop('cloud', packet(back(newClient).before, answer), 'DropNoSession'),
        pass(answers, answer),
      ],
      { plan: 'newClients' }
    ),
    test(
      `${name}: a request that was not forwarded opens no session: it needs a presence`,
      ['RFC 4787 section 4.3'],
      [
        needsPresence(path, packet(newClient.before, udp()), isIpv6(path.before) ? 6 : 4),
        drop('cloud', packet(back(newClient).before, answer), 'DropNoSession', {
          load: 'newClients',
        }),
        pass(newClient, udp()),
        pass(back(newClient), answer),
      ]
    ),
    test(
      `${name}: a request that was not forwarded opens no session: it is too big`,
      ['RFC 4787 section 4.3'],
      [
        drop('site', large, 'DropTooBig', {
          reply: refusal(path.before, large, type!, code!, isIpv6(path.before) ? 1280 : 600),
        }),
        none(answer),
      ],
      { plan: 'cloud 600' }
    ),
    test(
      `${name}: an ICMP error opens no session`,
      ['RFC 5508 section 4.3'],
      [
        error(
          answers,
          udp({ sourcePort: 53, destinationPort: 40_000 }),
          isIpv6(path.before) ? { type: 1, code: 4 } : { type: 3, code: 3 }
        ),
        none(answer),
      ]
    ),
    test(
      `${name}: an ICMP error does not end a session`,
      ['RFC 5508 section 4.3', 'RFC 4787 section 9'],
      [
        pass(path, udp()),
        error(path, udp(), isIpv6(path.before) ? { type: 1, code: 4 } : { type: 3, code: 3 }),
        pass(answers, answer),
      ]
    ),
    test(
      `${name}: a session outlives a new plan that still has its path`,
      ['RFC 4787 section 4.3'],
      [pass(path, udp()), pass(answers, answer, {}, {}, { at: 299_999, load: 'same' })]
    ),
    test(
      `${name}: what may pass as a request needs no session, though it may be a reply, too`,
      ['RFC 4787 section 5'],
      [
        pass(answers, answer),
        pass(path, udp()),
        pass(answers, tcp({ sourcePort: 5672, destinationPort: 40_000, flags: SYN })),
      ],
      { plan: 'mutual', comment: 'Both ends are services: udp/53 and udp/40000.' }
    ),
  ];
}

function tables(): Case[] {
  return SAME.map((name) =>
    test(
      `${name}: a path more than the table takes is refused, those that it has go on`,
      ['RFC 4732'],
      [
        pass(request(name), tcp({ flags: SYN })),
        drop('site', packet(foreignPath(name).before, tcp({ flags: SYN })), 'DropTableFull'),
        pass(request(name), tcp()),
      ],
      { plan: 'newClients', options: { maxPaths: 1 } }
    )
  );
}
