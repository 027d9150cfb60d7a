/**
 * The header of an ICMP error that changes its IP version:
 * [RFC 7915](https://www.rfc-editor.org/rfc/rfc7915) sections 4.2 and 5.2, table by table.
 * @module
 */
import type { IpVersion } from './headers.ts';

/** The first 8 bytes of an ICMP error without checksum and length attribute. */
export interface ErrorHeader {
  readonly type: number;
  readonly code: number;
  /** The second word: a pointer, a size, or nothing. */
  readonly rest: readonly [number, number, number, number];
}

/**
 * Returns the counterpart of `message`, of `version`, in the other IP version; undefined if there is none.
 *
 * @param quotedLength total length of the quoted packet, from its header
 */
export function otherErrorHeader(
  version: IpVersion,
  message: Uint8Array,
  quotedLength: number
): ErrorHeader | undefined {
  return version === 4 ? toIcmpv6(message, quotedLength) : toIcmpv4(message);
}

/** RFC 7915 section 4.2. */
function toIcmpv6(message: Uint8Array, quotedLength: number): ErrorHeader | undefined {
  const [type, code] = [message[0]!, message[1]!];
  if (type === 3) {
    if (code === 2) return { type: 4, code: 1, rest: [0, 0, 0, NEXT_HEADER] };
    if (code === 4) {
      const field = (message[6]! << 8) | message[7]!;
      const size = field === 0 ? plateauBelow(quotedLength) : field + 20;
      return { type: 2, code: 0, rest: wordOf(Math.max(1280, size)) };
    }
    const translated = UNREACHABLE_4_TO_6[code];
    return translated === undefined ? undefined : { type: 1, code: translated, rest: NOTHING };
  }
  if (type === 11) return { type: 3, code, rest: NOTHING };
  // Parameter problem: code 1 misses an option that IPv6 does not have.
  if (code !== 0 && code !== 2) return undefined;
  const pointer = POINTERS_4_TO_6[message[4]!];
  return pointer === undefined ? undefined : { type: 4, code: 0, rest: [0, 0, 0, pointer] };
}

/** RFC 7915 section 5.2. */
function toIcmpv4(message: Uint8Array): ErrorHeader | undefined {
  const [type, code] = [message[0]!, message[1]!];
  const word = new DataView(message.buffer, message.byteOffset).getUint32(4);
  if (type === 1) {
    const translated = UNREACHABLE_6_TO_4[code];
    return translated === undefined ? undefined : { type: 3, code: translated, rest: NOTHING };
  }
  if (type === 2) {
    const size = Math.min(65_535, Math.max(68, word - 20));
    return { type: 3, code: 4, rest: wordOf(size) };
  }
  if (type === 3) return { type: 11, code, rest: NOTHING };
  if (code === 1) return { type: 3, code: 2, rest: NOTHING };
  if (code !== 0) return undefined;
  const pointer = POINTERS_6_TO_4.get(word);
  return pointer === undefined ? undefined : { type: 12, code: 0, rest: [pointer, 0, 0, 0] };
}

function wordOf(value: number): [number, number, number, number] {
  return [0, (value >> 16) & 255, (value >> 8) & 255, value & 255];
}

function plateauBelow(length: number): number {
  return PLATEAUS.find((plateau) => plateau < length) ?? 0;
}

const NOTHING = [0, 0, 0, 0] as const;
/** Where the next header stands in an IPv6 header. */
const NEXT_HEADER = 6;

/** Keyed by the code of ICMP type 3. 2 and 4 become other types; 14 has no counterpart. */
const UNREACHABLE_4_TO_6: Readonly<Record<number, number>> = {
  0: 0, // network
  1: 0, // host
  3: 4, // port
  5: 0, // source route failed
  6: 0, // network unknown
  7: 0, // host unknown
  8: 0, // source host isolated
  9: 1, // network prohibited
  10: 1, // host prohibited
  11: 0, // network, for this type of service
  12: 0, // host, for this type of service
  13: 1, // communication prohibited
  15: 1, // precedence cutoff
};

/** Keyed by the code of ICMPv6 type 1. */
const UNREACHABLE_6_TO_4: Readonly<Record<number, number>> = {
  0: 1, // no route
  1: 10, // prohibited
  2: 1, // beyond scope
  3: 1, // address
  4: 3, // port
};

/** Figure 3, by offset into the IPv4 header. */
const POINTERS_4_TO_6: Readonly<Record<number, number>> = {
  0: 0, // version and header length: version and traffic class
  1: 1, // type of service: traffic class and flow label
  2: 4, // total length: payload length
  3: 4,
  8: 7, // time to live: hop limit
  9: 6, // protocol: next header
  12: 8, // source
  13: 8,
  14: 8,
  15: 8,
  16: 24, // destination
  17: 24,
  18: 24,
  19: 24,
};

/** Figure 6, by offset into the IPv6 header. */
const POINTERS_6_TO_4: ReadonlyMap<number, number> = new Map([
  [0, 0], // version and traffic class: version and header length
  [1, 1], // traffic class and flow label: type of service
  [4, 2], // payload length: total length
  [5, 2],
  [6, 9], // next header: protocol
  [7, 8], // hop limit: time to live
  ...Array.from({ length: 16 }, (_, i) => [8 + i, 12] as const), // source
  ...Array.from({ length: 16 }, (_, i) => [24 + i, 16] as const), // destination
]);

/** [RFC 1191](https://www.rfc-editor.org/rfc/rfc1191) section 7.1. */
const PLATEAUS = [65_535, 32_000, 17_914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68];
