/**
 * The oracle in the place of an implementation, so that the comparison can be tested: it finds no fault with it, and it
 * finds those that are put in.
 * @module
 */
import { SEGMENT_ARRIVES, SYN_ENDS_TIME_WAIT } from './arrives.ts';
import { ABORT, CLOSE, closeHalfDuplex, OPEN, RECEIVE, SEND } from './calls.ts';
import type { Implementation, View } from './implementation.ts';
import type { Segment } from './segment.ts';
import { type Choices, closedTcb, type Tcb } from './tcb.ts';
import { RETRANSMISSION_TIMEOUT, TIME_WAIT_TIMEOUT } from './timeouts.ts';

export class OracleImplementation implements Implementation {
  tcb: Tcb;
  protected readonly choices: Partial<Choices>;
  readonly #timeWaitMs: number;
  #how: 'active' | 'passive' = 'active';
  #now = 0;
  #wasAborted = false;

  constructor(choices: Partial<Choices>, timeWaitMs: number) {
    this.choices = { ...choices, now: () => this.#now };
    this.#timeWaitMs = timeWaitMs;
    this.tcb = closedTcb(this.choices);
  }

  open(how: 'active' | 'passive'): void {
    this.#how = how;
    OPEN(this.tcb, how);
  }

  send(octets: readonly number[]): number {
    const part = octets.slice(0, 3000);
    return SEND(this.tcb, part) === 'ok' ? part.length : 0;
  }

  receive(count: number): readonly number[] {
    const octets = RECEIVE(this.tcb, count);
    return typeof octets === 'string' ? [] : octets;
  }

  close(): void {
    CLOSE(this.tcb);
  }

  release(): void {
    this.#wasAborted = this.tcb.receiveQueue.length > 0;
    closeHalfDuplex(this.tcb);
  }

  abort(): void {
    this.#wasAborted = true;
    ABORT(this.tcb);
  }

  arrives(segment: Segment): void {
    const isOver =
      this.tcb.state === 'CLOSED' ||
      (this.#how === 'passive' && SYN_ENDS_TIME_WAIT(this.tcb, segment));
    if (this.#how === 'active' || !isOver) {
      SEGMENT_ARRIVES(this.tcb, segment);
      return;
    }
    const next = closedTcb(this.choices);
    OPEN(next, 'passive');
    SEGMENT_ARRIVES(next, segment);
    if (next.state === 'LISTEN') {
      this.tcb.emissions.push(...next.emissions);
      return;
    }
    this.tcb = next;
    this.#wasAborted = false;
  }

  sent(): readonly Segment[] {
    return this.tcb.emissions.splice(0).map(({ segment }) => segment);
  }

  pass(ms: number): void {
    this.#now += ms;
    if (ms > 200) RETRANSMISSION_TIMEOUT(this.tcb);
    if (ms > this.#timeWaitMs) TIME_WAIT_TIMEOUT(this.tcb);
  }

  view(): View {
    const { tcb } = this;
    const isReset = tcb.state === 'CLOSED' && !this.#wasAborted;
    const signal = tcb.signals.find((each) => each.startsWith('connection re'));
    const isConnected = tcb.signals.includes('connected');
    const failure = isConnected ? 'reset' : 'refused';
    return {
      state: tcb.state,
      RCV_NXT: tcb.RCV.NXT,
      RCV_WND: tcb.RCV.WND,
      SND_UNA: tcb.SND.UNA,
      SND_NXT: tcb.SND.NXT,
      available: tcb.receiveQueue.length,
      isReadEnded: tcb.RCV.isFinished,
      failure: isReset && signal !== undefined ? failure : undefined,
      isConnected,
    };
  }
}
