/**
 * The timestamps of one connection ([RFC 7323](https://www.rfc-editor.org/rfc/rfc7323)): what is sent and echoed,
 * protection against wrapped sequence numbers (PAWS), and what an echo says about the round trip.
 *
 * A timestamp is the clock in whole ms plus an offset, modulo 2^32.
 * @module
 */
import type { SegmentReader } from './segment.ts';
import { seqAtMost, seqBefore } from './sequence.ts';

/** Returns TSval. */
export function timestampAt(now: number, offset: number): number {
  return (Math.floor(now) + offset) | 0;
}

export class Timestamps {
  /** Both ends use them; before the peer's SYN, whether ours offers them. */
  isUsed = false;
  offset = 0;
  /** TS.Recent, the timestamp to echo (section 4.3). */
  recent = 0;
  /** Last.ACK.sent. */
  lastAckSent = 0;
  private recentAt = 0;

  /** Returns TSval. */
  at(now: number): number {
    return timestampAt(now, this.offset);
  }

  /** The peer's SYN had this timestamp. */
  begin(value: number, now: number): void {
    this.recent = value;
    this.recentAt = now;
  }

  /**
   * Whether a segment is an old duplicate (section 5.3). TS.Recent is not valid any more after 24 days without a segment
   * (section 5.5).
   */
  isOld(value: number, now: number): boolean {
    return seqBefore(value, this.recent) && now - this.recentAt <= PAWS_IDLE_MS;
  }

  /** Takes the timestamp of a segment that is accepted (section 4.3). */
  update(segment: SegmentReader, now: number): void {
    if (!this.isUsed || !seqAtMost(segment.sequence, this.lastAckSent)) return;
    this.recent = segment.options.tsValue;
    this.recentAt = now;
  }

  /**
   * Returns when the timestamp was sent that is echoed, in whole ms; -1 if nothing was sent then.
   *
   * @param since when the first segment was sent whose echo may come. An echo of something else says nothing: some
   *   peers send 0.
   */
  sentAt(echo: number, now: number, since: number): number {
    if (!this.isUsed) return -1;
    const elapsed = (this.at(now) - echo) | 0;
    const sentAt = Math.floor(now) - elapsed;
    return elapsed >= 0 && sentAt >= Math.floor(since) ? sentAt : -1;
  }
}

const PAWS_IDLE_MS = 24 * 24 * 3_600_000;
