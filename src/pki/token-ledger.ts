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
import { EnrolmentError, NotFoundError, StoreConflictError } from '../errors.ts';
import type { Entry, Store, Write } from '../store/store.ts';
import { backdated } from './certificate.ts';
import { deletionOf } from './commits.ts';
import { EntryIndex } from './entry-index.ts';
import { checkListQuery, type ListQuery } from './list-query.ts';
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

/** An enrolment token as an operator sees it. Its secret is known only to whoever has the text of the token. */
export interface TokenEntry {
  /** Names the token; it is no secret. It is the `id` of `parseToken`. */
  readonly id: string;
  readonly site: string;
  /** Undefined for a token from before the store recorded it. */
  readonly createdAt: Date | undefined;
  readonly expiresAt: Date;
  /** When a site enrolled with it; undefined until then. */
  readonly usedAt: Date | undefined;
  readonly state: 'valid' | 'used' | 'expired';
}

export class TokenLedger {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #running: RunningTime;
  readonly #index: EntryIndex;
  /** The running time at which each token made by this process expires, by token id. */
  readonly #endRunMs = new Map<string, number>();

  private constructor(store: Store, clock: Clock, running: RunningTime, index: EntryIndex) {
    this.#store = store;
    this.#clock = clock;
    this.#running = running;
    this.#index = index;
  }

  /** @throws {StoreError} if the store cannot be read. */
  static async open(store: Store, clock: Clock, running: RunningTime): Promise<TokenLedger> {
    const index = await EntryIndex.open(store, AREA, (value) => [(value as TokenRecord).site]);
    return new TokenLedger(store, clock, running, index);
  }

  /** The write that marks a commit for `ofSite`. */
  get mark(): Write {
    return this.#index.mark;
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

  /** Returns the tokens in the order of their ids. @throws {ApiMisuseError} if the query is invalid. */
  page(query: ListQuery): TokenEntry[] {
    const { after, limit, site } = checkListQuery(query);
    return this.#index.page(after, limit, site).map((entry) => this.#entryOf(tokenOf(entry)));
  }

  /** Reads a token that this process has just written, so that `page` has it. */
  refresh(id: string): Promise<void> {
    return this.#index.refresh(TOKENS + id);
  }

  /** Deletes a token. @throws {NotFoundError} if there is none. */
  async delete(id: string): Promise<TokenEntry> {
    for (;;) {
      const entry = isTokenId(id) ? await this.#store.get(TOKENS + id) : undefined;
      if (entry === undefined) throw new NotFoundError(`there is no enrolment token "${id}"`);
      try {
        await this.#store.commit([{ ...deletionOf(entry.key), expect: entry.version }]);
      } catch (error) {
        // A site has just enrolled with it, or another process has deleted it.
        if (error instanceof StoreConflictError) continue;
        throw error;
      }
      await this.refresh(id);
      return this.#entryOf(tokenOf(entry));
    }
  }

  /** Returns the entries of a site's tokens; see `EntryIndex.find`. */
  ofSite(site: string, version: number): Promise<readonly Entry[]> {
    return this.#index.find(site, version);
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

  /** Stops following the store. Safe to call twice. */
  close(): void {
    this.#index.close();
  }

  #entryOf(token: StoredToken): TokenEntry {
    const { site, createdAtMs, expiresAtMs, usedAtMs } = token.record;
    const unused = this.#isExpired(token) ? 'expired' : 'valid';
    return {
      id: token.id,
      site,
      createdAt: createdAtMs === undefined ? undefined : new Date(createdAtMs),
      expiresAt: new Date(expiresAtMs),
      usedAt: usedAtMs === null ? undefined : new Date(usedAtMs),
      state: usedAtMs === null ? unused : 'used',
    };
  }

  /** Whether the wall clock says so or, for a token made by this process, the monotonic clock. */
  #isExpired({ id, record: { expiresAtMs } }: Pick<StoredToken, 'id' | 'record'>): boolean {
    const endRunMs = this.#endRunMs.get(id) ?? Number.POSITIVE_INFINITY;
    return this.#clock.wallMs() >= expiresAtMs || this.#running.ms >= endRunMs;
  }
}

function tokenOf({ key, value }: Entry): StoredToken {
  return { key, id: key.slice(TOKENS.length), record: value as TokenRecord };
}

/** The same message for a wrong id, a wrong secret and a voided token, so that guessing reveals nothing. */
export function unknownToken(): EnrolmentError {
  return new EnrolmentError('unknown', 'the enrolment token is not known');
}

/** Returns whether an entry has a token with which nobody has enrolled. */
export function isUnusedToken({ key, value }: Entry): boolean {
  return key.startsWith(TOKENS) && (value as Partial<TokenRecord> | null)?.usedAtMs === null;
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
const AREA = 'token';
export const TOKENS: string = `${AREA}/`;
