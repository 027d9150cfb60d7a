/**
 * Time that passes only when told to.
 * @module
 */

interface Entry {
  readonly at: number;
  readonly delayMs: number;
  readonly callback: () => void;
}

export class FakeTimers {
  #nowMs = 1_000_000;
  readonly #entries = new Set<Entry>();

  now(): number {
    return this.#nowMs;
  }

  after(delayMs: number, callback: () => void): () => void {
    const entry = { at: this.#nowMs + delayMs, delayMs, callback };
    this.#entries.add(entry);
    return () => this.#entries.delete(entry);
  }

  /** Delays of the timers that are set. */
  get delays(): number[] {
    return [...this.#entries].map((entry) => entry.delayMs);
  }

  advance(ms: number): void {
    const end = this.#nowMs + ms;
    for (;;) {
      const [next] = [...this.#entries].filter((e) => e.at <= end).sort((a, b) => a.at - b.at);
      if (next === undefined) break;
      this.#entries.delete(next);
      this.#nowMs = next.at;
      next.callback();
    }
    this.#nowMs = end;
  }
}
