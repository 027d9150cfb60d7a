/**
 * Asks the data plane at long intervals which presences were used, and ends the leases of those that were not. It does
 * so in small batches, so that packets and other changes are processed in between.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import type { LeaseTable } from './lease-table.ts';
import type { PresenceUse } from './presence-uses.ts';

export interface IdleSweepOptions {
  readonly clock: Clock;
  /** The options of the controller. */
  readonly clientIdleMs: number;
  readonly pressedIdleMs: number;
  readonly ask: () => Promise<Iterable<PresenceUse>>;
  /** Returns the leases that are in force now. */
  readonly leases: () => LeaseTable;
  /** Runs work after all earlier work of the controller. */
  readonly enqueue: <T>(work: () => Promise<T>) => Promise<T>;
  /** Stores that leases were ended. */
  readonly storeEnded: () => Promise<void>;
  readonly onError: (error: Error) => void;
}

export class IdleSweep {
  readonly #options: IdleSweepOptions;
  readonly #everyMs: number;
  #endTimer: (() => void) | undefined;
  #isClosed = false;

  constructor(options: IdleSweepOptions) {
    this.#options = options;
    this.#everyMs = Math.min(HOUR_MS, options.pressedIdleMs / 4);
    this.#schedule(this.#everyMs, () => this.#sweep());
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
    const { ask, onError } = this.#options;
    try {
      const uses = [...(await ask())];
      // It runs at least once, because it also stores the lease clock.
      for (let at = 0; at === 0 || at < uses.length; at += USES_PER_TURN) {
        if (this.#isClosed) return;
        await this.#touch(uses.slice(at, at + USES_PER_TURN));
      }
    } catch (error) {
      onError(error as Error);
      this.#schedule(this.#everyMs, () => this.#sweep());
      return;
    }
    await this.#end();
  }

  async #end(): Promise<void> {
    let isMore = false;
    try {
      isMore = !this.#isClosed && (await this.#endSome());
    } catch (error) {
      this.#options.onError(error as Error);
    }
    if (isMore) this.#schedule(PAUSE_MS, () => this.#end());
    else this.#schedule(this.#everyMs, () => this.#sweep());
  }

  /** Notes some uses, and stores them. */
  #touch(uses: readonly PresenceUse[]): Promise<void> {
    const { enqueue, leases } = this.#options;
    return enqueue(async () => {
      leases().touch(uses);
      await leases().commit();
    });
  }

  /** Ends some leases. Returns whether there may be more to end. */
  #endSome(): Promise<boolean> {
    const { enqueue, leases, storeEnded, clientIdleMs: idleMs, pressedIdleMs } = this.#options;
    return enqueue(async () => {
      const ended = leases().endIdle({ idleMs, pressedIdleMs, atMost: ENDED_PER_TURN });
      if (ended > 0) await storeEnded();
      return ended === ENDED_PER_TURN;
    });
  }
}

const HOUR_MS = 3_600_000;
/** How many leases end in one commit. */
const ENDED_PER_TURN = 512;
const USES_PER_TURN = 1024;
const PAUSE_MS = 1000;
