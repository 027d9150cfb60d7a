/**
 * Finds out that a recovery was needless: everything that was sent again had arrived, late or without its ACK.
 *
 * Three facts prove it:
 *
 * - the ACK that advances SND.UNA echoes a timestamp older than the first retransmission
 *   ([RFC 3522 section 3.2](https://www.rfc-editor.org/rfc/rfc3522#section-3.2));
 * - DSACKs say that each retransmission was a duplicate (RFC 2883, section 4; the use is that of RFC 3708);
 * - all was acknowledged before anything had been sent again.
 *
 * An episode is the time from the first loss that is suspected until all data sent before that is acknowledged.
 * DSACKs come later than that, so the episode is remembered for some round trips, or until the next begins.
 * @module
 */
import { seqAtMost, seqDistance, seqMax } from './sequence.ts';

/** What an episode of recovery sent again. */
export class SpuriousDetector {
  /** There is an episode that can be undone. */
  isArmed = false;
  /** A retransmission timeout was part of the episode. */
  isTimeout = false;
  /** When the episode sent something again for the first time, in ms; NaN if it did not. */
  firstAt: number = Number.NaN;
  /** Bytes sent again and not reported as duplicates. */
  private unproven = 0;
  private hasRetransmitted = false;
  /** What was sent again is within [start, end). */
  private start = 0;
  private end = 0;
  /** Round trips since the recovery ended; -1 before. */
  private rounds = -1;

  /**
   * An episode begins.
   *
   * @param end SND.NXT
   * @param repeated bytes in flight that were sent again before, as by a tail loss probe
   */
  begin(una: number, end: number, repeated: number): void {
    this.isArmed = true;
    this.isTimeout = false;
    this.firstAt = Number.NaN;
    this.start = una;
    this.end = repeated > 0 ? end : una;
    this.unproven = repeated;
    this.hasRetransmitted = repeated > 0;
    this.rounds = -1;
  }

  /** [start, end) was sent again. */
  onRetransmit(start: number, end: number, now: number): void {
    if (!this.isArmed) return;
    if (Number.isNaN(this.firstAt)) this.firstAt = now;
    this.hasRetransmitted = true;
    this.unproven += seqDistance(start, end);
    this.end = seqMax(this.end, end);
  }

  /** The last `onRetransmit` did not happen. */
  takeBack(start: number, end: number, wasFirst: boolean): void {
    if (!this.isArmed) return;
    this.unproven -= seqDistance(start, end);
    if (wasFirst) {
      this.firstAt = Number.NaN;
      this.hasRetransmitted = this.unproven > 0;
    }
  }

  /** A DSACK block. Returns whether it can be about a retransmission of the episode, or of the one that ended last. */
  onDsack(left: number, right: number): boolean {
    if (!this.hasRetransmitted) return false;
    const from = seqDistance(this.start, left);
    const to = seqDistance(this.start, right);
    if (from < 0 || to <= from || to > seqDistance(this.start, this.end)) return false;
    this.unproven -= to - from;
    return true;
  }

  /** Whether an ACK that advances SND.UNA answers what was sent before the first retransmission (Eifel). */
  isEchoOlder(echoMs: number): boolean {
    // The timestamps on the wire have a resolution of 1 ms, the times of transmissions a finer one.
    return this.isArmed && echoMs >= 0 && echoMs < Math.floor(this.firstAt);
  }

  /** Whether each retransmission was reported as a duplicate. */
  areAllDuplicates(): boolean {
    return this.isArmed && this.hasRetransmitted && this.unproven <= 0;
  }

  /** All was acknowledged. Returns whether nothing had been sent again, so that nothing was lost. */
  onRecoveryEnd(): boolean {
    if (!this.isArmed) return false;
    this.rounds = 0;
    if (this.hasRetransmitted) return false;
    this.isArmed = false;
    return true;
  }

  /** A round trip ended: DSACKs about an episode that is over do not come any more. */
  onRoundEnd(una: number): void {
    if (this.rounds < 0 || seqAtMost(una, this.end)) return;
    if (++this.rounds <= ROUNDS_TO_REMEMBER) return;
    this.isArmed = false;
    this.hasRetransmitted = false;
    this.rounds = -1;
  }

  /** The episode was undone: that happens once. DSACKs about it still tell how patient RACK must be. */
  stop(): void {
    this.isArmed = false;
    this.rounds = 0;
  }
}

/** A DSACK comes one round trip after its retransmission, or when the delayed original arrives. */
const ROUNDS_TO_REMEMBER = 8;
