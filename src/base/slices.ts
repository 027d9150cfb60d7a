/**
 * Divides long work into slices, between which the event loop serves packets, timers and other work. All sliced work of
 * a process shares the time of a turn of the event loop, so that several works at the same time hold it up no longer
 * than one.
 * @module
 */
import { type Clock, systemClock } from './clock.ts';

/**
 * The time that sliced work may take of each turn of one event loop. Work asks `isOver` after each step, which should
 * take some microseconds, and goes on in a later turn if that is true. What waits is continued in the order in which it
 * came, the first of it with the time of a whole turn.
 */
export class Slices {
  readonly #nowMs: () => number;
  readonly #defer: (callback: () => void) => void;
  /** The turn in which sliced work has begun; undefined if there was none since the event loop has turned. */
  #turn: { readonly endMs: number } | undefined;
  readonly #waiting: (() => void)[] = [];

  /**
   * @param nowMs returns the ms since any fixed point
   * @param defer calls a function when the event loop has turned; default `setImmediate`
   */
  constructor(nowMs: () => number, defer: (callback: () => void) => void = setImmediate) {
    this.#nowMs = nowMs;
    this.#defer = defer;
  }

  /** Whether sliced work has taken its time of this turn. */
  get isOver(): boolean {
    return this.used >= 1;
  }

  /** The part of the time of this turn that is used: 0 for nothing, 1 or more if it is over. */
  get used(): number {
    const nowMs = this.#nowMs();
    let turn = this.#turn;
    // The work may follow packets that were just read: the event loop turns twice before it has looked for others.
    if (turn === undefined || nowMs > turn.endMs + FORGOTTEN_MS) turn = this.#begin(nowMs, 2);
    return 1 - (turn.endMs - nowMs) / SLICE_MS;
  }

  /** Calls `work` in a later turn of the event loop, in which it has time. */
  later(work: () => void): void {
    this.#waiting.push(work);
    this.#defer(this.#onTurn);
  }

  /** Resolves in a later turn of the event loop, in which there is time. */
  next(): Promise<void> {
    return new Promise((resolve) => this.later(resolve));
  }

  /**
   * Takes steps, at least one, until they are done or the time is over.
   *
   * @param atLeast how many steps are taken in any case; default 1
   * @param part the part of the time of the turn that may be used, if more is to be done with what the steps bring;
   *   default 1
   * @returns whether they are done
   */
  run(steps: Iterator<unknown>, atLeast: number = 1, part: number = 1): boolean {
    let isOver = this.used >= part;
    for (let taken = 0; taken < atLeast || !isOver; taken++) {
      if (steps.next().done) return true;
      isOver = this.used >= part;
    }
    return false;
  }

  /** Takes all steps. The first hundred are taken at once, the rest in slices. */
  async all(steps: Iterator<unknown>): Promise<void> {
    if (this.run(steps, FIRST_STEPS)) return;
    do await this.next();
    while (!this.run(steps));
  }

  readonly #onTurn = (): void => {
    if (this.#turn === undefined) this.#begin(this.#nowMs(), 1);
    if (this.isOver) this.#defer(this.#onTurn);
    else this.#waiting.shift()!();
  };

  /** @param turns after how many turns of the event loop the time begins anew */
  #begin(nowMs: number, turns: number): { readonly endMs: number } {
    const turn = { endMs: nowMs + SLICE_MS };
    this.#turn = turn;
    let left = turns;
    const onTurn = (): void => {
      left--;
      if (left > 0) this.#defer(onTurn);
      else if (this.#turn === turn) this.#turn = undefined;
    };
    this.#defer(onTurn);
    return turn;
  }
}

/** Returns the slices of this event loop, by a clock. */
export function slicesOf(clock: Clock = systemClock): Slices {
  let slices = known.get(clock);
  if (slices === undefined) {
    slices = new Slices(() => clock.monotonicMs());
    known.set(clock, slices);
  }
  return slices;
}

/** Does jobs in slices, one after the other. */
export class SliceQueue {
  readonly #slices: Slices;
  readonly #afterSlice: () => void;
  readonly #jobs: Iterator<unknown>[] = [];
  #isRunning = false;
  #waiting: (() => void)[] = [];

  /** @param afterSlice is called at the end of each slice, when all that it has done is consistent */
  constructor(slices: Slices, afterSlice: () => void) {
    this.#slices = slices;
    this.#afterSlice = afterSlice;
  }

  /** Begins a job at once, unless others are under way. One of up to a hundred steps is done when this returns. */
  add(job: Iterator<unknown>): void {
    this.#jobs.push(job);
    if (this.#isRunning) return;
    this.#isRunning = true;
    this.#run(FIRST_STEPS);
  }

  /** Resolves when no job is under way. */
  idle(): Promise<void> {
    if (!this.#isRunning) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  #run(atLeast: number): void {
    for (let job = this.#jobs[0]; job !== undefined; job = this.#jobs[0]) {
      const isDone = this.#slices.run(job, atLeast);
      if (isDone) this.#jobs.shift();
      this.#afterSlice();
      if (!isDone) {
        this.#slices.later(() => this.#run(1));
        return;
      }
    }
    this.#isRunning = false;
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

const known = new WeakMap<Clock, Slices>();
/** With the step that ends it and what else is done in the turn, a slice stays below 5 ms. */
const SLICE_MS = 3;
/** A turn that takes so much longer is held up by something else; sliced work need not wait for its end too. */
const FORGOTTEN_MS = 12;
/** How many steps work takes at once in any case, so that a small change is one slice on a busy machine too. */
const FIRST_STEPS = 100;
