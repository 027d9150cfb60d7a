/**
 * Asks the data plane at long intervals which presences were used, and ends the leases of those that were not. It does
 * so in small batches, so that packets and other changes are processed in between.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import type { PresenceUse } from './presence-uses.ts';

export interface IdleSweepOptions {
  readonly clock: Clock;
  readonly everyMs: number;
  readonly ask: () => Promise<Iterable<PresenceUse>>;
  /** Notes some uses, and stores them. */
  readonly touch: (uses: readonly PresenceUse[]) => Promise<void>;
  /** Ends some leases, in one turn of the event loop. Returns whether there may be more to end. */
  readonly end: () => Promise<boolean>;
  readonly onError: (error: Error) => void;
}

export class IdleSweep {
  readonly #options: IdleSweepOptions;
  #endTimer: (() => void) | undefined;
  #isClosed = false;

  constructor(options: IdleSweepOptions) {
    this.#options = options;
    this.#schedule(options.everyMs, () => this.#sweep());
  }

  close(): void {
    this.#isClosed = true;
    this.#endTimer?.();
  }

  #schedule(delayMs: number, work: () => Promise<void>): void {
    if (this.#isClosed) return;
    this.#endTimer = this.#options.clock.after(delayMs, () => void work(), true);
  }

  /** Ends no lease while the data plane does not answer. */
  async #sweep(): Promise<void> {
    const { everyMs, ask, touch, onError } = this.#options;
    try {
      const uses = [...(await ask())];
      // It runs at least once, because it also stores the lease clock.
      for (let at = 0; at === 0 || at < uses.length; at += USES_PER_TURN) {
        if (this.#isClosed) return;
        await touch(uses.slice(at, at + USES_PER_TURN));
      }
    } catch (error) {
      onError(error as Error);
      this.#schedule(everyMs, () => this.#sweep());
      return;
    }
    await this.#end();
  }

  async #end(): Promise<void> {
    const { everyMs, end, onError } = this.#options;
    try {
      while (!this.#isClosed && (await end()));
    } catch (error) {
      onError(error as Error);
    }
    this.#schedule(everyMs, () => this.#sweep());
  }
}

const USES_PER_TURN = 1024;
