/**
 * RACK: which transmission was delivered last, and how much later than it an earlier one may arrive before it counts
 * as lost ([RFC 8985 section 6](https://www.rfc-editor.org/rfc/rfc8985#section-6)). Names in `code` in the comments are
 * those of section 5.
 *
 * All times are ms.
 * @module
 */
import { findings } from './findings.ts';
import type { RttEstimator } from './rtt.ts';
import { seqAtMost, seqBefore } from './sequence.ts';
import type { Transmission } from './transmission.ts';
import type { Transmissions } from './transmissions.ts';

/** The state of RACK of one connection. */
export class Rack {
  /** `RACK.xmit_ts`: when the latest transmission that was delivered was sent; -Infinity while there is none. */
  sentAt: number = Number.NEGATIVE_INFINITY;
  /** `RACK.end_seq`: where that transmission ended. */
  end = 0;
  /** `RACK.rtt`: the round-trip time of the latest transmission that the last useful ACK delivered. */
  rttMs: number = Number.NaN;
  /** `RACK.reordering_seen`. */
  isReorderingSeen = false;

  /** When the latest transmission was sent which the ACK at hand delivered. */
  private ackSentAt: number = Number.NEGATIVE_INFINITY;
  /** `RACK.fack`: the highest sequence number that was delivered. Valid iff `hasForwardAck`. */
  private forwardAck = 0;
  private hasForwardAck = false;
  /** `RACK.reo_wnd_mult`. */
  private multiplier = 1;
  /** `RACK.reo_wnd_persist`: recoveries until the window is small again. */
  private persist = RECOVERIES_TO_PERSIST;
  /** `RACK.dsack_round`: until this is acknowledged no further DSACK counts. Valid iff `hasDsackRound`. */
  private dsackRound = 0;
  private hasDsackRound = false;

  /** Begins a new ACK. */
  begin(): void {
    this.ackSentAt = Number.NEGATIVE_INFINITY;
  }

  /** Whether the ACK at hand delivered something that RACK can rely on. */
  get isAdvanced(): boolean {
    return this.ackSentAt !== Number.NEGATIVE_INFINITY;
  }

  /**
   * Notes that a transmission was delivered (steps 2 and 3 of section 6.2). Those of one ACK come in the order of
   * their sequence numbers, so that an ACK does not look like reordering in itself.
   *
   * @param end where the delivered part ends
   * @param echoMs the time that the ACK's timestamp echoes, in whole ms; -1 if it has none
   * @param minRttMs `RACK.min_RTT`; 0 if it is not known
   */
  onDelivered(
    record: Transmission,
    end: number,
    now: number,
    echoMs: number,
    minRttMs: number
  ): void {
    const rtt = now - record.time;
    if (!this.hasForwardAck || seqBefore(this.forwardAck, end)) {
      this.forwardAck = end;
      this.hasForwardAck = true;
    } else if (end !== this.forwardAck && !record.isRetransmitted) {
      this.isReorderingSeen = true;
    }
    if (record.isRetransmitted) {
      // The ACK may be that of an earlier transmission. Timestamps have a resolution of 1 ms.
      if (echoMs >= 0 && echoMs < Math.floor(record.time)) return;
      if (rtt < minRttMs) return;
    }
    if (record.time >= this.ackSentAt) {
      this.ackSentAt = record.time;
      this.rttMs = rtt;
    }
    if (record.time > this.sentAt || (record.time === this.sentAt && seqBefore(this.end, end))) {
      this.sentAt = record.time;
      this.end = end;
    }
  }

  /** Whether the latest delivered transmission was sent after this one (`RACK_sent_after`). */
  isSentBefore(record: Transmission): boolean {
    return (
      record.time < this.sentAt || (record.time === this.sentAt && seqBefore(record.end, this.end))
    );
  }

  /** SND.UNA advanced: the round of a DSACK may have ended (step 4). */
  onAdvance(una: number): void {
    if (this.hasDsackRound && seqAtMost(this.dsackRound, una)) this.hasDsackRound = false;
  }

  /** A DSACK says that a retransmission was needless: the window grows, once in a round trip (step 4). */
  onDsack(sndNxt: number): void {
    if (this.hasDsackRound) return;
    this.dsackRound = sndNxt;
    this.hasDsackRound = true;
    if (this.multiplier < MAX_MULTIPLIER) this.multiplier++;
    this.persist = RECOVERIES_TO_PERSIST;
  }

  /** A recovery ended. After 16 without a DSACK the window is small again (step 4). */
  onRecoveryEnd(): void {
    if (this.persist > 0 && --this.persist === 0) this.multiplier = 1;
  }

  /**
   * Marks what is overdue as lost (step 5). Returns when to look again, because more may then be overdue; Infinity if
   * nothing will be.
   */
  detect(records: Transmissions, now: number, isRecovering: boolean, rtt: RttEstimator): number {
    let record = records.oldest;
    if (record === undefined || !this.isSentBefore(record)) return Number.POSITIVE_INFINITY;
    const window = this.window(isRecovering, records.sackedSegments, rtt.minRttMs, rtt.srttMs);
    while (record !== undefined && this.isSentBefore(record)) {
      const { later }: Transmission = record;
      // Those behind it are overdue later, and none of them was sent after the one that was delivered: one expiry of the
      // timer finds them all. An ACK must not cost a look at each record that is in flight.
      if (record.time + this.rttMs + window > now) return this.sentAt + this.rttMs + window;
      findings.newlyLost += records.markLost(record);
      record = later;
    }
    return Number.POSITIVE_INFINITY;
  }

  /**
   * The reordering window `RACK.reo_wnd` (step 4).
   *
   * @param isRecovering a fast or a timeout recovery is under way
   * @param sackedSegments `RACK.segs_sacked`
   */
  window(isRecovering: boolean, sackedSegments: number, minRttMs: number, srttMs: number): number {
    if (!this.isReorderingSeen && (isRecovering || sackedSegments >= DUP_THRESH)) return 0;
    return Math.min((minRttMs / 4) * this.multiplier, srttMs);
  }
}

/** RFC 8985, section 6.2, step 4. */
const RECOVERIES_TO_PERSIST = 16;
/** `DupThresh` of RFC 5681. */
export const DUP_THRESH = 3;
/** As Linux; the window is at most the smoothed round-trip time in any case. */
const MAX_MULTIPLIER = 255;
