/**
 * `MetricSet`: collects the series of one scrape.
 * @module
 */
import type { HistogramSample, MetricFamily, MetricLabels, MetricSample } from './metric.ts';
import { METRIC_PREFIX, METRICS, type MetricName } from './metric-table.ts';

export class MetricSet {
  readonly #values = new Map<MetricName, MetricSample[]>();
  readonly #histograms = new Map<MetricName, HistogramSample[]>();

  /** Adds a series of a counter or a gauge; nothing if its value is not known. */
  add(name: MetricName, labels: MetricLabels, value: number | undefined): void {
    if (value === undefined) return;
    const samples = this.#values.get(name);
    if (samples === undefined) this.#values.set(name, [{ labels, value }]);
    else samples.push({ labels, value });
  }

  /** Adds one series for each entry, whose key is the value of the label `label`. */
  addEach(
    name: MetricName,
    labels: MetricLabels,
    label: string,
    values: Readonly<Record<string, number>>
  ): void {
    for (const each in values) this.add(name, { ...labels, [label]: each }, values[each]);
  }

  addHistogram(name: MetricName, sample: HistogramSample): void {
    const samples = this.#histograms.get(name);
    if (samples === undefined) this.#histograms.set(name, [sample]);
    else samples.push(sample);
  }

  /** Returns the families that have a series, in the order of the table. */
  families(): MetricFamily[] {
    const families: MetricFamily[] = [];
    for (const [key, { type, help }] of Object.entries(METRICS)) {
      const head = { name: `${METRIC_PREFIX}${key}`, help };
      const name = key as MetricName;
      const values = this.#values.get(name);
      const histograms = this.#histograms.get(name);
      if (type === 'histogram') {
        if (histograms !== undefined) families.push({ ...head, type, samples: histograms });
      } else if (values !== undefined) {
        families.push({ ...head, type, samples: values });
      }
    }
    return families;
  }
}
