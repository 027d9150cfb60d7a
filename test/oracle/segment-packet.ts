/**
 * Cuts a whole packet into fragments, of either IP version.
 * @module
 */

import { textOf } from '../support/address.ts';
import { ipPacket } from '../support/packets.ts';

/**
 * Fragments of an IPv4 packet without options or an IPv6 packet without extension headers.
 *
 * @param cuts where in the payload the second fragment begins, the third, and so on; multiples of 8
 */
export function cutPacket(
  packet: Uint8Array,
  cuts: readonly number[],
  identification: number
): Uint8Array[] {
  const payload = packet.subarray(packet[0]! >> 4 === 4 ? 20 : 40);
  const edges = [0, ...cuts, payload.length];
  return cuts
    .map((_, i) => i)
    .concat(cuts.length)
    .map((i) => {
      const [from, to] = [edges[i]!, edges[i + 1]!];
      const more = to < payload.length;
      return fragmentOf(packet, { from, more, identification }, payload.subarray(from, to));
    });
}

/** A fragment that would come of `packet`, which gives it its IP header; `data` is its payload. */
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
