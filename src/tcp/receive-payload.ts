/**
 * Takes the payload and the FIN of a segment, and decides when to acknowledge them
 * ([RFC 9293 section 3.10.7.4](https://www.rfc-editor.org/rfc/rfc9293#section-3.10.7.4), seventh and eighth step).
 * @module
 */
import type { ControlBlock } from './control-block.ts';
import { FLAG_FIN, type SegmentReader } from './segment.ts';
import { seqAdd, seqDistance } from './sequence.ts';
import { TcpEvent, TcpState } from './state.ts';

/** Handles the payload and the FIN of a segment that is in the window. */
export function receivePayload(block: ControlBlock, segment: SegmentReader, now: number): void {
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
  const isStored = fits <= 0 || store(block, segment, skipped, Math.max(offset, 0), fits);
  if (skipped > 0) {
    block.reportDuplicate(segment.sequence, seqAdd(segment.sequence, Math.min(skipped, length)));
  }
  if (block.hasEarlyFin && block.earlyFin === window.next) receiveFin(block);
  const isOutOfOrder = hadGap || offset > 0 || skipped > 0 || fits < length - skipped;
  planAck(block, isOutOfOrder || !isStored, now);
}

/** Returns whether all of it was stored: the peer must learn at once if it was not, else its path seems to be broken. */
function store(
  block: ControlBlock,
  segment: SegmentReader,
  skipped: number,
  offset: number,
  length: number
): boolean {
  const { window, receive } = block;
  const start = segment.payload + skipped;
  const before = receive.outOfOrder;
  const left = window.next;
  const advance = receive.insert(segment.buffer, start, start + length, offset);
  const isUnchanged = advance === 0 && receive.outOfOrder === before;
  const isStored = offset === 0 ? advance >= length : !isUnchanged || receive.duplicateFrom >= 0;
  if (receive.duplicateFrom >= 0) {
    block.reportDuplicate(seqAdd(left, receive.duplicateFrom), seqAdd(left, receive.duplicateTo));
  }
  if (!isStored) {
    const { counters } = block.host;
    if (receive.hadTooManyRanges) counters.dropTooManyRanges++;
    else counters.dropNoMemory++;
  }
  if (length > window.largest) window.largest = length;
  if (advance > 0) {
    block.onProgress(advance, block.host.now);
    window.next = seqAdd(window.next, advance);
    block.unacknowledged += advance;
    block.raise(TcpEvent.Readable);
  }
  return isStored;
}

/** RFC 9293 section 3.10.7.4, eighth step. */
function receiveFin(block: ControlBlock): void {
  block.window.next = seqAdd(block.window.next, 1);
  // The window does not move back although the FIN has taken a number of it.
  if (block.window.size < 0) block.window.edge = block.window.next;
  block.hasEarlyFin = false;
  block.isFinReceived = true;
  // Nothing can follow a FIN, whatever came out of order.
  block.receive.discardOutOfOrder();
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

/** RFC 9293 allows up to 500 ms; 40 ms is Linux's least. */
const DELAYED_ACK_MS = 40;
