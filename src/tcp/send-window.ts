/**
 * The send window of one connection: what the peer takes
 * ([RFC 9293 section 3.10.7.4](https://www.rfc-editor.org/rfc/rfc9293#section-3.10.7.4), fifth step).
 * @module
 */
import type { SegmentReader } from './segment.ts';
import { seqAtMost, seqBefore } from './sequence.ts';

export class SendWindow {
  /** SND.WND in bytes: at most 2^30, because a shift count is at most 14. */
  size = 0;
  /** MAX.SND.WND: the largest window that the peer has offered. */
  max = 0;
  /** The shift count of the peer's window fields; 0 without the option. */
  scale = 0;
  /** SND.WL1 and SND.WL2: the sequence number and the ACK number with which the window came. */
  private sequence = 0;
  private acknowledgement = 0;

  /** Takes the window of a SYN, which is not scaled (RFC 7323 section 2.2). */
  begin(segment: SegmentReader): void {
    this.set(segment, segment.window);
  }

  /** Takes the window of a segment, unless it was sent before the one that set the window: segments overtake each other. */
  update(segment: SegmentReader, sndUna: number): void {
    const { sequence, acknowledgement } = segment;
    const isNewer =
      seqBefore(this.sequence, sequence) ||
      (this.sequence === sequence && seqAtMost(this.acknowledgement, acknowledgement)) ||
      seqBefore(sndUna, acknowledgement);
    if (isNewer) this.take(segment);
  }

  /** Takes the window of a segment. */
  take(segment: SegmentReader): void {
    this.set(segment, segment.window << this.scale);
  }

  private set(segment: SegmentReader, size: number): void {
    this.size = size;
    this.sequence = segment.sequence;
    this.acknowledgement = segment.acknowledgement;
    if (size > this.max) this.max = size;
  }
}
