/**
 * The enrolment tokens that are out, as the store keeps them: `token/<id>` with the hash of the
 * secret, until it expires. What changes an entry is returned as a write, for the authority to
 * commit together with the certificate that it is about.
 * @module
 */
import { EnrolmentError } from '../errors.ts';
import type { Store, Write } from '../store/store.ts';
import { hashSecret, isTokenId, randomSecret, randomTokenId, secretMatches } from './token.ts';

/** A new token; it exists once `write` is committed. */
export interface TokenDraft {
  readonly id: string;
  readonly secret: string;
  readonly write: Write;
}

/** A token that is good; it is used up once `write` is committed, which only one can do. */
export interface RedeemableToken {
  readonly site: string;
  readonly write: Write;
}

export class TokenLedger {
  readonly #store: Store;
  readonly #now: () => number;

  constructor(store: Store, now: () => number) {
    this.#store = store;
    this.#now = now;
  }

  draft(site: string, lifetimeMs: number): TokenDraft {
    const id = randomTokenId();
    const secret = randomSecret();
    const record: TokenRecord = {
      secretHash: hashSecret(secret),
      site,
      expiresAtMs: this.#now() + lifetimeMs,
      usedAtMs: null,
    };
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
    const nowMs = this.#now();
    if (nowMs >= record.expiresAtMs) {
      const expiry = new Date(record.expiresAtMs).toISOString();
      throw new EnrolmentError('expired', `the enrolment token expired at ${expiry}`);
    }
    const used: TokenRecord = { ...record, usedAtMs: nowMs };
    return { site: record.site, write: { key: entry.key, value: used, expect: entry.version } };
  }

  /** Keys of all tokens of a site, and how many of them are still good. */
  async ofSite(site: string): Promise<{ keys: string[]; outstanding: number }> {
    const nowMs = this.#now();
    const found = (await this.#all()).filter(({ record }) => record.site === site);
    const good = found.filter(
      ({ record }) => record.usedAtMs === null && record.expiresAtMs > nowMs
    );
    return { keys: found.map(({ key }) => key), outstanding: good.length };
  }

  async expiredKeys(): Promise<string[]> {
    const nowMs = this.#now();
    const expired = (await this.#all()).filter(({ record }) => record.expiresAtMs <= nowMs);
    return expired.map(({ key }) => key);
  }

  async #all(): Promise<{ key: string; record: TokenRecord }[]> {
    const entries = await this.#store.list(TOKENS);
    return entries.map(({ key, value }) => ({ key, record: value as TokenRecord }));
  }
}

/** One message for a wrong id, a wrong secret and a voided token: a guesser learns nothing. */
export function unknownToken(): EnrolmentError {
  return new EnrolmentError('unknown', 'the enrolment token is not known');
}

type TokenRecord = {
  /** SHA-256, base64url. */
  readonly secretHash: string;
  readonly site: string;
  readonly expiresAtMs: number;
  readonly usedAtMs: number | null;
};

const TOKENS = 'token/';
