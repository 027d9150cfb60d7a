/**
 * Checks of arguments that several calls have, and Node's own errors for wrong ones.
 * @module
 */
import { inspect } from 'node:util';

/** Returns the family as a number; anything else than 4 and 6 means both. */
export function familyOption(family: unknown): 0 | 4 | 6 {
  if (family === 4 || family === 'IPv4') return 4;
  return family === 6 || family === 'IPv6' ? 6 : 0;
}

/** @throws {RangeError} ERR_SOCKET_BAD_PORT. */
export function checkPort(name: string, port: unknown): number {
  if (typeof port !== 'number' && typeof port !== 'string') throw wrongType(name, 'number', port);
  const value = typeof port === 'string' && port.trim() === '' ? Number.NaN : Number(port);
  if (Number.isInteger(value) && value >= 0 && value <= 65_535) return value;
  throw argumentError(
    RangeError,
    'ERR_SOCKET_BAD_PORT',
    `${name} should be >= 0 and < 65536. Received ${inspect(port)}.`
  );
}

/** @throws {TypeError} ERR_INVALID_ARG_TYPE. */
export function checkCallback(name: string, callback: unknown): void {
  if (typeof callback !== 'function') throw wrongType(name, 'function', callback);
}

/**
 * Returns undefined for an empty text and other values that mean nothing.
 *
 * @throws {TypeError} ERR_INVALID_ARG_TYPE, if it is something else than a text or nothing.
 */
export function checkName(name: string, value: unknown): string | undefined {
  if (!value) return undefined;
  if (typeof value !== 'string') throw wrongType(name, 'string', value);
  return value;
}

/** @throws {TypeError} ERR_INVALID_ARG_TYPE, if there is one and it is no AbortSignal. */
export function checkSignal(signal: unknown): void {
  const isSignal = typeof signal === 'object' && signal !== null && 'aborted' in signal;
  if (signal !== undefined && !isSignal) throw wrongType('options.signal', 'AbortSignal', signal);
}

/** @throws {TypeError} ERR_INVALID_ARG_TYPE, or {RangeError} ERR_OUT_OF_RANGE. */
export function checkMs(name: string, ms: unknown): number {
  if (typeof ms !== 'number') throw wrongType(name, 'number', ms);
  if (ms >= 0 && Number.isFinite(ms)) return Math.min(ms, MAX_TIMER_MS);
  throw outOfRange(name, 'a non-negative finite number', ms);
}

/** @throws {TypeError} ERR_INVALID_ARG_TYPE, or {RangeError} ERR_OUT_OF_RANGE, if it is no whole number in the range. */
export function checkWhole(name: string, value: unknown, min: number, max: number): number {
  if (typeof value !== 'number') throw wrongType(name, 'number', value);
  if (!Number.isInteger(value)) throw outOfRange(name, 'an integer', value);
  if (value < min || value > max) throw outOfRange(name, `>= ${min} && <= ${max}`, value);
  return value;
}

/** Returns an error of Node's, for example `TypeError` with `code: 'ERR_INVALID_ARG_TYPE'`. */
export function argumentError(
  type: new (message: string) => Error,
  code: string,
  message: string
): NodeJS.ErrnoException {
  return Object.assign(new type(message), { code });
}

/** Returns a TypeError ERR_INVALID_ARG_TYPE. */
export function wrongType(name: string, type: string, value: unknown): Error {
  return argumentError(
    TypeError,
    'ERR_INVALID_ARG_TYPE',
    `The "${name}" argument must be of type ${type}. Received ${inspect(value)}`
  );
}

function outOfRange(name: string, range: string, value: number): Error {
  return argumentError(
    RangeError,
    'ERR_OUT_OF_RANGE',
    `The value of "${name}" is out of range. It must be ${range}. Received ${value}`
  );
}

/** With a longer time, timers call at once; Node shortens to this too. */
const MAX_TIMER_MS: number = 2 ** 31 - 1;
