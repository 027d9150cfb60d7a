/** What commands make of arguments, and the text that they print. */
import { describe, expect, test } from 'vitest';
import type { CloudStatusAnswer, EdgeStatusAnswer } from '../../src/admin/index.ts';
import { parseCount, parseLabels, parseList, parseSeconds } from '../../src/cli/arguments.ts';
import { cloudProblems, edgeLines, edgeProblems, problemLines } from '../../src/cli/status-text.ts';
import { distance, pairs, table } from '../../src/cli/table.ts';

describe('arguments', () => {
  test.each([
    ['1', 1],
    ['90s', 90],
    ['15m', 900],
    ['1h', 3_600],
    ['30d', 2_592_000],
  ])('the duration %s has %i seconds', (text, seconds) => {
    expect(parseSeconds(text)).toBe(seconds);
  });

  test.each(['', '0', '0h', '-1s', '1.5h', '1w', '1h30m', '9999999999', ' 1'])(
    '"%s" is no duration',
    (text) => expect(() => parseSeconds(text)).toThrow('Expected a duration')
  );

  test('lists and labels', () => {
    expect(parseList('a, b')).toEqual(['a', 'b']);
    expect(parseList('')).toEqual([]);
    expect(parseLabels('tier=edge,region=north')).toEqual({ tier: 'edge', region: 'north' });
    expect(parseLabels('')).toEqual({});
    for (const text of ['a', '=b', 'a=', 'a=b=c', 'a=b,']) {
      expect(() => parseLabels(text), text).toThrow('Expected');
    }
    expect(parseCount('1024')).toBe(1_024);
    for (const text of ['', '-1', '1.5', '0x10']) {
      expect(() => parseCount(text), text).toThrow('Expected a whole number');
    }
  });
});

describe('text', () => {
  test.each([
    [0, 'in 0 seconds'],
    [1, 'in 1 second'],
    [-59, '59 seconds ago'],
    [60, 'in 1 minute'],
    [-7_199, '1 hour ago'],
    [3 * 86_400, 'in 3 days'],
    [3_650 * 86_400, 'in 10 years'],
  ])('%i seconds are %s', (seconds, text) => {
    const time = new Date(1_000_000 + seconds * 1000).toISOString();
    expect(distance(time, 1_000_000)).toBe(text);
  });

  test('columns are aligned, and lines have no white space at their end', () => {
    const rows = [
      ['site-a', '1'],
      ['b', ''],
    ];
    expect(table(['site', 'n'], rows, 'none')).toEqual(['SITE    N', 'site-a  1', 'b']);
    expect(table(['site'], [], 'there are no sites')).toEqual(['there are no sites']);
    const given = pairs([
      ['a', '1'],
      ['long', '2'],
      ['left out', undefined],
    ]);
    expect(given).toEqual(['a     1', 'long  2']);
  });
});

describe('what is wrong', () => {
  const edge = { sentRevision: 7, appliedRevision: 7, counters: {} };
  const status = (more: object) =>
    ({ sites: [], workers: [], warnings: [], ca: {}, ...more }) as unknown as CloudStatusAnswer;

  test('is nothing', () => {
    const sites = [
      { name: 'cloud', revoked: false },
      { name: 'a', revoked: false, edge },
    ];
    expect(cloudProblems(status({ sites }))).toEqual([]);
    expect(problemLines([])).toEqual(['', 'nothing is wrong']);
  });

  test('is said with what to do', () => {
    const sites = [
      { name: 'a', revoked: true },
      { name: 'b', revoked: false },
      { name: 'c', revoked: false, edge: { ...edge, sentRevision: 8 } },
    ];
    const workers = [
      { pid: 0, sites: [] },
      { pid: 9, sites: [] },
    ];
    const warnings = [{ kind: 'pools', message: 'scarce' }];
    const problems = cloudProblems(status({ sites, workers, warnings, ca: { warning: 'old' } }));
    expect(problems).toEqual([
      'the worker 0 is down, and is started again; its log says why it has ended',
      '"a" is revoked: "reinstate a" lets it enrol again',
      expect.stringMatching(/^"b" is not connected: .* "token create b"$/),
      expect.stringMatching(/^"c" has not acknowledged the revision 8 yet: /),
      'scarce',
      'old',
    ]);
    expect(problemLines(['old'])).toEqual(['', 'what is wrong:', '- old']);
  });

  test('of a machine of several is said by itself, and not that a site is at another one', () => {
    const sites = [{ name: 'a', revoked: false, machine: 'two', epoch: 7 }];
    const own = { name: 'one', state: 'attached', isDraining: false, isController: false };
    const problems = (more: object) =>
      cloudProblems(status({ sites, machine: { ...own, ...more } }));
    expect(problems({})).toEqual([]);
    expect(problems({ name: 'two' })).toEqual([expect.stringMatching(/^"a" is not connected/)]);
    expect(problems({ isDraining: true })).toEqual([
      'the machine "one" takes no sites: "machine resume one" ends that',
    ]);
    expect(problems({ state: 'detached', stopsAt: 'noon' })).toEqual([
      'the machine "one" does not reach the store, and ends its tunnels at noon: look at the store and the way to it',
    ]);
    expect(problems({ state: 'removed' })).toEqual([
      expect.stringMatching(/^the machine "one" was removed from the cloud: start its gateway/),
    ]);
  });

  test('of an edge is why it is not online', () => {
    const base = { state: 'rejected', addresses: {}, names: 0, counters: {}, warnings: [] };
    const failure = { remedy: 'token', message: 'the token is used' };
    const rejected = { ...base, failure } as unknown as EdgeStatusAnswer;
    expect(edgeProblems(rejected)).toEqual([
      'the token is used: make a token by "token create" at the cloud, and give it to this gateway by "enrol"',
    ]);
    expect(edgeLines(rejected)).toEqual(['edge gateway of no site yet: rejected']);
    const expired = { ...base, state: 'connecting', expired: 'the snapshot has expired' };
    expect(edgeProblems(expired as unknown as EdgeStatusAnswer)).toEqual([
      'the tunnel is being made; wait',
      'the snapshot has expired',
    ]);
  });
});
