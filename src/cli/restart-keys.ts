/**
 * Which keys of a changed file need a restart of the gateway.
 * @module
 */
import { isDeepStrictEqual } from 'node:util';
import type { Logger } from '../observe/index.ts';

/** A file: its keys, and the options of the library with their defaults, by the names of keys. */
export interface FileState {
  readonly keys: object;
  readonly options: object;
}

/**
 * Returns the keys that differ between two states of a file. A key that is now given with its default value, or that
 * is now left out and had it, is none.
 */
export function changedKeys(before: FileState, after: FileState): string[] {
  return Object.keys({ ...before.keys, ...after.keys }).filter(
    (key) =>
      !isDeepStrictEqual(optionOf(before.keys, key), optionOf(after.keys, key)) &&
      !isDeepStrictEqual(optionOf(before.options, key), optionOf(after.options, key))
  );
}

export function logNeedRestart(logger: Logger, keys: readonly string[]): void {
  if (keys.length === 0) return;
  const message = `changed, and needs a restart: ${keys.join(', ')}`;
  logger.warn({ event: 'restart_needed', keys }, message);
}

function optionOf(values: object, key: string): unknown {
  return (values as Record<string, unknown>)[key];
}
