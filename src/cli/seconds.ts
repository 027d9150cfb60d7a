/**
 * Durations in a gateway's file: seconds there, milliseconds in the library.
 * @module
 */
import { type Schema, wholeNumber } from '../base/schema.ts';

const DAY = 86_400;
export const YEAR: number = 365 * DAY;

/** The schema of a duration from `least` seconds to `most`; default ten years. */
export function seconds(least: number, most: number = 10 * YEAR): Schema<number> {
  return wholeNumber(least, most);
}

export function inMs(seconds: number | undefined): number | undefined {
  return seconds === undefined ? undefined : seconds * 1000;
}

export function inSeconds(ms: number): number {
  return ms / 1000;
}
