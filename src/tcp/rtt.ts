/**
 * Estimates the round-trip time and the retransmission timeout of one connection
 * ([RFC 6298](https://www.rfc-editor.org/rfc/rfc6298#section-2)), and keeps the minimum that RACK needs
 * ([RFC 8985 section 6.2](https://www.rfc-editor.org/rfc/rfc8985#section-6.2)).
 *
 * All values are milliseconds; fractions are kept. Two things differ from RFC 6298, as in Linux:
 *
 * - The timeout is at least 200 ms *above* the smoothed round-trip time. A path with a constant long round trip would
 *   else have a timeout just above it, and the receiver's delayed ACK alone would cause a spurious timeout.
 * - The variation rises at once but falls only by time. The gains of the RFC are meant for one sample in a round trip;
 *   with a sample for each ACK the variation would be forgotten within a fraction of a round trip (RFC 7323, appendix
 *   G).
 * @module
 */

export class RttEstimator {
  /** The smoothed round-trip time; 0 while there is no sample. */
  srttMs = 0;
  /** The variation of the round-trip time. Valid iff `srttMs` is not 0. */
  rttvarMs = 0;
  /** The retransmission timeout, backed off. */
  rtoMs: number = INITIAL_RTO_MS;
  /** How often the timeout was doubled since the last sample or `resetBackoff`. */
  backoffs = 0;

  /** When the last sample came. */
  private sampledAt = 0;
  /** The minimum since `halfStart`, and that of the half window before it; Infinity if there is none. */
  private currentMin = Number.POSITIVE_INFINITY;
  private previousMin = Number.POSITIVE_INFINITY;
  private halfStart = 0;

  /** The minimum of the last 150 to 300 s with samples; 0 while there is no sample. */
  get minRttMs(): number {
    const min = Math.min(this.currentMin, this.previousMin);
    return min === Number.POSITIVE_INFINITY ? 0 : min;
  }

  /**
   * Takes the round-trip time of a segment that was sent once, or that a timestamp identifies (Karn's algorithm is the
   * caller's). It ends a back-off, as RFC 6298 section 5 says. A value that is not a duration is ignored.
   */
  sample(rttMs: number, now: number): void {
    if (!(rttMs >= 0)) return;
    const rtt = Math.min(Math.max(rttMs, MIN_SAMPLE_MS), MAX_RTO_MS);
    if (this.srttMs === 0) {
      this.srttMs = rtt;
      this.rttvarMs = rtt / 2;
    } else {
      const deviation = Math.abs(this.srttMs - rtt);
      const isLarger = deviation > this.rttvarMs;
      const rounds = (now - this.sampledAt) / this.srttMs;
      const gain = isLarger ? BETA : BETA * Math.min(Math.max(rounds, 0), 1);
      this.rttvarMs += gain * (deviation - this.rttvarMs);
      this.srttMs += ALPHA * (rtt - this.srttMs);
    }
    this.sampledAt = now;
    this.sampleMin(rtt, now);
    this.resetBackoff();
  }

  /** Doubles the timeout, up to 120 s (RFC 6298, section 5.5). */
  backoff(): void {
    this.rtoMs = Math.min(this.rtoMs * 2, MAX_RTO_MS);
    this.backoffs++;
  }

  /**
   * Ends the back-off: the timeout follows from the samples again. For a timeout that was spurious, and for a path that
   * is back after an outage.
   */
  resetBackoff(): void {
    this.backoffs = 0;
    this.rtoMs =
      this.srttMs === 0
        ? INITIAL_RTO_MS
        : Math.min(this.srttMs + Math.max(MIN_RTO_MS, 4 * this.rttvarMs), MAX_RTO_MS);
  }

  /**
   * Adapts to a round-trip time that caused a spurious timeout, so that the next one does not come as early
   * ([RFC 4015 section 3](https://www.rfc-editor.org/rfc/rfc4015#section-3)). It ends the back-off.
   *
   * @param rttMs the round-trip time of the segment that was late, -1 if it is not known
   */
  adaptToSpurious(rttMs: number, now: number): void {
    if (rttMs >= 0) {
      const rtt = Math.min(Math.max(rttMs, MIN_SAMPLE_MS), MAX_RTO_MS);
      this.srttMs = Math.max(this.srttMs, rtt);
      this.rttvarMs = Math.max(this.rttvarMs, rtt / 2);
      this.sampledAt = now;
    }
    this.resetBackoff();
  }

  /**
   * Data will be sent after a handshake whose SYN timed out. Without a sample the timeout is then 3 s: the path may be
   * slower than the initial 1 s (RFC 6298, section 5.7).
   */
  onSynTimedOut(): void {
    if (this.srttMs !== 0) return;
    this.backoffs = 0;
    this.rtoMs = RTO_AFTER_SYN_TIMEOUT_MS;
  }

  /** The window of the minimum consists of two halves, so that an old minimum leaves without a list of samples. */
  private sampleMin(rtt: number, now: number): void {
    const elapsed = now - this.halfStart;
    if (elapsed >= HALF_WINDOW_MS) {
      this.previousMin = elapsed >= 2 * HALF_WINDOW_MS ? Number.POSITIVE_INFINITY : this.currentMin;
      this.currentMin = rtt;
      this.halfStart = now;
    } else if (rtt < this.currentMin) {
      this.currentMin = rtt;
    }
  }
}

/** RFC 6298, section 2.3. */
const ALPHA = 1 / 8;
const BETA = 1 / 4;
/** RFC 6298, sections 2.1 and 5.7. */
const INITIAL_RTO_MS = 1_000;
const RTO_AFTER_SYN_TIMEOUT_MS = 3_000;
/** Our choice, as Linux: RFC 6298 has 1 s. */
const MIN_RTO_MS = 200;
/** As Linux; RFC 6298 allows any bound from 60 s on. */
const MAX_RTO_MS = 120_000;
/** 1 µs: a sample of 0 must not look like no sample. */
const MIN_SAMPLE_MS = 0.001;
/** Half of the 300 s that Linux's tcp_min_rtt looks back. */
const HALF_WINDOW_MS = 150_000;
