/**
 * A limit for the answer of a gateway, which may hang.
 * @module
 */
import { setTimeout as delay } from 'node:timers/promises';

/** Waits for an answer. @throws {Error} that names what has not answered within the time. */
export async function inTime<T>(answer: Promise<T>, what: string, limitMs: number): Promise<T> {
  const ended = new AbortController();
  const limit = delay(limitMs, undefined, { signal: ended.signal }).then(() => {
    throw new Error(`${what}: no answer within ${limitMs} ms`);
  });
  // The timer of an answer in time is cancelled, which nobody looks at.
  limit.catch(() => {});
  try {
    return await Promise.race([answer, limit]);
  } finally {
    ended.abort();
  }
}
