/**
 * Handles one segment that arrives for a connection, in the order of
 * [RFC 9293 section 3.10.7](https://www.rfc-editor.org/rfc/rfc9293#section-3.10.7):
 *
 * 1. Timestamps: old duplicates are refused (PAWS, RFC 7323 section 5).
 * 2. The sequence number: at least a part of the segment must be in the window.
 * 3. RST, 4. SYN, both as RFC 5961 says: a number that is not exact is challenged.
 * 5. ACK: `acknowledge.ts` handles what it acknowledges.
 * 6. Payload and FIN: `receive-payload.ts`.
 *
 * A segment never causes an exception. What is dropped is counted.
 * @module
 */
import { isPossible, onAcknowledgement } from './acknowledge.ts';
import { ANSWER_INTERVAL_MS, isBare } from './answers.ts';
import type { ControlBlock } from './control-block.ts';
import { answersSimultaneousOpen, completeHandshake } from './handshake.ts';
import { receivePayload } from './receive-payload.ts';
import { FLAG_ACK, FLAG_RST, FLAG_SYN, type SegmentReader } from './segment.ts';
import { seqAdd, seqBefore, seqDistance, seqMin } from './sequence.ts';
import { TcpState } from './state.ts';

/** Handles a segment in every state but SYN-SENT (RFC 9293 section 3.10.7.4). */
export function receiveSegment(block: ControlBlock, segment: SegmentReader, now: number): void {
  const { counters } = block.host;
  if (!checkTimestamp(block, segment, now)) return;
  if (answersSimultaneousOpen(block, segment)) {
    if (!completeHandshake(block, segment)) return;
    block.onHeard(now);
    block.isAckDue = true;
    block.host.update(block);
    return;
  }
  if (!isInWindow(block, segment)) {
    counters.dropOutsideWindow++;
    if (!segment.has(FLAG_RST)) answerOutside(block, segment, now);
    return;
  }
  if (segment.has(FLAG_RST)) {
    // RFC 5961 section 3.2: only the exact number resets.
    if (segment.sequence === block.window.next) reset(block);
    else challenge(block, now);
    return;
  }
  if (segment.has(FLAG_SYN)) {
    // RFC 5961 section 4.2: a peer that has restarted answers the challenge with a RST that is exact.
    challenge(block, now);
    return;
  }
  if (!segment.has(FLAG_ACK)) {
    counters.dropBadAck++;
    return;
  }
  if (block.state === TcpState.SynReceived && !completeHandshake(block, segment)) return;
  if (!isPossible(block, segment.acknowledgement)) {
    counters.dropBadAck++;
    challenge(block, now);
    return;
  }
  // Not before: a forged segment, whose ACK number is wrong, must not make those of the peer look old.
  block.timestamps.update(segment, now);
  block.onHeard(now);
  onAcknowledgement(block, segment, now);
  // An acknowledgement may end the connection.
  if (block.state === TcpState.Closed || block.state === TcpState.TimeWait) return;
  receivePayload(block, segment, now);
}

/** Protects against wrapped sequence numbers (PAWS, RFC 7323 section 5.3). */
function checkTimestamp(block: ControlBlock, segment: SegmentReader, now: number): boolean {
  const { timestamps } = block;
  if (!timestamps.isUsed || segment.has(FLAG_RST)) return true;
  const { options } = segment;
  if (!options.hasTimestamps) {
    // Section 3.2: a segment without the option is dropped silently.
    block.host.counters.dropBadAck++;
    return false;
  }
  if (!timestamps.isOld(options.tsValue, now)) return true;
  block.host.counters.dropOldTimestamp++;
  answerOutside(block, segment, now);
  return false;
}

/** The acceptability test (RFC 9293 section 3.4, table 6). */
function isInWindow(block: ControlBlock, segment: SegmentReader): boolean {
  const { window } = block;
  const { length, sequence } = segment;
  const offset = seqDistance(window.next, sequence);
  const { size } = window;
  if (length === 0) return size === 0 ? offset === 0 : offset >= 0 && offset < size;
  // With a window of 0 the payload is dropped, but a valid ACK, RST or FIN counts (section 3.10.7.4).
  if (size === 0) return offset === 0;
  return offset < size && offset + length > 0;
}

/**
 * Answers a segment outside of the window with an ACK, which tells the peer our numbers. Answers to segments without
 * payload are limited: two ends whose numbers do not fit would else answer each other for ever.
 */
function answerOutside(block: ControlBlock, segment: SegmentReader, now: number): void {
  if (isBare(segment)) {
    challenge(block, now);
    return;
  }
  const { sequence } = segment;
  const { next } = block.window;
  if (seqBefore(sequence, next)) {
    block.reportDuplicate(sequence, seqMin(seqAdd(sequence, segment.length), next));
  }
  block.isAckDue = true;
  block.host.update(block);
}

/** Sends a challenge ACK, at most one in 500 ms (RFC 5961 section 7, for each connection: CVE-2016-5696). */
function challenge(block: ControlBlock, now: number): void {
  if (now - block.challengeAt < ANSWER_INTERVAL_MS) return;
  block.challengeAt = now;
  if (block.host.answer(block, false)) block.host.counters.challengeAcks++;
}

function reset(block: ControlBlock): void {
  block.end(block.state === TcpState.SynReceived ? 'refused' : 'reset');
}
