/**
 * Handles what a segment acknowledges
 * ([RFC 9293 section 3.10.7.4](https://www.rfc-editor.org/rfc/rfc9293#section-3.10.7.4), fifth step): it frees the send
 * buffer, lets loss recovery and congestion control know, takes the window, and finishes the closing.
 * @module
 */
import type { ControlBlock } from './control-block.ts';
import { setSendWindow } from './receive.ts';
import type { SegmentReader } from './segment.ts';
import { seqAdd, seqAtMost, seqBefore, seqDistance, seqMin } from './sequence.ts';
import { TcpEvent, TcpState } from './state.ts';

/** Returns false if the ACK number was never possible (RFC 5961 section 5.2); the segment must then be dropped. */
export function onAcknowledgement(
  block: ControlBlock,
  segment: SegmentReader,
  now: number
): boolean {
  const { acknowledgement } = segment;
  const { sndUna, sndNxt } = block;
  if (seqBefore(sndNxt, acknowledgement)) return false;
  if (seqBefore(acknowledgement, sndUna)) {
    return seqAtMost(seqAdd(sndUna, -block.maxSndWnd), acknowledgement);
  }
  const windowBefore = block.sndWnd;
  updateSendWindow(block, segment);
  block.isHeldBack = false;
  // A DSACK about the last retransmission comes when nothing is outstanding any more.
  const hasDsack = block.hasSack && segment.options.sackCount > 0;
  if (sndUna !== sndNxt || hasDsack)
    onNewInformation(block, segment, block.sndWnd !== windowBefore, now);
  if (windowBefore === 0 ? block.sndWnd > 0 : block.sndUna !== sndUna) stopWindowProbes(block);
  finishClosing(block, now);
  block.host.update(block);
  return true;
}

/** Takes the window of a segment that is not older than the last one that set it. */
function updateSendWindow(block: ControlBlock, segment: SegmentReader): void {
  const { sequence, acknowledgement } = segment;
  const isNewer =
    seqBefore(block.sndWl1, sequence) ||
    (block.sndWl1 === sequence && seqAtMost(block.sndWl2, acknowledgement)) ||
    seqBefore(block.sndUna, acknowledgement);
  if (isNewer) setSendWindow(block, segment, segment.window << block.sndScale);
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
  const echoMs = echoedMs(block, segment, now);
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

/** Returns when the segment was sent that the peer echoes the timestamp of, or -1. */
function echoedMs(block: ControlBlock, segment: SegmentReader, now: number): number {
  if (!block.hasTimestamps) return -1;
  const elapsed = (block.timestamp - segment.options.tsEcho) | 0;
  return elapsed >= 0 && elapsed < MAX_ECHO_MS ? Math.floor(now) - elapsed : -1;
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
  block.softFailure = undefined;
  block.stalledSince = acknowledgement === block.sndNxt ? Number.POSITIVE_INFINITY : now;
  if (!block.host.memory.isTight) {
    const wanted = Math.min(2 * congestion.cwnd, block.host.maxBufferBytes);
    if (wanted > send.capacity) send.capacity = wanted;
  }
  if (block.isWriterWaiting && send.room >= send.capacity / 4) {
    block.isWriterWaiting = false;
    block.raise(TcpEvent.Writable);
  }
}

function stopWindowProbes(block: ControlBlock): void {
  block.windowProbeAt = Number.POSITIVE_INFINITY;
  block.isWindowProbeDue = false;
  block.windowProbes = 0;
}

/** Our FIN is acknowledged. */
function finishClosing(block: ControlBlock, now: number): void {
  if (!block.isFinAcknowledged) return;
  switch (block.state) {
    case TcpState.FinWait1:
      block.state = TcpState.FinWait2;
      if (block.isReleased) block.lingerAt = now + FIN_WAIT_2_MS;
      break;
    case TcpState.Closing:
      block.enterTimeWait();
      break;
    case TcpState.LastAck:
      block.end();
      break;
  }
}

/** An echo that is older says nothing. */
const MAX_ECHO_MS = 0x3fff_ffff;
/** As Linux's `tcp_fin_timeout`: how long a connection without an application waits for the peer's FIN. */
export const FIN_WAIT_2_MS = 60_000;
