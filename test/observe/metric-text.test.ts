/** The text format, and what stands behind its numbers. */
import { describe, expect, test } from 'vitest';
import { CounterSums } from '../../src/observe/counter-sums.ts';
import { Histogram } from '../../src/observe/histogram.ts';
import type { MetricFamily } from '../../src/observe/metric.ts';
import { encodeMetrics } from '../../src/observe/metric-text.ts';

const textOf = async (...families: MetricFamily[]): Promise<string> =>
  String(await encodeMetrics(families));

describe('the text', () => {
  test('has help, type and series of each family', async () => {
    const text = await textOf(
      {
        name: 'a_total',
        help: 'Things.',
        type: 'counter',
        samples: [
          { labels: { site: 'a', state: 'up' }, value: 3 },
          { labels: {}, value: 0.25 },
        ],
      },
      { name: 'b', help: 'Others.', type: 'gauge', samples: [] }
    );
    expect(text).toBe(
      '# HELP a_total Things.\n# TYPE a_total counter\na_total{site="a",state="up"} 3\na_total 0.25\n' +
        '# HELP b Others.\n# TYPE b gauge\n'
    );
  });

  test('escapes help and labels, and writes values that are not finite', async () => {
    const samples = [
      { labels: { a: 'x"y\\z\n' }, value: Number.POSITIVE_INFINITY },
      { labels: {}, value: Number.NEGATIVE_INFINITY },
      { labels: {}, value: Number.NaN },
      { labels: {}, value: 1e300 },
    ];
    const text = await textOf({ name: 'a', help: 'one\\two\nthree "', type: 'gauge', samples });
    expect(text).toBe(
      '# HELP a one\\\\two\\nthree "\n# TYPE a gauge\na{a="x\\"y\\\\z\\n"} +Inf\na -Inf\na NaN\na 1e+300\n'
    );
  });

  test('has every series of a family that takes many slices', async () => {
    const samples = Array.from({ length: 1001 }, (_, i) => ({
      labels: { site: `s${i}` },
      value: i,
    }));
    const lines = (await textOf({ name: 'a', help: 'A.', type: 'gauge', samples })).split('\n');
    expect(lines.slice(2, -1)).toEqual(samples.map(({ value }) => `a{site="s${value}"} ${value}`));
  });

  test('has the buckets of a histogram, which are cumulative, with their labels', async () => {
    const histogram = new Histogram([0.1, 1]);
    for (const value of [0.1, 0.5, 0.5, 7]) histogram.record(value);
    const samples = [histogram.sample({ worker: '0' })];
    const text = await textOf({ name: 'a_seconds', help: 'A.', type: 'histogram', samples });
    expect(text.split('\n').slice(2)).toEqual([
      'a_seconds_bucket{worker="0",le="0.1"} 1',
      'a_seconds_bucket{worker="0",le="1"} 3',
      'a_seconds_bucket{worker="0",le="+Inf"} 4',
      'a_seconds_sum{worker="0"} 8.1',
      'a_seconds_count{worker="0"} 4',
      '',
    ]);
  });
});

describe('the sums of counters', () => {
  test('go on when a process is replaced, and while it is down', () => {
    const sums = new CounterSums();
    const both = (pid: number, ...counts: number[]) =>
      sums.sum('site-a', [
        { pid: 1, counts: [10, 0] },
        { pid, counts },
      ]);
    expect(both(2, 5, 7)).toEqual([15, 7]);
    expect(both(0, 0, 0)).toEqual([15, 7]);
    expect(both(3, 1, 0)).toEqual([16, 7]);
    expect(both(3, 2, 1)).toEqual([17, 8]);
    expect(both(4, 0, 0)).toEqual([17, 8]);
  });

  test('begin anew for a subject that was forgotten', () => {
    const sums = new CounterSums();
    const of = (pid: number, count: number) =>
      sums.sum('site-a', [
        { pid, counts: [count] },
        { pid: 9, counts: [0] },
      ]);
    of(1, 5);
    sums.keep(new Set());
    expect(of(2, 1)).toEqual([1]);
  });
});
