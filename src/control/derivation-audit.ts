/**
 * Compares in the background what is in force with what the records and the stored leases say, site by site, and has
 * everything derived anew where it differs. Nothing should ever differ: what is derived by keys is what is derived of
 * everything. If it does, the fault is reported and does not last.
 *
 * A round begins every `auditMs` and compares `SITES_PER_SECOND` sites a second, in slices of `SLICE_MS` between which the
 * event loop turns. While changes of the desired state are not derived yet, it waits. A difference counts when it is
 * still there after all earlier changes.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { PresenceError } from '../errors.ts';
import { DerivationCheck, type DerivationCheckOptions } from './derivation-check.ts';

/** What is in force differed from what the desired state and the stored leases say. */
export class DerivationError extends PresenceError {
  constructor(message: string) {
    super('ERR_PRESENCE_DERIVATION', message);
  }
}

/** Counters of the audit, since the start. */
export interface DerivationAuditCounters {
  /** Comparisons of one site. */
  readonly checkedSites: number;
  /** Comparisons that have found a difference. */
  readonly differences: number;
  /** How often everything was derived anew because of a difference. */
  readonly repairs: number;
}

export interface DerivationAuditOptions extends DerivationCheckOptions {
  readonly clock: Clock;
  /** The time from the beginning of one round to that of the next, in ms, unless a round takes longer. */
  readonly auditMs: number;
  /** Returns whether all changes of the desired state are derived. */
  readonly isQuiet: () => boolean;
  /** Resolves when all changes so far are in force. */
  readonly settled: () => Promise<void>;
  /** Derives everything anew. */
  readonly repair: () => Promise<void>;
  readonly onProblem: (error: Error) => void;
}

export class DerivationAudit {
  readonly #options: DerivationAuditOptions;
  readonly #check: DerivationCheck;
  /** The sites that are left of this round. */
  #left: string[] = [];
  #roundAtMs = 0;
  /** When the slice of this turn of the event loop ends. */
  #sliceEndMs = 0;
  #repairedAtMs = Number.NEGATIVE_INFINITY;
  /** Whether it was reported since the last repair that the next one has to wait. */
  #isWaitReported = false;
  #counters = { checkedSites: 0, differences: 0, repairs: 0 };
  #endTimer: () => void = () => {};
  #isClosed = false;

  constructor(options: DerivationAuditOptions) {
    this.#options = options;
    this.#check = new DerivationCheck(options);
    if (options.auditMs !== Number.POSITIVE_INFINITY) this.#schedule(options.auditMs);
  }

  get counters(): DerivationAuditCounters {
    return { ...this.#counters };
  }

  close(): void {
    this.#isClosed = true;
    this.#endTimer();
  }

  #schedule(delayMs: number): void {
    if (this.#isClosed) return;
    this.#endTimer = this.#options.clock.after(delayMs, () => void this.#turn(), true);
  }

  /** Compares the sites of one second. */
  async #turn(): Promise<void> {
    const { clock, auditMs, onProblem } = this.#options;
    const beginMs = clock.monotonicMs();
    this.#sliceEndMs = beginMs + SLICE_MS;
    if (this.#left.length === 0) {
      this.#roundAtMs = beginMs;
      this.#left = this.#sites();
    }
    for (let count = 0; count < SITES_PER_SECOND && !this.#isClosed; count++) {
      const site = this.#left.pop();
      if (site === undefined) break;
      try {
        await this.#audit(site);
      } catch (error) {
        onProblem(error as Error);
      }
    }
    const isRound = this.#left.length === 0;
    const nextMs = isRound ? this.#roundAtMs + auditMs : beginMs + SECOND_MS;
    this.#schedule(Math.max(nextMs, beginMs + SECOND_MS) - clock.monotonicMs());
  }

  /** Returns the names of all sites, of records and of what is in force. */
  #sites(): string[] {
    const { source, state } = this.#options;
    return [
      ...new Set([...state().desired.sites.keys(), ...Array.from(source.sites(), (s) => s.name)]),
    ];
  }

  async #audit(site: string): Promise<void> {
    const { clock, settled, repair, onProblem } = this.#options;
    this.#counters.checkedSites++;
    if ((await this.#faultsOf(site)).length === 0) return;
    // What was under way is in force then, and no difference any more.
    await settled();
    const [fault, ...others] = await this.#faultsOf(site);
    if (fault === undefined || this.#isClosed) return;
    this.#counters.differences++;
    const more = others.length === 0 ? '' : ` and ${others.length} more`;
    const what = `what is in force for "${site}" differs from its records and leases (${fault}${more})`;
    const nowMs = clock.monotonicMs();
    const waitMs = this.#repairedAtMs + REPAIR_PAUSE_MS - nowMs;
    if (waitMs > 0) {
      if (this.#isWaitReported) return;
      this.#isWaitReported = true;
      onProblem(
        new DerivationError(
          `${what} soon after everything was derived anew: that is done again at the earliest in ${Math.ceil(waitMs / 1000)} s`
        )
      );
      return;
    }
    this.#repairedAtMs = nowMs;
    this.#isWaitReported = false;
    this.#counters.repairs++;
    onProblem(new DerivationError(`${what}: everything is derived anew`));
    await repair();
  }

  async #faultsOf(site: string): Promise<string[]> {
    const { clock, isQuiet } = this.#options;
    const faults: string[] = [];
    const steps = this.#check.steps(site);
    for (let count = 0; ; count++) {
      while (count % KEYS_PER_LOOK === 0) {
        if (isQuiet() && clock.monotonicMs() < this.#sliceEndMs) break;
        await this.#pause(isQuiet() ? 0 : PAUSE_MS);
        if (this.#isClosed) return [];
        this.#sliceEndMs = clock.monotonicMs() + SLICE_MS;
      }
      const { done, value } = steps.next();
      if (done) break;
      if (value !== undefined) faults.push(value);
    }
    return [...faults, ...(await this.#check.storedFaults(site))];
  }

  #pause(delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      this.#endTimer = this.#options.clock.after(delayMs, resolve, true);
    });
  }
}

const SITES_PER_SECOND = 200;
const SECOND_MS = 1000;
/** After this time a slice ends, so that it takes no more than 4 ms with its last keys. */
const SLICE_MS = 2;
/** After how many keys the clock is read. */
const KEYS_PER_LOOK = 32;
/** How long it waits for changes that are not derived. */
const PAUSE_MS = 100;
/** The least time between two repairs, because each takes as long as a start. */
const REPAIR_PAUSE_MS = 600_000;
