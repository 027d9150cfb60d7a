/**
 * Durable state: a store for desired state, leases, tokens and revocations, and secrets for keys.
 * @module
 */
export { FILE_STORE_DEFAULTS, FileStore, type FileStoreOptions } from './file.ts';
export { FileSecrets, type FileSecretsOptions } from './file-secrets.ts';
export { MemoryStore, type MemoryStoreOptions } from './memory.ts';
export { MemorySecrets } from './memory-secrets.ts';
export { checkSecretName, type SecretChanges, type Secrets } from './secrets.ts';
export type {
  Change,
  Entry,
  Guard,
  Json,
  LeaseReference,
  LeasingStore,
  RestorableStore,
  Store,
  StoreLease,
  Write,
} from './store.ts';
export { StoreSecrets, type StoreSecretsOptions } from './store-secrets.ts';
