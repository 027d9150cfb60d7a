/**
 * The enrolment tokens in the store: `token/<id>` with the hash of the secret, kept until the token expires. A token
 * without an entry is refused, so it is safe if a fast clock removes an entry early.
 *
 * A clock that is set back, or that was fast when the token was made, must not lengthen the life of a token. So the
 * process that made it also measures its lifetime by the monotonic clock, and every process refuses a token that was
 * made in the future.
 *
 * A change of an entry is returned as a write, which the authority commits together with the certificate.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { EnrolmentError } from '../errors.ts';
import type { Entry, Json, Store, Write } from '../store/store.ts';
import { backdated } from './certificate.ts';
import type { RunningTime } from './running-time.ts';
import { hashSecret, isTokenId, randomSecret, randomTokenId, secretMatches } from './token.ts';

/** A new token, which is valid once `write` is committed. */
export interface TokenDraft {
  readonly id: string;
  readonly secret: string;
  readonly write: Write;
}

/** A valid token, which is used once `write` is committed; only one process can commit it. */
export interface RedeemableToken {
  readonly site: string;
  readonly write: Write;
}

export class TokenLedger {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #running: RunningTime;
  /** The running time at which each token made by this process expires, by token id. */
  readonly #endRunMs = new Map<string, number>();

  constructor(store: Store, clock: Clock, running: RunningTime) {
    this.#store = store;
    this.#clock = clock;
    this.#running = running;
  }

  /** Draws a new token. */
  draft(site: string, lifetimeMs: number): TokenDraft {
    const id = randomTokenId();
    const secret = randomSecret();
    const createdAtMs = this.#clock.wallMs();
    const record: TokenRecord = {
      secretHash: hashSecret(secret),
      site,
      createdAtMs,
      expiresAtMs: createdAtMs + lifetimeMs,
      usedAtMs: null,
    };
    const runMs = this.#running.ms;
    for (const [each, endMs] of this.#endRunMs) if (endMs <= runMs) this.#endRunMs.delete(each);
    this.#endRunMs.set(id, runMs + lifetimeMs);
    return { id, secret, write: { key: TOKENS + id, value: record, expect: 0 } };
  }

  /**
   * Finds the token with this secret.
   *
   * @throws {EnrolmentError} with fault `unknown` (also for a wrong secret), `used` or `expired`.
   */
  async redeemable(id: string, secret: string): Promise<RedeemableToken> {
    const entry = isTokenId(id) ? await this.#store.get(TOKENS + id) : undefined;
    const record = entry?.value as TokenRecord | undefined;
    if (entry === undefined || record === undefined || !secretMatches(secret, record.secretHash)) {
      throw unknownToken();
    }
    if (record.usedAtMs !== null) {
      throw new EnrolmentError('used', 'the enrolment token has been used');
    }
    const nowMs = this.#clock.wallMs();
    if (this.#isExpired({ id, record })) {
      const expiry = new Date(record.expiresAtMs).toISOString();
      throw new EnrolmentError('expired', `the enrolment token expired at ${expiry}`);
    }
    const { createdAtMs = 0, expiresAtMs } = record;
    if (nowMs < backdated(createdAtMs, expiresAtMs - createdAtMs)) {
      const creation = new Date(createdAtMs).toISOString();
      throw new EnrolmentError(
        'expired',
        `the enrolment token was made at ${creation}, and the clock of the cloud gateway is behind that`
      );
    }
    const used: TokenRecord = { ...record, usedAtMs: nowMs };
    return { site: record.site, write: { key: entry.key, value: used, expect: entry.version } };
  }

  /** Returns how many of these entries of tokens are still valid. */
  countValid(entries: readonly Entry[]): number {
    return entries.map(tokenOf).filter((it) => it.record.usedAtMs === null && !this.#isExpired(it))
      .length;
  }

  /** Returns the store keys of the expired tokens. */
  async expiredKeys(): Promise<string[]> {
    const all = (await this.#store.list(TOKENS)).map(tokenOf);
    const expired = all.filter((token) => this.#isExpired(token));
    return expired.map(({ key }) => key);
  }

  /** Whether the wall clock says so or, for a token made by this process, the monotonic clock. */
  #isExpired({ id, record: { expiresAtMs } }: Pick<StoredToken, 'id' | 'record'>): boolean {
    const endRunMs = this.#endRunMs.get(id) ?? Number.POSITIVE_INFINITY;
    return this.#clock.wallMs() >= expiresAtMs || this.#running.ms >= endRunMs;
  }
}

/** Returns the site that an entry of a token names. */
export function siteOfToken(value: Json): string {
  return (value as TokenRecord).site;
}

function tokenOf({ key, value }: Entry): StoredToken {
  return { key, id: key.slice(TOKENS.length), record: value as TokenRecord };
}

/** The same message for a wrong id, a wrong secret and a voided token, so that guessing reveals nothing. */
export function unknownToken(): EnrolmentError {
  return new EnrolmentError('unknown', 'the enrolment token is not known');
}

interface StoredToken {
  readonly key: string;
  readonly id: string;
  readonly record: TokenRecord;
}

type TokenRecord = {
  /** SHA-256, base64url. */
  readonly secretHash: string;
  readonly site: string;
  /** Entries from before this field existed have none. */
  readonly createdAtMs?: number;
  readonly expiresAtMs: number;
  readonly usedAtMs: number | null;
};

/** The area of the store. */
export const TOKEN_AREA = 'token';
const TOKENS = `${TOKEN_AREA}/`;
