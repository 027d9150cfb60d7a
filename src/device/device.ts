/**
 * The interface of a packet device, which receives and sends IP packets, each behind a virtio-net header
 * (`packet/virtio.ts`). Implement it to use a device of your own.
 * @module
 */

/** Cumulative since the device was opened. Bytes do not include the virtio-net header. */
export interface DeviceCounters {
  readPackets: number;
  readBytes: number;
  writtenPackets: number;
  writtenBytes: number;
  /** Packets that `write` did not take: the queue was full, or the device refused them. */
  writeDrops: number;
}

export interface PacketDevice {
  /** The name in messages, for example `vp0`. */
  readonly name: string;

  /** The longest packet that the realm behind the device takes, in bytes; super-packets are split to it. */
  readonly mtu: number;

  /**
   * Whether the device reads and writes super-packets and partial checksums. If it does not, only packets
   * whose virtio-net header is all zero may be written.
   */
  readonly offload: boolean;

  readonly counters: Readonly<DeviceCounters>;

  /**
   * Begins delivery. While packets wait and delivery is not paused, `onReadable` is called once in
   * each turn of the event loop (level-triggered), so a reader may stop after a bounded batch. An error
   * that it throws becomes an uncaught exception of the process, and delivery goes on.
   *
   * @throws {ApiMisuseError} on a second call, and after `close`.
   */
  start(onReadable: () => void): void;

  /** Stops the calls of `onReadable`; packets wait in the device. */
  pause(): void;

  /** Starts the calls of `onReadable` again. */
  resume(): void;

  /**
   * Reads one packet: copies its virtio-net header and its bytes to `buffer` at `offset`, where
   * `VNET_HEADER_LENGTH + MAX_PACKET_LENGTH` bytes must be free. Returns the number of bytes, or 0 if no
   * packet waits.
   *
   * @throws {ApiMisuseError} if too few bytes are free.
   */
  read(buffer: Buffer, offset: number): number;

  /**
   * Writes one packet, which is behind its virtio-net header in `buffer[offset .. offset + length)`. The
   * caller may reuse the bytes as soon as the call returns. Returns false, and counts a drop, if the device
   * did not take the packet. It never throws because of the content of the packet.
   *
   * @throws {ApiMisuseError} if the range is not within `buffer`, or begins with an IP packet instead of a
   *   virtio-net header.
   */
  write(buffer: Buffer, offset: number, length: number): boolean;

  /** Ends delivery and frees the device. Can be called twice. */
  close(): Promise<void>;

  /**
   * Tells the device that the packet read last was dropped, because what is behind it takes no more for now. A device
   * that makes its packets itself can send that one again; the others need not have this method. It is called before
   * the next `read`, at most once for a packet, and not for a packet that a filter or a translator has refused: the
   * same packet would be refused again.
   */
  refused?(): void;

  /**
   * Tells the device whether anything takes its packets, so that it can wait instead of sending into the void. It is
   * called before `start`, and at each change. While the link is down the device is paused; the packets of a device
   * without this method are read and dropped.
   */
  linkChanged?(isUp: boolean): void;
}
