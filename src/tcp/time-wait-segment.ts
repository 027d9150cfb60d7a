/**
 * Handles a segment for a connection in TIME-WAIT
 * ([RFC 9293 section 3.10.7.4](https://www.rfc-editor.org/rfc/rfc9293#section-3.10.7.4)).
 * @module
 */
import type { Answer } from './answers.ts';
import type { Flow } from './flow.ts';
import { FLAG_ACK, FLAG_RST, FLAG_SYN, type SegmentReader } from './segment.ts';
import { seqBefore } from './sequence.ts';
import type { TimeWaitTable } from './time-wait.ts';
import { timestampAt } from './timestamps.ts';

/** What follows: the segment is dropped, answered with an ACK, or begins a new connection. */
export type TimeWaitOutcome = 'drop' | 'answer' | 'reopen';

/**
 * A SYN may begin a new connection if it is newer by its timestamp (RFC 6191), or by its number. An exact reset ends
 * TIME-WAIT, as in Linux without `tcp_rfc1337`. A bare ACK in sequence is dropped, or two ends that are both in
 * TIME-WAIT would answer each other for ever. Any other segment with an ACK is answered, because the peer has not
 * received the last ACK.
 */
export function receiveInTimeWait(
  table: TimeWaitTable,
  entry: number,
  segment: SegmentReader
): TimeWaitOutcome {
  const rcvNxt = table.rcvNxt(entry);
  const { options, sequence } = segment;
  const hasTimestamps = table.hasTimestamps(entry) && options.hasTimestamps;
  const isOld = hasTimestamps && seqBefore(options.tsValue, table.tsRecent(entry));
  if (segment.has(FLAG_RST)) {
    if (!isOld && sequence === rcvNxt) table.remove(entry);
    return 'drop';
  }
  const isSyn = (segment.flags & (FLAG_SYN | FLAG_ACK)) === FLAG_SYN;
  const isNewer =
    seqBefore(rcvNxt, sequence) ||
    (hasTimestamps && seqBefore(table.tsRecent(entry), options.tsValue));
  if (isSyn && !isOld && isNewer) return 'reopen';
  // An ACK as expected is the peer's last one in a simultaneous close: two ends in TIME-WAIT would else answer each
  // other for ever.
  const isPlainAck = segment.length === 0 && sequence === rcvNxt && !isOld;
  return isSyn || (segment.has(FLAG_ACK) && !isPlainAck) ? 'answer' : 'drop';
}

/** Returns the last ACK of the connection. */
export function lastAck(
  table: TimeWaitTable,
  entry: number,
  flow: Flow,
  now: number,
  window: number
): Answer {
  return {
    flow,
    sequence: table.sndNxt(entry),
    acknowledgement: table.rcvNxt(entry),
    flags: FLAG_ACK,
    window,
    timestamps: table.hasTimestamps(entry)
      ? { value: timestampAt(now, table.tsOffset(entry)), echo: table.tsRecent(entry) }
      : undefined,
  };
}
