/**
 * Maps ICMP errors to the other IP version, as
 * [RFC 7915 sections 4.2 and 5.2](https://www.rfc-editor.org/rfc/rfc7915#section-4.2) say.
 * @module
 */

/** The first two words of the mapped error, without checksum and length attribute. */
export class ErrorMapping {
  type = 0;
  code = 0;
  /** The second word: an MTU, a pointer, or 0. */
  rest = 0;

  /**
   * Maps an ICMP error to ICMPv6.
   *
   * @param mtu the MTU of ICMP 3/4
   * @param totalLength the total length in the header of the quoted packet
   * @returns whether ICMPv6 has a counterpart
   */
  toIpv6(type: number, code: number, pointer: number, mtu: number, totalLength: number): boolean {
    this.rest = 0;
    switch (type) {
      case 3:
        if (code === 4) return this.#set(2, 0, mtuToIpv6(mtu, totalLength));
        if (code === 2) return this.#set(4, 1, NEXT_HEADER_POINTER);
        return this.#set(1, UNREACHABLE_TO_IPV6[code] ?? -1, 0);
      case 11:
        return this.#set(3, code, 0);
      case 12: {
        const mapped = POINTER_TO_IPV6[pointer] ?? -1;
        return this.#set(4, (code === 0 || code === 2) && mapped >= 0 ? 0 : -1, mapped);
      }
      default:
        return false;
    }
  }

  /**
   * Maps an ICMPv6 error to ICMP.
   *
   * @param rest the second word
   * @returns whether ICMP has a counterpart
   */
  toIpv4(type: number, code: number, rest: number): boolean {
    switch (type) {
      case 1:
        return this.#set(3, UNREACHABLE_TO_IPV4[code] ?? -1, 0);
      case 2:
        return this.#set(3, 4, Math.min(Math.max((rest >>> 0) - 20, MIN_IPV4_MTU), 0xffff));
      case 3:
        return this.#set(11, code, 0);
      case 4: {
        if (code === 1) return this.#set(3, 2, 0);
        const mapped = POINTER_TO_IPV4[rest >>> 0] ?? -1;
        return this.#set(12, code === 0 && mapped >= 0 ? 0 : -1, mapped << 24);
      }
      default:
        return false;
    }
  }

  #set(type: number, code: number, rest: number): boolean {
    this.type = type;
    this.code = code;
    this.rest = rest;
    return code >= 0;
  }
}

/** Returns whether errors of this type have a length attribute (RFC 4884 section 4). */
export function hasLengthAttribute(family: 4 | 6, type: number): boolean {
  return family === 4 ? type === 3 || type === 11 || type === 12 : type === 1 || type === 3;
}

function mtuToIpv6(mtu: number, totalLength: number): number {
  if (mtu > 0) return Math.max(mtu + 20, MIN_IPV6_MTU);
  for (let i = 0; i < PLATEAUS.length; i++) if (PLATEAUS[i]! < totalLength) return PLATEAUS[i]!;
  return MIN_IPV6_MTU;
}

/** The code of ICMPv6 type 1, by code of ICMP type 3; 2 and 4 become other types, 14 has no counterpart. */
const UNREACHABLE_TO_IPV6: readonly number[] = [0, 0, -1, 4, -1, 0, 0, 0, 0, 1, 1, 0, 0, 1, -1, 1];
/** The code of ICMP type 3, by code of ICMPv6 type 1. */
const UNREACHABLE_TO_IPV4: readonly number[] = [1, 10, 1, 1, 3];
/** RFC 7915 figure 3. */
const POINTER_TO_IPV6: readonly number[] = [
  0, 1, 4, 4, -1, -1, -1, -1, 7, 6, -1, -1, 8, 8, 8, 8, 24, 24, 24, 24,
];
/** RFC 7915 figure 6. */
const POINTER_TO_IPV4: readonly number[] = [
  0,
  1,
  -1,
  -1,
  2,
  2,
  9,
  8,
  ...Array<number>(16).fill(12),
  ...Array<number>(16).fill(16),
];
const NEXT_HEADER_POINTER = 6;
/** The plateau values of [RFC 1191 section 7](https://www.rfc-editor.org/rfc/rfc1191#section-7) from 1280 on. */
const PLATEAUS: readonly number[] = [65_535, 32_000, 17_914, 8166, 4352, 2002, 1492];
const MIN_IPV6_MTU = 1280;
const MIN_IPV4_MTU = 68;
