/**
 * `Histogram`: how many values were how large. Recording a value allocates no memory.
 * @module
 */
import type { HistogramSample, MetricLabels } from './metric.ts';

export class Histogram {
  readonly #bounds: readonly number[];
  /** How many values each bucket has alone; the last one has those above all bounds. */
  readonly #counts: Float64Array;
  #sum = 0;

  /** @param bounds the upper bounds of the buckets in rising order, without the infinite one */
  constructor(bounds: readonly number[] = DURATION_BOUNDS) {
    this.#bounds = bounds;
    this.#counts = new Float64Array(bounds.length + 1);
  }

  record(value: number): void {
    this.add(value, 1, value);
  }

  /** Adds `count` values, of which none is larger than `value` and belongs into a lower bucket; `sum` is their sum. */
  add(value: number, count: number, sum: number): void {
    let bucket = 0;
    while (bucket < this.#bounds.length && value > this.#bounds[bucket]!) bucket++;
    this.#counts[bucket]! += count;
    this.#sum += sum;
  }

  /** Returns the values so far. */
  sample(labels: MetricLabels = {}): HistogramSample {
    let count = 0;
    const buckets = Array.from(this.#counts, (own, i) => {
      count += own;
      return { upperBound: this.#bounds[i] ?? Number.POSITIVE_INFINITY, count };
    });
    return { labels, buckets, sum: this.#sum, count };
  }
}

/** The bounds for times from 0.5 ms to 10 s, in seconds. */
export const DURATION_BOUNDS: readonly number[] = Object.freeze([
  0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
]);
