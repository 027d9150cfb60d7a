/**
 * The check of every number in the DNS configuration.
 * @module
 */
import { ConfigError } from '../errors.ts';

/**
 * Returns `value` if it is an integer from `min` to `max`.
 *
 * @throws {ConfigError} at `path` if it is not.
 */
export function integerWithin(path: string, value: number, min: number, max: number): number {
  if (!Number.isInteger(value) || value < min || value > max) {
    throw new ConfigError(path, `${value} is not an integer from ${min} to ${max}`);
  }
  return value;
}
