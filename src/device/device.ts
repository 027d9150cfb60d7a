/**
 * What the library needs of a packet device: something that gives and takes IP packets, each behind
 * a virtio-net header (`packet/virtio.ts`). Implement it to bring a device of your own.
 * @module
 */

/** Cumulative since the device was opened; packets and bytes without the virtio-net header. */
export interface DeviceCounters {
  readPackets: number;
  readBytes: number;
  writtenPackets: number;
  writtenBytes: number;
  /** Packets the device could not take: its queue was full, or it refused them. */
  writeDrops: number;
}

export interface PacketDevice {
  /** For messages, for example `vp0`. */
  readonly name: string;

  /** Largest packet the realm behind the device takes, in bytes; super-packets are cut to it. */
  readonly mtu: number;

  /**
   * Whether the device gives and takes super-packets and partial checksums. To one that does not,
   * only packets with an all-zero virtio-net header may be written.
   */
  readonly offload: boolean;

  readonly counters: Readonly<DeviceCounters>;

  /**
   * Begins delivery. While reading is not paused and packets wait, `onReadable` is called once in
   * each turn of the event loop (level-triggered), so a reader may stop after a bounded batch. What
   * it throws becomes an uncaught exception of the process, and delivery goes on.
   *
   * @throws {ApiMisuseError} on a second call, and after `close`.
   */
  start(onReadable: () => void): void;

  /** Turns the calls of `onReadable` off and on; packets wait in the device meanwhile. */
  pause(): void;
  resume(): void;

  /**
   * Takes one packet: writes its virtio-net header and its bytes to `buffer` from `offset` on, where
   * `VNET_HEADER_LENGTH + MAX_PACKET_LENGTH` bytes must be free. Returns how many bytes were
   * written, or 0 when no packet waits.
   *
   * @throws {ApiMisuseError} if that room is not there.
   */
  read(buffer: Buffer, offset: number): number;

  /**
   * Gives one packet, virtio-net header first, from `buffer[offset .. offset + length)`. The bytes
   * may be reused as soon as the call returns. Returns false, and counts a drop, when the device
   * could not take it. Never throws on the packet's content.
   *
   * @throws {ApiMisuseError} if the range is not within `buffer`, or an IP packet begins where its virtio-net
   *   header has to.
   */
  write(buffer: Buffer, offset: number, length: number): boolean;

  /** Ends delivery and frees the device; safe to call twice. */
  close(): Promise<void>;
}
