/**
 * Helpers for commits to the store: guards, conflicts as refusals, and long lists of writes in parts.
 * @module
 */
import { StoreConflictError } from '../errors.ts';
import type { Store, Write } from '../store/store.ts';

/**
 * Returns a write that changes nothing and makes the commit fail if the entry exists. It is a write and not a guard
 * because a store of the host program that knows no guards would issue to what is revoked.
 */
export function mustNotExist(key: string): Write {
  return { key, value: undefined, expect: 0 };
}

export function deletionOf(key: string): Write {
  return { key, value: undefined };
}

/** Returns what to throw after a failed commit: `refusal()` for a conflict, else the error itself. */
export function refusedAs(error: unknown, refusal: () => Error): unknown {
  return error instanceof StoreConflictError ? refusal() : error;
}

/**
 * Commits the writes in parts that the store accepts, in order. `committed` is awaited after each part, before the next
 * one.
 */
export async function commitInParts(
  store: Store,
  writes: readonly Write[],
  committed: (part: readonly Write[]) => Promise<void> | void = () => {}
): Promise<void> {
  const size = Math.min(store.maxWrites ?? MAX_WRITES, MAX_WRITES);
  for (let at = 0; at < writes.length; at += size) {
    const part = writes.slice(at, at + size);
    await store.commit(part);
    await committed(part);
  }
}

/** Few enough that a commit on a store without a limit does not stop the event loop. */
const MAX_WRITES = 100;
