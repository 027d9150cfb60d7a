/**
 * Counts duplicate ACKs of a peer without SACK
 * ([RFC 5681 section 3.2](https://www.rfc-editor.org/rfc/rfc5681#section-3.2),
 * [RFC 6582 section 3.2](https://www.rfc-editor.org/rfc/rfc6582#section-3.2)).
 *
 * Each tells that a segment has left the network, though not which. Those segments do not count as in flight any more,
 * as in Linux; the RFC instead inflates the congestion window by them, to the same effect.
 * @module
 */
import { seqDistance } from './sequence.ts';
import { LOST } from './transmission.ts';
import type { Transmissions } from './transmissions.ts';

/** The duplicate ACKs of one connection. */
export class NewReno {
  /** Duplicate ACKs since SND.UNA advanced. */
  duplicates = 0;
  /** An estimate of the bytes that they report. */
  bytes = 0;

  /** A duplicate ACK. Returns the bytes that it reports. */
  onDuplicate(records: Transmissions, segment: number): number {
    const before = this.bytes;
    const average = Math.ceil(seqDistance(records.start, records.end) / records.count);
    this.duplicates++;
    this.bytes += Math.min(segment, average);
    this.limit(records, segment);
    return Math.max(this.bytes - before, 0);
  }

  /**
   * SND.UNA advanced by `acked` bytes. Returns how many of them duplicate ACKs had reported: all but the segment that
   * was missing.
   */
  onAdvance(records: Transmissions, segment: number, acked: number): number {
    const known = Math.min(this.bytes, Math.max(acked - segment, 0));
    this.duplicates = 0;
    this.bytes -= known;
    this.limit(records, segment);
    return known;
  }

  /** Nothing that is lost was reported by duplicate ACKs, nor was the segment at SND.UNA. */
  limit(records: Transmissions, segment: number): void {
    this.bytes = Math.min(this.bytes, unreported(records, segment));
  }

  reset(): void {
    this.duplicates = 0;
    this.bytes = 0;
  }
}

function unreported(records: Transmissions, segment: number): number {
  if (records.count === 0) return 0;
  const first = records.at(0);
  const missing = first.state === LOST ? 0 : Math.min(seqDistance(first.start, first.end), segment);
  return Math.max(records.inFlight - missing, 0);
}
