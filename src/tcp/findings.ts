/**
 * What `LossRecovery` has found out by the last ACK, or by the last timer that expired.
 * @module
 */

/** One object serves all connections: what it says holds until the next call of any `LossRecovery`. */
class Findings {
  /** Bytes that the ACK number newly covers. */
  acked = 0;
  /** Bytes newly acknowledged, by number or selectively; without SACK an estimate (RFC 9937, section 5). */
  delivered = 0;
  /** Bytes newly marked as lost. */
  newlyLost = 0;
  /** The round-trip time measured, -1 if there is none. The estimator has taken it already. */
  rttMs = -1;
  /** The ACK has a DSACK block that answers a retransmission of ours. */
  sawDsack = false;
  /**
   * The recovery that goes on, or that ended last, proved needless: undo what congestion control did. In this order:
   * undo if `isSpurious`; leave recovery if `hasLeft`; enter it if `hasEntered`; reduce once if `hasRepairedTail`.
   */
  isSpurious = false;
  /** Recovery ended with this ACK. */
  hasLeft = false;
  /** Recovery begins now. `inFlightBefore` is what was in flight before the loss was seen. */
  hasEntered = false;
  /** A tail loss probe repaired the only loss: reduce the congestion window, without a recovery (RFC 8985, 7.4). */
  hasRepairedTail = false;
  /** All that was sent before the last end of a round is acknowledged (for HyStart++). */
  roundEnded = false;
  /** `inFlight` before the last `onAck` or `expire`. */
  inFlightBefore = 0;

  /** Nothing is known yet. */
  begin(inFlight: number): void {
    this.inFlightBefore = inFlight;
    this.acked = 0;
    this.delivered = 0;
    this.newlyLost = 0;
    this.rttMs = -1;
    this.sawDsack = false;
    this.isSpurious = false;
    this.hasLeft = false;
    this.hasEntered = false;
    this.hasRepairedTail = false;
    this.roundEnded = false;
  }
}

export type { Findings };
export const findings: Findings = new Findings();
