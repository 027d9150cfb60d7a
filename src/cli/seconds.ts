/**
 * Durations in a gateway's file: seconds there, milliseconds in the library.
 * @module
 */
import * as v from 'valibot';

/** The schema of a duration from `least` seconds to ten years. */
export function seconds(least: number): v.GenericSchema<number, number> {
  const most = 10 * 365 * 86_400;
  const isOne = (value: number) => Number.isInteger(value) && value >= least && value <= most;
  return v.pipe(
    v.number(),
    v.check(isOne, ({ input }) => `expected a whole number from ${least} to ${most}, got ${input}`)
  );
}

export function inMs(seconds: number | undefined): number | undefined {
  return seconds === undefined ? undefined : seconds * 1000;
}
