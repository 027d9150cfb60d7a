/**
 * Writes metric families in the
 * [text format of Prometheus](https://prometheus.io/docs/instrumenting/exposition_formats/), version 0.0.4.
 * @module
 */
import { type Clock, systemClock } from '../base/clock.ts';
import { slicesOf } from '../base/slices.ts';
import type { HistogramSample, MetricFamily, MetricLabels } from './metric.ts';

/** The value of the header `content-type`. */
export const METRICS_CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8';

/**
 * Returns the text as bytes. It is written in slices, between which the event loop turns, so that many series do not
 * hold up packets.
 *
 * @param clock measures the slices; default the clock of the system
 */
export async function encodeMetrics(
  families: readonly MetricFamily[],
  clock: Clock = systemClock
): Promise<Buffer> {
  const parts: Buffer[] = [];
  const slices = slicesOf(clock);
  const steps = encode(families, parts);
  while (!slices.run(steps)) await slices.next();
  return Buffer.concat(parts);
}

/** Each step adds the bytes of some series to `parts`. */
function* encode(families: readonly MetricFamily[], parts: Buffer[]): Generator<void> {
  for (const family of families) {
    const { name, help, type } = family;
    let text = `# HELP ${name} ${escapeHelp(help)}\n# TYPE ${name} ${type}\n`;
    let left = SERIES_PER_STEP;
    for (const sample of family.samples) {
      text +=
        'buckets' in sample
          ? histogramLines(name, sample)
          : `${name}${labelsOf(sample.labels)} ${numberOf(sample.value)}\n`;
      if (--left > 0) continue;
      parts.push(Buffer.from(text));
      text = '';
      left = SERIES_PER_STEP;
      yield;
    }
    parts.push(Buffer.from(text));
    yield;
  }
}

function histogramLines(name: string, { labels, buckets, sum, count }: HistogramSample): string {
  let text = '';
  for (const { upperBound, count: upTo } of buckets) {
    text += `${name}_bucket${labelsOf({ ...labels, le: numberOf(upperBound) })} ${numberOf(upTo)}\n`;
  }
  const own = labelsOf(labels);
  return `${text}${name}_sum${own} ${numberOf(sum)}\n${name}_count${own} ${numberOf(count)}\n`;
}

function labelsOf(labels: MetricLabels): string {
  let text = '';
  for (const name in labels) {
    text += `${text === '' ? '{' : ','}${name}="${escapeValue(labels[name]!)}"`;
  }
  return text === '' ? '' : `${text}}`;
}

function numberOf(value: number): string {
  if (value === Number.POSITIVE_INFINITY) return '+Inf';
  if (value === Number.NEGATIVE_INFINITY) return '-Inf';
  return String(value);
}

function escapeHelp(text: string): string {
  return text.replace(/\\/g, '\\\\').replace(/\n/g, '\\n');
}

function escapeValue(text: string): string {
  return SPECIAL.test(text) ? escapeHelp(text).replace(/"/g, '\\"') : text;
}

const SPECIAL = /[\\\n"]/;
/** These take less than 0.1 ms. */
const SERIES_PER_STEP = 64;
