/**
 * The entry that says for which store the data is valid. A store that was restored from a backup, or that has the data of
 * another one, has another cluster id: what machines have in memory may be newer than it.
 * @module
 */
import * as v from 'valibot';
import { ConflictError, StoreConflictError } from '../errors.ts';
import type { LeasingStore } from '../store/index.ts';
import { META_KEY, MetaSchema } from './keys.ts';

/**
 * Compares the store with its data; the first machine of a new store writes what is compared.
 *
 * @throws {ConflictError} if the data is that of another store, or `meta` is not such an entry.
 * @throws {StoreError} if the store does not answer.
 */
export async function checkMeta(store: LeasingStore): Promise<void> {
  const { clusterId } = store;
  for (;;) {
    const entry = await store.get(META_KEY);
    if (entry !== undefined) {
      const meta = v.safeParse(MetaSchema, entry.value);
      if (!meta.success) {
        throw new ConflictError(
          `the entry "${META_KEY}" of the store is not one of a cloud: check the prefix of its keys`
        );
      }
      if (meta.output.cluster === clusterId) return;
      throw new ConflictError(
        `the store has the cluster id ${clusterId}, and its data is that of ${meta.output.cluster}: it was restored from a backup, or is another cloud's. If it was restored, stop the gateways of all machines, delete the entry "${META_KEY}" a DNS TTL later, start them again, and repeat the revocations since the backup`
      );
    }
    try {
      await store.commit([{ key: META_KEY, value: { cluster: clusterId }, expect: 0 }]);
    } catch (error) {
      if (!(error instanceof StoreConflictError)) throw error;
    }
  }
}
