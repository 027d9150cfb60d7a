/**
 * SEGMENT ARRIVES in the states from SYN-RECEIVED on (RFC 9293 section 3.10.7.4): eight checks, in their order. A
 * function stands for a paragraph and quotes it. Functions that answer whether processing ends ("return") are named
 * `...Ends`. Security compartments (the third check) are left out.
 *
 * The checks of RST, SYN and ACK are made when a segment arrives, also if it begins behind RCV.NXT; only its text and
 * FIN are held for later: RFC 5961 section 3 needs that for RST, and section 3.8.6 speaks of window updates that pass
 * lost text.
 * @module
 */
import { adjustWindow } from './calls.ts';
import { endOf, has, lengthOf, type Segment, segmentOf, textStartOf } from './segment.ts';
import {
  sendAbort,
  sendAck,
  sendChallengeAck,
  sendResetForAck,
  sendResetWithoutAck,
} from './send.ts';
import { isAfterUpTo, isAtMost, isFromUpTo, isLess, isWithin, minus, plus } from './sequence.ts';
import { deleteTcb, flushQueues, signal, type Tcb } from './tcb.ts';
import { isRejectedByPaws, lacksTimestamps, recordTimestamp, scaledWindow } from './timestamps.ts';

export function arrivesSynchronized(tcb: Tcb, SEG: Segment): void {
  if (simultaneousOpenEnds(tcb, SEG)) return;
  if (firstSequenceEnds(tcb, SEG)) return;
  if (secondResetEnds(tcb, SEG)) return;
  if (fourthSynEnds(tcb, SEG)) return;
  if (fifthAckEnds(tcb, SEG)) return;
  processFrom(tcb, SEG);
}

/** The sixth check and those behind it; and the segments that were held because this one was missing. */
export function processFrom(tcb: Tcb, SEG: Segment): void {
  sixthUrgent(tcb, SEG);
  const before = tcb.RCV.NXT;
  // A FIN alone behind a gap leaves nothing to report.
  const holdsText = () => tcb.held.some(({ text }) => text.length > 0);
  const hadGap = holdsText();
  const countBefore = tcb.held.length;
  for (let next: Segment | undefined = SEG; next !== undefined; next = takeHeld(tcb)) {
    if (seventhTextEnds(tcb, next)) return;
    eighthFin(tcb, next);
  }
  // "if the TCP endpoint is processing a series of queued segments, it MUST process them all before sending any ACK
  // segments (MUST-59)"
  const isHeld = tcb.held.length > countBefore;
  const hasGap = isHeld || (holdsText() && lengthOf(SEG) > 0);
  // RFC 5681 section 4.2: at once, if the segment left a gap or fills all or part of one.
  if (hasGap || (hadGap && tcb.RCV.NXT !== before)) sendAck(tcb, 'out of order');
  else if (tcb.RCV.NXT !== before) sendAck(tcb, 'acknowledge');
}

/**
 * Line 6 of figure 7 (section 3.5): in a simultaneous open the SYN,ACK of the peer ends SYN-RECEIVED. Its SYN came
 * before, so that the first check would answer by an ACK; both ends would reach ESTABLISHED by these ACKs, a step later.
 * The figure is followed, as deployed stacks do.
 */
function simultaneousOpenEnds(tcb: Tcb, SEG: Segment): boolean {
  if (tcb.state !== 'SYN-RECEIVED' || tcb.isPassive) return false;
  if (!has(SEG, 'SYN') || !has(SEG, 'ACK') || has(SEG, 'RST')) return false;
  if (SEG.SEQ !== tcb.IRS || !isAfterUpTo(tcb.SND.UNA, SEG.ACK, tcb.SND.NXT)) return false;
  if (lacksTimestamps(tcb, SEG) || isRejectedByPaws(tcb, SEG)) return false;
  recordTimestamp(tcb, SEG);
  acknowledge(tcb, SEG.ACK);
  enterEstablished(tcb, SEG);
  sendAck(tcb, 'may');
  processFrom(tcb, SEG);
  return true;
}

/**
 * "First, check sequence number: ... If an incoming segment is not acceptable, an acknowledgment should be sent in reply
 * (unless the RST bit is set, if so drop the segment and return): <SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>. After sending the
 * acknowledgment, drop the unacceptable segment and return."
 */
function firstSequenceEnds(tcb: Tcb, SEG: Segment): boolean {
  if (lacksTimestamps(tcb, SEG)) return true;
  if (!isRejectedByPaws(tcb, SEG)) {
    if (isAcceptable(tcb, SEG) || isExpandedAcceptable(tcb, SEG)) {
      if (!tcb.choices.recordsBehindAckCheck) recordTimestamp(tcb, SEG);
      return false;
    }
    if (hasSpecialAllowance(tcb, SEG)) {
      if (!has(SEG, 'RST')) sendAck(tcb, 'not acceptable');
      return false;
    }
  }
  if (!has(SEG, 'RST')) sendAck(tcb, 'not acceptable');
  return true;
}

/** "There are four cases for the acceptability test for an incoming segment" (Table 6). */
export function isAcceptable(tcb: Tcb, SEG: Segment): boolean {
  const { NXT, WND } = tcb.RCV;
  const SEG_LEN = lengthOf(SEG);
  // Segment Length 0, Receive Window 0: SEG.SEQ = RCV.NXT
  if (SEG_LEN === 0 && WND === 0) return SEG.SEQ === NXT;
  // Segment Length 0, Receive Window >0: RCV.NXT =< SEG.SEQ < RCV.NXT+RCV.WND
  if (SEG_LEN === 0 && WND > 0) return isWithin(SEG.SEQ, NXT, WND);
  // Segment Length >0, Receive Window 0: not acceptable
  if (SEG_LEN > 0 && WND === 0) return false;
  // Segment Length >0, Receive Window >0: RCV.NXT =< SEG.SEQ < RCV.NXT+RCV.WND
  if (isWithin(SEG.SEQ, NXT, WND)) return true;
  // or RCV.NXT =< SEG.SEQ+SEG.LEN-1 < RCV.NXT+RCV.WND
  return isWithin(plus(SEG.SEQ, SEG_LEN - 1), NXT, WND);
}

/**
 * Appendix A.2 of RFC 9293 names stacks that expand "the acceptable sequence numbers", so that the ACK field of a segment
 * is processed which says nothing new: it ends at what was last acknowledged or behind it, and begins at the right edge of
 * the window or in front of it; or it is a probe from RCV.NXT-1. Nothing of its text is taken.
 */
function isExpandedAcceptable(tcb: Tcb, SEG: Segment): boolean {
  if (tcb.choices.sequenceTest === 'table') return false;
  const { NXT, WND } = tcb.RCV;
  const isNotOld = isAtMost(tcb.TS.lastAckSent, endOf(SEG));
  const isProbe = plus(SEG.SEQ, 1) === NXT;
  return isProbe || (isNotOld && isAtMost(SEG.SEQ, plus(NXT, WND)));
}

/**
 * "If the RCV.WND is zero, no segments will be acceptable, but special allowance should be made to accept valid ACKs,
 * URGs, and RSTs." This is for segments with text or FIN at RCV.NXT; the text does not fit, so it is answered too.
 */
function hasSpecialAllowance(tcb: Tcb, SEG: Segment): boolean {
  return tcb.RCV.WND === 0 && SEG.SEQ === tcb.RCV.NXT && !has(SEG, 'SYN');
}

/** "Second, check the RST bit" */
function secondResetEnds(tcb: Tcb, SEG: Segment): boolean {
  if (!has(SEG, 'RST')) return false;
  // "1) If the RST bit is set and the sequence number is outside the current receive window, silently drop the segment."
  // The first check did that, except for a RST with text that begins in front of the window.
  if (tcb.choices.isRfc5961) {
    const isSilent = tcb.state === 'TIME-WAIT' && tcb.choices.resetInTimeWait === 'silence';
    if (isSilent && SEG.SEQ !== tcb.RCV.NXT) return true;
    const isInside = tcb.RCV.WND > 0 && isWithin(SEG.SEQ, tcb.RCV.NXT, tcb.RCV.WND);
    if (SEG.SEQ !== tcb.RCV.NXT && !isInside) {
      if (tcb.choices.resetInFront === 'challenge') sendChallengeAck(tcb);
      return true;
    }
    // "3) If the RST bit is set and the sequence number does not exactly match the next expected sequence value, yet is
    // within the current receive window, TCP endpoints MUST send an acknowledgment (challenge ACK)"
    if (SEG.SEQ !== tcb.RCV.NXT) {
      sendChallengeAck(tcb);
      return true;
    }
  }
  // "2) If the RST bit is set and the sequence number exactly matches the next expected sequence number (RCV.NXT), then
  // TCP endpoints MUST reset the connection in the manner prescribed below according to the connection state."
  resetConnection(tcb);
  return true;
}

function resetConnection(tcb: Tcb): void {
  switch (tcb.state) {
    case 'SYN-RECEIVED':
      resetSynReceived(tcb);
      break;
    case 'ESTABLISHED':
    case 'FIN-WAIT-1':
    case 'FIN-WAIT-2':
    case 'CLOSE-WAIT':
      // "If the RST bit is set, then any outstanding RECEIVEs and SEND should receive "reset" responses. All segment
      // queues should be flushed. Users should also receive an unsolicited general "connection reset" signal. Enter the
      // CLOSED state, delete the TCB, and return."
      signal(tcb, 'connection reset');
      deleteTcb(tcb);
      break;
    default:
      // CLOSING, LAST-ACK, TIME-WAIT: "If the RST bit is set, then enter the CLOSED state, delete the TCB, and return."
      // Section 3.6: "the local application MUST be informed whether it closed normally or was aborted (MUST-12)".
      if (tcb.state !== 'TIME-WAIT') signal(tcb, 'reset while closing');
      deleteTcb(tcb);
  }
}

/**
 * "If this connection was initiated with a passive OPEN (i.e., came from the LISTEN state), then return this connection
 * to LISTEN state and return. The user need not be informed. If this connection was initiated with an active OPEN
 * (i.e., came from SYN-SENT state), then the connection was refused; signal the user "connection refused". In either
 * case, the retransmission queue should be flushed. And in the active OPEN case, enter the CLOSED state and delete the
 * TCB, and return."
 */
function resetSynReceived(tcb: Tcb): void {
  if (tcb.isPassive) {
    returnToListen(tcb);
    return;
  }
  signal(tcb, 'connection refused');
  deleteTcb(tcb);
}

function returnToListen(tcb: Tcb): void {
  flushQueues(tcb);
  tcb.state = 'LISTEN';
}

/** "Fourth, check the SYN bit" */
function fourthSynEnds(tcb: Tcb, SEG: Segment): boolean {
  if (!has(SEG, 'SYN')) return false;
  // "SYN-RECEIVED STATE: If the connection was initiated with a passive OPEN, then return this connection to the LISTEN
  // state and return. Otherwise, handle per the directions for synchronized states below." RFC 5961 section 4 would have a
  // challenge ACK: a forged SYN should not end a handshake.
  const isListener = tcb.state === 'SYN-RECEIVED' && tcb.isPassive;
  if (isListener && tcb.choices.synInSynReceived === 'return to LISTEN') {
    returnToListen(tcb);
    return true;
  }
  // "RFC 5961 recommends that in these synchronized states, if the SYN bit is set, irrespective of the sequence number,
  // TCP endpoints MUST send a "challenge ACK" to the remote peer: <SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>. After sending the
  // acknowledgment, TCP implementations MUST drop the unacceptable segment and stop processing further."
  if (tcb.choices.isRfc5961) {
    sendChallengeAck(tcb);
    return true;
  }
  // "If the SYN is in the window it is an error: send a reset, any outstanding RECEIVEs and SEND should receive "reset"
  // responses, all segment queues should be flushed, the user should also receive an unsolicited general "connection
  // reset" signal, enter the CLOSED state, delete the TCB, and return."
  if (has(SEG, 'ACK')) sendResetForAck(tcb, SEG);
  else sendResetWithoutAck(tcb, SEG);
  signal(tcb, 'connection reset');
  deleteTcb(tcb);
  return true;
}

/** "Fifth, check the ACK field" */
function fifthAckEnds(tcb: Tcb, SEG: Segment): boolean {
  // "if the ACK bit is off, drop the segment and return"
  if (!has(SEG, 'ACK')) return true;
  if (tcb.state === 'SYN-RECEIVED') return synReceivedAckEnds(tcb, SEG);
  if (blindInjectionEnds(tcb, SEG)) return true;
  if (establishedAckEnds(tcb, SEG)) return true;
  if (tcb.choices.recordsBehindAckCheck) recordTimestamp(tcb, SEG);
  switch (tcb.state) {
    case 'FIN-WAIT-1':
      // "In addition to the processing for the ESTABLISHED state, if the FIN segment is now acknowledged, then enter
      // FIN-WAIT-2 and continue processing in that state."
      if (isFinAcknowledged(tcb)) tcb.state = 'FIN-WAIT-2';
      return false;
    case 'CLOSING':
      return closingAckEnds(tcb);
    case 'LAST-ACK':
      return lastAckEnds(tcb);
    case 'TIME-WAIT':
      return timeWaitAckEnds(tcb, SEG);
    default:
      // ESTABLISHED; "CLOSE-WAIT: Do the same processing as for the ESTABLISHED state"; FIN-WAIT-2: "the user's CLOSE
      // can be acknowledged ("ok") but do not delete the TCB".
      return false;
  }
}

/**
 * "TCP stacks that implement RFC 5961 MUST add an input check that the ACK value is acceptable only if it is in the
 * range of ((SND.UNA - MAX.SND.WND) =< SEG.ACK =< SND.NXT). All incoming segments whose ACK value doesn't satisfy the
 * above condition MUST be discarded and an ACK sent back."
 */
function blindInjectionEnds(tcb: Tcb, SEG: Segment): boolean {
  if (!tcb.choices.isRfc5961) return false;
  const { UNA, NXT, MAX_WND } = tcb.SND;
  if (isFromUpTo(plus(UNA, -MAX_WND), SEG.ACK, NXT)) return false;
  sendChallengeAck(tcb);
  return true;
}

/**
 * "If SND.UNA < SEG.ACK =< SND.NXT, then enter ESTABLISHED state and continue processing with the variables below set
 * to: SND.WND <- SEG.WND, SND.WL1 <- SEG.SEQ, SND.WL2 <- SEG.ACK. If the segment acknowledgment is not acceptable, form
 * a reset segment <SEQ=SEG.ACK><CTL=RST> and send it."
 *
 * The check of RFC 5961 comes in front of it in the text, and would answer an ACK of what was never sent by an ACK; but
 * section 3.5.2 has a reset for "any non-synchronized state (LISTEN, SYN-SENT, SYN-RECEIVED)", and so has this.
 */
function synReceivedAckEnds(tcb: Tcb, SEG: Segment): boolean {
  if (!isAfterUpTo(tcb.SND.UNA, SEG.ACK, tcb.SND.NXT)) {
    if (tcb.choices.badAckInSynReceived === 'challenge') sendChallengeAck(tcb);
    else sendResetForAck(tcb, SEG);
    return true;
  }
  if (tcb.choices.recordsBehindAckCheck) recordTimestamp(tcb, SEG);
  acknowledge(tcb, SEG.ACK);
  enterEstablished(tcb, SEG);
  return false;
}

/** Enters ESTABLISHED, and does what was queued for it. */
export function enterEstablished(tcb: Tcb, SEG: Segment): void {
  tcb.state = 'ESTABLISHED';
  signal(tcb, 'connected');
  setWindow(tcb, SEG);
  // A CLOSE in SYN-RECEIVED waited for this.
  if (tcb.isCloseQueued) tcb.state = 'FIN-WAIT-1';
}

/**
 * "If SND.UNA < SEG.ACK =< SND.NXT, then set SND.UNA <- SEG.ACK. Any segments on the retransmission queue that are
 * thereby entirely acknowledged are removed. ... If the ACK is a duplicate (SEG.ACK =< SND.UNA), it can be ignored. If
 * the ACK acks something not yet sent (SEG.ACK > SND.NXT), then send an ACK, drop the segment, and return."
 */
function establishedAckEnds(tcb: Tcb, SEG: Segment): boolean {
  const { UNA, NXT } = tcb.SND;
  if (isAfterUpTo(UNA, SEG.ACK, NXT)) {
    acknowledge(tcb, SEG.ACK);
  } else if (isLess(NXT, SEG.ACK)) {
    sendAck(tcb, 'challenge');
    return true;
  }
  updateWindow(tcb, SEG, UNA);
  return false;
}

/**
 * "If SND.UNA =< SEG.ACK =< SND.NXT, the send window should be updated. If (SND.WL1 < SEG.SEQ or (SND.WL1 = SEG.SEQ and
 * SND.WL2 =< SEG.ACK)), set SND.WND <- SEG.WND, set SND.WL1 <- SEG.SEQ, and set SND.WL2 <- SEG.ACK."
 */
function updateWindow(tcb: Tcb, SEG: Segment, UNA: number): void {
  const { SND, choices } = tcb;
  if (!isFromUpTo(SND.UNA, SEG.ACK, SND.NXT)) return;
  const isNewer = isLess(SND.WL1, SEG.SEQ) || (SND.WL1 === SEG.SEQ && isAtMost(SND.WL2, SEG.ACK));
  const isHigher = choices.windowUpdates === 'highest ACK' && isLess(UNA, SEG.ACK);
  if (isNewer || isHigher) setWindow(tcb, SEG);
}

function setWindow(tcb: Tcb, SEG: Segment): void {
  tcb.SND.WND = scaledWindow(tcb, SEG);
  tcb.SND.WL1 = SEG.SEQ;
  tcb.SND.WL2 = SEG.ACK;
  tcb.SND.MAX_WND = Math.max(tcb.SND.MAX_WND, tcb.SND.WND);
}

function acknowledge(tcb: Tcb, ACK: number): void {
  tcb.SND.UNA = ACK;
  const isLeft = (segment: Segment) => isLess(ACK, plus(segment.SEQ, lengthOf(segment)));
  tcb.retransmissionQueue = tcb.retransmissionQueue.filter(isLeft);
}

function isFinAcknowledged(tcb: Tcb): boolean {
  return tcb.SND.finEnd !== undefined && tcb.SND.UNA === tcb.SND.finEnd;
}

/**
 * "In addition to the processing for the ESTABLISHED state, if the ACK acknowledges our FIN, then enter the TIME-WAIT
 * state; otherwise, ignore the segment."
 */
function closingAckEnds(tcb: Tcb): boolean {
  if (!isFinAcknowledged(tcb)) return true;
  enterTimeWait(tcb);
  return false;
}

/**
 * "The only thing that can arrive in this state is an acknowledgment of our FIN. If our FIN is now acknowledged, delete
 * the TCB, enter the CLOSED state, and return."
 */
function lastAckEnds(tcb: Tcb): boolean {
  if (!isFinAcknowledged(tcb)) return false;
  signal(tcb, 'closed');
  deleteTcb(tcb);
  return true;
}

/**
 * "The only thing that can arrive in this state is a retransmission of the remote FIN. Acknowledge it, and restart the 2
 * MSL timeout." The retransmission has an old sequence number, so that the first check has acknowledged it; what comes
 * to here is something new, which the sentence lets be acknowledged; but not an ACK that says nothing new: two ends in
 * TIME-WAIT would acknowledge each other's for ever.
 */
function timeWaitAckEnds(tcb: Tcb, SEG: Segment): boolean {
  if (lengthOf(SEG) > 0 || SEG.SEQ !== tcb.RCV.NXT) sendAck(tcb, 'may');
  return true;
}

/**
 * "Sixth, check the URG bit: ... If the URG bit is set, RCV.UP <- max(RCV.UP,SEG.UP), and signal the user that the
 * remote side has urgent data". No user asks for it here.
 */
function sixthUrgent(tcb: Tcb, SEG: Segment): void {
  if (!RECEIVING.includes(tcb.state)) return;
  if (has(SEG, 'URG')) tcb.RCV.UP = plus(SEG.SEQ, SEG.UP);
}

/**
 * "Seventh, process the segment text": "Once in the ESTABLISHED state, it is possible to deliver segment data to user
 * RECEIVE buffers. ... Once the TCP endpoint takes responsibility for the data, it advances RCV.NXT over the data
 * accepted, and adjusts RCV.WND as appropriate to the current buffer availability. The total of RCV.NXT and RCV.WND
 * should not be reduced. ... Send an acknowledgment of the form: <SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>. This
 * acknowledgment should be piggybacked on a segment being transmitted if possible without incurring undue delay."
 *
 * CLOSE-WAIT, CLOSING, LAST-ACK, TIME-WAIT: "This should not occur since a FIN has been received from the remote side.
 * Ignore the segment text."
 */
function seventhTextEnds(tcb: Tcb, SEG: Segment): boolean {
  if (!RECEIVING.includes(tcb.state)) return true;
  const trimmed = trim(tcb, SEG);
  if (trimmed === undefined) return false;
  if (tcb.isHalfDuplexClosed && trimmed.text.length > 0) {
    // "or if new data is received after CLOSE is called, its TCP implementation SHOULD send a RST" (SHLD-3).
    sendAbort(tcb);
    deleteTcb(tcb);
    return true;
  }
  if (trimmed.SEQ !== tcb.RCV.NXT) {
    // "Segments with higher beginning sequence numbers SHOULD be held for later processing (SHLD-31)." "MAY send an ACK
    // segment acknowledging RCV.NXT when a valid segment arrives that is in the window but not at the left window edge
    // (MAY-13)"; RFC 5681 section 4.2 asks for it at once.
    tcb.held.push(trimmed);
    return false;
  }
  if (trimmed.text.length === 0) return false;
  tcb.receiveQueue.push(...trimmed.text);
  advance(tcb, trimmed.text.length);
  return false;
}

/**
 * "Eighth, check the FIN bit: ... If the FIN bit is set, signal the user "connection closing" and return any pending
 * RECEIVEs with same message, advance RCV.NXT over the FIN, and send an acknowledgment for the FIN."
 */
function eighthFin(tcb: Tcb, SEG: Segment): void {
  if (!has(SEG, 'FIN') || !RECEIVING.includes(tcb.state)) return;
  const trimmed = trim(tcb, SEG);
  const isNext = trimmed !== undefined && trimmed.SEQ === tcb.RCV.NXT && trimmed.text.length === 0;
  if (!isNext || !has(trimmed, 'FIN')) return;
  signal(tcb, 'connection closing');
  advance(tcb, 1);
  tcb.RCV.isFinished = true;
  tcb.held = [];
  switch (tcb.state) {
    case 'ESTABLISHED':
      // "Enter the CLOSE-WAIT state."
      tcb.state = 'CLOSE-WAIT';
      return;
    case 'FIN-WAIT-1':
      // "If our FIN has been ACKed (perhaps in this segment), then enter TIME-WAIT, ...; otherwise, enter the CLOSING
      // state." The fifth check would have entered FIN-WAIT-2.
      tcb.state = 'CLOSING';
      return;
    case 'FIN-WAIT-2':
      // "Enter the TIME-WAIT state. Start the time-wait timer, turn off the other timers."
      enterTimeWait(tcb);
      return;
    default:
      return;
  }
}

function enterTimeWait(tcb: Tcb): void {
  tcb.state = 'TIME-WAIT';
  tcb.timeWaitStarts++;
  signal(tcb, 'closed');
}

function advance(tcb: Tcb, count: number): void {
  tcb.RCV.NXT = plus(tcb.RCV.NXT, count);
  tcb.RCV.WND = Math.max(0, tcb.RCV.WND - count);
  adjustWindow(tcb);
}

/**
 * "One could tailor actual segments to fit this assumption by trimming off any portions that lie outside the window
 * (including SYN and FIN)". Undefined: nothing is left.
 */
function trim(tcb: Tcb, SEG: Segment): Segment | undefined {
  const start = textStartOf(SEG);
  const { NXT, WND } = tcb.RCV;
  const isInside = (index: number) => isWithin(plus(start, index), NXT, WND);
  const text = SEG.text.filter((_, index) => isInside(index));
  const first = SEG.text.findIndex((_, index) => isInside(index));
  const isDirectlyBehind = minus(plus(start, SEG.text.length), NXT) === WND;
  const isFinInside =
    isInside(SEG.text.length) || (tcb.choices.takesFinBehindWindow && isDirectlyBehind);
  const hasFin = has(SEG, 'FIN') && isFinInside;
  if (text.length === 0 && !hasFin) return undefined;
  return segmentOf({
    SEQ: plus(start, text.length > 0 ? first : SEG.text.length),
    CTL: hasFin ? ['FIN'] : [],
    text,
  });
}

/** The next held segment that RCV.NXT has reached. */
function takeHeld(tcb: Tcb): Segment | undefined {
  const { NXT } = tcb.RCV;
  const index = tcb.held.findIndex(({ SEQ }) => isAtMost(SEQ, NXT));
  if (index < 0) return undefined;
  return tcb.held.splice(index, 1)[0];
}

/** The states in which text and FIN are processed. */
const RECEIVING: readonly string[] = ['ESTABLISHED', 'FIN-WAIT-1', 'FIN-WAIT-2'];
