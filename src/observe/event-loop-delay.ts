/**
 * How late the event loop of this process calls its timers, which is for how long something has held it up.
 * @module
 */
import { type IntervalHistogram, monitorEventLoopDelay } from 'node:perf_hooks';
import { Histogram } from './histogram.ts';
import type { HistogramSample, MetricLabels } from './metric.ts';

/** Measures from the first call of `sample` on: before that, nobody wants to know, and nothing is measured. */
export class EventLoopDelay {
  readonly #histogram = new Histogram(BOUNDS);
  #monitor: IntervalHistogram | undefined;

  /** Returns the delays so far, in seconds, one for each 20 ms. */
  sample(labels: MetricLabels = {}): HistogramSample {
    if (this.#monitor === undefined) {
      this.#monitor = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
      this.#monitor.enable();
    } else {
      this.#take(this.#monitor);
    }
    return this.#histogram.sample(labels);
  }

  close(): void {
    this.#monitor?.disable();
  }

  /** Moves what Node has measured into buckets that last. Node counts the time of the timer as a part of each delay. */
  #take(monitor: IntervalHistogram): void {
    const { count } = monitor;
    if (count === 0) return;
    let taken = 0;
    for (const [percentile, nanoseconds] of monitor.percentiles) {
      const upTo = Math.min(count, Math.round((percentile / 100) * count));
      if (upTo <= taken) continue;
      const seconds = Math.max(0, nanoseconds / 1e6 - RESOLUTION_MS) / 1000;
      this.#histogram.add(seconds, upTo - taken, seconds * (upTo - taken));
      taken = upTo;
    }
    monitor.reset();
  }
}

const RESOLUTION_MS = 20;
/** In seconds. */
const BOUNDS: readonly number[] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5];
