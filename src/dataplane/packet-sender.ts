/**
 * Sends packets to a device or a tunnel. Most are sent unchanged. The others are split into pieces that fit,
 * or get their checksum completed first (`packet/segmenter.ts`).
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

/** Counters of segmentation, since the start. */
export interface SegmentCounters {
  /** The packets that were segmented or fragmented, or whose checksum was completed, before they left. */
  cut: number;
  /**
   * The packets that were dropped because they are too long and must not be fragmented, or would make too
   * many segments.
   */
  dropUncut: number;
}

/** The outcome of sending a packet. */
export const SendResult = {
  Sent: 0,
  /** The device or the tunnel refused the packet or one of its pieces; later pieces are not sent. */
  Refused: 1,
  /** The packet is too long and cannot be split; it was counted as `dropUncut`. */
  NotSegmented: 2,
} as const;
export type SendResult = (typeof SendResult)[keyof typeof SendResult];

/**
 * Sends packets `buffer[vnet .. end)`, virtio-net header first. `segmentTo` is the size in bytes to fragment
 * a packet to, or 0 if it fits its realm.
 */
export class PacketSender {
  readonly #counters: SegmentCounters;
  readonly #segmenter = new PacketSegmenter();

  constructor(counters: SegmentCounters) {
    this.#counters = counters;
  }

  /** Writes the packet to a device. */
  toDevice(
    device: PacketDevice,
    buffer: Buffer,
    vnet: number,
    end: number,
    segmentTo: number
  ): SendResult {
    const fits =
      segmentTo === 0 &&
      (device.offload
        ? end - vnet <= VNET_HEADER_LENGTH + MAX_PACKET_LENGTH
        : isPlain(buffer, vnet, end, device.mtu));
    if (!fits) return this.#segmentToDevice(device, buffer, vnet, end, segmentTo);
    return device.write(buffer, vnet, end - vnet) ? SendResult.Sent : SendResult.Refused;
  }

  /** Sends the packet through a tunnel, in as many frames as needed. The buffer must not be the tunnel's. */
  toTunnel(
    tunnel: Tunnel,
    buffer: Buffer,
    vnet: number,
    end: number,
    segmentTo: number
  ): SendResult {
    const fits = segmentTo === 0 && end - vnet <= MAX_PACKET_PAYLOAD;
    if (!fits) return this.#segmentToTunnel(tunnel, buffer, vnet, end, segmentTo);
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
    // Only the sender may fragment an IPv6 packet (RFC 8200 section 5), unless `segmentTo` allows it.
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

/** Returns whether the packet fits `mtu` and its virtio-net header is all zero. */
function isPlain(buffer: Buffer, vnet: number, end: number, mtu: number): boolean {
  const start = vnet + VNET_HEADER_LENGTH;
  if (end - start > mtu) return false;
  let bits = 0;
  for (let i = vnet; i < start; i++) bits |= buffer[i]!;
  return bits === 0;
}
