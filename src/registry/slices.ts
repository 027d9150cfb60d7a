/**
 * Long work in slices, between which the event loop moves packets.
 * @module
 */

/** Takes steps until they are done or the time of a slice is over, and returns whether they are done. */
export function runSlice(steps: Iterator<unknown>): boolean {
  const endMs = performance.now() + SLICE_MS;
  for (let taken = 0; taken < FIRST_STEPS || performance.now() < endMs; taken++) {
    if (steps.next().done) return true;
  }
  return false;
}

/** Takes all steps, in slices. The first slice begins at once. */
export async function inSlices(steps: Iterator<unknown>): Promise<void> {
  while (!runSlice(steps)) await new Promise<void>((resolve) => setImmediate(resolve));
}

/** Does jobs in slices, one after the other. */
export class SliceQueue {
  readonly #afterSlice: () => void;
  readonly #jobs: Iterator<unknown>[] = [];
  #isRunning = false;
  #waiting: (() => void)[] = [];

  /** @param afterSlice is called at the end of each slice, when all that it has done is consistent */
  constructor(afterSlice: () => void) {
    this.#afterSlice = afterSlice;
  }

  /** Begins a job at once, unless others are under way. A short one is done when this returns. */
  add(job: Iterator<unknown>): void {
    this.#jobs.push(job);
    if (this.#isRunning) return;
    this.#isRunning = true;
    this.#run();
  }

  /** Resolves when no job is under way. */
  idle(): Promise<void> {
    if (!this.#isRunning) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  #run(): void {
    for (let job = this.#jobs[0]; job !== undefined; job = this.#jobs[0]) {
      const isDone = runSlice(job);
      if (isDone) this.#jobs.shift();
      this.#afterSlice();
      if (!isDone) {
        setImmediate(() => this.#run());
        return;
      }
    }
    this.#isRunning = false;
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

/** How long a slice works, in ms. With the step that it is in, it stays below 5 ms. */
const SLICE_MS = 2.5;
/** How many steps a slice takes in any case, so that a small change is one slice on a busy machine too. */
const FIRST_STEPS = 100;
