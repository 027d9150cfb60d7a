/**
 * The oracle beside an implementation: it makes the same calls and gets the same segments, but it sends nothing by
 * itself. What the implementation sends is checked against what the RFC permits in the state of the oracle, and moves
 * SND.NXT and the right edge of the receive window: when and how much it sends is its own choice.
 *
 * Fixed by the RFC, and compared: the state, RCV.NXT, SND.UNA, the octets for the user and the end of them, failures of
 * the connection; that RST, SYN,ACK and the ACKs that are due at once are sent, with their fields; that no RST is sent
 * otherwise; that a segment which is silently dropped gets no answer; that text is the user's, at its place, within the
 * send window; that FIN follows all text; that ACKs acknowledge RCV.NXT, and that the right edge never moves back.
 *
 * Free: when text is sent, and in which pieces; retransmissions; by how much the right edge moves; ACKs of text within
 * 500 ms; challenge ACKs while they are throttled.
 * @module
 */
import { SEGMENT_ARRIVES, SYN_ENDS_TIME_WAIT } from './arrives.ts';
import { ABORT, CLOSE, closeHalfDuplex, OPEN, RECEIVE, SEND } from './calls.ts';
import { has, lengthOf, notationOf, type Segment } from './segment.ts';
import { isAtMost, isFromUpTo, isLess, isWithin, minus, plus } from './sequence.ts';
import {
  type Choices,
  closedTcb,
  copyOf,
  type Emission,
  type State,
  SYNCHRONIZED,
  type Tcb,
} from './tcb.ts';
import { TIME_WAIT_TIMEOUT } from './timeouts.ts';

/** What a sentence forbids. */
export type Fault = string;

export class Follower {
  tcb: Tcb;
  /** All octets of SENDs. */
  stream: number[] = [];
  isCloseCalled = false;
  /** The user aborted it, and so is not told of a failure. */
  isAborted = false;
  #choices: Partial<Choices>;
  readonly #how: 'active' | 'passive';
  readonly #throttleMs: number;
  #now = 0;
  #iss = 0;
  #lastChallengeAt = -Infinity;
  /** In TIME-WAIT any ACK counts, as that of FIN. */
  #lastAckAt = -Infinity;
  /** Since when text or FIN waits for an ACK. */
  #unacknowledgedSince: number | undefined;
  #lastTSval: number | undefined;
  /** SND.NXT of the connection before this one: a SYN out of TIME-WAIT must have a larger ISS. */
  #previousNxt: number | undefined;

  /** @param throttleMs how long an implementation may keep challenge ACKs and the like back after one was sent */
  constructor(how: 'active' | 'passive', choices: Partial<Choices>, throttleMs: number) {
    this.#how = how;
    this.#throttleMs = throttleMs;
    this.#choices = {
      ...choices,
      segmentizes: false,
      selectIss: () => this.#iss,
      now: () => this.#now,
    };
    this.tcb = closedTcb(this.#choices);
  }

  /** Of an active OPEN: what the implementation sent at once. */
  open(sent: readonly Segment[]): Fault | undefined {
    const syn = sent.find((segment) => has(segment, 'SYN'));
    if (this.#how === 'active') {
      if (syn === undefined) return 'an active OPEN sends a SYN';
      this.#adopt(syn);
    }
    OPEN(this.tcb, this.#how);
    this.tcb.emissions.length = 0;
    return this.#observeAll(sent);
  }

  /** `taken` of the octets were accepted. */
  send(taken: readonly number[], sent: readonly Segment[]): Fault | undefined {
    if (taken.length > 0) {
      const reply = SEND(this.tcb, taken);
      if (reply !== 'ok') return `SEND took ${taken.length} octets, but: ${reply}`;
      for (const octet of taken) this.stream.push(octet);
    }
    return this.#observeAll(sent);
  }

  receive(octets: readonly number[], count: number, sent: readonly Segment[]): Fault | undefined {
    const expected = RECEIVE(this.tcb, count);
    const list = typeof expected === 'string' ? [] : expected;
    if (list.length !== octets.length) return `RECEIVE: ${octets.length} instead of ${list.length}`;
    const wrong = list.findIndex((octet, index) => octet !== octets[index]);
    if (wrong >= 0) return `RECEIVE: octet ${wrong} is ${octets[wrong]} instead of ${list[wrong]}`;
    return this.#observeAll(sent);
  }

  close(how: 'close' | 'release' | 'abort', sent: readonly Segment[]): Fault | undefined {
    this.isCloseCalled = true;
    const isLosing = how === 'release' && this.tcb.receiveQueue.length > 0;
    if (how === 'abort' || isLosing) this.isAborted = true;
    if (how === 'close') CLOSE(this.tcb);
    else if (how === 'release') closeHalfDuplex(this.tcb);
    else ABORT(this.tcb);
    return this.#answered(this.tcb, sent, false);
  }

  pass(ms: number, sent: readonly Segment[]): Fault | undefined {
    const since = this.#unacknowledgedSince;
    this.#now += ms;
    const fault = this.#observeAll(sent);
    if (fault !== undefined) return fault;
    const isDue = since !== undefined && this.#now - since >= 500;
    if (isDue && this.#unacknowledgedSince === since && SYNCHRONIZED.includes(this.tcb.state)) {
      return 'an ACK is delayed by less than 0.5 seconds (MUST-40)';
    }
    return undefined;
  }

  /** 2 MSL have passed. */
  endTimeWait(): void {
    TIME_WAIT_TIMEOUT(this.tcb);
  }

  /**
   * The segment arrived when the implementation was willing to receive `window` octets, and this was sent. What the RFC leaves open is tried in turn: the first choice under which all
   * that was sent and seen fits is followed.
   */
  arrives(
    SEG: Segment,
    sent: readonly Segment[],
    window: number | undefined,
    matches: (tcb: Tcb) => Fault | undefined
  ): Fault | undefined {
    const synAck = sent.find((segment) => has(segment, 'SYN'));
    if (synAck !== undefined && this.#isOpening()) this.#adopt(synAck);
    const faults: Fault[] = [];
    for (const tcb of this.#alternatives(SEG, window)) {
      const before = this.#save();
      const fault = this.#try(tcb, SEG, sent) ?? matches(this.tcb);
      if (fault === undefined) return undefined;
      this.#restore(before);
      if (!faults.includes(fault)) faults.push(fault);
    }
    return faults.join('; or ');
  }

  /** In which states the implementation may say that it is. */
  possibleStates(): readonly State[] {
    const { tcb } = this;
    switch (tcb.state) {
      case 'FIN-WAIT-1':
        // CLOSE waits for preceding SENDs; "in any case, enter FIN-WAIT-1": some enter it with the FIN.
        return tcb.SND.finEnd === undefined ? ['FIN-WAIT-1', 'ESTABLISHED'] : ['FIN-WAIT-1'];
      case 'CLOSING':
        return tcb.SND.finEnd === undefined ? ['CLOSING', 'CLOSE-WAIT', 'LAST-ACK'] : ['CLOSING'];
      case 'CLOSE-WAIT':
        return tcb.isCloseQueued ? ['CLOSE-WAIT', 'LAST-ACK'] : ['CLOSE-WAIT'];
      default:
        return [tcb.state];
    }
  }

  #isOpening(): boolean {
    return this.tcb.state === 'LISTEN' || this.tcb.state === 'TIME-WAIT' || this.#isReopening();
  }

  /** A listener goes on when a connection has ended. */
  #isReopening(): boolean {
    return this.#how === 'passive' && this.tcb.state === 'CLOSED';
  }

  /** What a SYN says that only its sender can choose. */
  #adopt(syn: Segment): void {
    this.#iss = syn.SEQ;
    const { windowScale } = syn.options;
    if (windowScale === undefined) return;
    this.#choices = { ...this.#choices, windowScale };
    this.tcb = copyOf(this.tcb, { windowScale });
  }

  #alternatives(SEG: Segment, window: number | undefined): readonly Tcb[] {
    if (this.#isReopening()) return this.#listeners();
    const list: Tcb[] = [];
    if (this.#how === 'passive' && SYN_ENDS_TIME_WAIT(this.tcb, SEG))
      list.push(...this.#listeners());
    list.push(copyOf(this.tcb));
    // What is told to the peer may be less by what the shift count rounds off.
    if (window !== undefined) for (const tcb of list) tcb.RCV.WND = Math.max(tcb.RCV.WND, window);
    return list;
  }

  /** Alternatives in which nothing but a listener is there. */
  #listeners(): readonly Tcb[] {
    const tcb = closedTcb(this.#choices);
    OPEN(tcb, 'passive');
    return [tcb, copyOf(tcb, { keepsTextOfSyn: false })];
  }

  #try(tcb: Tcb, SEG: Segment, sent: readonly Segment[]): Fault | undefined {
    const isNew = tcb.state === 'LISTEN' && this.tcb.state !== 'LISTEN';
    const wasTimeWait = this.tcb.state === 'TIME-WAIT';
    const previous = this.tcb;
    tcb.emissions.length = 0;
    SEGMENT_ARRIVES(tcb, SEG);
    // The next segment is judged by the usual choices again.
    this.tcb = copyOf(tcb, previous.choices);
    if (isNew && tcb.state === 'LISTEN') {
      // The listener answered, but the connection that ended is still what can be seen.
      const { emissions } = tcb;
      this.tcb = copyOf(previous);
      this.tcb.emissions.push(...emissions);
    } else if (isNew || previous.state === 'LISTEN') {
      this.#previousNxt = wasTimeWait ? previous.SND.NXT : undefined;
      this.stream = [];
      this.isCloseCalled = false;
      this.isAborted = false;
      this.#lastTSval = undefined;
    }
    return this.#answered(this.tcb, sent, true);
  }

  #answered(tcb: Tcb, sent: readonly Segment[], isArrival: boolean): Fault | undefined {
    const due = tcb.emissions.splice(0);
    for (const emission of due) {
      const fault = this.#missing(emission, sent);
      if (fault !== undefined) return fault;
    }
    for (const segment of sent) {
      if (!has(segment, 'RST')) continue;
      if (!due.some((emission) => isSameReset(emission, segment))) {
        return `${notationOf(segment)} is not called for`;
      }
    }
    const bare = sent.find((segment) => lengthOf(segment) === 0 && !has(segment, 'RST'));
    if (isArrival && due.length === 0 && bare !== undefined) {
      return `${notationOf(bare)} answers what needs no answer`;
    }
    return this.#observeAll(sent.filter((segment) => !has(segment, 'RST')));
  }

  /** The fault if what is due was not sent. */
  #missing(emission: Emission, sent: readonly Segment[]): Fault | undefined {
    const { tcb } = this;
    const { segment, why } = emission;
    const fault = `${notationOf(segment)} is missing (${why})`;
    switch (why) {
      case 'reset':
      case 'abort':
        return sent.some((each) => isSameReset(emission, each)) ? undefined : fault;
      case 'synchronize':
        return sent.some((each) => has(each, 'SYN') && each.SEQ === segment.SEQ)
          ? undefined
          : fault;
      case 'not acceptable':
      case 'challenge': {
        const last = tcb.state === 'TIME-WAIT' ? this.#lastAckAt : this.#lastChallengeAt;
        const isThrottled = this.#now - last < this.#throttleMs;
        if (sent.some((each) => acknowledges(each, segment.ACK))) this.#lastChallengeAt = this.#now;
        else if (!isThrottled) return fault;
        return undefined;
      }
      case 'out of order':
        return sent.some((each) => acknowledges(each, segment.ACK)) ? undefined : fault;
      case 'acknowledge':
        this.#unacknowledgedSince ??= this.#now;
        return undefined;
      default:
        return undefined;
    }
  }

  #observeAll(sent: readonly Segment[]): Fault | undefined {
    for (const segment of sent) {
      const fault = this.#observe(segment);
      if (fault !== undefined) return `${notationOf(segment)}: ${fault}`;
    }
    return undefined;
  }

  /** A segment without RST that was sent: whether it is one that may be sent now; and what follows from it. */
  #observe(segment: Segment): Fault | undefined {
    const { tcb } = this;
    if (has(segment, 'RST')) return 'it is not called for';
    if (has(segment, 'SYN')) return this.#observeSyn(segment);
    if (!SYNCHRONIZED.includes(tcb.state) && tcb.state !== 'SYN-RECEIVED') {
      return `nothing but SYN and RST is sent in ${tcb.state}`;
    }
    if (!has(segment, 'ACK')) return 'it has no ACK';
    if (segment.ACK !== tcb.RCV.NXT) return `RCV.NXT is ${tcb.RCV.NXT}`;
    return (
      this.#observeSequence(segment) ??
      this.#observeWindow(segment, 2 ** tcb.RCV.shift) ??
      this.#observeOptions(segment)
    );
  }

  #observeSyn(segment: Segment): Fault | undefined {
    const { tcb } = this;
    if (tcb.state !== 'SYN-SENT' && tcb.state !== 'SYN-RECEIVED') return `a SYN in ${tcb.state}`;
    if (segment.SEQ !== tcb.ISS) return `ISS is ${tcb.ISS}`;
    if (has(segment, 'ACK') !== (tcb.state === 'SYN-RECEIVED')) return `a SYN in ${tcb.state}`;
    if (has(segment, 'ACK') && segment.ACK !== tcb.RCV.NXT) return `RCV.NXT is ${tcb.RCV.NXT}`;
    if (lengthOf(segment) !== 1) return 'text in a SYN';
    const { timestamps, windowScale } = segment.options;
    const isAnswer = has(segment, 'ACK') && tcb.isPassive;
    if (isAnswer && (timestamps !== undefined) !== tcb.TS.isUsed) return 'timestamps by itself';
    if (isAnswer && (windowScale !== undefined) !== tcb.hasWindowScale) return 'a shift by itself';
    if (this.#previousNxt !== undefined && !isLess(this.#previousNxt, segment.SEQ)) {
      return `the ISS is not larger than ${this.#previousNxt}, of the connection before (section 3.6.1)`;
    }
    return this.#observeWindow(segment, 1) ?? this.#observeOptions(segment);
  }

  #observeSequence(segment: Segment): Fault | undefined {
    const { SND } = this.tcb;
    const end = plus(segment.SEQ, lengthOf(segment));
    const isProbe = lengthOf(segment) === 0 && plus(segment.SEQ, 1) === SND.UNA;
    if (isProbe) return undefined;
    // "Any segments on the retransmission queue that are thereby entirely acknowledged are removed": others are sent whole.
    const first = segment.text.length > 0 ? plus(this.tcb.ISS, 1) : SND.UNA;
    if (!isFromUpTo(first, segment.SEQ, SND.NXT)) return `SND is ${SND.UNA} to ${SND.NXT}`;
    const offset = minus(segment.SEQ, plus(this.tcb.ISS, 1));
    const expected = this.stream.slice(offset, offset + segment.text.length);
    if (expected.length !== segment.text.length) return 'text that was not sent by the user';
    if (expected.some((octet, i) => octet !== segment.text[i]))
      return 'other text than the user sent';
    if (has(segment, 'FIN')) {
      const isBehind = offset + segment.text.length === this.stream.length;
      if (!this.isCloseCalled || !isBehind) return 'a FIN in front of its time';
    }
    return isLess(SND.NXT, end) ? this.#observeNew(segment, end) : undefined;
  }

  /** New text or FIN: "The range of new sequence numbers that may be emitted ... lies between SND.NXT and SND.UNA + SND.WND - 1." */
  #observeNew(segment: Segment, end: number): Fault | undefined {
    const { tcb } = this;
    const { SND } = tcb;
    const isInWindow = minus(end, SND.UNA) <= SND.WND;
    // A probe of a window that is closed has an octet; FIN may go with it, or alone.
    const isProbe = minus(end, SND.NXT) <= 2 && minus(SND.NXT, SND.UNA) >= SND.WND;
    const isLoneFin = has(segment, 'FIN') && minus(end, SND.UNA) === SND.WND + 1;
    if (!isInWindow && !isProbe && !isLoneFin) {
      return `behind the window of ${SND.WND} at ${SND.UNA}`;
    }
    tcb.sendQueue.splice(0, minus(end, SND.NXT) - (has(segment, 'FIN') ? 1 : 0));
    SND.NXT = end;
    if (has(segment, 'FIN')) {
      SND.finEnd = end;
      tcb.isCloseQueued = false;
      if (tcb.state === 'CLOSE-WAIT') tcb.state = 'LAST-ACK';
    }
    return undefined;
  }

  /** "The total of RCV.NXT and RCV.WND should not be reduced", but for what the shift count rounds off. */
  #observeWindow(segment: Segment, unit: number): Fault | undefined {
    const { tcb } = this;
    if (has(segment, 'ACK')) {
      tcb.TS.lastAckSent = segment.ACK;
      this.#lastAckAt = this.#now;
      this.#unacknowledgedSince = undefined;
    }
    const window = segment.WND * unit;
    if (has(segment, 'SYN')) {
      tcb.RCV.WND = window;
      return undefined;
    }
    if (window + unit <= tcb.RCV.WND) return `the window shrank from ${tcb.RCV.WND} to ${window}`;
    tcb.RCV.WND = Math.max(tcb.RCV.WND, window);
    return undefined;
  }

  #observeOptions(segment: Segment): Fault | undefined {
    const { timestamps, sack } = segment.options;
    const { tcb } = this;
    if (!has(segment, 'SYN') && tcb.TS.isUsed !== (timestamps !== undefined)) {
      return `timestamps are ${tcb.TS.isUsed ? '' : 'not '}used`;
    }
    if (timestamps !== undefined && has(segment, 'ACK')) {
      if (timestamps.TSecr !== tcb.TS.Recent) return `TSecr is not ${tcb.TS.Recent}`;
      const last = this.#lastTSval;
      if (last !== undefined && !isAtMost(last, timestamps.TSval)) return 'TSval went back';
      this.#lastTSval = timestamps.TSval;
    }
    for (const [left, right] of sack ?? []) {
      if (!isAtMost(right, tcb.RCV.NXT) && !this.#holds(left, right)) {
        return `SACK of ${left} to ${right}, which was not received`;
      }
    }
    return undefined;
  }

  #holds(left: number, right: number): boolean {
    let at = left;
    const covers = (held: Segment) => isWithin(at, held.SEQ, lengthOf(held));
    for (let i = 0; i <= this.tcb.held.length && at !== right; i++) {
      const held = this.tcb.held.find(covers);
      if (held === undefined) return false;
      const end = plus(held.SEQ, lengthOf(held));
      at = isAtMost(end, right) ? end : right;
    }
    return at === right;
  }

  #save(): Saved {
    return {
      tcb: copyOf(this.tcb),
      stream: [...this.stream],
      isCloseCalled: this.isCloseCalled,
      isAborted: this.isAborted,
      fields: [
        this.#lastChallengeAt,
        this.#lastAckAt,
        this.#unacknowledgedSince,
        this.#lastTSval,
        this.#previousNxt,
      ],
    };
  }

  #restore(saved: Saved): void {
    this.tcb = copyOf(saved.tcb);
    this.stream = saved.stream;
    this.isCloseCalled = saved.isCloseCalled;
    this.isAborted = saved.isAborted;
    this.#lastChallengeAt = saved.fields[0]!;
    this.#lastAckAt = saved.fields[1]!;
    this.#unacknowledgedSince = saved.fields[2];
    this.#lastTSval = saved.fields[3];
    this.#previousNxt = saved.fields[4];
  }
}

interface Saved {
  readonly tcb: Tcb;
  readonly stream: number[];
  readonly isCloseCalled: boolean;
  readonly isAborted: boolean;
  readonly fields: readonly (number | undefined)[];
}

/**
 * Whether it is the RST that is due. Its sequence number is what makes it acceptable; where the form is `<CTL=RST>`, one
 * with an ACK field is as good, for no state in which it can arrive looks at the field.
 */
function isSameReset({ segment }: Emission, other: Segment): boolean {
  if (!has(segment, 'RST') || !has(other, 'RST') || segment.SEQ !== other.SEQ) return false;
  return !has(segment, 'ACK') || (has(other, 'ACK') && segment.ACK === other.ACK);
}

function acknowledges(segment: Segment, ACK: number): boolean {
  return has(segment, 'ACK') && !has(segment, 'RST') && segment.ACK === ACK;
}
