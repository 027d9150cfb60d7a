/**
 * The end of a handshake: the peer's SYN or SYN-ACK in SYN-SENT
 * ([RFC 9293 section 3.10.7.3](https://www.rfc-editor.org/rfc/rfc9293#section-3.10.7.3)), the ACK in SYN-RECEIVED, and
 * what both ends have agreed on. The handshakes that peers begin are in `passive-open.ts` until their last segment.
 * @module
 */
import type { ControlBlock } from './control-block.ts';
import type { HalfOpen } from './half-open.ts';
import { WINDOW_SCALE } from './receive-window.ts';
import { FLAG_ACK, FLAG_RST, FLAG_SYN, type SegmentReader } from './segment.ts';
import { seqAdd } from './sequence.ts';
import { TcpEvent, TcpState } from './state.ts';

/**
 * Whether this is the SYN-ACK of a peer that opened at the same time (RFC 9293 section 3.5, figure 8). Its SYN was
 * received before, so it is in front of the window.
 */
export function answersSimultaneousOpen(block: ControlBlock, segment: SegmentReader): boolean {
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
    if (!segment.has(FLAG_RST)) block.host.refuse(block, segment.acknowledgement);
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
  block.onHeard(now);
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
  const { timestamps } = block;
  block.irs = segment.sequence;
  block.window.open(seqAdd(segment.sequence, 1), block.window.size);
  block.timestamps.lastAckSent = block.window.next;
  setPeerMss(block, options.mss);
  block.hasScale &&= options.windowScale >= 0;
  block.sendWindow.scale = block.hasScale ? options.windowScale : 0;
  if (!block.hasScale) block.window.scale = 0;
  block.hasSack &&= options.isSackPermitted;
  timestamps.isUsed &&= options.hasTimestamps;
  if (timestamps.isUsed) timestamps.begin(options.tsValue, now);
  block.loss.hasSack = block.hasSack;
  block.beginCongestion();
  block.sendWindow.begin(segment);
}

/** Begins a connection whose handshake a peer has opened and now completes. */
export function acceptHandshake(
  block: ControlBlock,
  opening: HalfOpen,
  segment: SegmentReader,
  now: number
): void {
  block.irs = opening.irs;
  block.window.open(seqAdd(opening.irs, 1), opening.window);
  block.timestamps.lastAckSent = block.window.next;
  setPeerMss(block, opening.mss);
  block.hasScale = opening.windowScale >= 0;
  block.sendWindow.scale = Math.max(opening.windowScale, 0);
  block.window.scale = block.hasScale ? WINDOW_SCALE : 0;
  block.hasSack = opening.sackPermitted;
  block.timestamps.isUsed = opening.timestamps;
  block.timestamps.begin(opening.tsRecent, now);
  block.loss.hasSack = block.hasSack;
  block.beginCongestion();
  block.synRetries = opening.retries;
  block.synSentAt = opening.openedAt;
  sampleHandshake(block, segment, now);
  establish(block, segment);
  block.sendWindow.take(segment);
  block.onHeard(now);
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
  if (mss >= 0) block.peerMss = Math.max(mss, MIN_PEER_MSS);
}

/** In SYN-RECEIVED the ACK must cover our SYN; else RFC 9293 answers with a reset. */
export function completeHandshake(block: ControlBlock, segment: SegmentReader): boolean {
  if (segment.acknowledgement !== block.sndNxt) {
    block.host.counters.dropBadAck++;
    block.host.refuse(block, segment.acknowledgement);
    return false;
  }
  sampleHandshake(block, segment, block.host.now);
  establish(block, segment);
  block.sendWindow.take(segment);
  return true;
}

/** The round trip of the SYN, if it was sent once or the echo says which one was answered (RFC 6298 section 3). */
function sampleHandshake(block: ControlBlock, segment: SegmentReader, now: number): void {
  if (block.synRetries === 0) {
    block.rtt.sample(now - block.synSentAt, now);
  } else {
    const sentAt = block.timestamps.sentAt(segment.options.tsEcho, now, now - MAX_HANDSHAKE_MS);
    if (sentAt >= 0) block.rtt.sample(now - sentAt, now);
  }
}

/** As Linux: a smaller MSS makes us send many small segments (CVE-2019-11479). */
const MIN_PEER_MSS = 48;
/** The time of all repetitions of a SYN. */
const MAX_HANDSHAKE_MS = 127_000;
