/**
 * Numbers on the command line of a benchmark.
 * @module
 */

/** @throws {Error} that names the option, if the text is no whole number of at least 1. */
export function wholeNumber(name: string, text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1)
    throw new Error(`--${name} is "${text}", not 1 or more`);
  return value;
}
