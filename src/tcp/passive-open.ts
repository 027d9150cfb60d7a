/**
 * Connections that peers open: from their SYN to the ACK that completes the handshake they are entries of a small table
 * and have no control block and no buffers
 * ([RFC 9293 section 3.10.7.2](https://www.rfc-editor.org/rfc/rfc9293#section-3.10.7.2); the SYN-RECEIVED state of
 * 3.10.7.4).
 *
 * There are no SYN cookies, which would lose options. The table is bounded, in all and for each client.
 * @module
 */
import { ANSWER_INTERVAL_MS, type Answer, isBare } from './answers.ts';
import type { TcpCounters } from './counters.ts';
import type { Flow } from './flow.ts';
import { HalfOpen, HalfOpenTable } from './half-open.ts';
import type { SequenceNumbers } from './isn.ts';
import { listenerOf, type TcpListener } from './listener.ts';
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
  /** The window that a SYN-ACK may offer now. */
  readonly firstWindow: () => number;
  /** Whether there are as many connections as there may be. */
  readonly isFull: () => boolean;
  /** The handshake is complete. */
  readonly establish: (opening: HalfOpen, segment: SegmentReader) => void;
}

export class PassiveOpens {
  readonly #options: PassiveOpenOptions;
  readonly #table: HalfOpenTable;

  constructor(options: PassiveOpenOptions, now: number) {
    this.#options = options;
    this.#table = new HalfOpenTable(now, options);
  }

  get size(): number {
    return this.#table.size;
  }

  get deadline(): number {
    return this.#table.deadline;
  }

  /**
   * Handles a SYN for a listener.
   *
   * @param afterIss the number that the initial sequence number must be behind, if the flow is in TIME-WAIT
   */
  onSyn(
    listener: TcpListener,
    segment: SegmentReader,
    flow: Flow,
    now: number,
    afterIss: number | undefined
  ): void {
    const { numbers, counters } = this.#options;
    const { options } = segment;
    const opening = new HalfOpen(flow);
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
    opening.window = this.#options.firstWindow();
    opening.openedAt = now;
    opening.deadlineMs = now + FIRST_RETRY_MS;
    opening.listener = listener;
    const gone = this.#table.add(opening);
    if (gone !== undefined) counters.dropSyn++;
    if (gone !== opening) this.#answerSyn(opening, now);
  }

  /** Handles a segment of a half-open connection. Returns false if there is none for the segment. */
  onSegment(segment: SegmentReader, flow: Flow, now: number): boolean {
    const opening = this.#table.find(flow);
    if (opening === undefined) return false;
    const { counters } = this.#options;
    const offset = seqDistance(seqAdd(opening.irs, 1), segment.sequence);
    if (segment.has(FLAG_RST)) {
      // RFC 5961 section 3.2: only the exact number resets.
      if (offset === 0) this.#table.remove(opening);
      else if (offset > 0 && offset < opening.window) this.#answerOutside(opening, segment, now);
      else counters.dropOutsideWindow++;
      return true;
    }
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
    if (listener === undefined || listener.waiting >= listener.backlog || this.#options.isFull()) {
      // The SYN-ACK is sent again later, and so is the peer's ACK.
      counters.dropSyn++;
      return true;
    }
    this.#table.remove(opening);
    this.#options.establish(opening, segment);
    return true;
  }

  /** Sends SYN-ACKs again, and forgets the connections that nobody completed. */
  expire(now: number): void {
    this.#table.expire(now, (opening) => {
      if (opening.retries >= MAX_RETRIES) {
        this.#table.remove(opening);
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
