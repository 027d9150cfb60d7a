/**
 * Tail loss probes ([RFC 8985 section 7](https://www.rfc-editor.org/rfc/rfc8985#section-7)): if no ACK comes in time,
 * one more packet causes one, whose SACK shows what is missing; or the packet itself replaces what was lost.
 * @module
 */
import { seqAdd, seqBefore, seqDistance } from './sequence.ts';
import type { Transmissions } from './transmissions.ts';

/** The probe of one connection: at most one is under way. */
export class TailProbe {
  /** A probe should be sent: the next transmission is it. */
  isDue = false;
  /** A probe was sent, and it is not known what became of it (`TLP.end_seq` is not None). */
  isSent = false;
  /** Bytes that the probe repeated; 0 if it was new data (`TLP.is_retrans`). */
  repeated = 0;
  /** A round-trip time was measured since the last probe. Without that, no other may be sent (section 7.3). */
  isMeasured = true;
  /** What to repeat if there is no new data: [start, end); empty if nothing is outstanding. */
  start = 0;
  end = 0;

  /** `TLP.end_seq`: SND.NXT when the probe was sent. Valid iff `isSent`. */
  private sentEnd = 0;

  /** Chooses the last segment for the probe (section 7.3). */
  choose(records: Transmissions, segment: number): void {
    this.start = this.end = records.end;
    if (records.count === 0) return;
    const last = records.at(records.count - 1);
    const whole = Math.floor((seqDistance(last.start, last.end) - 1) / segment);
    this.start = seqAdd(last.start, whole * segment);
  }

  /** The probe was sent; `repeated` bytes of it were not new. */
  onSent(next: number, repeated: number): void {
    this.isDue = false;
    this.isSent = true;
    this.isMeasured = false;
    this.sentEnd = next;
    this.repeated = repeated;
  }

  /** An ACK has a DSACK. Returns whether it answers the probe, so that nothing was lost. */
  isAnsweredBy(right: number): boolean {
    if (!this.isSent || this.repeated === 0 || right !== this.sentEnd) return false;
    this.isSent = false;
    return true;
  }

  /**
   * What an ACK says about the probe (`TLP_process_ack` in section 7.4.2). Returns whether the probe replaced the only
   * segment that was lost: that is a sign of congestion, though nothing is left to repair.
   *
   * @param isBareDuplicate the ACK advances nothing and has no SACK block
   */
  isRepair(ack: number, isBareDuplicate: boolean): boolean {
    if (!this.isSent || seqBefore(ack, this.sentEnd)) return false;
    const isBehind = seqBefore(this.sentEnd, ack);
    if (this.repeated === 0 || isBareDuplicate || isBehind) this.isSent = false;
    return this.repeated > 0 && isBehind && !isBareDuplicate;
  }

  /** A recovery begins: it finds out about all that is missing. */
  cancel(): void {
    this.isDue = false;
    this.isSent = false;
  }
}

/**
 * Returns how many ms after a transmission the probe is due (`PTO`, section 7.2). It is no later than the timeout, which
 * the caller knows.
 *
 * @param srttMs the smoothed round-trip time, 0 if it is not known
 * @param isOneSegment whether only one segment is outstanding, so that its ACK may be delayed
 */
export function probeTimeout(srttMs: number, isOneSegment: boolean): number {
  if (srttMs === 0) return 1_000;
  return Math.max(2 * srttMs + (isOneSegment ? MAX_ACK_DELAY_MS : 0), MIN_PTO_MS);
}

/** Our choice: the event loop answers no earlier when it is busy. */
export const MIN_PTO_MS = 10;
/** `TLP.max_ack_delay`: the longest delay of Linux's delayed ACK. */
const MAX_ACK_DELAY_MS = 200;
