/**
 * The states of a connection, the events that its owner learns of, and the reasons why it failed.
 * @module
 */

/** [RFC 9293 section 3.3.2](https://www.rfc-editor.org/rfc/rfc9293#section-3.3.2). A listener is not a connection. */
export const TcpState = {
  Closed: 0,
  SynSent: 1,
  SynReceived: 2,
  Established: 3,
  FinWait1: 4,
  FinWait2: 5,
  CloseWait: 6,
  Closing: 7,
  LastAck: 8,
  TimeWait: 9,
} as const;
export type TcpState = (typeof TcpState)[keyof typeof TcpState];

/** Bits of the events of a connection. */
export const TcpEvent = {
  /** The handshake is complete. */
  Connected: 1,
  /** There are bytes to read. */
  Readable: 2,
  /** `write` takes bytes again after it took fewer than it was given. */
  Writable: 4,
  /** The peer has ended its direction: no more bytes come behind those that can be read. */
  ReadEnded: 8,
  /** The connection has ended; `failure` says why, if it did not end in order. No event follows. */
  Closed: 16,
} as const;

/** Why a connection ended out of order. */
export type TcpFailure =
  /** The peer answered the SYN with a reset, or the port or the protocol is unreachable. */
  | 'refused'
  /** The peer reset the connection. */
  | 'reset'
  /** Nothing was acknowledged, or answered a probe, for too long. */
  | 'timed-out'
  | 'host-unreachable'
  | 'network-unreachable'
  /** `abort` was called, or the endpoint was closed. */
  | 'aborted'
  /** The endpoint had no memory for more connections, and this one made no progress. */
  | 'evicted';
