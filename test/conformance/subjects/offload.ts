/**
 * The virtio-net header: partial checksums and super-packets, of one IP version and between both.
 * @module
 */

import { counting, NOTHING } from '../../support/bytes.ts';
import {
  ACK,
  DESTINATION,
  DONT_FRAGMENT,
  GRE,
  HOP_BY_HOP,
  isIpv6,
  optionsHeader,
  packet,
  raw,
  type Transport,
} from '../../support/packets.ts';
import {
  GSO_ECN,
  GSO_TCPV4,
  GSO_TCPV6,
  GSO_UDP,
  GSO_UDP_L4,
  NEEDS_CSUM,
  type VnetHeader,
} from '../../support/vnet.ts';
import type { Case, Step, Subject } from '../corpus.ts';
import { echo, sctp, tcp, udp, udpLite } from '../packets.ts';
import {
  drop,
  error,
  errorPacket,
  forward,
  PATHS,
  type PacketPath,
  type PathName,
  pass,
  planOf,
  reply,
  request,
  SAME,
  test,
} from '../scene.ts';

export function offload(): Subject {
  return {
    subject: 'offload',
    about: 'The virtio-net header (virtio 1.2 5.1.6) in front of a packet.',
    plans: { base: planOf() },
    cases: [
      ...PATHS.flatMap(agreeing),
      ...withHeaders(),
      ...between(),
      ...SAME.flatMap(contradicting),
    ],
  };
}

const SET = 'virtio 1.2 5.1.6.2';
const GOT = 'virtio 1.2 5.1.6.4';

function startOf(isV6: boolean): number {
  return isV6 ? 40 : 20;
}

/** What is said of the packet where it enters, and where it leaves. */
function vnets(path: PacketPath, fields: VnetHeader): { vnet: VnetHeader; vnetAfter: VnetHeader } {
  const start = startOf(isIpv6(path.before));
  const startAfter = startOf(isIpv6(path.after));
  const { headerLength = 0, gsoType = 0 } = fields;
  const kind = gsoType & ~GSO_ECN;
  const isTcp = kind === GSO_TCPV4 || kind === GSO_TCPV6;
  const typeAfter = isTcp
    ? (isIpv6(path.after) ? GSO_TCPV6 : GSO_TCPV4) | (gsoType & GSO_ECN)
    : gsoType;
  const isPartial = fields.flags === NEEDS_CSUM;
  return {
    vnet: {
      ...fields,
      headerLength: headerLength === 0 ? 0 : start + headerLength,
      ...(isPartial ? { checksumStart: start } : {}),
    },
    vnetAfter: {
      ...fields,
      gsoType: typeAfter,
      headerLength: headerLength === 0 ? 0 : startAfter + headerLength,
      ...(isPartial ? { checksumStart: startAfter } : {}),
    },
  };
}

function agreeing(name: PathName): Case[] {
  const path = request(name);
  const answers = reply(name);
  const isMixed = !SAME.includes(name);
  const cites = [SET, ...(isMixed ? ['RFC 7915 section 4.5', 'RFC 7915 section 5.5'] : [])];
  const tcpType = isIpv6(path.before) ? GSO_TCPV6 : GSO_TCPV4;
  const large = name === '6 to 4' ? { fragment: DONT_FRAGMENT, id: 0 } : {};
  const tso = { flags: NEEDS_CSUM, checksumOffset: 16, gsoType: tcpType, gsoSize: 1300 };
  const partial = { flags: NEEDS_CSUM, checksumOffset: 16 };
  const goes = (
    what: string,
    transport: Transport,
    fields: VnetHeader,
    after = {},
    on = path
  ): Case => test(`${name}: ${what}`, cites, pass(on, transport, {}, after, vnets(on, fields)));
  const segment = tcp({ payload: counting(1500), checksum: 'partial' });
  const datagrams = udp({ payload: counting(1500), checksum: 'partial' });
  const uso = { flags: NEEDS_CSUM, checksumOffset: 6, gsoType: GSO_UDP_L4, gsoSize: 1300 };
  return [
    goes('a header of zeros says that all is complete', tcp({ payload: counting(9) }), {}),
    goes(
      'a partial TCP checksum gets the difference added, not complemented',
      tcp({ checksum: 'partial', payload: counting(9) }),
      partial
    ),
    goes(
      'a partial UDP checksum gets the difference added, not complemented',
      udp({ checksum: 'partial' }),
      { flags: NEEDS_CSUM, checksumOffset: 6 }
    ),
    goes(
      'a header length moves with the headers',
      tcp({ checksum: 'partial', payload: counting(9) }),
      { ...partial, headerLength: 20 }
    ),
    goes('a TCP super-packet', segment, { ...tso, headerLength: 20 }, large),
    goes('a TCP super-packet without a header length', segment, tso, large),
    goes(
      'a TCP super-packet with ECN',
      segment,
      { ...tso, headerLength: 20, gsoType: tcpType | GSO_ECN },
      large
    ),
    goes(
      'a TCP super-packet with TCP options',
      tcp({
        payload: counting(1500),
        checksum: 'partial',
        tcpOptions: Uint8Array.of(1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8),
      }),
      { ...tso, headerLength: 32 },
      large
    ),
    goes('a UDP super-packet', datagrams, { ...uso, headerLength: 8 }, large),
    goes(
      'a reply that is a TCP super-packet',
      tcp({
        sourcePort: 5672,
        destinationPort: 40_000,
        flags: ACK,
        payload: counting(1500),
        checksum: 'partial',
      }),
      { ...tso, gsoType: isIpv6(answers.before) ? GSO_TCPV6 : GSO_TCPV4, headerLength: 20 },
      large,
      answers
    ),
    goes('an echo request with a header of zeros', echo(), {}),
    goes('an SCTP packet with a header of zeros', sctp(), {}),
  ];
}

function withHeaders(): Case[] {
  const extensions = [
    optionsHeader(HOP_BY_HOP, Uint8Array.of(5, 2, 0, 0)),
    optionsHeader(DESTINATION, NOTHING),
  ];
  const options = new Uint8Array(8).fill(1);
  const segment = tcp({ payload: counting(1500), checksum: 'partial' });
  const said = (start: number, gsoType: number): VnetHeader => ({
    flags: NEEDS_CSUM,
    gsoType,
    gsoSize: 1300,
    headerLength: start + 20,
    checksumStart: start,
    checksumOffset: 16,
  });
  const one = (
    name: PathName,
    ip: object,
    before: VnetHeader,
    after: VnetHeader,
    ipAfter = {}
  ): Case =>
    test(
      `${name}: a TCP super-packet with ${'options' in ip ? 'options' : 'extension headers'}`,
      [SET],
      pass(request(name), segment, ip, ipAfter, { vnet: before, vnetAfter: after })
    );
  return [
    one('4 to 4', { options }, said(28, GSO_TCPV4), said(28, GSO_TCPV4)),
    one('4 to 6', { options }, said(28, GSO_TCPV4), said(40, GSO_TCPV6)),
    one('6 to 6', { extensions }, said(56, GSO_TCPV6), said(56, GSO_TCPV6)),
    one('6 to 4', { extensions }, said(56, GSO_TCPV6), said(20, GSO_TCPV4), {
      fragment: DONT_FRAGMENT,
      id: 0,
    }),
  ];
}

function between(): Case[] {
  const path = request('6 to 4');
  const into6 = request('4 to 6');
  const six = request('6 to 6');
  const partialEcho = { flags: NEEDS_CSUM, checksumStart: 40, checksumOffset: 2 };
  return [
    test(
      '6 to 6: a partial ICMPv6 checksum gets the difference added',
      [SET, 'RFC 4443 section 2.3'],
      pass(six, echo({ checksum: 'partial' }), {}, {}, { vnet: partialEcho })
    ),
    test(
      '6 to 4: a partial ICMPv6 checksum becomes a complete one, for ICMP covers no pseudo-header',
      [SET, 'RFC 7915 section 5.2'],
      forward(
        path,
        packet(path.before, echo({ checksum: 'partial' })),
        packet(path.after, echo(), { fragment: 0, identification: 0 }),
        { vnet: partialEcho, vnetAfter: {} }
      )
    ),
    test(
      '4 to 6: a complete ICMP checksum becomes a complete ICMPv6 one',
      [SET, 'RFC 7915 section 4.2'],
      pass(into6, echo(), {}, {}, { vnet: {} })
    ),
    test(
      '4 to 6: a UDP datagram without a checksum gets a complete one',
      [SET, 'RFC 7915 section 4.5'],
      forward(into6, packet(into6.before, udp({ checksum: 0 })), packet(into6.after, udp()), {
        vnet: {},
      })
    ),
    ...PATHS.map((name) => {
      const on = request(name);
      const isSixAfter = isIpv6(on.after);
      const isSixBefore = isIpv6(on.before);
      return test(
        `${name}: an ICMP error about its packet, with a header of zeros`,
        [GOT],
        error(
          on,
          udp(),
          isSixAfter ? { type: 1, code: 4 } : { type: 3, code: 3 },
          isSixBefore ? { type: 1, code: 4 } : { type: 3, code: 3 },
          { vnet: {} }
        )
      );
    }),
  ];
}

function contradicting(name: PathName): Case[] {
  const path = request(name);
  const isV6 = name === '6 to 6';
  const start = startOf(isV6);
  const right: VnetHeader = { flags: NEEDS_CSUM, checksumStart: start, checksumOffset: 16 };
  const own = isV6 ? GSO_TCPV6 : GSO_TCPV4;
  const other = isV6 ? GSO_TCPV4 : GSO_TCPV6;
  const partial = tcp({ payload: counting(1500), checksum: 'partial' });
  const bad = (vnet: VnetHeader, transport: Transport = partial): Step =>
    drop('site', packet(path.before, transport), 'DropMalformed', { vnet });
  const one = (what: string, steps: Step | readonly Step[]): Case =>
    test(`${name}: ${what} is malformed`, [SET], steps);
  return [
    one('a checksum that starts elsewhere than at the transport header', [
      bad({ ...right, checksumStart: start - 1 }),
      bad({ ...right, checksumStart: start + 1 }),
      bad({ ...right, checksumStart: 0 }),
      bad({ ...right, checksumStart: 0xffff }),
    ]),
    one('a TCP checksum that is elsewhere than at 16', [
      bad({ ...right, checksumOffset: 6 }),
      bad({ ...right, checksumOffset: 0 }),
      bad({ ...right, checksumOffset: 0xffff }),
    ]),
    one('a UDP checksum that is elsewhere than at 6', [
      bad({ ...right, checksumOffset: 16 }, udp({ checksum: 'partial' })),
    ]),
    one('a super-packet whose checksum is complete', [
      bad({ gsoType: own, gsoSize: 1300 }, tcp({ payload: counting(1500) })),
    ]),
    one('a super-packet of segments of no size', bad({ ...right, gsoType: own, gsoSize: 0 })),
    one('a super-packet of the other IP version', [
      bad({ ...right, gsoType: other, gsoSize: 1300 }),
    ]),
    one('a TCP super-packet that is said to be UDP', [
      bad({ ...right, gsoType: GSO_UDP_L4, gsoSize: 1300 }),
    ]),
    one('a UDP super-packet that is said to be TCP', [
      bad(
        { ...right, checksumOffset: 6, gsoType: own, gsoSize: 1300 },
        udp({ payload: counting(1500), checksum: 'partial' })
      ),
    ]),
    one('a super-packet of an unknown type', bad({ ...right, gsoType: 6, gsoSize: 1300 })),
    one('a partial checksum of SCTP, UDP-Lite or GRE', [
      bad({ ...right, checksumOffset: 8 }, sctp()),
      bad({ ...right, checksumOffset: 6 }, udpLite()),
      bad({ ...right, checksumOffset: 6 }, raw(GRE, counting(20))),
    ]),
    one('a super-packet of echo or GRE', [
      bad({ ...right, checksumOffset: 2, gsoType: own, gsoSize: 100 }, echo()),
      bad({ gsoType: own, gsoSize: 100 }, raw(GRE, counting(200))),
    ]),
    test(
      `${name}: a partial checksum of an ICMP error is malformed`,
      [SET],
      drop(
        'cloud',
        errorPacket(path, udp(), isV6 ? { type: 1, code: 4 } : { type: 3, code: 3 }),
        'DropMalformed',
        { vnet: { ...right, checksumOffset: 2 } }
      )
    ),
    ...(isV6
      ? []
      : [
          one('a partial checksum of ICMP over IPv4', [
            bad({ ...right, checksumOffset: 2 }, echo()),
          ]),
        ]),
    test(
      `${name}: UDP fragmentation offload is not supported`,
      [SET],
      drop(
        'site',
        packet(path.before, udp({ payload: counting(1500), checksum: 'partial' })),
        'DropUnsupported',
        { vnet: { ...right, checksumOffset: 6, gsoType: GSO_UDP, gsoSize: 1300 } }
      )
    ),
  ];
}
