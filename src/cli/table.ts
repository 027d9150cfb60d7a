/**
 * Text for people: tables with aligned columns, and times as distances.
 * @module
 */

/**
 * Returns the lines of a table: the titles in capitals, then the rows, each column as wide as its widest cell.
 *
 * @param none the one line that stands for a table without rows
 */
export function table(
  titles: readonly string[],
  rows: readonly (readonly string[])[],
  none: string
): readonly string[] {
  if (rows.length === 0) return [none];
  const all = [titles.map((title) => title.toUpperCase()), ...rows];
  const widths = titles.map((_, i) => all.reduce((most, row) => Math.max(most, row[i]!.length), 0));
  return all.map((row) =>
    row
      .map((cell, i) => cell.padEnd(widths[i]!))
      .join('  ')
      .trimEnd()
  );
}

/** Returns pairs as lines: the names in one column, the values in the next. What is undefined is left out. */
export function pairs(entries: readonly (readonly [string, string | undefined])[]): string[] {
  const given = entries.filter(([, value]) => value !== undefined);
  const width = given.reduce((most, [name]) => Math.max(most, name.length), 0);
  return given.map(([name, value]) => `${name.padEnd(width)}  ${value}`);
}

/** Returns how far a time is away: `in 3 days`, or `2 hours ago`. */
export function distance(time: string, nowMs: number = Date.now()): string {
  const seconds = Math.round((Date.parse(time) - nowMs) / 1000);
  const [unit, length] = UNITS.find(([, each]) => Math.abs(seconds) >= each) ?? ['second', 1];
  const text = countOf(Math.floor(Math.abs(seconds) / length), unit);
  return seconds < 0 ? `${text} ago` : `in ${text}`;
}

/** Returns a number with its noun: `1 tunnel`, `2 tunnels`. */
export function countOf(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

/** Returns the entries with commas between them, or a hyphen if there are none. */
export function listOf(entries: readonly string[] = []): string {
  return entries.length === 0 ? '-' : entries.join(', ');
}

/** The first that fits is taken, so that 100 minutes are one hour and 50 hours two days. */
const UNITS: readonly (readonly [string, number])[] = [
  ['year', 365 * 86_400],
  ['day', 86_400],
  ['hour', 3_600],
  ['minute', 60],
];
