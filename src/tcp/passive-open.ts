/**
 * Connections that peers open: from their SYN to the ACK that completes the handshake they are entries of a small table
 * and have no control block and no buffers
 * ([RFC 9293 section 3.10.7.2](https://www.rfc-editor.org/rfc/rfc9293#section-3.10.7.2); the SYN-RECEIVED state of
 * 3.10.7.4).
 *
 * There are no SYN cookies, which would lose options. The table is bounded, in all, for each client and for each group of
 * clients. A handshake that is held (`pending-open.ts`) is an entry too, whose SYN-ACK is not sent yet.
 * @module
 */
import { ANSWER_INTERVAL_MS, type Answer, isBare, resetFor } from './answers.ts';
import type { TcpCounters } from './counters.ts';
import type { Flow } from './flow.ts';
import { HalfOpen, HalfOpenTable } from './half-open.ts';
import type { SequenceNumbers } from './isn.ts';
import { type Acceptor, listenerOf, type TcpListener } from './listener.ts';
import {
  HELD_MS,
  PendingOpenEvents,
  type PendingOpenHost,
  type TcpOpenEnd,
  type TcpOpenOwner,
  TcpPendingOpen,
} from './pending-open.ts';
import { WINDOW_SCALE } from './receive-window.ts';
import { FLAG_ACK, FLAG_RST, FLAG_SYN, headersOf, type SegmentReader } from './segment.ts';
import { seqAdd, seqBefore, seqDistance } from './sequence.ts';
import { timestampAt } from './timestamps.ts';

export interface PassiveOpenOptions {
  readonly limit: number;
  readonly perClient: number;
  readonly mtu: number;
  readonly counters: TcpCounters;
  readonly numbers: SequenceNumbers;
  readonly answer: (answer: Answer) => void;
  /** Reads the clock, in ms. */
  readonly advance: () => number;
  /** The window that a SYN-ACK may offer now. */
  readonly firstWindow: (group: string | undefined) => number;
  /** Whether there are as many connections as there may be, in all or in the group. */
  readonly isFull: (group: string | undefined) => boolean;
  /** The handshake is complete. */
  readonly establish: (opening: HalfOpen, segment: SegmentReader) => void;
  /** An owner has something to learn; called once until `deliver`. */
  readonly onEvents: () => void;
  /** The deadline may be earlier than it was. */
  readonly onDeadline: () => void;
}

/** A SYN for somebody who takes it. */
export interface Syn {
  readonly segment: SegmentReader;
  readonly flow: Flow;
  /** The group of the remote address. */
  readonly group: string | undefined;
  readonly now: number;
  /** The number that the initial sequence number must be behind, if the flow is in TIME-WAIT. */
  readonly afterIss: number | undefined;
}

export class PassiveOpens implements PendingOpenHost {
  readonly #options: PassiveOpenOptions;
  readonly #table: HalfOpenTable;
  readonly #events: PendingOpenEvents;

  constructor(options: PassiveOpenOptions, now: number) {
    this.#options = options;
    this.#table = new HalfOpenTable(now, options);
    this.#events = new PendingOpenEvents(options.onEvents);
  }

  get size(): number {
    return this.#table.size;
  }

  get deadline(): number {
    return this.#table.deadline;
  }

  /** Handles a SYN for a listener. */
  onSyn(listener: TcpListener, syn: Syn): void {
    const opening = this.#openingOf(syn);
    opening.listener = listener;
    opening.deadlineMs = syn.now + FIRST_RETRY_MS;
    opening.window = this.#options.firstWindow(opening.group);
    if (this.#add(opening)) this.#answerSyn(opening, syn.now);
  }

  /** Handles a SYN whose answer its owner decides about. */
  hold(owner: TcpOpenOwner, syn: Syn): void {
    const opening = this.#openingOf(syn);
    const open = new TcpPendingOpen(opening, owner, this);
    opening.listener = open;
    opening.isHeld = true;
    opening.deadlineMs = syn.now + HELD_MS;
    if (this.#add(opening)) this.#events.add(open);
    else this.#end(open, 'evicted');
  }

  /** Sends the SYN-ACK of a held handshake. */
  accept({ opening }: TcpPendingOpen): void {
    const now = this.#options.advance();
    opening.isHeld = false;
    opening.window = this.#options.firstWindow(opening.group);
    // The round trip is that of the SYN-ACK.
    opening.openedAt = now;
    this.#table.delay(opening, now + FIRST_RETRY_MS);
    this.#options.onDeadline();
    this.#answerSyn(opening, now);
  }

  /** Resets a handshake, whether its SYN-ACK was sent or not. */
  refuse({ opening }: TcpPendingOpen): void {
    this.#options.advance();
    this.#table.remove(opening);
    this.#options.answer({
      flow: opening.flow,
      sequence: opening.isHeld ? 0 : seqAdd(opening.iss, 1),
      acknowledgement: seqAdd(opening.irs, 1),
      flags: FLAG_RST | FLAG_ACK,
      window: 0,
    });
  }

  drop({ opening }: TcpPendingOpen): void {
    this.#table.remove(opening);
  }

  /** Tells the owners of held handshakes what has happened. It runs their code. */
  deliver(): void {
    this.#events.deliver();
  }

  /** Handles a segment of a half-open connection. Returns false if there is none for the segment. */
  onSegment(segment: SegmentReader, flow: Flow, now: number): boolean {
    const opening = this.#table.find(flow);
    if (opening === undefined) return false;
    const { counters } = this.#options;
    const offset = seqDistance(seqAdd(opening.irs, 1), segment.sequence);
    if (segment.has(FLAG_RST)) {
      // RFC 5961 section 3.2: only the exact number resets.
      if (offset === 0) this.#remove(opening, 'reset');
      else if (offset > 0 && offset < opening.window) this.#answerOutside(opening, segment, now);
      else counters.dropOutsideWindow++;
      return true;
    }
    if (opening.isHeld) return this.#onHeldSegment(opening, segment, flow);
    if (segment.has(FLAG_SYN)) {
      // The peer has not received the SYN-ACK; any other SYN is an old duplicate, or not the peer's.
      if (segment.sequence === opening.irs) this.#answerSyn(opening, now);
      else this.#answerOutside(opening, segment, now);
      return true;
    }
    if (!segment.has(FLAG_ACK)) {
      counters.dropBadAck++;
      return true;
    }
    const { acknowledgement, options } = segment;
    if (opening.timestamps) {
      if (!options.hasTimestamps) {
        counters.dropBadAck++;
        return true;
      }
      // PAWS (RFC 7323 section 5.3).
      if (seqBefore(options.tsValue, opening.tsRecent)) {
        counters.dropOldTimestamp++;
        this.#answerOutside(opening, segment, now);
        return true;
      }
    }
    if (offset < 0 || offset >= opening.window) {
      counters.dropOutsideWindow++;
      this.#answerOutside(opening, segment, now);
      return true;
    }
    if (acknowledgement !== seqAdd(opening.iss, 1)) {
      counters.dropBadAck++;
      this.#options.answer({
        flow,
        sequence: acknowledgement,
        acknowledgement: 0,
        flags: FLAG_RST,
        window: 0,
      });
      return true;
    }
    const listener = listenerOf(opening);
    const isFull = this.#options.isFull(opening.group);
    if (listener === undefined || listener.waiting >= listener.backlog || isFull) {
      // The SYN-ACK is sent again later, and so is the peer's ACK.
      counters.dropSyn++;
      return true;
    }
    this.#table.remove(opening);
    if (listener instanceof TcpPendingOpen) listener.leave();
    this.#options.establish(opening, segment);
    return true;
  }

  /**
   * Nothing was sent for a held handshake, so that segments find what they find in LISTEN. Returns whether the segment
   * is done with; a new SYN is not, and begins another handshake in place of this one.
   */
  #onHeldSegment(opening: HalfOpen, segment: SegmentReader, flow: Flow): boolean {
    const { answer, counters } = this.#options;
    if (segment.has(FLAG_ACK)) {
      answer(resetFor(segment, flow));
    } else if (!segment.has(FLAG_SYN)) {
      counters.dropBadAck++;
    } else if (segment.sequence !== opening.irs) {
      // The peer's new connection (RFC 9293 section 3.10.7.4, fourth step: back to LISTEN).
      this.#remove(opening, 'reset');
      return false;
    } else if (opening.timestamps && segment.options.hasTimestamps) {
      // The SYN-ACK then tells the peer which of its SYNs it answers.
      const { tsValue } = segment.options;
      if (seqBefore(opening.tsRecent, tsValue)) opening.tsRecent = tsValue;
    }
    return true;
  }

  /** Sends SYN-ACKs again, and forgets the connections that nobody completed. */
  expire(now: number): void {
    this.#table.expire(now, (opening) => {
      if (opening.isHeld || opening.retries >= MAX_RETRIES) {
        this.#remove(opening, 'timed-out');
        return;
      }
      opening.retries++;
      this.#table.delay(opening, now + FIRST_RETRY_MS * 2 ** opening.retries);
      this.#answerSyn(opening, now);
    });
  }

  /** Forgets the connections of a listener that was closed. */
  forget(listener: TcpListener): void {
    for (const opening of [...this.#table]) {
      if (opening.listener === listener) this.#table.remove(opening);
    }
  }

  /** Forgets all handshakes. */
  clear(): void {
    for (const opening of [...this.#table]) this.#remove(opening, 'aborted');
  }

  #openingOf({ segment, flow, group, now, afterIss }: Syn): HalfOpen {
    const { numbers } = this.#options;
    const { options } = segment;
    const opening = new HalfOpen(flow);
    opening.group = group;
    opening.iss = afterIss ?? numbers.isn(flow, now);
    opening.irs = segment.sequence;
    opening.mss = options.mss;
    opening.windowScale = options.windowScale;
    opening.sackPermitted = options.isSackPermitted;
    opening.timestamps = options.hasTimestamps;
    if (options.hasTimestamps) {
      opening.tsRecent = options.tsValue;
      opening.tsOffset = numbers.timestampOffset(flow);
    }
    opening.openedAt = now;
    return opening;
  }

  /** Returns whether there is room. In a full table, the oldest one goes. */
  #add(opening: HalfOpen): boolean {
    const gone = this.#table.add(opening);
    if (gone !== undefined) this.#options.counters.dropSyn++;
    if (gone === opening) return false;
    if (gone !== undefined) this.#tell(gone, 'evicted');
    return true;
  }

  #remove(opening: HalfOpen, reason: TcpOpenEnd): void {
    if (this.#table.remove(opening)) this.#tell(opening, reason);
  }

  #tell(opening: HalfOpen, reason: TcpOpenEnd): void {
    const listener: Acceptor | undefined = listenerOf(opening);
    if (listener instanceof TcpPendingOpen) this.#end(listener, reason);
  }

  #end(open: TcpPendingOpen, reason: TcpOpenEnd): void {
    open.leave();
    open.end = reason;
    this.#events.add(open);
  }

  #answerSyn(opening: HalfOpen, now: number): void {
    const { flow, iss, irs } = opening;
    const { mtu } = this.#options;
    this.#options.answer({
      flow,
      sequence: iss,
      acknowledgement: seqAdd(irs, 1),
      flags: FLAG_SYN | FLAG_ACK,
      window: opening.window,
      timestamps: timestampsOf(opening, now),
      syn: {
        mss: mtu - headersOf(flow.family),
        windowScale: opening.windowScale < 0 ? -1 : WINDOW_SCALE,
        isSackPermitted: opening.sackPermitted,
      },
    });
  }

  /** Tells the peer our numbers. */
  #answerOutside(opening: HalfOpen, segment: SegmentReader, now: number): void {
    if (isBare(segment) && now - opening.answeredAt < ANSWER_INTERVAL_MS) return;
    opening.answeredAt = now;
    const { flow, iss, irs } = opening;
    this.#options.answer({
      flow,
      sequence: seqAdd(iss, 1),
      acknowledgement: seqAdd(irs, 1),
      flags: FLAG_ACK,
      window: opening.windowScale < 0 ? opening.window : opening.window >> WINDOW_SCALE,
      timestamps: timestampsOf(opening, now),
    });
  }
}

function timestampsOf(opening: HalfOpen, now: number): Answer['timestamps'] {
  if (!opening.timestamps) return undefined;
  return { value: timestampAt(now, opening.tsOffset), echo: opening.tsRecent };
}

const FIRST_RETRY_MS = 1_000;
/** As Linux's `tcp_synack_retries`: the last wait ends after 63 s. */
const MAX_RETRIES = 5;
