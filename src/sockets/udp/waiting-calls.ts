/**
 * Calls that wait for something which comes once, for example for the tunnel, or until a socket is bound.
 * @module
 */

/** Runs calls in the order in which they were made, once what they wait for is there; later ones run at once. */
export class WaitingCalls {
  #isOpen = false;
  #waiting: Call[] = [];

  /** Whether what was waited for is there. */
  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** How many calls wait. */
  get size(): number {
    return this.#waiting.length;
  }

  /** Calls one of the two, at once if there is nothing to wait for. */
  add(run: () => void, fail: (error: Error) => void): void {
    if (this.#isOpen) run();
    else this.#waiting.push({ run, fail });
  }

  /** What was waited for is there. */
  open(): void {
    this.#isOpen = true;
    for (const { run } of this.#take()) run();
  }

  /** Fails the calls that wait. Others may wait after that. */
  fail(error: Error): void {
    for (const { fail } of this.#take()) fail(error);
  }

  #take(): readonly Call[] {
    const waiting = this.#waiting;
    this.#waiting = [];
    return waiting;
  }
}

interface Call {
  readonly run: () => void;
  readonly fail: (error: Error) => void;
}
