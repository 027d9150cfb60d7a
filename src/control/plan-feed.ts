/**
 * Gives the translator the plan: what has changed, or the whole plan at the start and where changes do not fit.
 * @module
 */
import type { PlanTarget } from './controller-options.ts';
import type { DesiredIndex } from './desired-index.ts';
import type { IndexChanges } from './index-changes.ts';
import type { TouchedLeases } from './lease-state.ts';
import type { LeaseTable } from './lease-table.ts';
import { PendingPlan } from './pending-plan.ts';
import { planOf } from './plan.ts';

export interface PlanFeedOptions {
  readonly translator: PlanTarget;
  /** Returns whether a site takes part. */
  readonly isLive: (site: string) => boolean;
  /** Is told why the translator has refused changes. It has got the whole plan since. */
  readonly onRefused: (error: Error) => void;
}

export class PlanFeed {
  readonly #options: PlanFeedOptions;
  #desired!: DesiredIndex;
  #leases!: LeaseTable;
  #pending!: PendingPlan;
  /** Whether the translator needs the whole plan, and not changes. */
  #mustLoad = true;

  constructor(options: PlanFeedOptions) {
    this.#options = options;
  }

  /** Whether the translator has got a plan of these leases. */
  get isLoaded(): boolean {
    return !this.#mustLoad;
  }

  /** Uses another desired state with its leases: the translator needs the whole plan. */
  use(desired: DesiredIndex, leases: LeaseTable): void {
    this.#desired = desired;
    this.#leases = leases;
    this.#pending = new PendingPlan(desired, leases, this.#options.isLive);
    this.#mustLoad = true;
  }

  /** Notes what has changed in the desired state. */
  noteDesired(changes: IndexChanges): void {
    this.#pending.noteDesired(changes);
  }

  /** Notes that a site has come into the plan or has left it. Returns the sites that see a difference. */
  noteSite(name: string): ReadonlySet<string> {
    return this.#pending.noteSite(name);
  }

  /** Gives the translator what has changed. */
  push(touched: TouchedLeases): void {
    if (this.#mustLoad) {
      this.#load();
      return;
    }
    this.#pending.noteLeases(touched);
    const changes = this.#pending.changes();
    if (changes === undefined) return;
    try {
      this.#options.translator.apply(changes);
      this.#pending.applied(changes);
    } catch (error) {
      // The translator is as before. The whole plan puts right what does not fit the changes.
      this.#load();
      this.#options.onRefused(error as Error);
    }
  }

  #load(): void {
    const { translator, isLive } = this.#options;
    this.#mustLoad = true;
    translator.load(planOf(this.#desired, this.#leases, isLive));
    this.#mustLoad = false;
    this.#pending.loaded();
  }
}
