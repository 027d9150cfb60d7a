/**
 * Looks at every checksum of a frame as its receiver would, those inside an ICMP quote included.
 * Written apart from `parse.ts` and `translate.ts`, so that it can catch their mistakes too.
 * @module
 */
import { isRight, onesSum, pseudoHeader, wordsOf } from './checksum.ts';
import { ICMP, ICMPV6, TCP, UDP, VNET } from './packets.ts';

/**
 * Names the wrong checksums of a well-formed frame: `ipv4`, `tcp`, `udp`, `icmp`, and the same with
 * `quoted` in front. Partial ones must be the sum of the pseudo-header. A checksum that cannot be
 * checked, because the quote ends before the packet, is not named.
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
  const length = version === 4 ? uint16(packet, 2) - headerLength : uint16(packet, 4);
  const protocol = version === 4 ? packet[9]! : packet[6]!;
  const payload = packet.subarray(headerLength, headerLength + Math.max(0, length));
  const pseudo =
    version === 4
      ? pseudoHeader(packet.subarray(12, 16), packet.subarray(16, 20), protocol, payload.length)
      : pseudoHeader(packet.subarray(8, 24), packet.subarray(24, 40), protocol, payload.length);
  if (
    payload.length === length &&
    payload.length >= 8 &&
    !isTransportRight(pseudo, payload, protocol, partial)
  ) {
    wrong.push(`${prefix}${NAMES[protocol]}`);
  }
  if (prefix === '' && isIcmpError(protocol, payload[0]!)) {
    wrong.push(...wrongOnes(payload.subarray(8), 'quoted ', false));
  }
  return wrong;
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
  [ICMP]: 'icmp',
  [ICMPV6]: 'icmp',
};
