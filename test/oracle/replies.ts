/**
 * The answers to refused packets, which come from the address that the packet was sent to.
 * @module
 */

import { icmpMessage, tcpPacket } from '../support/packets.ts';
import { framed } from '../support/vnet.ts';
import { uint16, versionOf } from './headers.ts';
import type { Packet } from './parse.ts';
import { LONGEST_ERROR } from './rewrite.ts';

/** Whether a packet may be answered at all. */
export function mayBeAnswered(packet: Packet): boolean {
  return packet.kind !== 'error' && packet.kind !== 'later-fragment' && !packet.resetsSession;
}

/** Answers a packet that is not permitted, as the realm wants it; `drop`: not at all. */
export function rejection(
  bytes: Uint8Array,
  packet: Packet,
  reject: 'drop' | 'unreachable' | 'reset'
): Uint8Array | undefined {
  if (reject === 'drop') return undefined;
  if (reject === 'reset' && packet.kind === 'tcp') return reset(bytes, packet);
  const isIpv4 = packet.ip.version === 4;
  if (reject === 'reset') return error(bytes, packet, isIpv4 ? [3, 3] : [1, 4], 0);
  return error(bytes, packet, isIpv4 ? [3, 13] : [1, 1], 0);
}

/** Builds the answer to a packet that is too big. */
export function tooBig(bytes: Uint8Array, packet: Packet, size: number): Uint8Array {
  return error(bytes, packet, packet.ip.version === 4 ? [3, 4] : [2, 0], size);
}

function error(
  bytes: Uint8Array,
  { ip }: Packet,
  [type, code]: readonly [number, number],
  rest: number
): Uint8Array {
  const headers = ip.version === 4 ? 28 : 48;
  return framed(
    icmpMessage(
      { source: ip.destination, destination: ip.source },
      {
        type,
        code,
        rest,
        payload: bytes.subarray(0, LONGEST_ERROR[versionOf(ip.source)] - headers),
        identification: 0,
      }
    )
  );
}

/** RFC 9293 section 3.5.2: in the place the sender expects, or of what it has sent. */
function reset(bytes: Uint8Array, { ip, sourcePort, destinationPort }: Packet): Uint8Array {
  const segment = bytes.subarray(ip.length);
  const flags = segment[13]!;
  const hasAcknowledgment = (flags & ACK) !== 0;
  const sequence = uint16(segment, 4) * 0x10000 + uint16(segment, 6);
  const acknowledgment = uint16(segment, 8) * 0x10000 + uint16(segment, 10);
  const payload = segment.length - (segment[12]! >> 4) * 4;
  const length = payload + (flags & SYN ? 1 : 0) + (flags & FIN ? 1 : 0);
  return framed(
    tcpPacket(
      { source: ip.destination, destination: ip.source },
      {
        sourcePort: destinationPort,
        destinationPort: sourcePort,
        flags: hasAcknowledgment ? RST : RST | ACK,
        sequence: hasAcknowledgment ? acknowledgment : 0,
        acknowledgment: hasAcknowledgment ? 0 : (sequence + length) % 2 ** 32,
        window: 0,
        identification: 0,
      }
    )
  );
}

const FIN = 0x01;
const SYN = 0x02;
const RST = 0x04;
const ACK = 0x10;
