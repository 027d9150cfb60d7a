/**
 * `CloudFaults`: what does not work at a cloud gateway, and the state of the gateway that follows from it.
 * @module
 */

export type CloudState = 'ready' | 'degraded' | 'closed';

export interface CloudStateChange {
  readonly state: CloudState;
  readonly previous: CloudState;
  /** What does not work, one sentence each; empty unless the state is `degraded`. */
  readonly reasons: readonly string[];
}

export class CloudFaults {
  /** The present faults, one sentence each, by subject: `ca`, `workers` or `cluster`. */
  readonly present: ReadonlyMap<string, string>;
  readonly #faults = new Map<string, string>();
  readonly #onState: (change: CloudStateChange) => void;
  #state: CloudState = 'ready';

  /** @param onState called when the state has changed */
  constructor(onState: (change: CloudStateChange) => void) {
    this.present = this.#faults;
    this.#onState = onState;
  }

  get state(): CloudState {
    return this.#state;
  }

  /** @param fault one sentence; undefined when the fault is over */
  set(subject: string, fault: string | undefined): void {
    if (fault === undefined) this.#faults.delete(subject);
    else this.#faults.set(subject, fault);
    if (this.#state === 'closed') return;
    const reasons = [...this.#faults.values()];
    this.#change(reasons.length === 0 ? 'ready' : 'degraded', reasons);
  }

  /** The state is `closed` for good. */
  close(): void {
    this.#change('closed', []);
  }

  #change(state: CloudState, reasons: readonly string[]): void {
    const previous = this.#state;
    this.#state = state;
    if (state !== previous) this.#onState({ state, previous, reasons });
  }
}
