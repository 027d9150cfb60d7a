/**
 * Segments without data that wait to be sent and belong to no connection that sends: resets, ACKs for connections that
 * have ended, and SYN-ACKs of half-open connections. The queue is bounded, and so are the resets in a second, because
 * a peer decides how many there are.
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import { quarterOf } from '../base/group-counts.ts';
import { RateLimit } from '../base/rate-limit.ts';
import type { Flow } from './flow.ts';
import { FLAG_ACK, FLAG_FIN, FLAG_RST, type SegmentReader, type SegmentWriter } from './segment.ts';
import { seqAdd } from './sequence.ts';

/** One segment without data. */
export interface Answer {
  readonly flow: Flow;
  readonly sequence: number;
  readonly acknowledgement: number;
  readonly flags: number;
  /** The window field. */
  readonly window: number;
  /** The timestamps option; undefined if there is none. */
  readonly timestamps?: { readonly value: number; readonly echo: number } | undefined;
  /** The options of a SYN-ACK. */
  readonly syn?: {
    readonly mss: number;
    /** -1 without the option. */
    readonly windowScale: number;
    readonly isSackPermitted: boolean;
  };
}

/** Returns the reset for a segment that belongs to nothing (RFC 9293 section 3.10.7.1). */
export function resetFor(segment: SegmentReader, flow: Flow): Answer {
  const hasAck = segment.has(FLAG_ACK);
  return {
    flow,
    sequence: hasAck ? segment.acknowledgement : 0,
    acknowledgement: hasAck ? 0 : seqAdd(segment.sequence, segment.length),
    flags: hasAck ? FLAG_RST : FLAG_RST | FLAG_ACK,
    window: 0,
  };
}

/**
 * Whether a segment brings nothing that its sender would send again until it is acknowledged. Answers to such segments
 * are limited: two ends whose numbers do not fit would else answer each other's answers for ever.
 */
export function isBare(segment: SegmentReader): boolean {
  return segment.end === segment.payload && !segment.has(FLAG_FIN);
}

/** In this time one connection sends at most one answer to bare segments (RFC 5961 section 7). */
export const ANSWER_INTERVAL_MS = 500;

export class AnswerQueue {
  readonly #writer: SegmentWriter;
  readonly #resets: RateLimit;
  readonly #resetsOfGroup: RateLimit;
  readonly #groupOf: (remote: IpAddress) => string | undefined;
  #waiting: Answer[] = [];
  #next = 0;
  /** What `next` built last. */
  #last: Answer | undefined;
  /** Until when the device gets none, because it has refused one; Infinity if it has not. */
  #heldUntil: number = NEVER;

  /** @param groupOf returns the group of a remote address, which has a quarter of the resets; undefined for none */
  constructor(
    writer: SegmentWriter,
    resetsPerSecond: number,
    groupOf: (remote: IpAddress) => string | undefined
  ) {
    this.#writer = writer;
    this.#groupOf = groupOf;
    this.#resets = new RateLimit(resetsPerSecond, resetsPerSecond, 1);
    const quarter = quarterOf(resetsPerSecond);
    this.#resetsOfGroup = new RateLimit(quarter, quarter);
  }

  get size(): number {
    return this.#waiting.length - this.#next;
  }

  /** Whether `next` builds one. */
  get isReady(): boolean {
    return this.size > 0 && this.#heldUntil === NEVER;
  }

  /** When `expire` is due, in ms; Infinity if nothing is. */
  get deadline(): number {
    return this.#heldUntil;
  }

  /** The device did not take what `next` built last: it is tried again soon, before all others. */
  takeBack(now: number): void {
    const answer = this.#last;
    if (answer === undefined) return;
    this.#last = undefined;
    if (this.#next === 0) this.#waiting.unshift(answer);
    else this.#waiting[--this.#next] = answer;
    this.#heldUntil = now + RETRY_MS;
  }

  expire(now: number): void {
    if (now >= this.#heldUntil) this.#heldUntil = NEVER;
  }

  /**
   * Queues an answer. Returns false if a bound is reached; the answer is then dropped.
   *
   * @param isLimited whether a segment caused the answer that belongs to no connection, or not to its handshake: resets
   *   are then bounded
   */
  push(answer: Answer, now: number, isLimited: boolean): boolean {
    const isReset = (answer.flags & FLAG_RST) !== 0;
    // A connection ends with such a reset: there are no more of those than connections.
    if (isReset && !isLimited) {
      this.#waiting.push(answer);
      return true;
    }
    if (this.size >= MAX_WAITING) return false;
    if (isReset && !this.#mayReset(answer.flow.remote, now)) return false;
    this.#waiting.push(answer);
    return true;
  }

  #mayReset(remote: IpAddress, now: number): boolean {
    const group = this.#groupOf(remote);
    if (group !== undefined && !this.#resetsOfGroup.take(group, now)) return false;
    return this.#resets.take('', now);
  }

  /** Builds the next answer in `buffer` at `at`. Returns the length of the frame, 0 if none may be sent. */
  next(buffer: Uint8Array, at: number): number {
    const answer = this.isReady ? this.#waiting[this.#next] : undefined;
    this.#last = answer;
    if (answer === undefined) return 0;
    this.#next++;
    if (this.#next === this.#waiting.length || this.#next === MAX_WAITING) {
      this.#waiting = this.#waiting.slice(this.#next);
      this.#next = 0;
    }
    const writer = this.#writer;
    const { options } = writer;
    writer.sequence = answer.sequence;
    writer.acknowledgement = answer.acknowledgement;
    writer.flags = answer.flags;
    writer.window = answer.window;
    options.clear();
    if (answer.syn !== undefined) {
      options.mss = answer.syn.mss;
      options.windowScale = answer.syn.windowScale;
      options.isSackPermitted = answer.syn.isSackPermitted;
    }
    if (answer.timestamps !== undefined) {
      options.hasTimestamps = true;
      options.tsValue = answer.timestamps.value;
      options.tsEcho = answer.timestamps.echo;
    }
    return writer.write(buffer, at, answer.flow, 0, 1);
  }
}

const NEVER: number = Number.POSITIVE_INFINITY;
const MAX_WAITING = 1_024;
/** When an answer is tried again that the device did not take. */
const RETRY_MS = 10;
