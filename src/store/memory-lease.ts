/**
 * A lease of a `MemoryStore`: it ends when it has not been renewed for its time.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { StoreError } from '../errors.ts';
import type { MemoryData } from './memory-data.ts';
import type { StoreLease } from './store.ts';

export class MemoryLease implements StoreLease {
  readonly id: string;
  readonly ttlMs: number;
  readonly #data: MemoryData;
  readonly #clock: Clock;
  readonly #ended = new AbortController();
  /** Cancels the end of the lease; undefined while it is renewed. */
  #renew: (() => void) | undefined;

  constructor(data: MemoryData, clock: Clock, ttlMs: number) {
    this.id = data.grant();
    this.ttlMs = ttlMs;
    this.#data = data;
    this.#clock = clock;
  }

  get ended(): AbortSignal {
    return this.#ended.signal;
  }

  /** Whether the lease is renewed; if it is not for `ttlMs`, it ends. */
  set isRenewed(isRenewed: boolean) {
    if (isRenewed) {
      this.#renew?.();
      this.#renew = undefined;
    } else this.#renew ??= this.#clock.after(this.ttlMs, () => void this.#end('expired'), true);
  }

  async revoke(): Promise<void> {
    if (this.#renew === undefined) await this.#end('was revoked');
    else this.abandon();
  }

  /** Ends the use of the lease in this process. Its entries are deleted when it expires. */
  abandon(): void {
    this.isRenewed = false;
    this.#abort('is not renewed any more');
  }

  async #end(how: string): Promise<void> {
    // The process that has the lease stops before others see its end.
    this.#abort(how);
    await this.#data.end(this.id);
  }

  #abort(how: string): void {
    this.#ended.abort(new StoreError(`lease ${this.id} of the store ${how}`));
  }
}
