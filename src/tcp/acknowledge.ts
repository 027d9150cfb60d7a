/**
 * Handles what a segment acknowledges
 * ([RFC 9293 section 3.10.7.4](https://www.rfc-editor.org/rfc/rfc9293#section-3.10.7.4), fifth step): it frees the send
 * buffer, lets loss recovery and congestion control know, takes the window, and finishes the closing.
 * @module
 */
import type { ControlBlock } from './control-block.ts';
import type { SegmentReader } from './segment.ts';
import { seqAdd, seqAtMost, seqBefore, seqDistance, seqMin } from './sequence.ts';
import { TcpEvent, TcpState } from './state.ts';
import { limitFinWait2 } from './timers.ts';

/** Whether an ACK number is one that the peer may have sent (RFC 5961 section 5.2). */
export function isPossible(block: ControlBlock, acknowledgement: number): boolean {
  const { sndUna, sndNxt, sendWindow } = block;
  if (seqBefore(sndNxt, acknowledgement)) return false;
  return seqAtMost(seqAdd(sndUna, -sendWindow.max), acknowledgement);
}

/** Handles an ACK whose number is possible. */
export function onAcknowledgement(block: ControlBlock, segment: SegmentReader, now: number): void {
  const { sndUna, sndNxt } = block;
  if (seqBefore(segment.acknowledgement, sndUna)) return;
  const { sendWindow } = block;
  const windowBefore = sendWindow.size;
  sendWindow.update(segment, sndUna);
  block.isHeldBack = false;
  // A DSACK about the last retransmission comes when nothing is outstanding any more.
  const hasDsack = block.hasSack && segment.options.sackCount > 0;
  const isWindowNew = sendWindow.size !== windowBefore;
  if (sndUna !== sndNxt || hasDsack) onNewInformation(block, segment, isWindowNew, now);
  const isOpen = windowBefore === 0 ? sendWindow.size > 0 : block.sndUna !== sndUna;
  if (isOpen) block.windowProbe?.stop();
  // A peer that has closed its window and answers is no reason to give up (RFC 9293 section 3.8.6.1, SHLD-17). With
  // nothing outstanding, probes of the window find out whether it still answers.
  if (sendWindow.size === 0 && !block.isReleased) {
    block.stalledSince = block.sndUna === block.sndNxt ? Number.POSITIVE_INFINITY : now;
  }
  finishClosing(block, now);
  block.host.update(block);
}

/** Something is outstanding: the segment may acknowledge it, or tell by SACK what arrived. */
function onNewInformation(
  block: ControlBlock,
  segment: SegmentReader,
  isWindowNew: boolean,
  now: number
): void {
  const { loss, congestion, rtt } = block;
  const { acknowledgement, options } = segment;
  const sackCount = block.hasSack ? options.sackCount : 0;
  const echoMs = block.timestamps.sentAt(options.tsEcho, now, block.synSentAt);
  const { sndUna, sndNxt } = block;
  const isPlain = segment.length === 0 && !isWindowNew;
  loss.onAck(acknowledgement, sndUna, sndNxt, options.sack, sackCount, echoMs, now, isPlain);
  const { found } = loss;
  const { acked } = found;
  if (acked > 0) advance(block, acknowledgement, now);
  if (found.isSpurious) {
    block.host.counters.undone++;
    congestion.undo(now);
  }
  if (found.hasLeft) congestion.exitRecovery();
  if (found.hasEntered) congestion.enterRecovery(found.inFlightBefore, now, block.hasSack);
  if (found.hasRepairedTail) congestion.onLocalDrop(found.inFlightBefore);
  if (loss.phase === 'recovery') {
    congestion.onRecoveryAck(found.delivered, loss.inFlight, acked > 0, found.newlyLost);
  } else if (acked > 0) {
    // In slow start the window grows if more than half of it was used, as in Linux.
    const isLimited =
      block.isCwndLimited ||
      block.wasCwndLimited ||
      (congestion.isInSlowStart && 2 * found.inFlightBefore > congestion.cwnd);
    congestion.onAck(acked, now, found.rttMs, rtt.srttMs, isLimited, found.roundEnded);
  }
  if (found.roundEnded) {
    block.wasCwndLimited = block.isCwndLimited;
    block.isCwndLimited = false;
  }
}

/** SND.UNA advances. */
function advance(block: ControlBlock, acknowledgement: number, now: number): void {
  const { send, congestion } = block;
  const freed = seqDistance(block.sndFront, seqMin(acknowledgement, block.dataEnd));
  if (freed > 0) {
    send.drop(freed);
    block.sndFront = seqAdd(block.sndFront, freed);
  }
  block.sndUna = acknowledgement;
  block.onProgress(freed, now);
  if (block.hasLocalDrop && seqAtMost(block.localDropEnd, acknowledgement))
    block.hasLocalDrop = false;
  block.softFailure = undefined;
  block.stalledSince = acknowledgement === block.sndNxt ? Number.POSITIVE_INFINITY : now;
  if (!block.memory.isTight) {
    const wanted = Math.min(2 * congestion.cwnd, block.host.maxBufferBytes);
    if (wanted > send.capacity) send.capacity = wanted;
  }
  if (block.isWriterWaiting && send.room >= send.capacity / 4) {
    block.isWriterWaiting = false;
    block.raise(TcpEvent.Writable);
  }
}

/** Our FIN is acknowledged. */
function finishClosing(block: ControlBlock, now: number): void {
  if (!block.isFinAcknowledged) return;
  switch (block.state) {
    case TcpState.FinWait1:
      block.state = TcpState.FinWait2;
      if (block.isReleased) limitFinWait2(block, now);
      break;
    case TcpState.Closing:
      block.enterTimeWait();
      break;
    case TcpState.LastAck:
      block.end();
      break;
  }
}
