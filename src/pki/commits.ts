/**
 * Commits of this room: guards, refusals, and writes in parts that every store takes.
 * @module
 */
import { StoreConflictError } from '../errors.ts';
import type { Store, Write } from '../store/store.ts';

/** A write that changes nothing, but lets the commit fail if the entry is there. */
export function mustNotExist(key: string): Write {
  return { key, value: undefined, expect: 0 };
}

export function deletionOf(key: string): Write {
  return { key, value: undefined };
}

/** What to throw when a commit failed: a conflict is a refusal, all else is as it is. */
export function refusedAs(error: unknown, refusal: () => Error): unknown {
  return error instanceof StoreConflictError ? refusal() : error;
}

/** Commits one part after the other; `committed` hears of each before the next, also when that fails. */
export async function commitInParts(
  store: Store,
  writes: readonly Write[],
  committed: (part: readonly Write[]) => Promise<void> | void = () => {}
): Promise<void> {
  for (let at = 0; at < writes.length; at += MAX_WRITES) {
    const part = writes.slice(at, at + MAX_WRITES);
    await store.commit(part);
    await committed(part);
  }
}

/** etcd takes 128 operations in a transaction. */
const MAX_WRITES = 100;
