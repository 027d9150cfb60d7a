/**
 * IPv4 options: those that pass, those that hold addresses, and those that run over their end.
 * @module
 */

import { counting } from '../../support/bytes.ts';
import { packet } from '../../support/packets.ts';
import type { Case, Subject } from '../corpus.ts';
import { tcp, udp } from '../packets.ts';
import { drop, pass, planOf, request, test } from '../scene.ts';

export function ipv4Options(): Subject {
  return {
    subject: 'ipv4-options',
    about: 'IPv4 options, kept between IPv4 realms and left out on the way to IPv6.',
    plans: { base: planOf() },
    cases: [...passed(), ...refused()],
  };
}

const PASSED: readonly (readonly [string, readonly number[], string])[] = [
  ['no operation and end of options', [1, 1, 1, 0], 'RFC 791 section 3.1'],
  ['only end of options', [0, 0, 0, 0], 'RFC 791 section 3.1'],
  ['what looks like a route behind the end of options', [0, 7, 131, 137], 'RFC 791 section 3.1'],
  ['router alert', [148, 4, 0, 0], 'RFC 2113 section 2.1'],
  ['security', [130, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 'RFC 791 section 3.1'],
  ['stream identifier', [136, 4, 0x12, 0x34], 'RFC 6814'],
  ['an unknown option of two bytes', [30, 2, 1, 0], 'RFC 1812 section 4.2.2.6'],
  ['an option that ends with the header', [1, 94, 7, 1, 2, 3, 4, 5], 'RFC 791 section 3.1'],
  ['40 bytes of options', Array<number>(40).fill(1), 'RFC 791 section 3.1'],
  [
    'the numbers of routes inside another option',
    [94, 8, 7, 131, 137, 68, 7, 7],
    'RFC 791 section 3.1',
  ],
];

function passed(): Case[] {
  const payload = counting(21);
  return PASSED.flatMap(([what, options, cite]) => {
    const ip = { options: Uint8Array.from(options) };
    return [
      test(
        `4 to 4: ${what} pass${what.endsWith('s') ? '' : 'es'} unchanged`,
        [cite, 'RFC 3022 section 4.1'],
        pass(request('4 to 4'), udp({ payload }), ip)
      ),
      test(
        `4 to 6: ${what} ${what.endsWith('s') ? 'are' : 'is'} left out`,
        [cite, 'RFC 7915 section 4.1'],
        pass(request('4 to 6'), tcp({ payload }), ip)
      ),
    ];
  });
}

const ADDRESSES: readonly (readonly [string, readonly number[]])[] = [
  ['record route', [7, 7, 4, 0, 0, 0, 0]],
  ['timestamp', [68, 12, 5, 1, 10, 0, 0, 1, 0, 0, 0, 0]],
  ['loose source route', [131, 7, 4, 10, 0, 0, 1]],
  ['strict source route', [137, 7, 4, 10, 0, 0, 1]],
  ['loose source route that is used up', [131, 7, 8, 10, 0, 0, 1]],
  ['record route behind other options', [1, 148, 4, 0, 0, 7, 3, 4]],
];

const OVERRUNS: readonly (readonly [string, readonly number[]])[] = [
  ['an option that runs over the end of the header', [1, 1, 30, 3]],
  ['an option whose length byte is behind the end of the header', [1, 1, 1, 30]],
  ['an option of 255 bytes', [94, 255, 0, 0]],
  ['an option of length 0', [94, 0, 0, 0]],
  ['an option of length 1', [94, 1, 0, 0]],
  ['a record route that runs over the end of the header', [7, 11, 4, 0, 0, 0, 0, 0]],
  ['a record route in front of an option that runs over', [7, 3, 4, 30, 9, 0, 0, 0]],
];

function refused(): Case[] {
  const four = request('4 to 4').before;
  const mixed = request('4 to 6').before;
  const withOptions = (ends: typeof four, options: readonly number[]): Uint8Array =>
    packet(ends, udp(), { options: Uint8Array.from(options) });
  const header = packet(four, udp());
  const ihl = (words: number): Uint8Array => {
    const data = header.slice();
    data[0] = 0x40 | words;
    return data;
  };
  return [
    ...ADDRESSES.map(([what, options]) =>
      test(
        `${what} holds addresses and is not handled`,
        ['RFC 791 section 3.1', 'RFC 3022 section 4', 'RFC 7126 section 4'],
        [
          drop('site', withOptions(four, options), 'DropUnsupported'),
          drop('site', withOptions(mixed, options), 'DropUnsupported'),
        ]
      )
    ),
    ...OVERRUNS.map(([what, options]) =>
      test(
        `${what} is malformed`,
        ['RFC 791 section 3.1', 'RFC 1812 section 4.2.2.6'],
        drop('site', withOptions(four, options), 'DropMalformed')
      )
    ),
    test(
      'a header of fewer than 20 bytes is malformed',
      ['RFC 791 section 3.1', 'RFC 1812 section 5.2.2'],
      [0, 1, 4].map((words) => drop('site', ihl(words), 'DropMalformed'))
    ),
    test(
      'a header longer than the packet is malformed',
      ['RFC 791 section 3.1', 'RFC 1812 section 5.2.2'],
      drop('site', ihl(15), 'DropMalformed')
    ),
  ];
}
