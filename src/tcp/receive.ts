/**
 * Handles one segment that arrives for a connection, in the order of
 * [RFC 9293 section 3.10.7](https://www.rfc-editor.org/rfc/rfc9293#section-3.10.7):
 *
 * 1. Timestamps: old duplicates are refused (PAWS, RFC 7323 section 5).
 * 2. The sequence number: at least a part of the segment must be in the window.
 * 3. RST, 4. SYN, both as RFC 5961 says: a number that is not exact is challenged.
 * 5. ACK: `acknowledge.ts` handles what it acknowledges.
 * 6. Payload goes to the receive buffer. 7. FIN.
 *
 * A segment never causes an exception. What is dropped is counted.
 * @module
 */
import { isPossible, onAcknowledgement } from './acknowledge.ts';
import type { ControlBlock } from './control-block.ts';
import type { HalfOpen } from './half-open.ts';
import { WINDOW_SCALE } from './passive-open.ts';
import { FLAG_ACK, FLAG_FIN, FLAG_RST, FLAG_SYN, type SegmentReader } from './segment.ts';
import { seqAdd, seqAtMost, seqBefore, seqDistance, seqMin } from './sequence.ts';
import { TcpEvent, TcpState } from './state.ts';

/** Handles a segment in every state but SYN-SENT (RFC 9293 section 3.10.7.4). */
export function receiveSegment(block: ControlBlock, segment: SegmentReader, now: number): void {
  const { counters } = block.host;
  if (!checkTimestamp(block, segment, now)) return;
  if (answersSimultaneousOpen(block, segment)) {
    if (!completeHandshake(block, segment)) return;
    heard(block, now);
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
  // Only now: a forged segment whose ACK number is wrong must not make those of the peer look old.
  if (block.hasTimestamps && seqAtMost(segment.sequence, block.lastAckSent)) {
    block.tsRecent = segment.options.tsValue;
    block.tsRecentAt = now;
  }
  heard(block, now);
  onAcknowledgement(block, segment, now);
  // An acknowledgement may end the connection.
  if (block.state === TcpState.Closed || block.state === TcpState.TimeWait) return;
  receivePayload(block, segment, now);
}

/**
 * Whether this is the SYN-ACK of a peer that opened at the same time (RFC 9293 section 3.5, figure 8). Its SYN was
 * received before, so it is in front of the window.
 */
function answersSimultaneousOpen(block: ControlBlock, segment: SegmentReader): boolean {
  return (
    block.state === TcpState.SynReceived &&
    (segment.flags & (FLAG_SYN | FLAG_ACK | FLAG_RST)) === (FLAG_SYN | FLAG_ACK) &&
    segment.sequence === block.irs &&
    segment.length === 1
  );
}

/** Handles a segment in SYN-SENT (RFC 9293 section 3.10.7.3). */
export function receiveInSynSent(block: ControlBlock, segment: SegmentReader, now: number): void {
  const hasAck = segment.has(FLAG_ACK);
  if (hasAck && segment.acknowledgement !== block.sndNxt) {
    block.host.counters.dropBadAck++;
    if (!segment.has(FLAG_RST)) answerWrongAck(block, segment.acknowledgement);
    return;
  }
  if (segment.has(FLAG_RST)) {
    if (hasAck) block.end('refused');
    else block.host.counters.dropBadAck++;
    return;
  }
  if (!segment.has(FLAG_SYN)) {
    block.host.counters.dropBadAck++;
    return;
  }
  acceptSyn(block, segment, now);
  heard(block, now);
  if (!hasAck) {
    // Both ends opened at the same time (section 3.5): the SYN is sent again, with an ACK.
    block.state = TcpState.SynReceived;
    block.isSynDue = true;
    block.host.update(block);
    return;
  }
  sampleHandshake(block, segment, now);
  establish(block, segment);
  block.isAckDue = true;
  block.host.update(block);
}

/** Takes the peer's SYN: its number and its options. */
export function acceptSyn(block: ControlBlock, segment: SegmentReader, now: number): void {
  const { options } = segment;
  block.irs = segment.sequence;
  block.window.open(seqAdd(segment.sequence, 1));
  // Our SYN has offered this window.
  block.offerWindow(0);
  block.lastAckSent = block.window.next;
  setPeerMss(block, options.mss);
  block.hasScale &&= options.windowScale >= 0;
  block.sndScale = block.hasScale ? options.windowScale : 0;
  if (!block.hasScale) block.window.scale = 0;
  block.hasSack &&= options.isSackPermitted;
  block.hasTimestamps &&= options.hasTimestamps;
  if (block.hasTimestamps) {
    block.tsRecent = options.tsValue;
    block.tsRecentAt = now;
  }
  block.loss.hasSack = block.hasSack;
  block.beginCongestion();
  // The window of a SYN is not scaled (RFC 7323 section 2.2).
  setSendWindow(block, segment, segment.window);
}

/** Begins a connection whose handshake a peer has opened and now completes. */
export function acceptHandshake(
  block: ControlBlock,
  opening: HalfOpen,
  segment: SegmentReader,
  now: number
): void {
  block.irs = opening.irs;
  block.window.open(seqAdd(opening.irs, 1));
  block.offerWindow(0);
  block.lastAckSent = block.window.next;
  setPeerMss(block, opening.mss);
  block.hasScale = opening.windowScale >= 0;
  block.sndScale = Math.max(opening.windowScale, 0);
  block.window.scale = block.hasScale ? WINDOW_SCALE : 0;
  block.hasSack = opening.sackPermitted;
  block.hasTimestamps = opening.timestamps;
  block.tsRecent = opening.tsRecent;
  block.tsRecentAt = now;
  block.loss.hasSack = block.hasSack;
  block.beginCongestion();
  block.synRetries = opening.retries;
  block.synSentAt = opening.openedAt;
  sampleHandshake(block, segment, now);
  establish(block, segment);
  setSendWindow(block, segment, segment.window << block.sndScale);
  heard(block, now);
}

/** The handshake is complete with this segment, whose ACK covers our SYN. */
export function establish(block: ControlBlock, segment: SegmentReader): void {
  block.sndUna = segment.acknowledgement;
  block.synAt = Number.POSITIVE_INFINITY;
  block.isSynDue = false;
  block.stalledSince = Number.POSITIVE_INFINITY;
  block.state = TcpState.Established;
  if (block.synRetries > 0) block.rtt.onSynTimedOut();
  if (block.synRetries > 1) block.congestion.onSynTimedOut();
  block.raise(TcpEvent.Connected);
  if (block.isFinQueued) block.state = TcpState.FinWait1;
}

/** @param mss what the peer's SYN announced, -1 if nothing (RFC 9293 section 3.7.1) */
function setPeerMss(block: ControlBlock, mss: number): void {
  block.peerMss = mss < 0 ? DEFAULT_MSS[block.flow.family] : Math.max(mss, MIN_PEER_MSS);
}

/** Sets SND.WND. */
export function setSendWindow(block: ControlBlock, segment: SegmentReader, window: number): void {
  block.sndWnd = window;
  block.sndWl1 = segment.sequence;
  block.sndWl2 = segment.acknowledgement;
  if (window > block.maxSndWnd) block.maxSndWnd = window;
}

/** In SYN-RECEIVED the ACK must cover our SYN; else RFC 9293 answers with a reset. */
function completeHandshake(block: ControlBlock, segment: SegmentReader): boolean {
  if (segment.acknowledgement !== block.sndNxt) {
    block.host.counters.dropBadAck++;
    answerWrongAck(block, segment.acknowledgement);
    return false;
  }
  sampleHandshake(block, segment, block.host.now);
  establish(block, segment);
  setSendWindow(block, segment, segment.window << block.sndScale);
  return true;
}

function answerWrongAck(block: ControlBlock, acknowledgement: number): void {
  const { sndNxt } = block;
  block.sndNxt = acknowledgement;
  block.host.answer(block, true);
  block.sndNxt = sndNxt;
}

/** The round trip of the SYN, if it was sent once or the echo says which one was answered (RFC 6298 section 3). */
function sampleHandshake(block: ControlBlock, segment: SegmentReader, now: number): void {
  if (block.synRetries === 0) {
    block.rtt.sample(now - block.synSentAt, now);
  } else if (block.hasTimestamps) {
    const elapsed = (block.timestamp - segment.options.tsEcho) | 0;
    // An echo of something else says nothing.
    if (elapsed >= 0 && elapsed < MAX_HANDSHAKE_MS) block.rtt.sample(elapsed, now);
  }
}

/** Something valid came from the peer. */
function heard(block: ControlBlock, now: number): void {
  block.heardAt = now;
  block.keepalives = 0;
  if (block.keepAliveMs > 0) block.keepaliveAt = now + block.keepAliveMs;
}

/**
 * Protects against wrapped sequence numbers (PAWS, RFC 7323 section 5.3). TS.Recent is not valid any more after 24 days
 * without a segment (section 5.5).
 */
function checkTimestamp(block: ControlBlock, segment: SegmentReader, now: number): boolean {
  if (!block.hasTimestamps || segment.has(FLAG_RST)) return true;
  const { options } = segment;
  if (!options.hasTimestamps) {
    // Section 3.2: a segment without the option is dropped silently.
    block.host.counters.dropBadAck++;
    return false;
  }
  const isOld = seqBefore(options.tsValue, block.tsRecent);
  if (!isOld || now - block.tsRecentAt > PAWS_IDLE_MS) return true;
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
  const { payload, end, sequence } = segment;
  if (end === payload && !segment.has(FLAG_FIN)) {
    challenge(block, now);
    return;
  }
  if (seqBefore(sequence, block.window.next)) {
    reportDuplicate(block, sequence, seqMin(seqAdd(sequence, end - payload), block.window.next));
  }
  block.isAckDue = true;
  block.host.update(block);
}

/**
 * Whether an answer to a segment that fits no connection must wait: two such ends would else answer each other's answers
 * for ever, as fast as they can. What has payload or a FIN is no answer, and the peer waits for its ACK.
 */
export function isAnswerLimited(segment: SegmentReader, answeredAt: number, now: number): boolean {
  const isBare = segment.end === segment.payload && !segment.has(FLAG_FIN);
  return isBare && now - answeredAt < CHALLENGE_INTERVAL_MS;
}

/** Sends a challenge ACK, at most one in 500 ms (RFC 5961 section 7, for each connection: CVE-2016-5696). */
function challenge(block: ControlBlock, now: number): void {
  if (now - block.challengeAt < CHALLENGE_INTERVAL_MS) return;
  block.challengeAt = now;
  block.host.counters.challengeAcks++;
  block.host.answer(block, false);
}

function reset(block: ControlBlock): void {
  block.end(block.state === TcpState.SynReceived ? 'refused' : 'reset');
}

function receivePayload(block: ControlBlock, segment: SegmentReader, now: number): void {
  const { window } = block;
  const length = segment.end - segment.payload;
  const hasFin = segment.has(FLAG_FIN);
  if (length === 0 && !hasFin) return;
  if (block.isFinReceived) {
    // Everything in front of the peer's FIN was received before.
    return;
  }
  const offset = seqDistance(window.next, segment.sequence);
  const room = window.size;
  const skipped = Math.max(-offset, 0);
  const fits = Math.min(offset + length, room) - Math.max(offset, 0);
  if (fits > 0 && block.isReceiveShut) {
    // RFC 9293 section 3.6.1: data that nobody will read is answered by a reset.
    block.host.answer(block, true);
    block.end('reset');
    return;
  }
  // A FIN takes no place in the buffer, so it may follow directly behind the window.
  if (hasFin && offset + length <= room) {
    block.hasEarlyFin = true;
    block.earlyFin = seqAdd(segment.sequence, length);
  }
  const hadGap = block.receive.outOfOrder > 0;
  if (fits > 0) store(block, segment, skipped, Math.max(offset, 0), fits);
  if (skipped > 0) {
    reportDuplicate(block, segment.sequence, seqAdd(segment.sequence, Math.min(skipped, length)));
  }
  if (block.hasEarlyFin && block.earlyFin === window.next) receiveFin(block);
  const isOutOfOrder = hadGap || offset > 0 || skipped > 0 || fits < length - skipped;
  planAck(block, isOutOfOrder, now);
}

function store(
  block: ControlBlock,
  segment: SegmentReader,
  skipped: number,
  offset: number,
  length: number
): void {
  const { window, receive } = block;
  const start = segment.payload + skipped;
  const before = receive.outOfOrder;
  const left = window.next;
  const advance = receive.insert(segment.buffer, start, start + length, offset);
  if (receive.duplicateFrom >= 0) {
    reportDuplicate(block, seqAdd(left, receive.duplicateFrom), seqAdd(left, receive.duplicateTo));
  } else if (advance === 0 && receive.outOfOrder === before) {
    block.host.counters.dropNoMemory++;
  }
  if (length > window.largest) window.largest = length;
  if (advance === 0) return;
  window.next = seqAdd(window.next, advance);
  block.unacknowledged += advance;
  block.raise(TcpEvent.Readable);
}

/** RFC 2883: the first SACK block of the next ACK reports what came twice. */
function reportDuplicate(block: ControlBlock, left: number, right: number): void {
  if (!block.hasSack) return;
  block.hasDuplicate = true;
  block.duplicateLeft = left;
  block.duplicateRight = right;
}

/** RFC 9293 section 3.10.7.4, eighth step. */
function receiveFin(block: ControlBlock): void {
  block.window.next = seqAdd(block.window.next, 1);
  // The window does not move back although the FIN has taken a number of it.
  if (block.window.size < 0) block.window.edge = block.window.next;
  block.hasEarlyFin = false;
  block.isFinReceived = true;
  block.isAckDue = true;
  block.raise(TcpEvent.ReadEnded);
  switch (block.state) {
    case TcpState.SynReceived:
    case TcpState.Established:
      block.state = TcpState.CloseWait;
      break;
    case TcpState.FinWait1:
      block.state = TcpState.Closing;
      break;
    case TcpState.FinWait2:
      block.enterTimeWait();
      break;
  }
}

/**
 * Decides when to acknowledge (RFC 9293 section 3.8.6.3, RFC 5681 section 4.2): at once if two units have come, or if
 * the segment is out of order, fills a gap or came twice; else within 40 ms.
 */
function planAck(block: ControlBlock, isOutOfOrder: boolean, now: number): void {
  if (isOutOfOrder || block.unacknowledged >= 2 * block.unit || block.isFinReceived) {
    block.isAckDue = true;
  } else if (block.unacknowledged > 0 && block.ackAt === Number.POSITIVE_INFINITY) {
    block.ackAt = now + DELAYED_ACK_MS;
  }
  block.host.update(block);
}

const DEFAULT_MSS: Readonly<Record<4 | 6, number>> = { 4: 536, 6: 1_220 };
/** As Linux: a smaller MSS makes a peer send many small segments (CVE-2019-11479). */
const MIN_PEER_MSS = 48;
/** The time of all repetitions of a SYN. */
const MAX_HANDSHAKE_MS = 127_000;
const PAWS_IDLE_MS = 24 * 24 * 3_600_000;
const CHALLENGE_INTERVAL_MS = 500;
/** RFC 9293 allows up to 500 ms; 40 ms is Linux's least. */
const DELAYED_ACK_MS = 40;
