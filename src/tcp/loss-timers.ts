/**
 * The deadlines of `LossRecovery` in ms, of which the earliest counts. One that is off is Infinity.
 * @module
 */

export class LossTimers {
  /** The retransmission timeout (RFC 6298 section 5). */
  timeoutAt: number = NEVER;
  /** The tail loss probe (RFC 8985 section 7). */
  probeAt: number = NEVER;
  /** When RACK looks again what is lost (RFC 8985 section 6.2, step 5). */
  reorderAt: number = NEVER;
  /** The device refused the packet that was to cause an ACK: try again. */
  retryAt: number = NEVER;
  /** The link is down: no timer runs. */
  isSuspended = false;

  get deadline(): number {
    if (this.isSuspended) return NEVER;
    return Math.min(this.timeoutAt, this.probeAt, this.reorderAt, this.retryAt);
  }

  /** Nothing is outstanding. */
  stop(): void {
    this.timeoutAt = NEVER;
    this.probeAt = NEVER;
    this.reorderAt = NEVER;
  }
}

const NEVER: number = Number.POSITIVE_INFINITY;
