/**
 * Whether the data of a store is valid for it, by the entry `meta`. A store that was restored from a backup has another
 * cluster id than its data: what machines have in memory may then be newer, see `recall.ts`.
 * @module
 */
import { randomUUID } from 'node:crypto';
import * as v from 'valibot';
import { ConflictError, StoreConflictError } from '../errors.ts';
import type { Json, LeasingStore } from '../store/index.ts';
import { META_KEY, type StoreMeta } from '../store/meta.ts';
import { MetaSchema } from './keys.ts';

/** The entry `meta` with its version. */
export interface FoundMeta {
  readonly meta: StoreMeta;
  /** The value of the entry, which may say more. */
  readonly value: { readonly [name: string]: Json };
  readonly version: number;
}

/**
 * Reads the entry; undefined if there is none.
 *
 * @param cloud the name of the cloud that it must be of; undefined: any
 * @throws {ConflictError} if the data is that of another cloud, or `meta` is not such an entry.
 * @throws {StoreError} if the store does not answer.
 */
export async function readMeta(
  store: LeasingStore,
  cloud: string | undefined
): Promise<FoundMeta | undefined> {
  const entry = await store.get(META_KEY);
  if (entry === undefined) return undefined;
  const { success, output } = v.safeParse(MetaSchema, entry.value);
  if (!success) {
    throw new ConflictError(
      `the entry "${META_KEY}" of the store is not one of a cloud: check the prefix of its keys`
    );
  }
  if (cloud !== undefined && output.cloud !== undefined && cloud !== output.cloud) {
    throw new ConflictError(
      `the store has the data of the cloud "${output.cloud}", and this machine is one of "${cloud}": check the endpoints of the store and the prefix of its keys`
    );
  }
  return { meta: output, value: entry.value as FoundMeta['value'], version: entry.version };
}

/**
 * Returns whether the data is valid for the store. The first machine of a new store writes what is compared.
 *
 * @throws what `readMeta` throws.
 */
export async function isValid(store: LeasingStore, cloud: string | undefined): Promise<boolean> {
  for (;;) {
    const { clusterId: cluster } = store;
    const found = await readMeta(store, cloud);
    if (found !== undefined) return found.meta.cluster === cluster;
    const value = { cluster, id: randomUUID(), ...(cloud === undefined ? {} : { cloud }) };
    try {
      await store.commit([{ key: META_KEY, value, expect: 0 }]);
    } catch (error) {
      if (!(error instanceof StoreConflictError)) throw error;
    }
  }
}
