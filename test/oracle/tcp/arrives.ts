/**
 * SEGMENT ARRIVES (RFC 9293 section 3.10.7): the states CLOSED, LISTEN and SYN-SENT. A function stands for a paragraph
 * and quotes it. Functions that answer whether processing ends ("return") are named `...Ends`. Security compartments
 * are left out.
 * @module
 */
import { arrivesSynchronized, enterEstablished, processFrom } from './arrives-synchronized.ts';
import { has, lengthOf, type Segment } from './segment.ts';
import { segmentize, sendAck, sendResetForAck, sendResetWithoutAck, sendSyn } from './send.ts';
import { isAfterUpTo, isLess, plus } from './sequence.ts';
import { deleteTcb, SYNCHRONIZED, signal, type Tcb } from './tcb.ts';
import { honorsSynInTimeWait } from './time-wait.ts';
import { negotiate } from './timestamps.ts';

/** 3.10.7. */
export function SEGMENT_ARRIVES(tcb: Tcb, SEG: Segment): void {
  switch (tcb.state) {
    case 'CLOSED':
      arrivesClosed(tcb, SEG);
      break;
    case 'LISTEN':
      arrivesListen(tcb, SEG);
      break;
    case 'SYN-SENT':
      arrivesSynSent(tcb, SEG);
      break;
    default:
      arrivesSynchronized(tcb, SEG);
      break;
  }
  // Whatever the state is now: an acknowledgment or a larger window lets text and FIN go that were queued.
  if (SYNCHRONIZED.includes(tcb.state)) segmentize(tcb);
}

/**
 * What a host does whose user listens on the port at which a connection is in TIME-WAIT: RFC 6191 lets some SYNs
 * through to it. Returns whether the SYN may end the old connection.
 */
export function SYN_ENDS_TIME_WAIT(tcb: Tcb, SEG: Segment): boolean {
  return tcb.state === 'TIME-WAIT' && honorsSynInTimeWait(tcb, SEG);
}

/**
 * 3.10.7.1: "all data in the incoming segment is discarded. An incoming segment containing a RST is discarded. An
 * incoming segment not containing a RST causes a RST to be sent in response."
 */
export function arrivesClosed(tcb: Tcb, SEG: Segment): void {
  if (has(SEG, 'RST')) return;
  // "If the ACK bit is off, sequence number zero is used, <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>"
  if (!has(SEG, 'ACK')) sendResetWithoutAck(tcb, SEG);
  // "If the ACK bit is on, <SEQ=SEG.ACK><CTL=RST>"
  else sendResetForAck(tcb, SEG);
}

/** 3.10.7.2. */
function arrivesListen(tcb: Tcb, SEG: Segment): void {
  // "First, check for a RST: ... An incoming RST should be ignored. Return."
  if (has(SEG, 'RST')) return;
  // "Second, check for an ACK: Any acknowledgment is bad if it arrives on a connection still in the LISTEN state. ...
  // The RST should be formatted as follows: <SEQ=SEG.ACK><CTL=RST>"
  if (has(SEG, 'ACK')) {
    sendResetForAck(tcb, SEG);
    return;
  }
  // "Third, check for a SYN"
  if (has(SEG, 'SYN')) listenSyn(tcb, SEG);
  // "Fourth, other data or control: This should not be reached. Drop the segment and return."
}

/**
 * "Set RCV.NXT to SEG.SEQ+1, IRS is set to SEG.SEQ, and any other control or text should be queued for processing
 * later. ISS should be selected and a SYN segment sent of the form: <SEQ=ISS><ACK=RCV.NXT><CTL=SYN,ACK>. SND.NXT is set
 * to ISS+1 and SND.UNA to ISS. The connection state should be changed to SYN-RECEIVED."
 */
function listenSyn(tcb: Tcb, SEG: Segment): void {
  tcb.RCV.NXT = plus(SEG.SEQ, 1);
  tcb.IRS = SEG.SEQ;
  negotiate(tcb, SEG);
  queueOtherText(tcb, SEG);
  tcb.ISS = tcb.choices.selectIss();
  tcb.SND.NXT = plus(tcb.ISS, 1);
  tcb.SND.UNA = tcb.ISS;
  // The window of the SYN: it is the largest one known so far (MAX.SND.WND, section 3.10.7.4).
  tcb.SND.WND = SEG.WND;
  tcb.SND.MAX_WND = tcb.choices.countsWindowOfSyn ? SEG.WND : 0;
  sendSyn(tcb, true);
  tcb.state = 'SYN-RECEIVED';
}

/** 3.10.7.3. */
function arrivesSynSent(tcb: Tcb, SEG: Segment): void {
  if (synSentAckEnds(tcb, SEG)) return;
  if (synSentResetEnds(tcb, SEG)) return;
  if (has(SEG, 'SYN')) synSentSyn(tcb, SEG);
  // "Fifth, if neither of the SYN or RST bits is set, then drop the segment and return."
}

/**
 * "First, check the ACK bit: If the ACK bit is set, If SEG.ACK =< ISS or SEG.ACK > SND.NXT, send a reset (unless the
 * RST bit is set, if so drop the segment and return) <SEQ=SEG.ACK><CTL=RST> and discard the segment. Return. If SND.UNA
 * < SEG.ACK =< SND.NXT, then the ACK is acceptable."
 */
function synSentAckEnds(tcb: Tcb, SEG: Segment): boolean {
  if (!has(SEG, 'ACK')) return false;
  if (isAfterUpTo(tcb.ISS, SEG.ACK, tcb.SND.NXT)) return false;
  if (!has(SEG, 'RST')) sendResetForAck(tcb, SEG);
  return true;
}

/**
 * "Second, check the RST bit: If the RST bit is set, ... If the ACK was acceptable, then signal to the user "error:
 * connection reset", drop the segment, enter CLOSED state, delete TCB, and return. Otherwise (no ACK), drop the segment
 * and return."
 */
function synSentResetEnds(tcb: Tcb, SEG: Segment): boolean {
  if (!has(SEG, 'RST')) return false;
  if (has(SEG, 'ACK')) {
    signal(tcb, 'connection reset');
    deleteTcb(tcb);
  }
  return true;
}

/**
 * "Fourth, check the SYN bit: ... RCV.NXT is set to SEG.SEQ+1, IRS is set to SEG.SEQ. SND.UNA should be advanced to
 * equal SEG.ACK (if there is an ACK), and any segments on the retransmission queue that are thereby acknowledged should
 * be removed."
 */
function synSentSyn(tcb: Tcb, SEG: Segment): void {
  tcb.RCV.NXT = plus(SEG.SEQ, 1);
  tcb.IRS = SEG.SEQ;
  negotiate(tcb, SEG);
  if (has(SEG, 'ACK')) {
    tcb.SND.UNA = SEG.ACK;
    tcb.retransmissionQueue = [];
  }
  if (isLess(tcb.ISS, tcb.SND.UNA)) synSentEstablish(tcb, SEG);
  else synSentReceive(tcb, SEG);
}

/**
 * "If SND.UNA > ISS (our SYN has been ACKed), change the connection state to ESTABLISHED, form an ACK segment
 * <SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK> and send it. ... If there are other controls or text in the segment, then
 * continue processing at the sixth step under Section 3.10.7.4 where the URG bit is checked; otherwise, return."
 */
function synSentEstablish(tcb: Tcb, SEG: Segment): void {
  // RFC 1122 section 4.2.2.20: the window variables are set here too.
  enterEstablished(tcb, SEG);
  sendAck(tcb, 'acknowledge');
  if (lengthOf(SEG) > 1 && tcb.choices.keepsTextOfSyn) processFrom(tcb, SEG);
}

/**
 * "Otherwise, enter SYN-RECEIVED, form a SYN,ACK segment <SEQ=ISS><ACK=RCV.NXT><CTL=SYN,ACK> and send it. Set the
 * variables: SND.WND <- SEG.WND, SND.WL1 <- SEG.SEQ, SND.WL2 <- SEG.ACK. If there are other controls or text in the
 * segment, queue them for processing after the ESTABLISHED state has been reached, return."
 */
function synSentReceive(tcb: Tcb, SEG: Segment): void {
  tcb.state = 'SYN-RECEIVED';
  sendSyn(tcb, true);
  tcb.SND.WND = SEG.WND;
  tcb.SND.MAX_WND = SEG.WND;
  tcb.SND.WL1 = SEG.SEQ;
  tcb.SND.WL2 = SEG.ACK;
  queueOtherText(tcb, SEG);
}

/** "any other control or text should be queued for processing later" */
function queueOtherText(tcb: Tcb, SEG: Segment): void {
  if (lengthOf(SEG) > 1 && tcb.choices.keepsTextOfSyn) tcb.held.push(SEG);
}
