/**
 * The interfaces between `SocketDevice` and the sockets below it. Packets have no virtio-net header here.
 * @module
 */

/** A socket that carries whole packets. */
export interface Transport {
  /** Copies and sends one packet. Returns false if there is no peer, or the queue is full. */
  send(buffer: Buffer, offset: number, length: number): boolean;

  /** Called when the reader has taken most packets, after `receive` has returned false. */
  drained(): void;

  close(): Promise<void>;
}

/** Takes the packets that arrive at a transport. */
export interface Receiver {
  readonly counters: SocketFaultCounters;

  /** Copies one packet. Returns false to stop the transport, if it can stop, until `drained`. */
  receive(buffer: Buffer, offset: number, length: number): boolean;
}

/** Cumulative since the device was opened. */
export interface SocketFaultCounters {
  /** Packets that arrived while the queue to the reader was full. */
  readDrops: number;
  /** Datagrams and connections that did not come from the peer. */
  strangers: number;
  /** Empty datagrams, and invalid lengths in a stream; an invalid length ends the connection. */
  malformed: number;
  /** Failures that the socket reported later, for example that nobody listens at the peer. */
  socketErrors: number;
}
