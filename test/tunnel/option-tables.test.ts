/**
 * The tables of options in src/tunnel/README.md say what the code does.
 */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { DIAL_ROWS, LISTEN_ROWS } from '../../src/tunnel/options.ts';

type Rows = typeof DIAL_ROWS | typeof LISTEN_ROWS;

/** The cells of each row of the tables with these options, by name. */
const [both, dialling, listening] = readFileSync('src/tunnel/README.md', 'utf8')
  .split('| name | unit | default | must be |\n')
  .slice(1)
  .map((text) => {
    const rows = text.split('\n').slice(1);
    const table = rows.slice(0, rows.indexOf('')).map((row) => row.split('|').slice(1, -1));
    return new Map(table.map((cells) => [cells[0]!.trim().replaceAll('`', ''), cells.map(trim)]));
  });

function trim(text: string): string {
  return text.trim();
}

function written(value: unknown): string {
  if (typeof value === 'number') return value.toLocaleString('en-US');
  if (typeof value === 'string') return `\`${value}\``;
  if (value === systemClock) return '`systemClock`';
  if (value === Math.random) return '`Math.random`';
  const entries = Object.entries(value as object);
  return entries.map(([name, each]) => `\`${name}\` ${each.toLocaleString('en-US')}`).join(', ');
}

test.each<[string, Rows, typeof both]>([
  ['dialling', DIAL_ROWS, dialling],
  ['listening', LISTEN_ROWS, listening],
])('the README lists each option of the %s side with its default and limits', (_, rows, own) => {
  for (const [name, { default: value, limits }] of Object.entries(rows)) {
    const cells = own!.get(name) ?? both!.get(name);
    expect(cells?.[3], name).toBe(limits.expected);
    // A default that depends on another option, and what holds without one, are said in words.
    if (value !== undefined) expect(cells![2]!, name).toContain(written(value));
    else expect(cells![2]!, name).not.toMatch(/^\d[\d,]*$/);
    expect(cells![1] === 'ms', name).toBe(/Ms$/.test(name) || name === 'backoff');
  }
});

test('the README lists no option that there is not', () => {
  const required = ['key, cert, ca', 'endpoints', 'expectedPeer', 'proxy', 'port'];
  const known = new Set([...Object.keys(DIAL_ROWS), ...Object.keys(LISTEN_ROWS), ...required]);
  const listed = [both, dialling, listening].flatMap((table) => [...table!.keys()]);
  expect(listed.filter((name) => !known.has(name))).toEqual([]);
});
