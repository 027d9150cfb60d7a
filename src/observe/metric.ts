/**
 * Metric families as plain data: what one look at a gateway has found. The names and types are those of Prometheus; a
 * host program may hand the values to any other system.
 * @module
 */

/** The labels of a series, by name. */
export type MetricLabels = Readonly<Record<string, string>>;

/** One series of a counter or a gauge. */
export interface MetricSample {
  readonly labels: MetricLabels;
  readonly value: number;
}

/** One series of a histogram. */
export interface HistogramSample {
  readonly labels: MetricLabels;
  /** In rising order; the last upper bound is infinite. */
  readonly buckets: readonly HistogramBucket[];
  /** The sum of all values. */
  readonly sum: number;
  /** The number of all values. */
  readonly count: number;
}

export interface HistogramBucket {
  /** The largest value that the bucket counts, in the unit of the family. */
  readonly upperBound: number;
  /** How many values were not larger than `upperBound`: the buckets are cumulative. */
  readonly count: number;
}

export interface MetricHead {
  /** With the prefix `virtual_presence_`. */
  readonly name: string;
  /** One sentence. */
  readonly help: string;
}

/** Values that only grow (`counter`), or may also fall (`gauge`), in base units: seconds, bytes, numbers. */
export interface ValueFamily extends MetricHead {
  readonly type: 'counter' | 'gauge';
  readonly samples: readonly MetricSample[];
}

export interface HistogramFamily extends MetricHead {
  readonly type: 'histogram';
  readonly samples: readonly HistogramSample[];
}

/** All series of one name. */
export type MetricFamily = ValueFamily | HistogramFamily;
