/**
 * Certificate revocation lists, version 2, in the profile of
 * [RFC 5280 section 5](https://www.rfc-editor.org/rfc/rfc5280#section-5).
 * @module
 */
import type { Change, Store } from '../store/store.ts';
import type { Ca } from './ca.ts';
import { authorityKeyId, backdated, type Issuer } from './certificate.ts';
import { encodePem, enumerated, extension, integer, sequence, tagged, time } from './der.ts';
import { signatureAlgorithmOf, signed } from './keys.ts';
import { REASON_CODES, type RevocationRecord } from './revocation-index.ts';

/** The latest revocation list. */
export interface CrlStatus {
  /** The CRL number, which increases with every list; RFC 5280 section 5.2.3. */
  readonly number: number;
  readonly thisUpdate: Date;
  readonly nextUpdate: Date;
}

/**
 * Signs revocation lists, each with a higher number than the one before it: across restarts, and across the processes on
 * one store, of which each tells the others its last number. The number is the time of day in ms where that is higher.
 */
export class RevocationLists {
  readonly #store: Store;
  readonly #lifetimeMs: number;
  #unwatch: () => void = () => {};
  #lastNumber = 0;
  #latest: CrlStatus | undefined;
  /** Settles when the last number is stored, or cannot be. */
  #stored: Promise<void> = Promise.resolve();

  private constructor(store: Store, lifetimeMs: number) {
    this.#store = store;
    this.#lifetimeMs = lifetimeMs;
  }

  /**
   * @param lifetimeMs how long a list is valid
   * @throws {StoreError} if the store cannot be read.
   */
  static async open(store: Store, lifetimeMs: number): Promise<RevocationLists> {
    const lists = new RevocationLists(store, lifetimeMs);
    lists.#unwatch = store.watch(NUMBER, (changes) => lists.#take(changes));
    try {
      const entry = await store.get(NUMBER);
      if (entry !== undefined) lists.#take([entry]);
    } catch (error) {
      lists.#unwatch();
      throw error;
    }
    return lists;
  }

  /** The latest list that this process has signed; undefined before the first one. */
  get latest(): CrlStatus | undefined {
    return this.#latest;
  }

  /**
   * Signs one list for each CA, of the `records` that it has issued or whose issuer is not recorded. The number is stored
   * in the background; if that fails, another process may use it again until the time of day is past it.
   *
   * @returns the lists as PEM texts, one after another.
   */
  sign(cas: readonly Ca[], records: readonly RevocationRecord[], nowMs: number): string {
    this.#lastNumber = Math.max(this.#lastNumber + 1, Math.floor(nowMs));
    const times: Times = {
      number: this.#lastNumber,
      thisUpdateMs: backdated(nowMs, this.#lifetimeMs),
      nextUpdateMs: nowMs + this.#lifetimeMs,
    };
    const lists = cas.map(({ id, issuer }) => {
      const own = records.filter((it) => it.issuer === undefined || it.issuer === id);
      return signRevocationList(issuer, own, times);
    });
    this.#latest = {
      number: times.number,
      thisUpdate: new Date(times.thisUpdateMs),
      nextUpdate: new Date(times.nextUpdateMs),
    };
    this.#stored = this.#store
      .commit([{ key: NUMBER, value: times.number }])
      // The list is signed already, and the next one stores its own number.
      .catch(() => {});
    return lists.join('');
  }

  /** Stops following the store. Safe to call twice. */
  close(): Promise<void> {
    this.#unwatch();
    return this.#stored;
  }

  #take(changes: readonly Change[]): void {
    for (const { key, value } of changes) {
      if (key !== NUMBER || !Number.isSafeInteger(value)) continue;
      this.#lastNumber = Math.max(this.#lastNumber, value as number);
    }
  }
}

interface Times {
  readonly number: number;
  readonly thisUpdateMs: number;
  readonly nextUpdateMs: number;
}

function signRevocationList(
  issuer: Issuer,
  records: readonly RevocationRecord[],
  times: Times
): string {
  const entries = records.map((record) => {
    const code = REASON_CODES[record.reason];
    const entry = [integer(BigInt(`0x${record.serial}`)), time(record.revokedAtMs)];
    // Section 5.3.1: "unspecified" is expressed by leaving the extension out.
    if (code !== 0) entry.push(sequence(extension(REASON_CODE, enumerated(code))));
    return sequence(...entry);
  });
  const tbs = sequence(
    integer(V2),
    signatureAlgorithmOf(issuer.privateKey),
    issuer.name,
    time(times.thisUpdateMs),
    time(times.nextUpdateMs),
    // Section 5.1.2.6: an empty list has no field for entries.
    ...(entries.length > 0 ? [sequence(...entries)] : []),
    tagged(
      0,
      sequence(authorityKeyId(issuer.keyId), extension(CRL_NUMBER, integer(BigInt(times.number))))
    )
  );
  return encodePem('X509 CRL', signed(tbs, issuer.privateKey));
}

/** The entry in the store with the last number. */
const NUMBER = 'crl/number';
const V2 = 1n;
const CRL_NUMBER = '2.5.29.20';
const REASON_CODE = '2.5.29.21';
