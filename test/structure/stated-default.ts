/**
 * Whether a docstring gives the default value that the code has.
 */

const UNITS: readonly (readonly [name: RegExp, factor: number, words: readonly string[]])[] = [
  [/Ms$/, 1000, ['s', 'second', 'seconds']],
  [/Ms$/, 60_000, ['minute', 'minutes']],
  [/Ms$/, 3_600_000, ['hour', 'hours']],
  [/Ms$/, 86_400_000, ['day', 'days']],
  [/Ms$/, 365 * 86_400_000, ['year', 'years']],
  [/Bytes/, 1024, ['KiB']],
  [/Bytes/, 1024 * 1024, ['MiB']],
];
const ONE = ['one', 'a', 'an'];

/**
 * @param name of the option, which has its unit
 * @returns whether the text says that `value` is the default. A value that cannot be written down, a function or an
 *   object, is content with any statement about the default.
 */
export function saysDefault(text: string, name: string, value: unknown): boolean {
  const written = writtenAs(name, value);
  if (written === undefined) return /\bdefault/i.test(text);
  return written.some((each) => {
    // This must not match the beginning of a longer number or word.
    const literal = `\`?${each.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}\`?(?![\\w,.]*\\w)`;
    return new RegExp(
      `\\b(?:[Bb]y default|[Dd]efaults?|default is)(?: to)?:? ${literal}|${literal} (?:by default|is the default)`
    ).test(text);
  });
}

/** Whether the text gives a number, or `true`, as the default. An option that is false is one that is absent. */
export function statesLiteral(text: string): boolean {
  return /\bdefaults?:? (?:\d|true\b)|\b(?:\d[\d,.]*|true) by default/i.test(text);
}

/** All the ways in which a value may be written, or undefined if there is none. */
function writtenAs(name: string, value: unknown): readonly string[] | undefined {
  if (Array.isArray(value)) {
    if (value.length === 0) return ['none'];
    const items = value.map((each) => `'${each}'`);
    return [`[${items.join(', ')}]`, value.map((each) => `\`${each}\``).join(' and ')];
  }
  if (typeof value === 'string' || typeof value === 'boolean') return [String(value)];
  if (typeof value !== 'number') return undefined;
  return [String(value), value.toLocaleString('en-US'), ...withUnit(name, value)];
}

function withUnit(name: string, value: number): string[] {
  return UNITS.filter(([pattern]) => pattern.test(name)).flatMap(([, factor, words]) => {
    const count = value / factor;
    if (!Number.isInteger(count)) return [];
    const counts = count === 1 ? ['1', ...ONE] : [String(count), count.toLocaleString('en-US')];
    return counts.flatMap((each) => words.map((word) => `${each} ${word}`));
  });
}
