/**
 * The growth of CUBIC in congestion avoidance ([RFC 9438](https://www.rfc-editor.org/rfc/rfc9438)).
 *
 * Windows are bytes, times are milliseconds, and `unit` stands for SMSS: the formulas of the RFC, whose windows are
 * segments, are multiplied by it. An *epoch* is a time of congestion avoidance without a congestion event; it begins
 * with the first growth.
 * @module
 */

export class CubicCurve {
  /** W_max, to which the window comes back first; 0 after a timeout, when the curve begins at the window itself. */
  private target = 0;
  /** cwnd_prior: the window at the last congestion event. */
  private priorWindow = 0;
  /** The start of the epoch, later by the time that does not count; -1 between epochs. */
  private epochStart = -1;
  /** Up to when time of this epoch is accounted for. */
  private seenAt = 0;
  /** K, in seconds, and the window at that time. */
  private k = 0;
  private origin = 0;
  /** W_est: the window that a Reno flow with the same average would have. */
  private renoWindow = 0;

  /**
   * Ends the epoch. If the window did not come back to the last maximum, capacity was taken by another flow: the next
   * maximum is set lower, so that the other flow gets it (fast convergence, RFC 9438, section 4.7).
   */
  onCongestion(window: number): void {
    this.target = window < this.target ? (window * (1 + BETA)) / 2 : window;
    this.priorWindow = window;
    this.epochStart = -1;
  }

  /** Ends the epoch after a timeout: the next one does not aim at a former maximum (section 4.8). */
  onTimeout(): void {
    this.target = 0;
    this.epochStart = -1;
  }

  /** Ends the epoch without a congestion event, because the window was reduced for another reason. */
  restart(): void {
    this.epochStart = -1;
  }

  /**
   * Returns the window after `acked` bytes were acknowledged: a double, never less than `window`.
   *
   * @param acked at most `window`
   */
  grow(window: number, acked: number, now: number, srttMs: number, unit: number): number {
    if (this.epochStart < 0) this.begin(window, now, unit);
    this.seenAt = now;
    const elapsed = (now - this.epochStart) / 1_000;
    const share = acked / window;
    // Section 4.3: below its former window, Reno with CUBIC's decrease has to grow more slowly to be equal to Reno.
    const alpha = this.renoWindow >= this.priorWindow ? 1 : ALPHA;
    this.renoWindow += alpha * unit * share;
    if (this.at(elapsed, unit) < this.renoWindow) return Math.max(window, this.renoWindow);
    const target = this.at(elapsed + srttMs / 1_000, unit);
    return window + (Math.min(Math.max(target, window), MAX_GROWTH * window) - window) * share;
  }

  /** The window was not used to the full up to `now`: this time does not count (section 4.2). */
  pause(now: number): void {
    if (this.epochStart < 0) return;
    this.epochStart += Math.max(0, now - this.seenAt);
    this.seenAt = now;
  }

  /** Takes time out of the epoch, in which nothing was in flight. */
  skip(durationMs: number): void {
    if (this.epochStart < 0) return;
    this.epochStart += durationMs;
    this.seenAt += durationMs;
  }

  copyFrom(other: CubicCurve): void {
    this.target = other.target;
    this.priorWindow = other.priorWindow;
    this.epochStart = other.epochStart;
    this.seenAt = other.seenAt;
    this.k = other.k;
    this.origin = other.origin;
    this.renoWindow = other.renoWindow;
  }

  private begin(window: number, now: number, unit: number): void {
    this.epochStart = now;
    this.origin = Math.max(window, this.target);
    this.k = Math.cbrt((this.origin - window) / (C * unit));
    this.renoWindow = window;
  }

  /** W_cubic, section 4.2. */
  private at(seconds: number, unit: number): number {
    return C * unit * (seconds - this.k) ** 3 + this.origin;
  }
}

/** The factor of multiplicative decrease, section 4.6. */
export const BETA = 0.7;
/** Segments per second cubed, section 5. */
const C = 0.4;
/** Section 4.3. */
const ALPHA: number = (3 * (1 - BETA)) / (1 + BETA);
/** The growth in one round trip is at most this factor, section 4.2. */
const MAX_GROWTH = 1.5;
