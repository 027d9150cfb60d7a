/**
 * The counters of an endpoint.
 * @module
 */

/**
 * Cumulative since the endpoint was made, in segments if nothing else is said. What the device refused counts as
 * `refused` and not as sent.
 */
export interface TcpCounters {
  received: number;
  sent: number;
  /** The bytes of payload that were sent for the first time, and again. */
  sentBytes: number;
  retransmittedBytes: number;
  retransmitted: number;
  /** Connections that were opened by us, by peers, and connections that failed after the handshake, unless by `abort`. */
  opened: number;
  accepted: number;
  failed: number;
  /** Timeouts of RFC 6298, and tail loss probes of RFC 8985. */
  timeouts: number;
  tailProbes: number;
  /** Recoveries that proved to be spurious and were undone. */
  undone: number;
  /** Packets that the device did not take. */
  refused: number;
  challengeAcks: number;
  resets: number;
  /** Packets that are not TCP segments of this version, or contradict themselves. */
  dropMalformed: number;
  dropChecksum: number;
  /**
   * Segments whose sequence numbers are outside of the window, and resets and old duplicates that belong to nothing or
   * to TIME-WAIT.
   */
  dropOutsideWindow: number;
  /** Old duplicates by their timestamp (PAWS). */
  dropOldTimestamp: number;
  /** Segments with an ACK number that was never possible, without ACK, or without a timestamp where it is due. */
  dropBadAck: number;
  /** SYNs beyond the bounds of half-open connections, of connections, or of a listener's backlog. */
  dropSyn: number;
  /** ICMP errors that quote nothing that is outstanding, or report an MTU below the minimum of IPv6. */
  dropIcmp: number;
  /** Answers beyond the bound of resets or of queued answers. */
  dropAnswers: number;
  /** Payload that was dropped, wholly or in part, because there was no memory, or not enough for data out of order. */
  dropNoMemory: number;
  /** Payload out of order that would have been one range more than a connection keeps (256). */
  dropTooManyRanges: number;
}

export function newCounters(): TcpCounters {
  return {
    received: 0,
    sent: 0,
    sentBytes: 0,
    retransmittedBytes: 0,
    retransmitted: 0,
    opened: 0,
    accepted: 0,
    failed: 0,
    timeouts: 0,
    tailProbes: 0,
    undone: 0,
    refused: 0,
    challengeAcks: 0,
    resets: 0,
    dropMalformed: 0,
    dropChecksum: 0,
    dropOutsideWindow: 0,
    dropOldTimestamp: 0,
    dropBadAck: 0,
    dropSyn: 0,
    dropIcmp: 0,
    dropAnswers: 0,
    dropNoMemory: 0,
    dropTooManyRanges: 0,
  };
}
