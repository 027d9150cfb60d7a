/**
 * One transmission: what is known of a range of sequence numbers that was sent in one packet. Records are taken out of a
 * pool and given back to it, because every packet needs one for a round trip.
 * @module
 */
import { seqBefore } from './sequence.ts';

/** Sent, and neither acknowledged nor thought lost. */
export const IN_FLIGHT = 0;
/** Selectively acknowledged. */
export const SACKED = 1;
/** Thought lost, and not sent again since. */
export const LOST = 2;

/** One range of sequence numbers, as it was sent last. */
export class Transmission {
  start = 0;
  end = 0;
  /** When it was sent last, in ms: `Segment.xmit_ts` of RFC 8985. */
  time: number = Number.NaN;
  state: number = IN_FLIGHT;
  /** It was sent more than once, so that its round-trip time is ambiguous (Karn's algorithm, RFC 6298 section 3). */
  isRetransmitted = false;
  /** A SACK edge created this record. */
  isSplit = false;
  /** The number of packets or wire segments that it stands for. */
  segments = 1;
  /** The payload bytes of each of these but the last: SACK edges inside the packet are at multiples of it. */
  segment = 0;
  /** Neighbours in the order of transmission. Valid iff the record is in flight. */
  earlier: Transmission | undefined = undefined;
  later: Transmission | undefined = undefined;
}

/** The number of wire segments in a packet of this length. */
export function segmentsOf(length: number, mss: number): number {
  return length <= mss ? 1 : Math.ceil(length / mss);
}

/** `RACK_sent_after` of RFC 8985, section 6.2: a whole batch may have one time. */
export function isLater(a: Transmission, b: Transmission): boolean {
  return a.time > b.time || (a.time === b.time && seqBefore(b.end, a.end));
}

/** Records that are not in use, linked by `later`: all connections share them, so that short exchanges allocate none. */
let spare: Transmission | undefined;
let spareCount = 0;

/** Takes a record out of the pool. */
export function takeRecord(): Transmission {
  const record = spare;
  if (record === undefined) return new Transmission();
  spare = record.later;
  spareCount--;
  record.later = undefined;
  return record;
}

/** Gives a record back, whose fields mean nothing then. */
export function giveRecord(record: Transmission): void {
  record.earlier = undefined;
  record.later = undefined;
  record.state = IN_FLIGHT;
  record.isRetransmitted = false;
  record.isSplit = false;
  if (spareCount >= MAX_SPARE) return;
  record.later = spare;
  spare = record;
  spareCount++;
}

/** 4,096 records of about 110 bytes. */
const MAX_SPARE = 4_096;
