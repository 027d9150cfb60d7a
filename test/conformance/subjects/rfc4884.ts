/**
 * Multi-part ICMP messages: a length attribute in front of the quote, extensions behind it.
 * @module
 */

import { bytes, counting, u8, u16, u32 } from '../../support/bytes.ts';
import type { Case, Subject } from '../corpus.ts';
import { onesChecksum, udp } from '../packets.ts';
import {
  drop,
  type ErrorSide,
  error,
  errorPacket,
  type PathName,
  planOf,
  request,
  SAME,
  test,
} from '../scene.ts';

export function rfc4884(): Subject {
  return {
    subject: 'rfc4884',
    about: 'ICMP errors with a length attribute and extensions.',
    plans: { base: planOf() },
    cases: [...SAME.flatMap(kept), ...mixed()],
  };
}

const CITE = 'RFC 4884 section 4';
/** Where RFC 4884 speaks of a type, by IP version. */
const PLACES: Readonly<Record<string, string>> = {
  '4/3': '4.1',
  '4/11': '4.2',
  '4/12': '4.3',
  '6/1': '4.4',
  '6/3': '4.5',
};

/** RFC 4884 section 7: version 2, its checksum, and one MPLS label stack object (RFC 4950). */
export function extensions(): Uint8Array {
  const object = bytes(u16(8), u8(1), u8(1), u32(0x0006_41ff));
  const header = bytes(u16(0x2000), u16(0));
  return bytes(u16(0x2000), u16(onesChecksum(bytes(header, object))), object);
}

/** Bytes 4 to 7 with a length attribute, in the units of the IP version. */
function attribute(isIpv6: boolean, quoteLength: number): Uint8Array {
  return isIpv6 ? u32((quoteLength / 8) << 24) : u32((quoteLength / 4) << 16);
}

function kept(name: PathName): Case[] {
  const isIpv6 = name === '6 to 6';
  const path = request(name);
  const header = isIpv6 ? 40 : 20;
  const unreachable: ErrorSide = isIpv6 ? { type: 1, code: 4 } : { type: 3, code: 3 };
  const expired: ErrorSide = { type: isIpv6 ? 3 : 11, code: 0 };
  const whole = udp({ payload: counting(160) });
  const short = udp({ payload: counting(20) });
  const shortLength = header + 28;
  const filling = new Uint8Array(128 - shortLength);
  const cases = [unreachable, expired, ...(isIpv6 ? [] : [{ type: 12, code: 0 }])].map((side) =>
    test(
      `${name}: type ${side.type} with 128 bytes quoted keeps its extensions`,
      [
        CITE,
        `RFC 4884 section ${PLACES[`${isIpv6 ? 6 : 4}/${side.type}`]}`,
        'RFC 5508 section 4.2',
      ],
      error(path, whole, {
        ...side,
        rest: attribute(isIpv6, 128),
        quotedBytes: 128 - header,
        behind: extensions(),
      })
    )
  );
  return [
    ...cases,
    test(
      `${name}: a quote filled up with zeros to 128 bytes keeps them and its extensions`,
      [CITE],
      error(path, short, {
        ...expired,
        rest: attribute(isIpv6, 128),
        behind: bytes(filling, extensions()),
      })
    ),
    test(
      `${name}: a length attribute of the whole quote, without extensions`,
      [CITE],
      error(path, whole, { ...expired, rest: attribute(isIpv6, 168 + header) })
    ),
    test(
      `${name}: extensions at byte 128 without a length attribute stay where they are`,
      ['RFC 4884 section 5'],
      error(path, whole, { ...expired, quotedBytes: 128 - header, behind: extensions() })
    ),
    test(
      `${name}: a length attribute beyond the end of the packet is malformed`,
      [CITE],
      drop(
        'cloud',
        errorPacket(path, whole, {
          ...expired,
          rest: attribute(isIpv6, 168 + header + 8),
        }),
        'DropMalformed'
      )
    ),
    test(
      `${name}: a length attribute that leaves fewer than 8 bytes of the transport is malformed`,
      [CITE],
      drop(
        'cloud',
        errorPacket(path, whole, { ...expired, rest: attribute(isIpv6, header) }),
        'DropMalformed'
      )
    ),
    test(
      `${name}: what stands behind the length attribute’s end is no quote, whatever it looks like`,
      [CITE],
      error(path, short, {
        ...unreachable,
        rest: attribute(isIpv6, isIpv6 ? 48 : 28),
        quotedBytes: 8,
        behind: counting(20),
      })
    ),
    ...(isIpv6 ? [noAttribute()] : []),
  ];
}

/** Types 2 and 4 have a number where types 1 and 3 have the length attribute. */
function noAttribute(): Case {
  const path = request('6 to 6');
  return test(
    '6 to 6: the first byte of a size or a pointer is no length attribute',
    ['RFC 4443 section 3.2', 'RFC 4443 section 3.4', CITE],
    [
      error(path, udp(), { type: 2, code: 0, rest: u32(0xff000000) }),
      error(path, udp(), { type: 4, code: 0, rest: u32(0x7f000006) }),
    ]
  );
}

function mixed(): Case[] {
  const whole = udp({ payload: counting(160) });
  const into6 = request('6 to 4');
  const into4 = request('4 to 6');
  const cites = ['RFC 7915 section 4.2', 'RFC 7915 section 5.2', CITE];
  const bring = (quote: number, unit: number): Uint8Array =>
    bytes(new Uint8Array(Math.max(128, Math.ceil(quote / unit) * unit) - quote), extensions());
  return [
    test(
      '4 to 6: a quote of 128 bytes grows to 148, is filled up to 152, and keeps its extensions',
      cites,
      error(
        into6,
        whole,
        {
          type: 11,
          rest: attribute(false, 128),
          quotedBytes: 108,
          behind: extensions(),
        },
        { type: 3, rest: attribute(true, 152), behind: bring(148, 8) }
      )
    ),
    test(
      '4 to 6: a quote of 132 bytes grows to 152, which needs no filling',
      cites,
      error(
        into6,
        whole,
        {
          type: 3,
          code: 3,
          rest: attribute(false, 132),
          quotedBytes: 112,
          behind: extensions(),
        },
        { type: 1, code: 4, rest: attribute(true, 152), behind: bring(152, 8) }
      )
    ),
    test(
      '6 to 4: a quote of 128 bytes shrinks to 108, and is filled up to 128 again',
      cites,
      error(
        into4,
        whole,
        {
          type: 3,
          rest: attribute(true, 128),
          quotedBytes: 88,
          behind: extensions(),
        },
        { type: 11, rest: attribute(false, 128), behind: bring(108, 4) }
      )
    ),
    test(
      '6 to 4: a quote of 168 bytes shrinks to 148, which needs no filling',
      cites,
      error(
        into4,
        whole,
        {
          type: 1,
          code: 4,
          rest: attribute(true, 168),
          quotedBytes: 128,
          behind: extensions(),
        },
        { type: 3, code: 3, rest: attribute(false, 148), behind: bring(148, 4) }
      )
    ),
    test(
      '6 to 4: an error with extensions that would be longer than 576 bytes loses them',
      [...cites, 'RFC 1812 section 4.3.2.3'],
      error(
        into4,
        udp({ payload: counting(1000) }),
        {
          type: 3,
          rest: attribute(true, 840),
          quotedBytes: 800,
          behind: extensions(),
        },
        { type: 11, rest: u32(0), quotedBytes: 576 - 20 - 8 - 20, behind: new Uint8Array(0) }
      )
    ),
    test(
      '4 to 6: an error with extensions that would be longer than 1280 bytes loses them',
      [...cites, 'RFC 4443 section 2.4'],
      error(
        into6,
        udp({ payload: counting(1400) }),
        {
          type: 11,
          rest: attribute(false, 1020),
          quotedBytes: 1000,
          behind: bytes(extensions(), new Uint8Array(240)),
        },
        { type: 3, rest: u32(0), quotedBytes: 1000, behind: new Uint8Array(0) }
      ),
      {
        comment:
          'The quote of 1020 bytes fits as 1040, but not with 252 bytes of extensions behind it.',
      }
    ),
  ];
}
