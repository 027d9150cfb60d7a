/**
 * Asks the data plane at long intervals which presences were used, and ends the leases of those that were not. It does
 * so in small batches, so that packets and other changes are processed in between.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { slicesOf } from '../base/slices.ts';
import type { LeaseTable } from './lease-table.ts';
import type { PresenceUse } from './presence-uses.ts';

export interface IdleSweepOptions {
  readonly clock: Clock;
  /** The options of the controller. */
  readonly clientIdleMs: number;
  readonly pressedIdleMs: number;
  readonly ask: () => Promise<Iterable<PresenceUse>>;
  /** Notes some uses, and stores them or tells them to the process that allocates. */
  readonly touch: (uses: readonly PresenceUse[]) => Promise<void>;
  /** Returns the leases that are in force now. */
  readonly leases: () => LeaseTable;
  /** Runs work after all earlier work of the controller. */
  readonly enqueue: (work: () => Promise<void>) => Promise<void>;
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
    const { ask, touch, onError } = this.#options;
    try {
      const uses = [...(await ask())];
      // It runs at least once, because it also stores the lease clock.
      for (let at = 0; at === 0 || at < uses.length; at += USES_PER_TURN) {
        if (this.#isClosed) return;
        await touch(uses.slice(at, at + USES_PER_TURN));
      }
    } catch (error) {
      onError(error as Error);
      this.#schedule(this.#everyMs, () => this.#sweep());
      return;
    }
    await this.#end();
  }

  async #end(): Promise<void> {
    const {
      clock,
      leases,
      enqueue,
      storeEnded,
      clientIdleMs: idleMs,
      pressedIdleMs,
    } = this.#options;
    const slices = slicesOf(clock);
    const table = leases();
    const steps = table.endIdle({ idleMs, pressedIdleMs });
    let isDone = false;
    const endSome = async (): Promise<void> => {
      // The leases may have been read anew meanwhile.
      isDone = this.#isClosed || leases() !== table || slices.run(steps, 1, ENDING_PART);
      await storeEnded();
    };
    try {
      for (await enqueue(endSome); !isDone; await enqueue(endSome)) await slices.next();
    } catch (error) {
      this.#options.onError(error as Error);
    }
    this.#schedule(this.#everyMs, () => this.#sweep());
  }
}

const HOUR_MS = 3_600_000;
/** How many uses are stored in one commit. */
const USES_PER_TURN = 256;
/** How much of a slice is taken to end leases; what follows from that takes the rest. */
const ENDING_PART = 0.4;
