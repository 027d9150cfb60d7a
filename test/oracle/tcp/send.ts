/**
 * Forms segments and sends them.
 * @module
 */
import { type Control, endOf, has, type Segment, segmentOf } from './segment.ts';
import { isLess, minus, plus } from './sequence.ts';
import type { Tcb, Why } from './tcb.ts';

/** `<SEQ=ISS><CTL=SYN>` or `<SEQ=ISS><ACK=RCV.NXT><CTL=SYN,ACK>`, with the options that are offered. */
export function sendSyn(tcb: Tcb, isAcknowledging: boolean): void {
  const { choices } = tcb;
  const CTL: readonly Control[] = isAcknowledging ? ['SYN', 'ACK'] : ['SYN'];
  // RFC 7323 sections 1.3 and 2.2: in a SYN,ACK an option only if the SYN had it.
  const isOffered = !isAcknowledging || !tcb.isPassive;
  const timestamps = isOffered ? choices.usesTimestamps : tcb.TS.isUsed;
  const scale = isOffered || tcb.hasWindowScale ? choices.windowScale : undefined;
  const syn = segmentOf({
    SEQ: tcb.ISS,
    ACK: isAcknowledging ? tcb.RCV.NXT : 0,
    CTL,
    // RFC 7323 section 2.2: "The window field in a segment where the SYN bit is set MUST NOT be scaled."
    WND: Math.min(tcb.RCV.WND, 65_535),
    options: {
      mss: choices.mss,
      ...(scale === undefined ? {} : { windowScale: scale }),
      ...(timestamps ? { timestamps: stampOf(tcb) } : {}),
    },
  });
  tcb.retransmissionQueue = [syn];
  emit(tcb, syn, 'synchronize');
}

/** `<SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>`. */
export function sendAck(tcb: Tcb, why: Why): void {
  emit(tcb, ordinary(tcb, emptySequence(tcb), ['ACK'], []), why);
}

/** A challenge ACK, "SEQ=SND.NXT, ACK=RCV.NXT, CTL=ACK", unless it is throttled (RFC 5961 section 7). */
export function sendChallengeAck(tcb: Tcb): void {
  if (tcb.choices.mayChallenge()) sendAck(tcb, 'challenge');
}

/** `<SEQ=SND.NXT><CTL=RST>`. */
export function sendAbort(tcb: Tcb): void {
  emit(tcb, segmentOf({ SEQ: emptySequence(tcb), CTL: ['RST'] }), 'abort');
}

/** The number of a segment without text. A FIN, or the rounding of a scaled window, may be one behind the edge. */
function emptySequence({ choices, SND }: Tcb): number {
  const edge = plus(SND.UNA, SND.WND);
  const isBehind = isLess(plus(edge, 2 ** SND.shift), SND.NXT);
  return choices.emptySegments === 'in the window' && isBehind ? edge : SND.NXT;
}

/** `<SEQ=SEG.ACK><CTL=RST>`. */
export function sendResetForAck(tcb: Tcb, SEG: Segment): void {
  emit(tcb, segmentOf({ SEQ: SEG.ACK, CTL: ['RST'] }), 'reset');
}

/** `<SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>`. */
export function sendResetWithoutAck(tcb: Tcb, SEG: Segment): void {
  emit(tcb, segmentOf({ SEQ: 0, ACK: endOf(SEG), CTL: ['RST', 'ACK'] }), 'reset');
}

/**
 * "Segmentize the buffer and send it with a piggybacked acknowledgment (acknowledgment value = RCV.NXT)", as far as
 * the send window allows; then the FIN of a CLOSE that waits. There is no congestion control, no Nagle algorithm, and
 * no avoidance of silly windows.
 */
export function segmentize(tcb: Tcb): void {
  if (!tcb.choices.segmentizes) return;
  while (tcb.sendQueue.length > 0) {
    const usable = usableWindow(tcb);
    if (usable <= 0) break;
    sendText(tcb, Math.min(usable, tcb.choices.mss));
  }
  if (tcb.isCloseQueued && tcb.sendQueue.length === 0) sendFin(tcb);
}

/** "The sending TCP peer must regularly transmit at least one octet of new data" (section 3.8.6.1). */
export function probeZeroWindow(tcb: Tcb): void {
  if (tcb.sendQueue.length > 0) sendText(tcb, 1);
}

/** "send the segment at the front of the retransmission queue again". */
export function retransmitFirst(tcb: Tcb): void {
  const first = tcb.retransmissionQueue[0];
  if (first === undefined) return;
  if (has(first, 'SYN')) sendSyn(tcb, has(first, 'ACK'));
  else emit(tcb, ordinary(tcb, first.SEQ, first.CTL, first.text), 'data');
}

/** "U = SND.UNA + SND.WND - SND.NXT" (section 3.8.6.2.1); a window that shrank makes it negative (MUST-34). */
export function usableWindow(tcb: Tcb): number {
  return tcb.SND.WND - minus(tcb.SND.NXT, tcb.SND.UNA);
}

function sendText(tcb: Tcb, size: number): void {
  const text = tcb.sendQueue.splice(0, size);
  const CTL: readonly Control[] = tcb.sendQueue.length === 0 ? ['PSH', 'ACK'] : ['ACK'];
  const segment = ordinary(tcb, tcb.SND.NXT, CTL, text);
  tcb.SND.NXT = plus(tcb.SND.NXT, text.length);
  tcb.retransmissionQueue.push(segment);
  emit(tcb, segment, 'data');
}

function sendFin(tcb: Tcb): void {
  const segment = ordinary(tcb, tcb.SND.NXT, ['FIN', 'ACK'], []);
  tcb.isCloseQueued = false;
  tcb.SND.NXT = plus(tcb.SND.NXT, 1);
  tcb.SND.finEnd = tcb.SND.NXT;
  tcb.retransmissionQueue.push(segment);
  emit(tcb, segment, 'data');
  // In ESTABLISHED the state was entered with the call; in CLOSE-WAIT: "then send a FIN segment, enter LAST-ACK state".
  if (tcb.state === 'CLOSE-WAIT') tcb.state = 'LAST-ACK';
}

function ordinary(
  tcb: Tcb,
  SEQ: number,
  CTL: readonly Control[],
  text: readonly number[]
): Segment {
  return segmentOf({
    SEQ,
    ACK: tcb.RCV.NXT,
    CTL,
    // RFC 7323 section 2.3: "SEG.WND = RCV.WND >> Rcv.Wind.Shift".
    WND: Math.min(Math.floor(tcb.RCV.WND / 2 ** tcb.RCV.shift), 65_535),
    text,
    options: tcb.TS.isUsed ? { timestamps: stampOf(tcb) } : {},
  });
}

/** RFC 7323 section 3.2: TSval is our clock, TSecr is TS.Recent. */
function stampOf(tcb: Tcb): { TSval: number; TSecr: number } {
  return { TSval: plus(Math.floor(tcb.choices.now()), 0), TSecr: tcb.TS.Recent };
}

function emit(tcb: Tcb, segment: Segment, why: Why): void {
  // RFC 7323 section 4.3: "Last.ACK.sent holds the ACK field from the last segment sent."
  // If somebody else decides what is sent (`follower.ts`), he says so.
  const isSent = tcb.choices.segmentizes && has(segment, 'ACK') && !has(segment, 'RST');
  if (isSent) tcb.TS.lastAckSent = segment.ACK;
  tcb.emissions.push({ segment, why });
}
