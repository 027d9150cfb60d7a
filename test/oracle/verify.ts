/**
 * Verifies every checksum of a frame as its receiver would, also those inside an ICMP quote. Independent of `headers.ts`, `parse.ts` and `rewrite.ts`, so that it can catch their mistakes.
 * @module
 */
import { isRight, onesSum, pseudoHeader, wordsOf } from '../support/checksum.ts';
import { ICMP, ICMPV6, TCP, UDP, UDPLITE } from '../support/packets.ts';
import { VNET } from '../support/vnet.ts';

/**
 * Names the wrong checksums of a well-formed frame: `ipv4`, `tcp`, `udp`, `udplite`, `icmp`, and the
 * same with `quoted` in front. Partial ones must be the sum of the pseudo-header. A checksum that cannot
 * be checked, because the packet is a fragment or a quote that ends before it, is not named; nor is the
 * one of SCTP.
 */
export function verifyChecksums(frame: Uint8Array): string[] {
  return wrongOnes(frame.subarray(VNET), '', (frame[0]! & 1) === 1);
}

function wrongOnes(packet: Uint8Array, prefix: string, partial: boolean): string[] {
  const wrong: string[] = [];
  const version = packet[0]! >> 4;
  const headerLength = version === 4 ? (packet[0]! & 15) * 4 : 40;
  if (version === 4 && onesSum(wordsOf(packet.subarray(0, headerLength))) !== 0xffff) {
    wrong.push(`${prefix}ipv4`);
  }
  const end = version === 4 ? uint16(packet, 2) : 40 + uint16(packet, 4);
  const { protocol, start, isFragment } =
    version === 4
      ? {
          protocol: packet[9]!,
          start: headerLength,
          isFragment: (uint16(packet, 6) & 0x3fff) !== 0,
        }
      : behindExtensions(packet);
  if (isFragment) return wrong;
  const payload = packet.subarray(start, Math.max(start, end));
  const pseudo =
    version === 4
      ? pseudoHeader(packet.subarray(12, 16), packet.subarray(16, 20), protocol, payload.length)
      : pseudoHeader(packet.subarray(8, 24), packet.subarray(24, 40), protocol, payload.length);
  if (
    payload.length === end - start &&
    payload.length >= 8 &&
    NAMES[protocol] !== undefined &&
    !isTransportRight(pseudo, payload, protocol, partial)
  ) {
    wrong.push(`${prefix}${NAMES[protocol]}`);
  }
  if (prefix === '' && isIcmpError(protocol, payload[0]!)) {
    wrong.push(...wrongOnes(quoteOf(payload, version), 'quoted ', false));
  }
  return wrong;
}

/** RFC 4884: some types say where the quote ends and extensions begin. */
function quoteOf(message: Uint8Array, version: number): Uint8Array {
  const type = message[0]!;
  const saysLength = version === 4 || type === 1 || type === 3;
  const length = !saysLength ? 0 : version === 4 ? message[5]! * 4 : message[4]! * 8;
  return length === 0 ? message.subarray(8) : message.subarray(8, 8 + length);
}

/** Where the transport header of an IPv6 packet is. */
function behindExtensions(packet: Uint8Array): {
  protocol: number;
  start: number;
  isFragment: boolean;
} {
  let protocol = packet[6]!;
  let start = 40;
  let isFragment = false;
  while ([0, 43, 44, 51, 60].includes(protocol)) {
    if (protocol === 44 && (uint16(packet, start + 2) & 0xfff9) !== 0) isFragment = true;
    const units = packet[start + 1]!;
    const length = protocol === 44 ? 8 : protocol === 51 ? 8 + units * 4 : 8 + units * 8;
    protocol = packet[start]!;
    start += length;
    if (isFragment) break;
  }
  return { protocol, start, isFragment };
}

function isTransportRight(
  pseudo: readonly number[],
  payload: Uint8Array,
  protocol: number,
  partial: boolean
): boolean {
  if (partial) {
    return onesSum(pseudo) === uint16(payload, protocol === TCP ? 16 : protocol === UDP ? 6 : 2);
  }
  if (protocol === UDP && uint16(payload, 6) === 0) return true;
  if (protocol === UDPLITE) {
    const coverage = uint16(payload, 4) || payload.length;
    return isRight([...pseudo, ...wordsOf(payload.subarray(0, coverage))], 0);
  }
  return isRight(protocol === ICMP ? wordsOf(payload) : [...pseudo, ...wordsOf(payload)], 0);
}

function isIcmpError(protocol: number, type: number): boolean {
  if (protocol === ICMPV6) return type < 128;
  return protocol === ICMP && type !== 0 && type !== 8;
}

function uint16(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 8) | bytes[at + 1]!;
}

const NAMES: Record<number, string> = {
  [TCP]: 'tcp',
  [UDP]: 'udp',
  [UDPLITE]: 'udplite',
  [ICMP]: 'icmp',
  [ICMPV6]: 'icmp',
};
