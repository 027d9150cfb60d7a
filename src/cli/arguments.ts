/**
 * Values on the command line. A value that is none ends the command with one sentence that names the argument; what
 * depends on the operation is checked by its schemas.
 * @module
 */
import { InvalidArgumentError } from 'commander';

/** Returns the seconds of a duration such as `90`, `30s`, `15m`, `1h` or `7d`. */
export function parseSeconds(text: string): number {
  const [, digits, unit = 's'] = /^([0-9]{1,9})([smhd]?)$/.exec(text) ?? [];
  const seconds = Number(digits) * (SECONDS_OF[unit || 's'] ?? Number.NaN);
  if (seconds > 0 && Number.isSafeInteger(seconds)) return seconds;
  throw new InvalidArgumentError('Expected a duration such as 90s, 15m, 1h or 7d.');
}

/** Returns the milliseconds of a duration such as `200ms`, `2s` or `1m`, from 0 on; a number alone is seconds. */
export function parseMilliseconds(text: string): number {
  const [, digits, unit = ''] = /^([0-9]{1,9})(ms|s|m)?$/.exec(text) ?? [];
  if (digits !== undefined)
    return unit === 'ms' ? Number(digits) : Number(digits) * 1000 * SECONDS_OF[unit || 's']!;
  throw new InvalidArgumentError('Expected a duration such as 200ms, 2s or 1m.');
}

/** Returns the entries of a list such as `a,b`; none of an empty text. */
export function parseList(text: string): readonly string[] {
  if (text.trim() === '') return [];
  const entries = text.split(',').map((entry) => entry.trim());
  if (!entries.includes('')) return entries;
  throw new InvalidArgumentError('Expected entries between commas, and one of them is empty.');
}

/** Returns the labels of a list such as `tier=edge,region=north`; none of an empty text. */
export function parseLabels(text: string): Readonly<Record<string, string>> {
  const pairs = parseList(text).map((entry): [string, string] => {
    const [, key, value] = /^([^=]+)=([^=]+)$/.exec(entry) ?? [];
    if (key !== undefined && value !== undefined) return [key, value];
    throw new InvalidArgumentError('Expected labels such as tier=edge,region=north.');
  });
  const labels = Object.fromEntries(pairs);
  if (Object.keys(labels).length === pairs.length) return labels;
  throw new InvalidArgumentError('One of the labels is there twice.');
}

/** Returns a whole number from 0 on. */
export function parseCount(text: string): number {
  if (/^[0-9]{1,15}$/.test(text)) return Number(text);
  throw new InvalidArgumentError('Expected a whole number from 0 on.');
}

/** Returns the number of a port. */
export function parsePort(text: string): number {
  const port = /^[0-9]{1,5}$/.test(text) ? Number(text) : 0;
  if (port >= 1 && port <= 65_535) return port;
  throw new InvalidArgumentError('Expected a port from 1 to 65535.');
}

const SECONDS_OF: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3_600, d: 86_400 };
