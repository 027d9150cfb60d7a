/**
 * What `SocketDevice` and the sockets below it ask of each other. Packets here are bare: no
 * virtio-net header.
 * @module
 */

/** A socket that carries whole packets. */
export interface Transport {
  /** Copies and sends one packet; false if it has no peer now, or its queue is full. */
  send(buffer: Buffer, offset: number, length: number): boolean;

  /** The reader has taken most of what waited, after `receive` had asked to hold back. */
  drained(): void;

  close(): Promise<void>;
}

/** Where a transport puts what arrives. */
export interface Receiver {
  readonly counters: SocketFaultCounters;

  /** Copies one packet that arrived; false asks to hold back until `drained` if that is possible. */
  receive(buffer: Buffer, offset: number, length: number): boolean;
}

/** Cumulative since the device was opened. */
export interface SocketFaultCounters {
  /** Packets that arrived while the queue to the reader was full. */
  readDrops: number;
  /** Datagrams and connections that were not the peer's. */
  strangers: number;
  /** Empty datagrams; lengths in a stream that no packet has, each of which ends the connection. */
  malformed: number;
  /** Failures that the socket reported later, for example that nobody listens at the peer. */
  socketErrors: number;
}
