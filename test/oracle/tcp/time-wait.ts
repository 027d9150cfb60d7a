/**
 * Whether a SYN may end a connection in TIME-WAIT: the algorithm of RFC 6191 section 2, to which RFC 9293 section
 * 3.6.1 refers (SHLD-4). Its sentences are shortened here.
 * @module
 */
import { has, type Segment } from './segment.ts';
import { isAtMost, isLess } from './sequence.ts';
import type { Tcb } from './tcb.ts';

/** "honor the connection request (creating a connection in the SYN-RECEIVED state)". */
export function honorsSynInTimeWait(tcb: Tcb, SEG: Segment): boolean {
  if (!has(SEG, 'SYN') || has(SEG, 'ACK') || has(SEG, 'RST')) return false;
  return tcb.TS.isUsed ? previousUsedTimestamps(tcb, SEG) : previousUsedNone(tcb, SEG);
}

/** "If the previous incarnation of the connection used Timestamps, then" */
function previousUsedTimestamps(tcb: Tcb, SEG: Segment): boolean {
  const { timestamps } = SEG.options;
  // "If TCP Timestamps would not be enabled for the new incarnation of the connection, but the Sequence Number of the
  // incoming SYN segment is larger than the last sequence number seen on the previous incarnation"
  if (timestamps === undefined) return isLarger(tcb, SEG);
  // "the timestamp contained in the incoming SYN segment is greater than the last timestamp seen on the previous
  // incarnation of the connection"
  if (isLess(tcb.TS.Recent, timestamps.TSval)) return true;
  // "the timestamp contained in the incoming SYN segment is equal to the last timestamp seen ..., and the Sequence
  // Number of the incoming SYN segment is larger than the last sequence number seen"
  return timestamps.TSval === tcb.TS.Recent && isLarger(tcb, SEG);
  // "Otherwise, silently drop the incoming SYN segment, thus leaving the previous incarnation of the connection in the
  // TIME-WAIT state."
}

/** "If the previous incarnation of the connection did not use Timestamps, then" */
function previousUsedNone(tcb: Tcb, SEG: Segment): boolean {
  // "If TCP Timestamps would be enabled for the new incarnation of the connection, honor the incoming connection request"
  if (tcb.choices.usesTimestamps && SEG.options.timestamps !== undefined) return true;
  // "but the Sequence Number of the incoming SYN segment is larger than the last sequence number seen"
  return isLarger(tcb, SEG);
}

/** The last sequence number seen is that of the FIN, RCV.NXT-1. */
function isLarger(tcb: Tcb, SEG: Segment): boolean {
  return isAtMost(tcb.RCV.NXT, SEG.SEQ);
}
