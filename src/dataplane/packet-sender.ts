/**
 * Sends a packet to a device or a tunnel in the form that is taken there: most as they are, the others
 * cut into pieces that fit, or with their checksum completed (`packet/segmenter.ts`).
 * @module
 */
import type { PacketDevice } from '../device/index.ts';
import {
  MAX_PACKET_LENGTH,
  PacketSegmenter,
  SegmentResult,
  VNET_GSO_ECN,
  VNET_GSO_NONE,
  VNET_GSO_TYPE,
  VNET_HEADER_LENGTH,
} from '../packet/index.ts';
import { MAX_PACKET_PAYLOAD } from '../tunnel/frame.ts';
import type { Tunnel } from '../tunnel/index.ts';

/** Cumulative. */
export interface SegmentCounters {
  /** Packets that were cut, or had their checksum completed, before they left. */
  cut: number;
  /**
   * Packets too long for where they go that may not be cut, and those that would make more pieces than
   * any kernel makes of one.
   */
  dropUncut: number;
}

/** What became of a packet. */
export const SendResult = {
  Sent: 0,
  /** The device or the tunnel did not take it, or not all of its pieces: they stop at the first. */
  Refused: 1,
  /** It may not be cut, or not into so many pieces; counted as `dropUncut`. */
  NotSegmented: 2,
} as const;
export type SendResult = (typeof SendResult)[keyof typeof SendResult];

/**
 * Packets are `buffer[vnet .. end)`, virtio-net header first; `segmentTo` is the size that their realm
 * takes, or 0 if they fit.
 */
export class PacketSender {
  readonly #counters: SegmentCounters;
  readonly #segmenter = new PacketSegmenter();

  constructor(counters: SegmentCounters) {
    this.#counters = counters;
  }

  toDevice(
    device: PacketDevice,
    buffer: Buffer,
    vnet: number,
    end: number,
    segmentTo: number
  ): SendResult {
    const isTaken =
      segmentTo === 0 &&
      (device.offload
        ? end - vnet <= VNET_HEADER_LENGTH + MAX_PACKET_LENGTH
        : isPlain(buffer, vnet, end, device.mtu));
    if (!isTaken) return this.#segmentToDevice(device, buffer, vnet, end, segmentTo);
    return device.write(buffer, vnet, end - vnet) ? SendResult.Sent : SendResult.Refused;
  }

  /** Commits the packet, in so many frames as it takes. The buffer is not the tunnel's own. */
  toTunnel(
    tunnel: Tunnel,
    buffer: Buffer,
    vnet: number,
    end: number,
    segmentTo: number
  ): SendResult {
    const isTaken = segmentTo === 0 && end - vnet <= MAX_PACKET_PAYLOAD;
    if (!isTaken) return this.#segmentToTunnel(tunnel, buffer, vnet, end, segmentTo);
    return tunnel.sendPacket(buffer, vnet, end) ? SendResult.Sent : SendResult.Refused;
  }

  #segmentToDevice(
    device: PacketDevice,
    buffer: Buffer,
    vnet: number,
    end: number,
    segmentTo: number
  ): SendResult {
    const limit = device.offload ? MAX_PACKET_LENGTH : device.mtu;
    if (!this.#beginSegments(buffer, vnet, end, segmentTo, limit)) return SendResult.NotSegmented;
    const segmenter = this.#segmenter;
    for (let length = segmenter.next(); length > 0; length = segmenter.next()) {
      if (!device.write(segmenter.frame, 0, length)) return SendResult.Refused;
    }
    return SendResult.Sent;
  }

  #segmentToTunnel(
    tunnel: Tunnel,
    buffer: Buffer,
    vnet: number,
    end: number,
    segmentTo: number
  ): SendResult {
    if (!this.#beginSegments(buffer, vnet, end, segmentTo, MAX_PACKET_LENGTH))
      return SendResult.NotSegmented;
    const segmenter = this.#segmenter;
    for (let length = segmenter.next(); length > 0; length = segmenter.next()) {
      if (!tunnel.sendPacket(segmenter.frame, 0, length)) return SendResult.Refused;
    }
    return SendResult.Sent;
  }

  #beginSegments(
    buffer: Buffer,
    vnet: number,
    end: number,
    segmentTo: number,
    limit: number
  ): boolean {
    const start = vnet + VNET_HEADER_LENGTH;
    const size = segmentTo > 0 ? Math.min(segmentTo, limit) : limit;
    // Without leave only senders make fragments of IPv6 (RFC 8200 section 5).
    const isAllowed =
      segmentTo > 0 ||
      end - start <= size ||
      buffer[start]! >>> 4 === 4 ||
      (buffer[vnet + VNET_GSO_TYPE]! & ~VNET_GSO_ECN) !== VNET_GSO_NONE;
    if (
      isAllowed &&
      this.#segmenter.begin(buffer, vnet, start, end, size) === SegmentResult.Ready
    ) {
      this.#counters.cut++;
      return true;
    }
    this.#counters.dropUncut++;
    return false;
  }
}

/** Whether the packet is no longer than `mtu`, and nothing is left undone. */
function isPlain(buffer: Buffer, vnet: number, end: number, mtu: number): boolean {
  const start = vnet + VNET_HEADER_LENGTH;
  if (end - start > mtu) return false;
  let bits = 0;
  for (let i = vnet; i < start; i++) bits |= buffer[i]!;
  return bits === 0;
}
