/**
 * What a `TcpEndpoint` chooses where RFC 9293 leaves it open, and where it differs from the RFC on purpose.
 * @module
 */
import { has, lengthOf, type Segment } from '../oracle/tcp/segment.ts';
import { isWithin } from '../oracle/tcp/sequence.ts';
import type { Choices, Tcb } from '../oracle/tcp/tcb.ts';
import { isRejectedByPaws } from '../oracle/tcp/timestamps.ts';

export const ENDPOINT_CHOICES: Partial<Choices> = {
  usesTimestamps: true,
  dropsWithoutTimestamps: true,
  // A shift count is offered; which one says the SYN.
  windowScale: 0,
  // No TCP Fast Open (RFC 7413): the peer sends it again.
  keepsTextOfSyn: false,
  // `end()` on a socket that connects sends FIN after the handshake, as `net.Socket` does.
  closeInSynSent: 'queue',
  // As Linux, whose handling of these the peers are used to.
  recordsBehindAckCheck: true,
  recordsInTimeWait: false,
  windowUpdates: 'highest ACK',
  countsWindowOfSyn: false,
  resetInFront: 'challenge',
  resetInTimeWait: 'silence',
  abortWhileClosing: 'reset',
  // RFC 5961 section 4: a forged SYN does not end a handshake.
  synInSynReceived: 'challenge',
  takesFinBehindWindow: true,
  emptySegments: 'in the window',
};

/** Segments that are handled otherwise than the RFC has it, on purpose. */
export function differsOnPurpose(tcb: Tcb, SEG: Segment): boolean {
  if (tcb.state === 'SYN-RECEIVED')
    return tcb.isPassive ? inHalfOpen(tcb, SEG) : inCrossing(tcb, SEG);
  return tcb.state === 'TIME-WAIT' && inTimeWait(tcb, SEG);
}

/**
 * A half-open connection is an entry of a small table: segments without ACK are dropped silently, and text that begins in
 * front of the window does not complete the handshake.
 */
function inHalfOpen(tcb: Tcb, SEG: Segment): boolean {
  if (has(SEG, 'SYN') && tcb.TS.isUsed && SEG.options.timestamps === undefined) return true;
  return !has(SEG, 'ACK') || !isWithin(SEG.SEQ, tcb.RCV.NXT, tcb.RCV.WND);
}

/** After a simultaneous open the SYN,ACK is sent again until it is answered; old segments are not. */
function inCrossing(tcb: Tcb, SEG: Segment): boolean {
  return isRejectedByPaws(tcb, SEG) || !isWithin(SEG.SEQ, tcb.RCV.NXT, tcb.RCV.WND);
}

/**
 * As Linux: segments without timestamps are answered as others are, and those without ACK are dropped; RSTs with an old
 * timestamp do nothing; an ACK that is in sequence is not answered, whatever it acknowledges.
 */
function inTimeWait(tcb: Tcb, SEG: Segment): boolean {
  const isNext = SEG.SEQ === tcb.RCV.NXT;
  if (tcb.TS.isUsed && SEG.options.timestamps === undefined) return true;
  if (!has(SEG, 'ACK') && !has(SEG, 'RST') && !has(SEG, 'SYN')) return true;
  if (has(SEG, 'RST')) return isRejectedByPaws(tcb, { ...SEG, CTL: [] });
  return isNext && lengthOf(SEG) === 0 && SEG.ACK !== tcb.SND.NXT;
}
