/**
 * A store of several machines on etcd.
 * @module
 */
export { EtcdStore } from './etcd-store.ts';
export type { EtcdStoreEvents, EtcdStoreState } from './mirror.ts';
export { ETCD_STORE_DEFAULTS, type EtcdCredentials, type EtcdStoreOptions } from './options.ts';
