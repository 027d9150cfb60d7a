/**
 * `Slices` divides long work into slices of the event loop, so that packets, timers and other work are served in
 * between.
 * @module
 */

/**
 * The slices of one piece of work. The work asks `isOver` before each step, which should take some microseconds, and
 * awaits `next` if that is true.
 */
export class Slices {
  #endMs: number = performance.now() + SLICE_MS;

  /** Whether the present slice has taken its time. */
  get isOver(): boolean {
    return performance.now() >= this.#endMs;
  }

  /** Resolves in a later turn of the event loop, in which the next slice begins. */
  async next(): Promise<void> {
    await new Promise<void>((resolve) => setImmediate(resolve));
    this.begin();
  }

  /** Begins a slice now, for example after the work has waited for the disk. */
  begin(): void {
    this.#endMs = performance.now() + SLICE_MS;
  }
}

/** Short enough that a slice, the step that ends it and other work of the same turn stay below 5 ms. */
const SLICE_MS = 2;
