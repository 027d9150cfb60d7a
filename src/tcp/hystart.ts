/**
 * Finds the end of the initial slow start before packets are lost
 * ([HyStart++, RFC 9406](https://www.rfc-editor.org/rfc/rfc9406#section-4)): when the minimum round-trip time of a
 * round is clearly above that of the round before, a queue builds up. Slow start then goes on with a quarter of its
 * growth (Conservative Slow Start), and ends after five rounds unless the round-trip time falls again.
 *
 * Two things differ, because nearly all ACKs here are for many segments. The growth for one ACK has no limit L. And an
 * ACK counts as up to four of the eight samples that a round needs: one for each two units acknowledged, since a
 * receiver would usually have sent as many ACKs.
 * @module
 */

export class HyStart {
  /** Whether slow start is in its conservative phase. */
  isConservative = false;
  /** Whether slow start is over: ssthresh becomes cwnd. */
  isDone = false;

  private lastRoundMin = Number.POSITIVE_INFINITY;
  private currentRoundMin = Number.POSITIVE_INFINITY;
  private samples = 0;
  /** The minimum at which the conservative phase began. Valid iff `isConservative`. */
  private baselineMin = Number.POSITIVE_INFINITY;
  /** The rounds that the conservative phase has touched. Valid iff `isConservative`. */
  private rounds = 0;

  /** What the bytes acknowledged are divided by: 4 in the conservative phase, else 1. */
  get divisor(): number {
    return this.isConservative ? CSS_GROWTH_DIVISOR : 1;
  }

  /**
   * @param rttMs the round-trip time, -1 if this ACK gives none
   * @param roundEnded whether this ACK covers what was SND.NXT when the round began
   */
  onAck(acked: number, unit: number, rttMs: number, roundEnded: boolean): void {
    if (rttMs >= 0) {
      this.currentRoundMin = Math.min(this.currentRoundMin, rttMs);
      this.samples += Math.min(Math.max(acked / (2 * unit), 1), MAX_SAMPLES_OF_ACK);
      if (this.samples >= N_RTT_SAMPLE) this.judge();
    }
    if (roundEnded) this.endRound();
  }

  private judge(): void {
    if (this.isConservative) {
      // The growth was stopped too early: the delay came from something else than a queue of ours.
      if (this.currentRoundMin < this.baselineMin) this.isConservative = false;
      return;
    }
    if (this.lastRoundMin === Number.POSITIVE_INFINITY) return;
    const threshold = Math.min(
      Math.max(this.lastRoundMin / MIN_RTT_DIVISOR, MIN_RTT_THRESH_MS),
      MAX_RTT_THRESH_MS
    );
    if (this.currentRoundMin < this.lastRoundMin + threshold) return;
    this.isConservative = true;
    this.baselineMin = this.currentRoundMin;
    this.rounds = 0;
  }

  private endRound(): void {
    this.lastRoundMin = this.currentRoundMin;
    this.currentRoundMin = Number.POSITIVE_INFINITY;
    this.samples = 0;
    if (!this.isConservative) return;
    this.rounds++;
    if (this.rounds >= CSS_ROUNDS) this.isDone = true;
  }
}

/** RFC 9406, section 4.3. */
const MIN_RTT_THRESH_MS = 4;
const MAX_RTT_THRESH_MS = 16;
const MIN_RTT_DIVISOR = 8;
const N_RTT_SAMPLE = 8;
const CSS_GROWTH_DIVISOR = 4;
const CSS_ROUNDS = 5;
/** Our choice: at least two ACKs decide, so that one late wake-up of the event loop does not. */
const MAX_SAMPLES_OF_ACK = 4;
