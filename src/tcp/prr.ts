/**
 * Says how much may be sent during fast recovery
 * ([Proportional Rate Reduction, RFC 9937 section 6](https://www.rfc-editor.org/rfc/rfc9937#section-6)): in proportion
 * to what was delivered, so that the bytes in flight come down to ssthresh within about one round trip and not in one
 * step.
 *
 * Quantities are bytes; `unit` stands for MSS.
 * @module
 */

export class Prr {
  /** RecoverFS: what was in flight when recovery began. */
  private flight = 1;
  private ssthresh = 0;
  /** What `delivered` may become. */
  private limit: number = Number.POSITIVE_INFINITY;
  /** prr_delivered and prr_out: what was delivered and sent since recovery began. */
  private delivered = 0;
  private out = 0;

  /**
   * @param flight bytes in flight before the ACK that began recovery, including those that are lost
   * @param hasSack whether SACK says what is delivered. If not, it is estimated by duplicate ACKs, which a receiver can
   * send without end; so no more than `flight` counts.
   */
  begin(flight: number, ssthresh: number, hasSack: boolean): void {
    this.flight = Math.max(1, flight);
    this.ssthresh = ssthresh;
    this.limit = hasSack ? Number.POSITIVE_INFINITY : this.flight;
    this.delivered = 0;
    this.out = 0;
  }

  /** Bytes were sent, new ones or again; negative if they were not sent after all. */
  onTransmit(bytes: number): void {
    this.out = Math.max(0, this.out + bytes);
  }

  /**
   * Takes an ACK, also the one that began recovery, and returns how many bytes may be sent now beyond those in flight;
   * -1 if the ACK delivered nothing and so changes nothing.
   *
   * @param delivered bytes newly acknowledged or SACKed
   * @param inFlight bytes in flight after this ACK, without those that are lost
   * @param isSafe whether SND.UNA advanced and nothing more was lost
   */
  onAck(delivered: number, inFlight: number, isSafe: boolean, unit: number): number {
    delivered = Math.min(delivered, this.limit - this.delivered);
    // When a timer found the loss, nothing is delivered at that time. The retransmission that begins recovery is sent
    // nevertheless; Linux counts a packet as delivered then.
    if (delivered <= 0) return this.out === 0 ? unit : -1;
    this.delivered += delivered;
    let allowed: number;
    if (inFlight > this.ssthresh) {
      allowed = Math.ceil((this.delivered * this.ssthresh) / this.flight) - this.out;
    } else {
      allowed = Math.max(this.delivered - this.out, delivered);
      if (isSafe) allowed += unit;
      allowed = Math.min(allowed, this.ssthresh - inFlight);
    }
    if (allowed <= 0) return this.out === 0 ? unit : 0;
    return allowed;
  }
}
