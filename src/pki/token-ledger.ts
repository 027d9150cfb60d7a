/**
 * The enrolment tokens that are out, as the store keeps them: `token/<id>` with the hash of the
 * secret, until it expires. A token without an entry is refused, so a clock that is fast once and has an
 * entry removed early lets nobody in.
 *
 * A clock that is set back, or was fast when the token was made, must not give a token more than its lifetime:
 * the process that made it measures that by a monotonic clock too, and every process refuses one that is from
 * the future.
 *
 * What changes an entry is returned as a write, for the authority to
 * commit together with the certificate that it is about.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { EnrolmentError } from '../errors.ts';
import type { Store, Write } from '../store/store.ts';
import { backdated } from './certificate.ts';
import type { RunningTime } from './running-time.ts';
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
  readonly #clock: Clock;
  readonly #running: RunningTime;
  /** Until which running time the tokens that were made here are good, by their ids. */
  readonly #endRunMs = new Map<string, number>();

  constructor(store: Store, clock: Clock, running: RunningTime) {
    this.#store = store;
    this.#clock = clock;
    this.#running = running;
  }

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
    if (this.#isExpired(id, record)) {
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

  /** Keys of all tokens of a site, and how many of them are still good. */
  async ofSite(site: string): Promise<{ keys: string[]; outstanding: number }> {
    const found = (await this.#all()).filter(({ record }) => record.site === site);
    const good = found.filter(
      ({ id, record }) => record.usedAtMs === null && !this.#isExpired(id, record)
    );
    return { keys: found.map(({ key }) => key), outstanding: good.length };
  }

  async expiredKeys(): Promise<string[]> {
    const expired = (await this.#all()).filter(({ id, record }) => this.#isExpired(id, record));
    return expired.map(({ key }) => key);
  }

  /** By the wall clock, or by the monotonic one if it was made here. */
  #isExpired(id: string, { expiresAtMs }: TokenRecord): boolean {
    const endRunMs = this.#endRunMs.get(id) ?? Number.POSITIVE_INFINITY;
    return this.#clock.wallMs() >= expiresAtMs || this.#running.ms >= endRunMs;
  }

  async #all(): Promise<{ key: string; id: string; record: TokenRecord }[]> {
    const entries = await this.#store.list(TOKENS);
    return entries.map(({ key, value }) => {
      return { key, id: key.slice(TOKENS.length), record: value as TokenRecord };
    });
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
  /** Entries that are older than this field have none. */
  readonly createdAtMs?: number;
  readonly expiresAtMs: number;
  readonly usedAtMs: number | null;
};

const TOKENS = 'token/';
