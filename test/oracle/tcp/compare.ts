/**
 * Drives an implementation and the oracle by the same random calls and segments, and compares them after each step.
 * @module
 */
import { Random } from '../../support/random.ts';
import { arrival, type PeerTraits, peerTraits } from './arrivals.ts';
import { type Fault, Follower } from './follower.ts';
import type { Implementation, View } from './implementation.ts';
import { notationOf, type Segment } from './segment.ts';
import { minus, plus } from './sequence.ts';
import { type Choices, type State, SYNCHRONIZED, type Tcb } from './tcb.ts';

export interface Comparison {
  /** What the implementation chose, as far as it is fixed. */
  readonly choices: Partial<Choices>;
  /** How long challenge ACKs may be kept back after one was sent. */
  readonly throttleMs: number;
  readonly steps: number;
  /** How long TIME-WAIT lasts. */
  readonly timeWaitMs: number;
  /** The segments whose handling is not compared, because the implementation differs on purpose: they do not arrive. */
  readonly leavesOut?: (tcb: Tcb, SEG: Segment) => boolean;
}

/** What a run came to: for a test that all states were visited. */
export interface Outcome {
  readonly states: ReadonlySet<State>;
  readonly signals: ReadonlySet<string>;
}

/**
 * Compares for one seed.
 * @throws Error with the steps that led to the difference
 */
export function compare(
  seed: number,
  start: (random: Random) => Implementation,
  comparison: Comparison
): Outcome {
  const run = new Run(seed, start, comparison);
  const fault = run.all();
  if (fault !== undefined) {
    throw new Error(`seed ${seed}: ${fault}\n${run.log.map((line) => `  ${line}`).join('\n')}`);
  }
  return run;
}

class Run implements Outcome {
  readonly log: string[] = [];
  readonly states: Set<State> = new Set();
  readonly signals: Set<string> = new Set();
  readonly #random: Random;
  readonly #implementation: Implementation;
  readonly #comparison: Comparison;
  readonly #follower: Follower;
  readonly #peer: PeerTraits;
  readonly #how: 'active' | 'passive';
  #clock: number;
  #passed = 0;
  #next = 0;

  constructor(seed: number, start: (random: Random) => Implementation, comparison: Comparison) {
    const random = new Random(seed);
    this.#random = random;
    this.#comparison = comparison;
    this.#how = random.pick(['active', 'passive'] as const);
    this.#peer = peerTraits(random);
    this.#clock = random.below(2 ** 32);
    this.#implementation = start(random);
    this.#follower = new Follower(this.#how, comparison.choices, comparison.throttleMs);
  }

  all(): Fault | undefined {
    this.log.push(`${this.#how} OPEN`);
    this.#implementation.open(this.#how);
    let fault = this.#follower.open(this.#sent()) ?? this.#differs(this.#follower.tcb);
    for (let step = 0; step < this.#comparison.steps && fault === undefined; step++) {
      fault = this.#step();
      this.states.add(this.#follower.tcb.state);
      for (const signal of this.#follower.tcb.signals) this.signals.add(signal);
      this.log.push(`  ${describe(this.#follower.tcb)}`);
    }
    return fault;
  }

  #step(): Fault | undefined {
    const choice = this.#random.next();
    if (this.#follower.tcb.state === 'TIME-WAIT' && this.#random.chance(0.1)) return this.#end();
    if (choice < 0.62) return this.#arrives();
    if (choice < 0.72) return this.#send();
    if (choice < 0.84) return this.#receive();
    if (choice < 0.96) return this.#pass();
    return this.#close();
  }

  #arrives(): Fault | undefined {
    const { tcb } = this.#follower;
    const SEG = arrival(this.#random, this.#peer, tcb, this.#clock);
    if (isLeftOpen(tcb, SEG) || this.#comparison.leavesOut?.(tcb, SEG)) return undefined;
    this.log.push(`--> ${notationOf(SEG)} ${extrasOf(SEG)}`);
    const { RCV_WND } = this.#implementation.view();
    this.#implementation.arrives(SEG);
    return this.#follower.arrives(SEG, this.#sent(), RCV_WND, (now) => this.#differs(now));
  }

  #send(): Fault | undefined {
    const octets = [...this.#random.bytes(this.#random.pick([1, 10, 700, 5000]))];
    if (!USABLE.includes(this.#follower.tcb.state) || this.#follower.isCloseCalled)
      return undefined;
    const count = this.#implementation.send(octets);
    this.log.push(`SEND ${octets.length}: ${count}`);
    return this.#follower.send(octets.slice(0, count), this.#sent()) ?? this.#differsNow();
  }

  #receive(): Fault | undefined {
    const count = this.#random.pick([1, 100, 100_000]);
    const octets = this.#implementation.receive(count);
    this.log.push(`RECEIVE ${count}: ${octets.length}`);
    return this.#follower.receive(octets, count, this.#sent()) ?? this.#differsNow();
  }

  #pass(): Fault | undefined {
    const ms = this.#random.pick([1, 30, 300, 600]);
    return this.#let(ms) ?? this.#differsNow();
  }

  #let(ms: number): Fault | undefined {
    this.log.push(`${ms} ms pass`);
    this.#passed += ms;
    this.#clock = plus(this.#clock, ms);
    this.#implementation.pass(ms);
    return this.#follower.pass(ms, this.#sent());
  }

  /** TIME-WAIT runs out. */
  #end(): Fault | undefined {
    const fault = this.#let(this.#comparison.timeWaitMs + 1000);
    this.#follower.endTimeWait();
    return fault ?? this.#differsNow();
  }

  #close(): Fault | undefined {
    const { state, isPassive } = this.#follower.tcb;
    const how = this.#random.pick([
      'close',
      'close',
      'close',
      'close',
      'release',
      'abort',
    ] as const);
    // A listener is not closed here: it is there for the next connection; and its user has no half-open connection.
    const hasNone = state === 'CLOSED' || state === 'LISTEN' || state === 'TIME-WAIT';
    if (hasNone || (state === 'SYN-RECEIVED' && isPassive)) return undefined;
    this.log.push(how.toUpperCase());
    this.#implementation[how]();
    return this.#follower.close(how, this.#sent()) ?? this.#differsNow();
  }

  #sent(): readonly Segment[] {
    const sent = this.#implementation.sent();
    for (const segment of sent) this.log.push(`<-- ${notationOf(segment)} ${extrasOf(segment)}`);
    return sent;
  }

  #differsNow(): Fault | undefined {
    return this.#differs(this.#follower.tcb);
  }

  #differs(tcb: Tcb): Fault | undefined {
    const view = this.#implementation.view();
    return (
      this.#stateDiffers(view) ??
      numbersDiffer(view, tcb) ??
      userDiffers(view, tcb) ??
      this.#failureDiffers(view, tcb)
    );
  }

  #failureDiffers(view: View, tcb: Tcb): Fault | undefined {
    const failure = this.#follower.isAborted ? undefined : failureOf(tcb);
    if (failure === view.failure) return undefined;
    // Section 3.10.7.4 signals nothing in these states, MUST-12 wants it.
    const isEither = tcb.signals.includes('reset while closing') || tcb.isHalfDuplexClosed;
    if (isEither && view.failure === 'reset') return undefined;
    return `the failure is ${view.failure} instead of ${failure}`;
  }

  #stateDiffers(view: View): Fault | undefined {
    const possible = this.#follower.possibleStates();
    if (view.state === undefined || possible.includes(view.state)) return undefined;
    return `the state is ${view.state} instead of ${possible.join(' or ')}`;
  }
}

function numbersDiffer(view: View, tcb: Tcb): Fault | undefined {
  if (!SYNCHRONIZED.includes(tcb.state)) return undefined;
  const pairs = [
    ['RCV.NXT', view.RCV_NXT, tcb.RCV.NXT],
    ['SND.UNA', view.SND_UNA, tcb.SND.UNA],
    ['SND.NXT', view.SND_NXT, tcb.SND.NXT],
  ] as const;
  for (const [name, is, expected] of pairs) {
    if (is !== undefined && is !== expected) return `${name} is ${is} instead of ${expected}`;
  }
  return undefined;
}

function userDiffers(view: View, tcb: Tcb): Fault | undefined {
  const available = tcb.receiveQueue.length;
  if (view.available !== available) return `${view.available} octets instead of ${available}`;
  const { isFinished } = tcb.RCV;
  if (view.isReadEnded && !isFinished) return 'the user is told of a FIN that there was not';
  const isOpen = tcb.state !== 'CLOSED';
  if (isOpen && isFinished && available === 0 && !view.isReadEnded)
    return 'the user is not told of FIN';
  if (tcb.signals.includes('connected') && !view.isConnected)
    return 'the user is not told of ESTABLISHED';
  return undefined;
}

/** A RST in SYN-SENT refuses the connection as one in SYN-RECEIVED does. */
function failureOf(tcb: Tcb): string | undefined {
  if (tcb.state !== 'CLOSED') return undefined;
  const isConnected = tcb.signals.includes('connected');
  if (tcb.signals.includes('connection refused')) return 'refused';
  if (!tcb.signals.includes('connection reset')) return undefined;
  return isConnected ? 'reset' : 'refused';
}

/**
 * What the comparison leaves out: the RFC says nothing of a SYN that finds TIME-WAIT at a port where nobody listens and
 * that RFC 6191 would honor.
 */
function isLeftOpen(tcb: Tcb, SEG: Segment): boolean {
  return tcb.state === 'TIME-WAIT' && !tcb.isPassive && SEG.CTL.includes('SYN');
}

function extrasOf(segment: Segment): string {
  const { timestamps, sack, windowScale } = segment.options;
  const extras = [`WND=${segment.WND}`];
  if (timestamps) extras.push(`TS=${timestamps.TSval},${timestamps.TSecr}`);
  if (windowScale !== undefined) extras.push(`WS=${windowScale}`);
  if (sack) extras.push(`SACK=${JSON.stringify(sack)}`);
  if (segment.CTL.includes('URG')) extras.push(`URG=${segment.UP}`);
  return extras.join(' ');
}

function describe({ state, SND, RCV, TS }: Tcb): string {
  const outstanding = minus(SND.NXT, SND.UNA);
  const recent = TS.isUsed ? ` TS.Recent ${TS.Recent}` : '';
  return `${state} SND ${SND.UNA}+${outstanding} WND ${SND.WND} (max ${SND.MAX_WND}) RCV ${RCV.NXT} WND ${RCV.WND}${recent}`;
}

/** The states in which the user of a connection can SEND. */
const USABLE: readonly State[] = ['SYN-SENT', 'SYN-RECEIVED', 'ESTABLISHED', 'CLOSE-WAIT'];
