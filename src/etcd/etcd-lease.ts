/**
 * A lease of etcd: it is renewed three times in its time, and ends in this process no later than at etcd.
 * @module
 */
import { StoreError } from '../errors.ts';
import type { StoreLease } from '../store/store.ts';
import type { EtcdConnection } from './connection.ts';
import type { LeaseResponse } from './descriptor.ts';
import type { EtcdSettings } from './options.ts';

export class EtcdLease implements StoreLease {
  readonly id: string;
  readonly ttlMs: number;
  readonly #connection: EtcdConnection;
  readonly #settings: EtcdSettings;
  readonly #freshAtMs: () => number;
  readonly #ended = new AbortController();
  /** When the last request was sent that has begun or renewed the lease, on the monotonic clock. */
  #renewedAtMs: number;
  #stopEndTimer: () => void = () => {};
  #stopRenewal: () => void = () => {};

  /**
   * @param askedAtMs when etcd was asked for the lease, on the monotonic clock
   * @param freshAtMs returns up to when the store shows the entries of etcd: without them, nobody may act under a lease
   */
  constructor(
    { ID, TTL }: LeaseResponse,
    askedAtMs: number,
    freshAtMs: () => number,
    connection: EtcdConnection,
    settings: EtcdSettings
  ) {
    this.id = ID;
    this.ttlMs = Number(TTL) * 1000;
    this.#renewedAtMs = askedAtMs;
    this.#freshAtMs = freshAtMs;
    this.#connection = connection;
    this.#settings = settings;
    this.#watchEnd();
    this.#renewLater(this.ttlMs / RENEWALS);
  }

  get ended(): AbortSignal {
    return this.#ended.signal;
  }

  async revoke(): Promise<void> {
    this.abandon('was revoked');
    await this.#revokeAtEtcd();
  }

  /** Ends the use of the lease in this process. Its entries are deleted when it expires. */
  abandon(how: string): void {
    this.#stopEndTimer();
    this.#stopRenewal();
    this.#ended.abort(new StoreError(`lease ${this.id} of etcd ${how}`));
  }

  #watchEnd(): void {
    const { clock } = this.#settings;
    const endMs = Math.min(this.#renewedAtMs, this.#freshAtMs()) + this.ttlMs;
    const leftMs = endMs - clock.monotonicMs();
    if (leftMs > 0) {
      this.#stopEndTimer = clock.after(leftMs, () => this.#watchEnd(), true);
      return;
    }
    const isRenewed = this.#renewedAtMs + this.ttlMs > clock.monotonicMs();
    this.abandon(
      isRenewed
        ? `is given up: the watch has shown nothing for ${this.ttlMs} ms`
        : `was not renewed for ${this.ttlMs} ms`
    );
    // Others need not wait for its end.
    void this.#revokeAtEtcd();
  }

  #renewLater(delayMs: number): void {
    this.#stopRenewal = this.#settings.clock.after(delayMs, () => void this.#renew(), true);
  }

  async #renew(): Promise<void> {
    const { clock } = this.#settings;
    const sentMs = clock.monotonicMs();
    let delayMs = RETRY_MS;
    try {
      const { TTL } = await this.#connection.askOnce(
        '/etcdserverpb.Lease/LeaseKeepAlive',
        { ID: this.id },
        RENEWAL_MS
      );
      if (this.ended.aborted) return;
      if (Number(TTL) <= 0) {
        this.abandon('was ended by etcd');
        return;
      }
      this.#renewedAtMs = sentMs;
      delayMs = Math.max(this.ttlMs / RENEWALS - (clock.monotonicMs() - sentMs), 0);
    } catch {
      // It ends by itself if no attempt succeeds.
    }
    if (!this.ended.aborted) this.#renewLater(delayMs);
  }

  async #revokeAtEtcd(): Promise<void> {
    try {
      await this.#connection.call(
        '/etcdserverpb.Lease/LeaseRevoke',
        { ID: this.id },
        { timeoutMs: RENEWAL_MS, isRepeatable: true }
      );
    } catch {
      // It has ended, or it expires.
    }
  }
}

const RENEWALS = 3;
/** How long one renewal may take. */
const RENEWAL_MS = 1000;
const RETRY_MS = 100;
