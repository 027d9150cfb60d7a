/**
 * The user calls (RFC 9293 sections 3.10.1 to 3.10.6). A call returns "ok", or the text of the error. Errors about
 * security, Diffserv values and access are left out: there is none of them here; so is the urgent flag of SEND.
 * @module
 */

import { segmentize, sendAbort, sendSyn } from './send.ts';
import { plus } from './sequence.ts';
import { deleteTcb, signal, type Tcb } from './tcb.ts';

export type Reply = 'ok' | `error: ${string}`;

/** 3.10.1. The remote socket of a passive OPEN is unspecified. */
export function OPEN(tcb: Tcb, how: 'active' | 'passive'): Reply {
  switch (tcb.state) {
    case 'CLOSED':
      return how === 'passive' ? openPassive(tcb) : openActive(tcb);
    case 'LISTEN':
      // "If the OPEN call is active and the remote socket is specified, then change the connection from passive to
      // active, select an ISS."
      return how === 'active' ? openActive(tcb) : 'error: remote socket unspecified';
    default:
      return 'error: connection already exists';
  }
}

/** "If passive, enter the LISTEN state and return." */
function openPassive(tcb: Tcb): Reply {
  tcb.isPassive = true;
  tcb.state = 'LISTEN';
  tcb.RCV.WND = tcb.choices.receiveBuffer;
  return 'ok';
}

/**
 * "if active and the remote socket is specified, issue a SYN segment. An initial send sequence number (ISS) is
 * selected. A SYN segment of the form <SEQ=ISS><CTL=SYN> is sent. Set SND.UNA to ISS, SND.NXT to ISS+1, enter SYN-SENT
 * state, and return."
 */
function openActive(tcb: Tcb): Reply {
  tcb.isPassive = false;
  tcb.RCV.WND = tcb.choices.receiveBuffer;
  tcb.ISS = tcb.choices.selectIss();
  tcb.SND.UNA = tcb.ISS;
  tcb.SND.NXT = plus(tcb.ISS, 1);
  sendSyn(tcb, false);
  tcb.state = 'SYN-SENT';
  return 'ok';
}

/** 3.10.2. */
export function SEND(tcb: Tcb, octets: readonly number[]): Reply {
  switch (tcb.state) {
    case 'CLOSED':
      // "Otherwise, return "error: connection does not exist"."
      return 'error: connection does not exist';
    case 'LISTEN':
      // "If the remote socket was not specified, then return "error: remote socket unspecified"."
      return 'error: remote socket unspecified';
    case 'SYN-SENT':
    case 'SYN-RECEIVED':
      // "Queue the data for transmission after entering ESTABLISHED state."
      if (tcb.isCloseQueued) return 'error: connection closing';
      tcb.sendQueue.push(...octets);
      return 'ok';
    case 'ESTABLISHED':
    case 'CLOSE-WAIT':
      // A CLOSE that waits in CLOSE-WAIT: no SENDs are accepted behind it (section 3.6).
      if (tcb.isCloseQueued) return 'error: connection closing';
      // "Segmentize the buffer and send it with a piggybacked acknowledgment"
      tcb.sendQueue.push(...octets);
      segmentize(tcb);
      return 'ok';
    case 'FIN-WAIT-1':
    case 'FIN-WAIT-2':
    case 'CLOSING':
    case 'LAST-ACK':
    case 'TIME-WAIT':
      // "Return "error: connection closing" and do not service request."
      return 'error: connection closing';
  }
}

/**
 * 3.10.3. Returns at most `count` octets; an empty list where a RECEIVE would be queued. In CLOSED it still returns
 * what is left: the octets were delivered before the TCB was deleted.
 */
export function RECEIVE(tcb: Tcb, count: number): readonly number[] | Reply {
  const octets = tcb.receiveQueue.splice(0, count);
  adjustWindow(tcb);
  if (octets.length > 0) return octets;
  switch (tcb.state) {
    case 'CLOSED':
      return 'error: connection does not exist';
    case 'LISTEN':
    case 'SYN-SENT':
    case 'SYN-RECEIVED':
      // "Queue for processing after entering ESTABLISHED state."
      return octets;
    case 'ESTABLISHED':
    case 'FIN-WAIT-1':
    case 'FIN-WAIT-2':
      // "If insufficient incoming segments are queued to satisfy the request, queue the request."
      return octets;
    case 'CLOSE-WAIT':
    case 'CLOSING':
    case 'LAST-ACK':
    case 'TIME-WAIT':
      // "If no text is awaiting delivery, the RECEIVE will get an "error: connection closing" response."
      return 'error: connection closing';
  }
}

/**
 * "adjusts RCV.WND as appropriate to the current buffer availability. The total of RCV.NXT and RCV.WND should not be
 * reduced."
 */
export function adjustWindow(tcb: Tcb): void {
  if (!tcb.choices.segmentizes) return;
  const available = Math.max(0, tcb.choices.receiveBuffer - tcb.receiveQueue.length);
  tcb.RCV.WND = Math.max(tcb.RCV.WND, available);
}

/** 3.10.4. */
export function CLOSE(tcb: Tcb): Reply {
  switch (tcb.state) {
    case 'CLOSED':
      return 'error: connection does not exist';
    case 'LISTEN':
      // "Any outstanding RECEIVEs are returned with "error: closing" responses. Delete TCB, enter CLOSED state"
      deleteTcb(tcb);
      return 'ok';
    case 'SYN-SENT':
      // "Delete the TCB and return "error: closing" responses to any queued SENDs, or RECEIVEs."
      if (tcb.choices.closeInSynSent === 'queue') tcb.isCloseQueued = true;
      else deleteTcb(tcb);
      return 'ok';
    case 'SYN-RECEIVED':
      return closeSynReceived(tcb);
    case 'ESTABLISHED':
      return closeEstablished(tcb);
    case 'FIN-WAIT-1':
    case 'FIN-WAIT-2':
      // "An "ok" response would be acceptable, too, as long as a second FIN is not emitted"
      return 'ok';
    case 'CLOSE-WAIT':
      // "Queue this request until all preceding SENDs have been segmentized; then send a FIN segment, enter LAST-ACK
      // state."
      tcb.isCloseQueued = true;
      segmentize(tcb);
      return 'ok';
    case 'CLOSING':
    case 'LAST-ACK':
    case 'TIME-WAIT':
      return 'error: connection closing';
  }
}

/**
 * "If no SENDs have been issued and there is no pending data to send, then form a FIN segment and send it, and enter
 * FIN-WAIT-1 state; otherwise, queue for processing after entering ESTABLISHED state." Both are queued here: a FIN in
 * front of the ACK of our SYN would save no time, and FIN-WAIT-1 would have to acknowledge the SYN.
 */
function closeSynReceived(tcb: Tcb): Reply {
  tcb.isCloseQueued = true;
  return 'ok';
}

/**
 * "Queue this until all preceding SENDs have been segmentized, then form a FIN segment and send it. In any case, enter
 * FIN-WAIT-1 state."
 */
function closeEstablished(tcb: Tcb): Reply {
  tcb.isCloseQueued = true;
  tcb.state = 'FIN-WAIT-1';
  segmentize(tcb);
  return 'ok';
}

/**
 * A CLOSE after which the user cannot receive (section 3.6.1, MAY-1): "If such a host issues a CLOSE call while received
 * data is still pending in the TCP connection, or if new data is received after CLOSE is called, its TCP implementation
 * SHOULD send a RST to show that data was lost (SHLD-3)."
 */
export function closeHalfDuplex(tcb: Tcb): Reply {
  if (tcb.receiveQueue.length > 0) {
    tcb.receiveQueue = [];
    return ABORT(tcb);
  }
  tcb.isHalfDuplexClosed = true;
  // Nobody waits for ESTABLISHED.
  if (tcb.state === 'SYN-SENT') deleteTcb(tcb);
  return CLOSE(tcb);
}

/** 3.10.5. */
export function ABORT(tcb: Tcb): Reply {
  switch (tcb.state) {
    case 'CLOSED':
      return 'error: connection does not exist';
    case 'LISTEN':
    case 'SYN-SENT':
      // "All queued SENDs and RECEIVEs should be given "connection reset" notification. Delete the TCB, enter CLOSED
      // state, and return."
      signal(tcb, 'connection reset');
      deleteTcb(tcb);
      return 'ok';
    case 'SYN-RECEIVED':
    case 'ESTABLISHED':
    case 'FIN-WAIT-1':
    case 'FIN-WAIT-2':
    case 'CLOSE-WAIT':
      // "Send a reset segment: <SEQ=SND.NXT><CTL=RST>"; "all segments queued for transmission (except for the RST
      // formed above) or retransmission should be flushed. Delete the TCB, enter CLOSED state, and return."
      sendAbort(tcb);
      signal(tcb, 'connection reset');
      deleteTcb(tcb);
      return 'ok';
    case 'CLOSING':
    case 'LAST-ACK':
    case 'TIME-WAIT':
      // "Respond with "ok" and delete the TCB, enter CLOSED state, and return."
      if (tcb.choices.abortWhileClosing === 'reset' && tcb.state !== 'TIME-WAIT') sendAbort(tcb);
      deleteTcb(tcb);
      return 'ok';
  }
}

/** 3.10.6. */
export function STATUS(tcb: Tcb): string {
  return tcb.state === 'CLOSED' ? 'error: connection does not exist' : `state = ${tcb.state}`;
}

/** Whether the timer for retransmissions, or for probes of a zero window, would run. */
export function awaitsTimeout(tcb: Tcb): boolean {
  return tcb.retransmissionQueue.length > 0 || tcb.sendQueue.length > 0;
}
