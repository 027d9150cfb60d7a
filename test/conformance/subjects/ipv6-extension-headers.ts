/**
 * IPv6 extension headers: those that are passed over or left out, and those that are refused.
 * @module
 */

import { bytes, counting, NOTHING, padded, u8, u16 } from '../../support/bytes.ts';
import {
  DESTINATION,
  type Extension,
  FRAGMENT,
  fragmentHeader,
  GRE,
  HOP_BY_HOP,
  optionsHeader,
  packet,
  ROUTING,
  raw,
} from '../../support/packets.ts';
import type { Case, Subject } from '../corpus.ts';
import { authenticationHeader, echo, routingHeader, sctp, tcp, udp } from '../packets.ts';
import { drop, pass, planOf, reply, request, test } from '../scene.ts';

export function ipv6ExtensionHeaders(): Subject {
  return {
    subject: 'ipv6-extension-headers',
    about: 'IPv6 extension headers, kept between IPv6 realms and left out on the way to IPv4.',
    plans: { base: planOf() },
    cases: [...passed(), ...transports(), ...unsupported(), ...malformed()],
  };
}

const EIGHT = 'RFC 8200 section 4';
const hopByHop = optionsHeader(HOP_BY_HOP, Uint8Array.of(5, 2, 0, 0));
const destination = optionsHeader(DESTINATION, Uint8Array.of(1, 4, 0, 0, 0, 0));
const unknownOption = optionsHeader(DESTINATION, Uint8Array.of(0x1e, 3, 9, 9, 9));
const routing = routingHeader(0);
const atomic = fragmentHeader({ id: 0x12345678 });
const atomicReserved: Extension = {
  type: FRAGMENT,
  bytes: bytes(u8(0), u8(0xff), u16(0x0006), u16(0xaaaa), u16(0xbbbb)),
};

const PASSED: readonly (readonly [string, string, readonly Extension[]])[] = [
  ['hop-by-hop options', `${EIGHT}.3`, [hopByHop]],
  ['destination options', `${EIGHT}.6`, [destination]],
  ['destination options with an unknown option', `${EIGHT}.2`, [unknownOption]],
  ['options that are Pad1 alone', `${EIGHT}.2`, [optionsHeader(DESTINATION, NOTHING)]],
  ['options of 264 bytes', `${EIGHT}.2`, [optionsHeader(HOP_BY_HOP, longOptions())]],
  ['a routing header without segments left', `${EIGHT}.4`, [routing]],
  ['the fragment header of a whole packet', 'RFC 6946 section 4', [atomic]],
  ['a fragment header with reserved bits', 'RFC 8200 section 4.5', [atomicReserved]],
  [
    'all of them in the order of the RFC',
    `${EIGHT}.1`,
    [hopByHop, destination, routing, atomic, destination],
  ],
  ['eight extension headers', `${EIGHT}.1`, Array<Extension>(8).fill(destination)],
  [
    'routing and destination options in any order',
    `${EIGHT}.1`,
    [destination, routing, destination, routing],
  ],
];

/** One option of 255 and one of 3 bytes. */
function longOptions(): Uint8Array {
  return bytes(u8(0x1e), u8(253), counting(253), u8(1), u8(1), u8(0), u8(0), u8(0), u8(0), u8(0));
}

function passed(): Case[] {
  const udpText = udp({ payload: counting(24) });
  return [
    ...PASSED.flatMap(([what, cite, extensions]) => [
      test(
        `6 to 6: ${what}: passed over and not changed`,
        [cite],
        pass(request('6 to 6'), tcp(), { extensions })
      ),
      test(
        `6 to 4: ${what}: left out`,
        [cite, 'RFC 7915 section 5.1'],
        pass(request('6 to 4'), udpText, {
          extensions,
          trafficClass: 0xb8,
          flowLabel: 0x12345,
          hopLimit: 9,
        })
      ),
    ]),
    test(
      '6 to 6: an authentication header is passed on as it is',
      ['RFC 4302 section 2', `${EIGHT}.1`],
      pass(request('6 to 6'), tcp(), { extensions: [authenticationHeader()] }),
      { comment: 'What it covers has changed, so its receiver will refuse the packet.' }
    ),
    test(
      '6 to 4: an authentication header cannot be translated',
      ['RFC 7915 section 5.1', 'RFC 4302 section 2'],
      [[authenticationHeader()], [destination, authenticationHeader()]].map((extensions) =>
        drop('site', packet(request('6 to 4').before, tcp(), { extensions }), 'DropUnsupported')
      )
    ),
  ];
}

function transports(): Case[] {
  const extensions = [hopByHop, destination];
  const of = (what: string, transport: Parameters<typeof packet>[1]): Case[] =>
    (['6 to 6', '6 to 4'] as const).map((name) =>
      test(
        `${name}: ${what} behind extension headers`,
        [`${EIGHT}.1`, ...(name === '6 to 4' ? ['RFC 7915 section 5.1'] : [])],
        pass(request(name), transport, { extensions })
      )
    );
  return [
    ...of('an echo request', echo()),
    ...of('SCTP', sctp()),
    ...of('GRE', raw(GRE, counting(20))),
    test(
      '6 to 6: a reply behind extension headers',
      [`${EIGHT}.1`],
      pass(reply('6 to 6'), tcp({ sourcePort: 5672, destinationPort: 40_000 }), { extensions })
    ),
    test(
      '6 to 6: the port behind extension headers is what a permit goes by',
      [`${EIGHT}.1`, 'RFC 7112 section 5'],
      drop(
        'site',
        packet(request('6 to 6').before, tcp({ destinationPort: 22 }), { extensions }),
        'DropNotPermitted'
      )
    ),
  ];
}

function unsupported(): Case[] {
  const { before } = request('6 to 6');
  const refused = (extensions: readonly Extension[]) =>
    drop('site', packet(before, udp(), { extensions }), 'DropUnsupported');
  const home = optionsHeader(
    DESTINATION,
    bytes(u8(1), u8(2), u16(0), u8(0xc9), u8(16), counting(16))
  );
  const headers = [
    [135, 'mobility', 'RFC 6275 section 6.1'],
    [139, 'HIP', 'RFC 7401 section 5.1'],
    [140, 'shim6', 'RFC 5533 section 5.1'],
    [253, 'experimental', 'RFC 3692 section 2.1'],
    [254, 'experimental', 'RFC 3692 section 2.1'],
  ] as const;
  return [
    test(
      'a routing header with segments left is not handled',
      [`${EIGHT}.4`, 'RFC 5095 section 3'],
      [1, 255].map((left) => refused([routingHeader(left)]))
    ),
    test(
      'a routing header with segments left behind other headers is not handled',
      [`${EIGHT}.4`],
      refused([hopByHop, destination, routingHeader(1)])
    ),
    test('the home address option is not handled', ['RFC 6275 section 6.3'], refused([home])),
    ...headers.map(([type, what, cite]) =>
      test(
        `extension header ${type} (${what}) is not handled`,
        [cite, 'RFC 7045 section 2'],
        refused([{ type, bytes: bytes(u8(0), u8(0), counting(6)) }])
      )
    ),
    test(
      'nine extension headers are more than are handled',
      [`${EIGHT}.1`, 'RFC 7045 section 2.1'],
      refused(Array<Extension>(9).fill(destination))
    ),
    test(
      'DCCP is not handled, because its checksum covers the addresses',
      ['RFC 4340 section 9.1'],
      [request('4 to 4'), request('6 to 6')].map((path) =>
        drop('site', packet(path.before, raw(33, counting(16))), 'DropUnsupported')
      )
    ),
  ];
}

function malformed(): Case[] {
  const { before } = request('6 to 6');
  const refused = (extensions: readonly Extension[], transport = udp()) =>
    drop('site', packet(before, transport, { extensions }), 'DropMalformed');
  const cut = (type: number, length: number): Extension => ({
    type,
    bytes: bytes(u8(0), u8(length), counting(6)),
  });
  const options = (...list: number[]): Extension => ({
    type: DESTINATION,
    bytes: padded(bytes(u8(0), u8(0), Uint8Array.from(list)), 8),
  });
  return [
    test(
      'hop-by-hop options elsewhere than directly behind the IPv6 header are malformed',
      [`${EIGHT}.1`, `${EIGHT}.3`],
      [refused([destination, hopByHop]), refused([hopByHop, hopByHop])]
    ),
    test(
      'an extension header that runs over the end of the packet is malformed',
      [`${EIGHT}`],
      [HOP_BY_HOP, ROUTING, DESTINATION].map((type) => refused([cut(type, 255)]))
    ),
    test(
      'an authentication header that runs over the end of the packet is malformed',
      ['RFC 4302 section 2.2'],
      refused([cut(51, 255)])
    ),
    test(
      'a packet that ends within the first 8 bytes of an extension header is malformed',
      [`${EIGHT}`],
      [HOP_BY_HOP, ROUTING, FRAGMENT, 51, DESTINATION].flatMap((type) =>
        [0, 1, 7].map((length) =>
          drop('site', packet(before, raw(type, new Uint8Array(length))), 'DropMalformed')
        )
      )
    ),
    test(
      'an option that runs over the end of its header is malformed',
      [`${EIGHT}.2`],
      [
        refused([options(0x1e, 5, 0, 0, 0, 0)]),
        refused([options(1, 255)]),
        refused([options(0, 0, 0, 0, 0, 0x1e)]),
        refused([options(1, 2, 0, 0, 0x1e, 1)]),
      ]
    ),
    test(
      'the home address option in front of one that runs over is malformed',
      [`${EIGHT}.2`, 'RFC 6275 section 6.3'],
      refused([
        {
          type: DESTINATION,
          bytes: bytes(u8(0), u8(2), u8(0xc9), u8(16), counting(16), u8(1), u8(200), u16(0)),
        },
      ]),
      { comment: 'Within one header malformed comes before unsupported.' }
    ),
    test(
      'a malformed header inside of an unsupported one is unsupported: the outer fault decides',
      [`${EIGHT}`],
      drop(
        'site',
        packet(before, udp(), { extensions: [routingHeader(1), cut(DESTINATION, 255)] }),
        'DropUnsupported'
      )
    ),
  ];
}
