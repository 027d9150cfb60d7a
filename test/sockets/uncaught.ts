/**
 * Catches what would end the process, so that a test can say which exceptions of a program came through, and that
 * there were no others.
 */
import { afterEach, beforeEach, expect } from 'vitest';

type Listener = (error: Error) => void;

/** Returns the list of uncaught exceptions. What a test leaves in it fails the test. */
export function catchUncaught(): Error[] {
  const uncaught: Error[] = [];
  const onUncaught = (error: Error): void => void uncaught.push(error);
  let others: Listener[] = [];
  beforeEach(() => {
    others = process.listeners('uncaughtException') as Listener[];
    process.removeAllListeners('uncaughtException');
    process.on('uncaughtException', onUncaught);
  });
  afterEach(() => {
    process.removeListener('uncaughtException', onUncaught);
    for (const listener of others) process.on('uncaughtException', listener);
    expect(uncaught.splice(0)).toEqual([]);
  });
  return uncaught;
}
