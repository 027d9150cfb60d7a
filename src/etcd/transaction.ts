/**
 * A commit as a transaction of etcd, and what its answer means.
 * @module
 */
import { StoreConflictError } from '../errors.ts';
import type { CommitWrites } from '../store/changes.ts';
import type { Compare, RequestOp, TxnRequest, TxnResponse } from './descriptor.ts';
import { COMPARE_EQUAL, COMPARE_MOD } from './descriptor.ts';
import type { Keyspace } from './keyspace.ts';

/** An entry that a commit compares, with the version that it must have; 0 if it must not exist. */
interface Condition {
  readonly key: string;
  readonly version: number;
}

/** What became of a commit. */
export type Outcome =
  /** It was applied; `version` is undefined if it has changed nothing. */
  | { readonly isApplied: true; readonly version: number | undefined }
  /** Nothing was written. */
  | {
      readonly isApplied: false;
      readonly error: StoreConflictError;
      /** The versions of the compared entries at the revision `at`; 0 for those that do not exist. */
      readonly present: ReadonlyMap<string, number>;
      readonly at: number;
    };

export class Transaction {
  readonly request: TxnRequest;
  readonly #conditions: readonly Condition[];
  readonly #keyspace: Keyspace;

  constructor({ frozen, guards }: CommitWrites, keyspace: Keyspace) {
    this.#keyspace = keyspace;
    this.#conditions = [
      ...frozen.flatMap(({ key, expect }) =>
        expect === undefined ? [] : [{ key, version: expect }]
      ),
      ...guards,
    ];
    this.request = {
      compare: this.#conditions.map(
        ({ key, version }): Compare => ({
          result: COMPARE_EQUAL,
          target: COMPARE_MOD,
          key: keyspace.bytesOf(key),
          mod_revision: version === 0 ? 0 : keyspace.revisionOf(version),
        })
      ),
      success: frozen.map(({ key, value, lease }): RequestOp => {
        const bytes = keyspace.bytesOf(key);
        if (value === undefined) return { request_delete_range: { key: bytes } };
        const put = { key: bytes, value: Buffer.from(JSON.stringify(value)) };
        return { request_put: lease === undefined ? put : { ...put, lease: lease.id } };
      }),
      // The present versions tell what the watch has to show before the caller may look again.
      failure: this.#conditions.map(
        ({ key }): RequestOp => ({
          request_range: { key: keyspace.bytesOf(key), keys_only: true },
        })
      ),
    };
  }

  outcomeOf({ header, succeeded, responses }: TxnResponse): Outcome {
    const at = this.#keyspace.versionOf(header.revision);
    if (succeeded) {
      const hasChanged = responses.some(
        ({ response_put, response_delete_range }) =>
          response_put !== undefined || Number(response_delete_range?.deleted ?? 0) > 0
      );
      return { isApplied: true, version: hasChanged ? at : undefined };
    }
    const present = new Map(
      this.#conditions.map(({ key }, i): [string, number] => {
        const found = responses[i]?.response_range?.kvs[0];
        return [key, found === undefined ? 0 : this.#keyspace.versionOf(found.mod_revision)];
      })
    );
    const { key, version } = this.#conditions.find(
      (each) => present.get(each.key) !== each.version
    )!;
    const error = new StoreConflictError(
      `"${key}" is at version ${present.get(key)}, not at the expected ${version}`
    );
    return { isApplied: false, error, present, at };
  }
}
