/**
 * How long the event loop of this process stands still, and how much of that is the collection of garbage.
 * @module
 */
import { PerformanceObserver } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';

export interface Stalls {
  /** The longest time for which the loop stood still. */
  readonly stallMs: number;
  /** The same without the collections of garbage within it. */
  readonly sliceMs: number;
  /** The longest collection. */
  readonly collectionMs: number;
}

interface Span {
  readonly fromMs: number;
  readonly toMs: number;
}

/** It looks at the clock every millisecond. */
export class LoopWatch implements Disposable {
  #gaps: Span[] = [];
  #collections: Span[] = [];
  #lastMs = performance.now();
  readonly #timer: NodeJS.Timeout;
  readonly #observer: PerformanceObserver;

  constructor() {
    this.#timer = setInterval(() => {
      const nowMs = performance.now();
      if (nowMs - this.#lastMs > 2 * PERIOD_MS)
        this.#gaps.push({ fromMs: this.#lastMs, toMs: nowMs });
      this.#lastMs = nowMs;
    }, PERIOD_MS);
    this.#observer = new PerformanceObserver((list) => {
      for (const { startTime, duration } of list.getEntries()) {
        this.#collections.push({ fromMs: startTime, toMs: startTime + duration });
      }
    });
    this.#observer.observe({ entryTypes: ['gc'] });
  }

  /** Forgets what was before. */
  async begin(): Promise<void> {
    await delay(REPORT_MS);
    this.#gaps = [];
    this.#collections = [];
  }

  /** Returns what was since `begin`. */
  async end(): Promise<Stalls> {
    await delay(REPORT_MS);
    const collections = this.#collections;
    const slices = this.#gaps.map((gap) => {
      const collected = collections.reduce((sum, each) => sum + overlapMs(gap, each), 0);
      return gap.toMs - gap.fromMs - PERIOD_MS - collected;
    });
    return {
      stallMs: greatest(this.#gaps.map(({ fromMs, toMs }) => toMs - fromMs - PERIOD_MS)),
      sliceMs: greatest(slices),
      collectionMs: greatest(collections.map(({ fromMs, toMs }) => toMs - fromMs)),
    };
  }

  /** Resolves when the loop has not stood still for a while. */
  async quiet(): Promise<void> {
    for (let count = -1; count !== this.#gaps.length; ) {
      count = this.#gaps.length;
      await delay(QUIET_MS);
    }
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#observer.disconnect();
  }
}

function overlapMs(a: Span, b: Span): number {
  return Math.max(0, Math.min(a.toMs, b.toMs) - Math.max(a.fromMs, b.fromMs));
}

function greatest(values: readonly number[]): number {
  return values.reduce((most, value) => Math.max(most, value), 0);
}

const PERIOD_MS = 1;
/** Collections are reported a while after they were. */
const REPORT_MS = 10;
const QUIET_MS = 60;
