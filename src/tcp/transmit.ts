/**
 * Builds the next segment that a connection may send, in this order:
 *
 * 1. SYN and SYN-ACK.
 * 2. What loss recovery has marked lost, within cwnd.
 * 3. Written bytes that were not sent, within cwnd and the peer's window. Nagle's algorithm and silly window avoidance
 *    ([RFC 9293 section 3.8.6.2.1](https://www.rfc-editor.org/rfc/rfc9293#section-3.8.6.2.1)) may hold them back.
 *    A FIN goes with the last of them.
 * 4. Probes: of the tail (RFC 8985 section 7), of a closed window, of an idle peer.
 * 5. An ACK, if one is due and no segment carried it.
 *
 * A segment carries up to 64 KiB (a super-segment, which a kernel splits by `gso_size`), but at most a quarter of cwnd
 * (half of it while many connections wait to send) and half of the peer's largest window, so that acknowledgements keep
 * coming.
 * @module
 */
import { MAX_SHORT_SEGMENTS, makesTooManySegments } from '../packet/segments.ts';
import type { ControlBlock } from './control-block.ts';
import { MAX_SACK_BLOCKS } from './options.ts';
import { ReadyClass } from './ready-queue.ts';
import {
  FLAG_ACK,
  FLAG_FIN,
  FLAG_PSH,
  FLAG_SYN,
  headersOf,
  type SegmentWriter,
} from './segment.ts';
import { seqAdd, seqAtMost, seqBefore, seqDistance, seqMax, seqMin } from './sequence.ts';
import { TcpState } from './state.ts';

/** Returns the class of `ReadyQueue` in which the connection waits to send; `None` if it has nothing to send. */
export function readiness(block: ControlBlock): ReadyClass {
  const { loss, state } = block;
  if (state === TcpState.SynSent || state === TcpState.SynReceived) {
    return block.isSynDue ? ReadyClass.Control : ReadyClass.None;
  }
  if (!block.isHeldBack) {
    const hasData = block.isResendDue || loss.probe.isDue || loss.hasLost || mayHaveNew(block);
    if (hasData) return loss.isEmpty ? ReadyClass.New : ReadyClass.Bulk;
  }
  return block.isAckDue || isProbeDue(block) ? ReadyClass.Control : ReadyClass.None;
}

/** Whether a probe of the window, or of an idle peer, is due. */
function isProbeDue(block: ControlBlock): boolean {
  return block.windowProbe?.isDue === true || block.keepalive?.isDue === true;
}

/** Whether written bytes may be sent, as far as it is cheap to tell. */
function mayHaveNew(block: ControlBlock): boolean {
  if (!block.hasUnsent) return false;
  const window = block.sendWindow.size - seqDistance(block.sndUna, block.sndNxt);
  return window > 0 || block.send.length === 0;
}

/** What the last frame was, so that it can be taken back. */
export const Sent = { Nothing: 0, Control: 1, New: 2, Again: 3 } as const;
export type Sent = (typeof Sent)[keyof typeof Sent];

/** Builds the segments of all connections of an endpoint. */
export class Transmitter {
  readonly #writer: SegmentWriter;
  /** The connection and the kind of the frame built last. */
  #last: ControlBlock | undefined;
  #sent: Sent = Sent.Nothing;
  #lastStart = 0;
  #lastLength = 0;
  #lastHadFin = false;
  /** It carried an ACK that was due, or would have been soon. */
  #lastHadAck = false;

  constructor(writer: SegmentWriter) {
    this.#writer = writer;
  }

  /** Builds a frame at `at`, and returns its length; 0 if the connection has nothing to send now. */
  next(block: ControlBlock, buffer: Uint8Array, at: number): number {
    this.#last = block;
    this.#sent = Sent.Control;
    if (block.state === TcpState.SynSent || block.state === TcpState.SynReceived) {
      return block.isSynDue ? this.#syn(block, buffer, at) : 0;
    }
    if (block.state < TcpState.Established || block.state === TcpState.TimeWait) return 0;
    const length = block.isHeldBack ? 0 : this.#data(block, buffer, at);
    if (length > 0) return length;
    this.#sent = Sent.Control;
    if (isProbeDue(block)) return this.#probe(block, buffer, at);
    return block.isAckDue ? this.#ack(block, buffer, at) : 0;
  }

  /** The frame that was read last is not one of this transmitter: it cannot be taken back. */
  forget(): void {
    this.#last = undefined;
  }

  /** The device did not take the frame built last: it counts as unsent. */
  takeBack(): void {
    const block = this.#last;
    if (block === undefined || block.hasEnded) return;
    const { now } = block.host;
    // The timers of probes try again; an ACK and a SYN are tried again soon.
    if (block.state < TcpState.Established) block.retryAt = now + MAX_RETRY_MS;
    else if (this.#lastHadAck) block.ackAt = Math.min(block.ackAt, now + RETRY_MS);
    if (this.#sent !== Sent.Control) {
      block.loss.onRefused();
      block.congestion.onTransmit(-this.#lastLength);
      const { counters } = block.host;
      if (this.#sent === Sent.New) {
        counters.sentBytes -= this.#lastLength;
        block.sndNxt = this.#lastStart;
        if (this.#lastHadFin) block.isFinSent = false;
      } else {
        counters.retransmitted--;
        counters.retransmittedBytes -= this.#lastLength;
      }
      if (!block.hasLocalDrop) {
        block.congestion.onLocalDrop(block.loss.inFlight);
        block.hasLocalDrop = !block.loss.isEmpty;
        block.localDropEnd = block.sndNxt;
      }
      block.isHeldBack = true;
      if (block.loss.isEmpty) block.retryAt = now + MAX_RETRY_MS;
    }
    this.#sent = Sent.Nothing;
    this.#last = undefined;
    block.host.update(block);
  }

  #syn(block: ControlBlock, buffer: Uint8Array, at: number): number {
    const writer = this.#writer;
    const { options } = writer;
    const { now, mtu } = block.host;
    const isAnswer = block.state === TcpState.SynReceived;
    block.isSynDue = false;
    block.synSentAt = now;
    block.sndNxt = seqAdd(block.iss, 1);
    writer.sequence = block.iss;
    writer.acknowledgement = isAnswer ? block.window.next : 0;
    writer.flags = isAnswer ? FLAG_SYN | FLAG_ACK : FLAG_SYN;
    writer.window = block.window.offerFirst(block.spare);
    options.clear();
    options.mss = mtu - headersOf(block.flow.family);
    if (block.hasScale) options.windowScale = block.window.scale;
    options.isSackPermitted = block.hasSack;
    options.hasTimestamps = block.timestamps.isUsed;
    options.tsValue = block.timestamps.at(now);
    options.tsEcho = isAnswer ? block.timestamps.recent : 0;
    return this.#finish(block, buffer, at, 0, 1);
  }

  #data(block: ControlBlock, buffer: Uint8Array, at: number): number {
    this.#prepareOptions(block);
    const { loss } = block;
    if (block.isResendDue) {
      block.isResendDue = false;
      if (!loss.isEmpty) {
        const length = Math.min(this.#mss(block), seqDistance(block.sndUna, block.sndNxt));
        return this.#resend(block, buffer, at, block.sndUna, seqAdd(block.sndUna, length));
      }
    }
    const lost = loss.firstLost;
    if (lost !== undefined) {
      const room = block.congestion.cwnd - loss.inFlight;
      if (room < block.unit && loss.inFlight > 0) {
        block.isCwndLimited = true;
        return 0;
      }
      const limit = Math.min(this.#limit(block), Math.max(room, block.unit));
      const whole = wholeSegments(limit, this.#mss(block));
      const length = Math.min(seqDistance(lost.start, lost.end), whole);
      return this.#resend(block, buffer, at, lost.start, seqAdd(lost.start, length));
    }
    const length = this.#newLength(block);
    if (length >= 0) return this.#new(block, buffer, at, length);
    const { probe } = loss;
    if (!probe.isDue || !seqBefore(probe.start, probe.end)) return 0;
    // The last segment; SACK blocks may have made less room since it was sent.
    const start = seqMax(probe.start, seqAdd(probe.end, -this.#mss(block)));
    return this.#resend(block, buffer, at, start, probe.end);
  }

  /** Returns how many written bytes to send now, 0 for a FIN alone, -1 for nothing. */
  #newLength(block: ControlBlock): number {
    if (!block.hasUnsent || block.loss.isFull) return -1;
    const { sndNxt, dataEnd, unit } = block;
    const unsent = seqDistance(sndNxt, dataEnd);
    const window = seqDistance(sndNxt, seqAdd(block.sndUna, block.sendWindow.size));
    // A FIN needs a number in the window, but none of the buffer: a closed window holds it back only behind data.
    if (unsent === 0) return window >= 0 ? 0 : -1;
    const isForced = block.loss.probe.isDue || block.windowProbe?.isDue === true;
    const flight = block.congestion.cwnd - block.loss.inFlight;
    if (flight < Math.min(unit, unsent) && !block.loss.probe.isDue) {
      if (window > 0) block.isCwndLimited = true;
      return -1;
    }
    const room = block.loss.probe.isDue ? unit : flight;
    const usable = Math.min(window, room, this.#limit(block));
    if (usable <= 0) return -1;
    if (usable >= unsent) return isForced || this.#maySendSmall(block, unsent) ? unsent : -1;
    const mss = this.#mss(block);
    const whole = wholeSegments(usable, mss);
    // SACK blocks make a full segment shorter than the unit.
    if (whole >= Math.min(unit, mss) || isForced) return whole;
    // The window, and not the data, makes this segment short (section 3.8.6.2.1).
    return window <= usable && 2 * usable >= block.sendWindow.max ? usable : -1;
  }

  /** Nagle's algorithm in the form of Minshall, as Linux has it: only a short segment waits, and only for a short one. */
  #maySendSmall(block: ControlBlock, length: number): boolean {
    if (!this.#isSmall(block, length) || block.isNoDelay || block.isFinQueued) return true;
    // The number is old if it seems to be behind SND.NXT: 2^31 bytes in full segments came after it.
    return seqAtMost(block.smallEnd, block.sndUna) || seqBefore(block.sndNxt, block.smallEnd);
  }

  /** Whether a segment of this length is shorter than a full one. */
  #isSmall(block: ControlBlock, length: number): boolean {
    return length < block.unit && length < this.#mss(block);
  }

  #new(block: ControlBlock, buffer: Uint8Array, at: number, length: number): number {
    const { host, loss, congestion } = block;
    const start = block.sndNxt;
    if (loss.isEmpty) {
      if (block.sentAt > 0) congestion.onIdle(host.now - block.sentAt, block.rtt.rtoMs);
      // It may have waited for the link, or was refused by the device.
      block.stalledSince = Math.min(block.stalledSince, host.now);
    }
    const behind = seqAdd(start, length);
    const hasFin = block.isFinQueued && behind === block.dataEnd;
    const end = hasFin ? seqAdd(behind, 1) : behind;
    block.sndNxt = end;
    if (hasFin) block.isFinSent = true;
    if (length > 0 && this.#isSmall(block, length)) block.smallEnd = behind;
    block.windowProbe?.cancel();
    block.sentAt = host.now;
    host.counters.sentBytes += length;
    loss.onTransmit(start, end, host.now, false, this.#mss(block));
    congestion.onTransmit(length);
    this.#sent = Sent.New;
    this.#lastStart = start;
    this.#lastHadFin = hasFin;
    return this.#payload(block, buffer, at, start, length, hasFin);
  }

  #resend(block: ControlBlock, buffer: Uint8Array, at: number, start: number, end: number): number {
    const { host } = block;
    // The front may have been acknowledged since the range was marked.
    const from = seqMax(start, block.sndUna);
    const last = seqMin(end, block.dataEnd);
    const length = Math.max(seqDistance(from, last), 0);
    const hasFin = block.isFinSent && seqBefore(block.dataEnd, end);
    block.sentAt = host.now;
    host.counters.retransmitted++;
    host.counters.retransmittedBytes += length;
    block.loss.onTransmit(from, end, host.now, true, this.#mss(block));
    block.congestion.onTransmit(length);
    this.#sent = Sent.Again;
    return this.#payload(block, buffer, at, from, length, hasFin);
  }

  #payload(
    block: ControlBlock,
    buffer: Uint8Array,
    at: number,
    start: number,
    length: number,
    hasFin: boolean
  ): number {
    const writer = this.#writer;
    const isLast = length > 0 && seqAdd(start, length) === block.dataEnd;
    this.#lastLength = length;
    writer.sequence = start;
    writer.flags = FLAG_ACK | (isLast ? FLAG_PSH : 0) | (hasFin ? FLAG_FIN : 0);
    const payload = writer.payloadAt(block.flow, at);
    if (length > 0) {
      block.send.copy(seqDistance(block.sndFront, start), length, buffer, payload);
    }
    return this.#acknowledge(block, buffer, at, length, this.#mss(block));
  }

  /** A segment with the number in front of SND.UNA: the peer answers it with an ACK (RFC 9293 section 3.8.4). */
  #probe(block: ControlBlock, buffer: Uint8Array, at: number): number {
    if (block.windowProbe !== undefined) block.windowProbe.isDue = false;
    if (block.keepalive !== undefined) block.keepalive.isDue = false;
    this.#prepareOptions(block);
    this.#writer.sequence = seqAdd(block.sndUna, -1);
    this.#writer.flags = FLAG_ACK;
    return this.#acknowledge(block, buffer, at, 0, 1);
  }

  #ack(block: ControlBlock, buffer: Uint8Array, at: number): number {
    this.#prepareOptions(block);
    this.#writer.sequence = block.acceptableSequence;
    this.#writer.flags = FLAG_ACK;
    return this.#acknowledge(block, buffer, at, 0, 1);
  }

  /** Adds what every segment behind the handshake carries: the ACK and the window. */
  #acknowledge(
    block: ControlBlock,
    buffer: Uint8Array,
    at: number,
    length: number,
    mss: number
  ): number {
    const writer = this.#writer;
    const { window } = block;
    writer.acknowledgement = window.next;
    writer.window = block.offerWindow();
    block.timestamps.lastAckSent = window.next;
    this.#lastHadAck = block.isAckDue || block.ackAt !== Number.POSITIVE_INFINITY;
    block.unacknowledged = 0;
    block.isAckDue = false;
    block.ackAt = Number.POSITIVE_INFINITY;
    block.hasDuplicate = false;
    return this.#finish(block, buffer, at, length, mss);
  }

  #finish(
    block: ControlBlock,
    buffer: Uint8Array,
    at: number,
    length: number,
    mss: number
  ): number {
    block.host.counters.sent++;
    return this.#writer.write(buffer, at, block.flow, length, mss);
  }

  /** Sets timestamps and SACK blocks, a duplicate first (RFC 2883 section 4). */
  #prepareOptions(block: ControlBlock): void {
    const { options } = this.#writer;
    const { timestamps } = block;
    options.clear();
    if (timestamps.isUsed) {
      options.hasTimestamps = true;
      options.tsValue = timestamps.at(block.host.now);
      options.tsEcho = timestamps.recent;
    }
    if (!block.hasSack || (block.receive.outOfOrder === 0 && !block.hasDuplicate)) return;
    let room = timestamps.isUsed ? MAX_SACK_BLOCKS - 1 : MAX_SACK_BLOCKS;
    let count = 0;
    if (block.hasDuplicate) {
      options.sack[0] = block.duplicateLeft;
      options.sack[1] = block.duplicateRight;
      count = 1;
      room--;
    }
    const blocks = options.sack.subarray(2 * count);
    count += block.receive.sackBlocks(blocks, block.window.next, room);
    options.sackCount = count;
  }

  /** The payload bytes of each segment, behind the options that are set. */
  #mss(block: ControlBlock): number {
    return Math.max(block.mss - this.#writer.options.length, 1);
  }

  /** The most payload bytes of one frame. */
  #limit(block: ControlBlock): number {
    const { host, unit } = block;
    const mss = this.#mss(block);
    if (!host.offload) return mss;
    // Where many connections wait to send, the others fill the time until acknowledgements come.
    const part = Math.max(block.congestion.cwnd >> (host.isCrowded ? 1 : 2), unit);
    const half = Math.max(block.sendWindow.max >> 1, unit);
    const packet = host.mtu - headersOf(block.flow.family) - this.#writer.options.length;
    const limit = Math.min(part, half, packet);
    if (limit <= mss) return limit;
    const whole = wholeSegments(limit, mss);
    return makesTooManySegments(false, whole, mss) ? mss * MAX_SHORT_SEGMENTS : whole;
  }
}

function wholeSegments(length: number, mss: number): number {
  return length > mss ? length - (length % mss) : length;
}

/** When data that the device did not take is tried again if nothing is outstanding, and when a SYN is. */
const MAX_RETRY_MS = 100;
/** When an ACK is tried again that the device did not take. */
const RETRY_MS = 10;
