/**
 * Entries as etcd has them: keys with the prefix of the store, values as JSON texts, versions as revisions.
 * @module
 */
import { StoreError } from '../errors.ts';
import { freezeParsed } from '../store/json.ts';
import type { Entry, Json } from '../store/store.ts';
import type { KeyValue } from './descriptor.ts';

/** The keys of one store. */
export class Keyspace {
  readonly prefix: string;
  /** What is added to a revision to make a version. */
  readonly base: number;
  /** The first key of the store, and the first one behind it. */
  readonly start: Buffer;
  readonly end: Buffer;

  constructor(prefix: string, base = 0) {
    this.prefix = prefix;
    this.base = base;
    this.start = Buffer.from(prefix);
    this.end = Buffer.from(this.start);
    // The prefix ends with a slash, so that its last byte can be counted up.
    this.end[this.end.length - 1]!++;
  }

  /** Returns the key of an entry in etcd. */
  bytesOf(key: string): Buffer {
    return Buffer.from(this.prefix + key);
  }

  /** @throws {StoreError} if the key is not UTF-8, or the value is not JSON. */
  entryOf(pair: KeyValue): Entry {
    const key = this.keyOf(pair);
    if (key === undefined) {
      throw new StoreError(
        `etcd has under ${this.prefix} a key that this library does not write, in hexadecimal ${pair.key.toString('hex')}: delete it with etcdctl, or use another prefix`
      );
    }
    const version = this.versionOf(pair.mod_revision);
    return Object.freeze({ key, value: this.#valueOf(key, pair), version });
  }

  /** Returns the version of a revision, which etcd's messages have as a text. */
  versionOf(revision: string | number): number {
    return Number(revision) + this.base;
  }

  /** Returns the revision of a version. It is negative for versions from before a restore, which no entry has. */
  revisionOf(version: number): number {
    return version - this.base;
  }

  /** Returns the key of an entry; undefined if it is not UTF-8, or empty. */
  keyOf({ key }: KeyValue): string | undefined {
    const own = key.subarray(this.start.length);
    const text = own.toString();
    return own.length > 0 && Buffer.from(text).equals(own) ? text : undefined;
  }

  #valueOf(key: string, { value }: KeyValue): Json {
    try {
      return freezeParsed(JSON.parse(value.toString()) as Json);
    } catch (cause) {
      throw new StoreError(
        `etcd has a value at ${this.prefix}${key} that is not JSON: write it again, delete the key with etcdctl, or use another prefix`,
        { cause }
      );
    }
  }
}
