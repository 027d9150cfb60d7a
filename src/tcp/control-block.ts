/**
 * The state of one connection, the transmission control block
 * ([RFC 9293 section 3.3.1](https://www.rfc-editor.org/rfc/rfc9293#section-3.3.1)), and the small operations that all
 * parts share. `receive.ts` handles segments, `transmit.ts` builds them, `timers.ts` handles time, and `connection.ts`
 * is what the application sees.
 *
 * Sequence numbers are signed 32-bit integers, times are ms of the endpoint's clock, sizes are bytes. A deadline that
 * is not set is Infinity.
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import { Congestion } from './congestion.ts';
import type { TcpCounters } from './counters.ts';
import type { Flow } from './flow.ts';
import type { LastTransmission } from './last-transmission.ts';
import { LossRecovery } from './loss.ts';
import type { BufferMemory } from './memory.ts';
import { TIMESTAMPS_LENGTH } from './options.ts';
import type { Keepalive, WindowProbe } from './probes.ts';
import { type Ready, ReadyClass, type ReadyItems } from './ready-queue.ts';
import { ReceiveBuffer } from './receive-buffer.ts';
import { ReceiveWindow } from './receive-window.ts';
import { RttEstimator } from './rtt.ts';
import { headersOf } from './segment.ts';
import { SendBuffer } from './send-buffer.ts';
import { SendWindow } from './send-window.ts';
import { seqAdd, seqBefore, seqDistance } from './sequence.ts';
import { TcpEvent, type TcpFailure, TcpState } from './state.ts';
import type { Timed } from './timer-wheel.ts';
import { Timestamps } from './timestamps.ts';

/** What a control block needs of its endpoint. */
export interface BlockHost {
  /** Returns the memory for the buffers of a group's connections; undefined stands for none. */
  memoryOf(group: string | undefined): BufferMemory;
  readonly counters: TcpCounters;
  readonly lastTransmission: LastTransmission;
  /** The longest packet that the endpoint sends, in bytes. */
  readonly mtu: number;
  readonly maxBufferBytes: number;
  /** Whether frames may be super-segments. */
  readonly offload: boolean;
  /** The time in ms of the last `advance`. */
  readonly now: number;
  /** Whether many connections wait to send. */
  readonly isCrowded: boolean;
  /** Whether packets can leave at all. */
  readonly isLinkUp: boolean;
  /** Returns the longest packet that is known to reach `remote`, in bytes, at most `mtu`. */
  pathMtu(remote: IpAddress): number;
  /** Reads the clock: `now` is the time of this call. */
  advance(): void;
  /** Looks again whether the block has something to send, and when its next deadline is. */
  update(block: ControlBlock): void;
  /** The block has new `events`. */
  notify(block: ControlBlock): void;
  /**
   * Sends one segment without data: a RST if `isReset`, after which the connection ends, else an ACK. Returns false if it
   * was dropped, because too many answers wait.
   */
  answer(block: ControlBlock, isReset: boolean): boolean;
  /** Resets whoever sent this ACK number, which does not acknowledge our SYN. The connection goes on. */
  refuse(block: ControlBlock, acknowledgement: number): void;
  /** The block has ended: no segment reaches it from now on. */
  retire(block: ControlBlock, isTimeWait: boolean): void;
  /** The block has ended; what it has left unread is more or less than before. */
  keepUnread(block: ControlBlock): void;
}

export class ControlBlock implements Timed, Ready {
  readonly flow: Flow;
  readonly host: BlockHost;
  state: TcpState = TcpState.Closed;
  failure: TcpFailure | undefined;
  /** An ICMP error that did not end the connection (RFC 5461); it becomes the failure at a timeout. */
  softFailure: TcpFailure | undefined;
  /** Bits of `TcpEvent` that the owner has not learned. */
  events = 0;

  /** The first sequence number, ISS. */
  iss = 0;
  /** SND.UNA, SND.NXT. SND.NXT never goes back, except for a packet that the device refused. */
  sndUna = 0;
  sndNxt = 0;
  readonly sendWindow: SendWindow = new SendWindow();
  /** The sequence number of the first byte in `send`. */
  sndFront = 0;
  readonly send: SendBuffer;
  isFinQueued = false;
  isFinSent = false;
  /** The end of the last segment that was shorter than `unit` (Minshall's form of Nagle's algorithm). */
  smallEnd = 0;
  isNoDelay = false;

  /** The first sequence number of the peer, IRS. */
  irs = 0;
  readonly window: ReceiveWindow;
  readonly receive: ReceiveBuffer;
  /** The sequence number of a FIN that came before the data in front of it. Valid iff `hasEarlyFin`. */
  earlyFin = 0;
  hasEarlyFin = false;
  isFinReceived = false;
  /** The application takes no more data: what comes is answered by a reset. */
  isReceiveShut = false;
  /** The application has left: the connection ends by itself. */
  isReleased = false;
  /** The bytes that were received and not acknowledged yet. */
  unacknowledged = 0;
  isAckDue = false;
  /** The range of a duplicate to report by the next SACK option (RFC 2883). Valid iff `hasDuplicate`. */
  duplicateLeft = 0;
  duplicateRight = 0;
  hasDuplicate = false;

  /** What both ends use; before the peer's SYN, what ours offers. */
  readonly timestamps: Timestamps = new Timestamps();
  hasSack = false;
  hasScale = false;

  /** The MSS that the peer announced, and the path's MTU. */
  peerMss: number;
  pathMtu: number;
  readonly rtt: RttEstimator = new RttEstimator();
  readonly loss: LossRecovery;
  /** It begins anew when the options of the handshake are known. */
  congestion: Congestion;
  /** Whether cwnd held a transmission back in the last round trip, and in the one that goes on. */
  wasCwndLimited = false;
  isCwndLimited = false;
  /** The device refused a packet in this round trip: until `localDropEnd` is acknowledged, others reduce cwnd no more. */
  hasLocalDrop = false;
  localDropEnd = 0;

  /** What the next call of `transmit` must send, besides data and ACKs. */
  isSynDue = false;
  isResendDue = false;
  /** The device did not take a packet: the next ACK or timer tries again. */
  isHeldBack = false;

  synRetries = 0;
  synSentAt = 0;
  synAt: number = Number.POSITIVE_INFINITY;
  ackAt: number = Number.POSITIVE_INFINITY;
  retryAt: number = Number.POSITIVE_INFINITY;
  resendAt: number = Number.POSITIVE_INFINITY;
  lingerAt: number = Number.POSITIVE_INFINITY;
  /** Exists from the first time on that something waits for a window. */
  windowProbe: WindowProbe | undefined;
  /** Exists from the first `setKeepAlive` on. */
  keepalive: Keepalive | undefined;
  userTimeoutMs: number = DEFAULT_USER_TIMEOUT_MS;
  /** Since when something waits for an acknowledgement without progress. */
  stalledSince: number = Number.POSITIVE_INFINITY;
  heardAt = 0;
  /** When `onProgress` was last worth something: what holds memory without that for long may be reset. */
  progressAt = 0;
  /** The bytes that came, were acknowledged or were read since. */
  private moved = 0;
  /** When data was sent last, for the restart after an idle time. */
  sentAt = 0;

  /** When the last challenge ACK was sent (RFC 5961 section 7). */
  challengeAt: number = Number.NEGATIVE_INFINITY;

  /** The links of the endpoint's timer wheel. */
  timerNext: Timed | undefined = undefined;
  timerPrevious: Timed | undefined = undefined;
  timerSlot = -1;
  timerAtMs = 0;

  /** The links of the endpoint's queue of connections that may send. */
  readyNext: Ready | undefined = undefined;
  readyPrevious: Ready | undefined = undefined;
  readyClass: ReadyClass = ReadyClass.None;
  readyAfter: ReadyClass = ReadyClass.None;
  readyList: ReadyItems | undefined = undefined;
  readyDeficit = 0;
  readyRound = -1;

  /** What the application sees of the connection; `connectionOf` gives it its type. */
  connection: unknown;
  /** The block has events, and is in the endpoint's list of those that have. */
  isNotified = false;

  /** The acceptor of the connection until its owner has learned of it; `listenerOf` gives it its type. */
  listener: unknown;
  /** The group of the remote address, whose connections have bounds; undefined for none. */
  readonly group: string | undefined;
  /** What the buffers take: the endpoint's, or the group's part of it. */
  readonly memory: BufferMemory;

  /** The next block under the same hash, in the endpoint's table. */
  chained: ControlBlock | undefined;
  /** A write took fewer bytes than it was given. */
  isWriterWaiting = false;

  /** @param group that of the remote address; undefined for none */
  constructor(flow: Flow, host: BlockHost, group: string | undefined) {
    this.flow = flow;
    this.host = host;
    this.group = group;
    this.memory = host.memoryOf(group);
    this.send = new SendBuffer(this.memory);
    this.receive = new ReceiveBuffer(this.memory);
    this.window = new ReceiveWindow(host.maxBufferBytes);
    this.loss = new LossRecovery(this.rtt, host.lastTransmission);
    this.peerMss = DEFAULT_MSS[flow.family];
    this.pathMtu = host.pathMtu(flow.remote);
    this.congestion = new Congestion(this.unit);
  }

  /** The largest payload of one segment, without options (RFC 9293 section 3.7.1). */
  get mss(): number {
    return Math.min(this.peerMss, this.pathMtu - headersOf(this.flow.family));
  }

  /** Stands for SMSS in congestion control, Nagle's algorithm, delayed ACKs and silly window avoidance. */
  get unit(): number {
    return Math.min(this.mss - (this.timestamps.isUsed ? TIMESTAMPS_LENGTH : 0), MAX_UNIT);
  }

  /** The sequence number behind the last byte that the application has written. */
  get dataEnd(): number {
    return seqAdd(this.sndFront, this.send.length);
  }

  /** Whether there are written bytes, or a FIN, that were not sent. */
  get hasUnsent(): boolean {
    return seqBefore(this.sndNxt, this.dataEnd) || (this.isFinQueued && !this.isFinSent);
  }

  /** Whether SND.UNA is behind our FIN. */
  get isFinAcknowledged(): boolean {
    return this.isFinSent && this.sndUna === this.sndNxt;
  }

  /**
   * Offers the peer a window, and returns the window field of a segment that is sent now. While memory is tight, no
   * more is offered than has memory already.
   */
  offerWindow(): number {
    return this.window.offer(this.receive.available, this.spare);
  }

  /** The bytes behind RCV.NXT that the peer may be offered as far as memory goes. */
  get spare(): number {
    return this.memory.isTight ? this.receive.spare : Number.POSITIVE_INFINITY;
  }

  /**
   * The sequence number of a segment without data. It is SND.NXT, unless the peer has moved the right edge of its window
   * back in front of that: it would drop such a segment, and with it the ACK.
   */
  get acceptableSequence(): number {
    const edge = seqAdd(this.sndUna, this.sendWindow.size);
    // Scaled windows are rounded down, and a FIN may be one behind the edge.
    const isBeyond = seqDistance(edge, this.sndNxt) > 1 << this.sendWindow.scale;
    return isBeyond ? edge : this.sndNxt;
  }

  /** The unit is known for the first time: the initial window follows from it. */
  beginCongestion(): void {
    this.congestion = new Congestion(this.unit);
    this.adaptUnit();
  }

  /** Follows a new path MTU. */
  adaptUnit(): void {
    this.congestion.unit = this.unit;
    this.loss.unit = this.unit;
    this.loss.mss = this.mss - (this.timestamps.isUsed ? TIMESTAMPS_LENGTH : 0);
  }

  /** The bytes of the large slabs that the connection holds: what counts in the bound of all buffers. */
  get held(): number {
    return this.receive.large + this.send.large;
  }

  /**
   * So many bytes came, were acknowledged or were read. That is progress once it is worth a share of what the connection
   * holds, so that a peer does not keep memory by a byte now and then.
   */
  onProgress(count: number, now: number): void {
    this.moved += count;
    if (this.moved < this.held / PROGRESS_SHARE) return;
    this.moved = 0;
    this.progressAt = now;
  }

  /** Whether the connection has ended. What the application has not read may be left. */
  get hasEnded(): boolean {
    return this.state === TcpState.Closed || this.state === TcpState.TimeWait;
  }

  /** Drops what was not read. No end of the stream may seem to follow what is lost. */
  dropUnread(): void {
    if (this.receive.available > 0) this.isFinReceived = false;
    this.receive.destroy();
    this.host.keepUnread(this);
  }

  /** Something valid came from the peer. */
  onHeard(now: number): void {
    this.heardAt = now;
    this.keepalive?.restart(now);
  }

  /** RFC 2883: the first SACK block of the next ACK reports what came twice. */
  reportDuplicate(left: number, right: number): void {
    if (!this.hasSack) return;
    this.hasDuplicate = true;
    this.duplicateLeft = left;
    this.duplicateRight = right;
  }

  raise(event: number): void {
    this.events |= event;
    this.host.notify(this);
  }

  /** Ends the connection. What the application can read stays readable. */
  end(failure?: TcpFailure): void {
    if (this.state === TcpState.Closed) return;
    this.failure = failure;
    const isOpen = this.state >= TcpState.Established;
    if (isOpen && failure !== undefined && failure !== 'aborted') this.host.counters.failed++;
    this.#leave(TcpState.Closed);
    this.host.retire(this, false);
  }

  /** Enters TIME-WAIT: the endpoint remembers the numbers in a table, and the application sees the end. */
  enterTimeWait(): void {
    this.#leave(TcpState.TimeWait);
    this.host.retire(this, true);
  }

  #leave(state: TcpState): void {
    this.state = state;
    this.loss.destroy();
    this.send.destroy();
    this.receive.discardOutOfOrder();
    if (this.isReleased) this.receive.destroy();
    this.raise(TcpEvent.Closed);
  }
}

/** What a peer takes that does not announce an MSS (RFC 9293 section 3.7.1). */
const DEFAULT_MSS: Readonly<Record<4 | 6, number>> = { 4: 536, 6: 1_220 };
const MAX_UNIT = 1_460;
/** A connection that moves less than this share of what it holds in a minute would need an hour for the rest. */
const PROGRESS_SHARE = 64;
/** As Linux: 15 retransmissions, which take 924.6 s. */
const DEFAULT_USER_TIMEOUT_MS = 924_600;
