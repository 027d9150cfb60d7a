/**
 * The timeouts (RFC 9293 section 3.10.8). Who measures the time calls them.
 * @module
 */
import { probeZeroWindow, retransmitFirst } from './send.ts';
import { deleteTcb, signal, type Tcb } from './tcb.ts';

/**
 * "For any state if the user timeout expires, flush all queues, signal the user "error: connection aborted due to user
 * timeout" in general and for any outstanding calls, delete the TCB, enter the CLOSED state, and return."
 */
export function USER_TIMEOUT(tcb: Tcb): void {
  signal(tcb, 'connection aborted due to user timeout');
  deleteTcb(tcb);
}

/**
 * "For any state if the retransmission timeout expires on a segment in the retransmission queue, send the segment at
 * the front of the retransmission queue again, reinitialize the retransmission timer, and return." It is the timer of
 * zero-window probes too (section 3.8.6.1).
 */
export function RETRANSMISSION_TIMEOUT(tcb: Tcb): void {
  if (tcb.retransmissionQueue.length > 0) retransmitFirst(tcb);
  else probeZeroWindow(tcb);
}

/** "If the time-wait timeout expires on a connection, delete the TCB, enter the CLOSED state, and return." */
export function TIME_WAIT_TIMEOUT(tcb: Tcb): void {
  if (tcb.state === 'TIME-WAIT') deleteTcb(tcb);
}
