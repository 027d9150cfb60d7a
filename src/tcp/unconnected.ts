/**
 * Handles segments that belong to no connection: to a handshake that a peer has begun, to a connection in TIME-WAIT, to a
 * listener, or to nothing ([RFC 9293 sections 3.10.7.1 and 3.10.7.2](https://www.rfc-editor.org/rfc/rfc9293#section-3.10.7.1)).
 * @module
 */

import type { IpAddress } from '../base/address.ts';
import { ANSWER_INTERVAL_MS, type Answer, isBare, resetFor } from './answers.ts';
import type { TcpCounters } from './counters.ts';
import type { Flow } from './flow.ts';
import type { ListenerTable, TcpListener } from './listener.ts';
import type { PassiveOpens, Syn } from './passive-open.ts';
import type { TcpHolder } from './pending-open.ts';
import { FIRST_WINDOW } from './receive-window.ts';
import { FLAG_ACK, FLAG_RST, FLAG_SYN, type SegmentReader } from './segment.ts';
import { seqAdd } from './sequence.ts';
import { TIME_WAIT_MS, type TimeWaitTable } from './time-wait.ts';
import { lastAck, receiveInTimeWait } from './time-wait-segment.ts';

export interface UnconnectedOptions {
  readonly counters: TcpCounters;
  readonly listeners: ListenerTable;
  readonly passive: PassiveOpens;
  readonly timeWait: TimeWaitTable;
  readonly answer: (answer: Answer) => void;
  /** Returns the group of a remote address, undefined for none. */
  readonly groupOf: (remote: IpAddress) => string | undefined;
  /** Whether there are as many connections as there may be, in all or in the group. */
  readonly isFull: (group: string | undefined) => boolean;
}

export class UnconnectedSegments {
  /** Who takes the SYNs for which there is no listener; undefined for nobody. */
  holder: TcpHolder | undefined = undefined;
  readonly #options: UnconnectedOptions;

  constructor(options: UnconnectedOptions) {
    this.#options = options;
  }

  receive(segment: SegmentReader, flow: Flow, now: number): void {
    const { passive, timeWait } = this.#options;
    if (passive.onSegment(segment, flow, now)) return;
    const entry = timeWait.find(flow);
    if (entry < 0) {
      this.#receiveInListen(segment, flow, undefined, now);
      return;
    }
    const afterIss = issBehind(timeWait, entry);
    if (!this.#receiveInTimeWait(segment, flow, entry, now)) return;
    timeWait.remove(entry);
    this.#receiveInListen(segment, flow, afterIss, now);
  }

  /** Returns whether the segment begins a new connection. */
  #receiveInTimeWait(segment: SegmentReader, flow: Flow, entry: number, now: number): boolean {
    const { counters, timeWait, answer } = this.#options;
    let outcome = receiveInTimeWait(timeWait, entry, segment);
    // As in Linux: a SYN that nobody takes does not end TIME-WAIT.
    const isNew = outcome === 'reopen';
    const isTaken = this.#listenerFor(flow) !== undefined || this.holder !== undefined;
    if (isNew && !isTaken) outcome = 'answer';
    switch (outcome) {
      case 'reopen':
        return true;
      case 'drop':
        counters.dropOutsideWindow++;
        return false;
      case 'answer': {
        // An answer restarts TIME-WAIT, so its end tells when the last one was.
        const answeredAt = timeWait.untilMs(entry) - TIME_WAIT_MS;
        if (isBare(segment) && now - answeredAt < ANSWER_INTERVAL_MS) return false;
        timeWait.restart(entry, now + TIME_WAIT_MS);
        answer(lastAck(timeWait, entry, flow, now, FIRST_WINDOW));
        return false;
      }
    }
  }

  /** @param afterIss see `Syn` */
  #receiveInListen(
    segment: SegmentReader,
    flow: Flow,
    afterIss: number | undefined,
    now: number
  ): void {
    const { counters, passive, answer, groupOf, isFull } = this.#options;
    if (segment.has(FLAG_RST)) {
      counters.dropOutsideWindow++;
      return;
    }
    const hasAck = segment.has(FLAG_ACK);
    const listener = hasAck ? undefined : this.#listenerFor(flow);
    const isHeld = listener === undefined && this.holder !== undefined;
    if (hasAck || (listener === undefined && !isHeld)) {
      answer(resetFor(segment, flow));
      return;
    }
    if (!segment.has(FLAG_SYN)) {
      // RFC 9293 section 3.10.7.2, fourth step: neither RST nor ACK nor SYN.
      counters.dropBadAck++;
      return;
    }
    const group = groupOf(flow.remote);
    const isBusy = listener !== undefined && listener.waiting >= listener.backlog;
    if (isBusy || isFull(group)) {
      counters.dropSyn++;
      return;
    }
    const syn = { segment, flow, group, now, afterIss };
    if (listener !== undefined) passive.onSyn(listener, syn);
    else this.#hold(this.holder!, syn);
  }

  #hold(holder: TcpHolder, syn: Syn): void {
    const { counters, passive, answer } = this.#options;
    const owner = holder.onTcpSyn(syn.flow);
    if (owner === 'refuse') answer(resetFor(syn.segment, syn.flow));
    else if (owner === 'drop') counters.dropSyn++;
    else passive.hold(owner, syn);
  }

  /** A listener for all addresses listens at those of the endpoint, and not at those for which SYNs are held. */
  #listenerFor(flow: Flow): TcpListener | undefined {
    const listener = this.#options.listeners.find(flow.localPort, flow.local.words);
    if (listener === undefined || listener.local !== undefined) return listener;
    return this.holder?.isOwn(flow.local) === false ? undefined : listener;
  }
}

/** The initial sequence number of a new connection of the same flow is behind all that the old one may have sent. */
export function issBehind(timeWait: TimeWaitTable, entry: number): number {
  return seqAdd(timeWait.sndNxt(entry), ISS_STEP);
}

/** As Linux: the largest window without scaling, and two more. */
const ISS_STEP = 65_535 + 2;
