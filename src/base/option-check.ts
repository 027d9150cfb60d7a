/**
 * Checks of options that callers give, also from plain JavaScript. Each returns what it was given, or throws one
 * error that names the option, what was expected and what was given.
 * @module
 */

import { ApiMisuseError } from '../errors.ts';
import { type Clock, systemClock } from './clock.ts';

/** @throws {ApiMisuseError} if `isOk` is false: `<name> must be <expected>, not <value>`. */
export function checkThat<T>(name: string, value: T, isOk: boolean, expected: string): T {
  if (isOk) return value;
  throw new ApiMisuseError(`${name} must be ${expected}, not ${shown(value)}`);
}

/** @throws {ApiMisuseError} if it is not an object that may hold options. */
export function checkObject<T>(name: string, value: T): T {
  const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
  return checkThat(name, value, isObject, 'an object');
}

/** @throws {ApiMisuseError} if it is not a function. */
export function checkFunction<T>(name: string, value: T): T {
  return checkThat(name, value, typeof value === 'function', 'a function');
}

/** @throws {ApiMisuseError} if it is not an object with these methods. */
export function checkMethods<T>(name: string, value: T, methods: readonly (string & keyof T)[]): T {
  const isObject = typeof value === 'object' && value !== null;
  const hasAll = isObject && methods.every((method) => typeof value[method] === 'function');
  return checkThat(name, value, hasAll, `an object with the methods ${methods.join(', ')}`);
}

/** @throws {ApiMisuseError} if it is not true or false. */
export function checkFlag(name: string, value: boolean): boolean {
  return checkThat(name, value, typeof value === 'boolean', 'true or false');
}

/** @throws {ApiMisuseError} if it is not a text of one character or more. */
export function checkText(name: string, value: string): string {
  return checkThat(name, value, typeof value === 'string' && value !== '', 'a text');
}

/** @throws {ApiMisuseError} if it is not a number above 0. */
export function checkPositive(name: string, value: number): number {
  return checkThat(name, value, Number.isFinite(value) && value > 0, 'positive');
}

/** @throws {ApiMisuseError} if it is not a time in ms that a timer can count, which is at most about 24 days. */
export function checkDuration(name: string, ms: number): number {
  const isOk = typeof ms === 'number' && ms > 0 && ms <= MAX_TIMER_MS;
  return checkThat(name, ms, isOk, `above 0 and at most ${MAX_TIMER_MS}, in ms`);
}

/** @throws {ApiMisuseError} if it is not a whole number from `first` to `last`. */
export function checkWhole(name: string, value: number, first: number, last: number): number {
  const isOk = Number.isInteger(value) && value >= first && value <= last;
  return checkThat(name, value, isOk, `a whole number from ${first} to ${last}`);
}

/**
 * Returns the clock, or the system's clock if there is none.
 *
 * @throws {ApiMisuseError} if it is not a clock.
 */
export function checkClock(clock: Clock | undefined): Clock {
  if (clock === undefined) return systemClock;
  return checkMethods('clock', clock, ['wallMs', 'monotonicMs', 'after']);
}

/** @throws {ApiMisuseError} if it is neither undefined nor an `AbortSignal`. */
export function checkSignal(signal: AbortSignal | undefined): AbortSignal | undefined {
  const isOk = signal === undefined || signal instanceof AbortSignal;
  return checkThat('signal', signal, isOk, 'an AbortSignal');
}

function shown(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.slice(0, MAX_SHOWN));
  if (typeof value === 'object' && value !== null) {
    return Array.isArray(value) ? 'a list' : 'an object of another kind';
  }
  return typeof value === 'function' ? 'a function' : String(value);
}

/** With a longer time, `setTimeout` calls at once. */
export const MAX_TIMER_MS: number = 2 ** 31 - 1;
/** How many characters of a wrong text a message shows. */
const MAX_SHOWN = 60;
