/**
 * Stores: where desired state, leases, tokens and revocations are kept.
 * @module
 */
export { FileStore, type FileStoreOptions } from './file.ts';
export { MemoryStore } from './memory.ts';
export type { Change, Entry, Json, Store, Write } from './store.ts';
