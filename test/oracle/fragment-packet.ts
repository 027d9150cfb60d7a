/**
 * Splits a packet of either IP version into fragments.
 * @module
 */

import { textOf } from '../support/address.ts';
import { ipPacket } from '../support/packets.ts';

/**
 * Returns the fragments of an IPv4 packet without options or an IPv6 packet without extension headers.
 *
 * @param boundaries the offsets in the payload at which the second and later fragments begin; multiples of 8
 */
export function fragmentPacket(
  packet: Uint8Array,
  boundaries: readonly number[],
  identification: number
): Uint8Array[] {
  const payload = packet.subarray(packet[0]! >> 4 === 4 ? 20 : 40);
  const edges = [0, ...boundaries, payload.length];
  return boundaries
    .map((_, i) => i)
    .concat(boundaries.length)
    .map((i) => {
      const [from, to] = [edges[i]!, edges[i + 1]!];
      const more = to < payload.length;
      return fragmentOf(packet, { from, more, identification }, payload.subarray(from, to));
    });
}

/** Returns a fragment with the IP header of `packet` and the payload `data`. */
export function fragmentOf(
  packet: Uint8Array,
  place: { readonly from: number; readonly more: boolean; readonly identification: number },
  data: Uint8Array
): Uint8Array {
  const { from, more, identification } = place;
  if (packet[0]! >> 4 === 4) {
    const ends = {
      source: textOf(packet.subarray(12, 16)),
      destination: textOf(packet.subarray(16, 20)),
    };
    return ipPacket(ends, packet[9]!, data, {
      identification,
      fragment: (more ? 0x2000 : 0) | (from / 8),
      hopLimit: packet[8]!,
      trafficClass: packet[1]!,
    });
  }
  const ends = {
    source: textOf(packet.subarray(8, 24)),
    destination: textOf(packet.subarray(24, 40)),
  };
  return ipPacket(ends, packet[6]!, data, {
    hopLimit: packet[7]!,
    extensions: [fragmentHeader(from, more, identification)],
  });
}

/** RFC 8200 section 4.5. */
export function fragmentHeader(
  offset: number,
  more: boolean,
  identification: number
): { readonly type: 44; readonly bytes: Uint8Array } {
  const bytes = new Uint8Array(8);
  const view = new DataView(bytes.buffer);
  view.setUint16(2, offset | (more ? 1 : 0));
  view.setUint32(4, identification);
  return { type: 44, bytes };
}
