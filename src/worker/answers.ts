/**
 * `Answers`: waits for what workers answer, but not for a worker whose process hangs. Such a worker is waited for once, and
 * not again until it has answered. A call that cannot do without the answer kills its process. So does `watch` when the
 * worker has not answered for long, so that its tunnels come up again.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { EnvironmentError } from '../errors.ts';
import type { Worker } from './worker.ts';

export class Answers {
  readonly #clock: Clock;
  /** The workers that have not answered in time, and how many answers each of them owes. */
  readonly #late = new Map<Worker, number>();
  #killed = 0;
  #stopWatch = (): void => {};

  /** @param clock measures how long a worker takes */
  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** How many processes were killed because they did not answer. */
  get killed(): number {
    return this.#killed;
  }

  /**
   * Kills the process of each worker that hangs, until `close`: of one that has not answered in `WATCH_CHECKS` checks, one
   * every `WATCH_INTERVAL_MS`. Checks are counted instead of time, which passes also while the whole machine stands still;
   * this process reads answers between two checks.
   */
  watch(workers: readonly Worker[]): void {
    const silentChecks = new Map<Worker, number>();
    const check = (): void => {
      for (const worker of workers) {
        const silent = silentChecks.get(worker);
        if (silent === undefined) {
          silentChecks.set(worker, 0);
          // A worker that is down answers at once, one that is killed as soon as it has ended.
          void worker
            .settled()
            .catch(() => {})
            .then(() => silentChecks.delete(worker));
        } else {
          silentChecks.set(worker, silent + 1);
          if (silent + 1 === WATCH_CHECKS) this.#kill(worker);
        }
      }
      this.#stopWatch = this.#clock.after(WATCH_INTERVAL_MS, check, true);
    };
    this.#stopWatch = this.#clock.after(WATCH_INTERVAL_MS, check, true);
  }

  /** Ends `watch`. */
  close(): void {
    this.#stopWatch();
  }

  /** Whether a worker has not answered for `ANSWER_TIMEOUT_MS`, and not since. */
  isLate(worker: Worker): boolean {
    return this.#late.has(worker);
  }

  /**
   * Returns what `call` returns. A call must be one that workers answer at once.
   *
   * @param otherwise the answer of a worker that hangs; default: none
   * @throws {EnvironmentError} if the worker hangs, and there is no other answer.
   */
  async of<T>(
    worker: Worker,
    call: (worker: Worker) => Promise<T>,
    otherwise?: { readonly value: T }
  ): Promise<T> {
    if (this.#late.has(worker)) return insteadOf(otherwise);
    let isLate = false;
    let cancel = (): void => {};
    const lateness = new Promise<true>((resolve) => {
      const onTimeout = (): void => {
        isLate = true;
        this.#late.set(worker, (this.#late.get(worker) ?? 0) + 1);
        resolve(true);
      };
      cancel = this.#clock.after(ANSWER_TIMEOUT_MS, onTimeout, true);
    });
    const answer = call(worker).finally(() => {
      cancel();
      if (isLate) this.#answered(worker);
    });
    const hangs = await Promise.race([lateness, answer.then(() => false as const)]);
    if (!hangs) return answer;
    // Whoever asks has gone on.
    answer.catch(() => {});
    return insteadOf(otherwise);
  }

  /** Asks several workers; see `of`. */
  ofAll<T>(
    workers: readonly Worker[],
    call: (worker: Worker) => Promise<T>,
    otherwise?: { readonly value: T }
  ): Promise<T[]> {
    return Promise.all(workers.map((worker) => this.of(worker, call, otherwise)));
  }

  /**
   * Returns what `call` returns. The process of a worker that hangs is killed, so that the answer is that of a worker that
   * is down: what must have ended when this resolves has ended with the process.
   */
  async orKill<T>(worker: Worker, call: (worker: Worker) => Promise<T>): Promise<T> {
    const patienceMs = this.#late.has(worker) ? 0 : ANSWER_TIMEOUT_MS;
    const cancel = this.#clock.after(patienceMs, () => this.#kill(worker), true);
    return call(worker).finally(cancel);
  }

  #kill(worker: Worker): void {
    if (worker.kill?.() === true) this.#killed++;
  }

  #answered(worker: Worker): void {
    const owed = this.#late.get(worker)! - 1;
    if (owed > 0) this.#late.set(worker, owed);
    else this.#late.delete(worker);
  }
}

function insteadOf<T>(otherwise: { readonly value: T } | undefined): T {
  if (otherwise !== undefined) return otherwise.value;
  throw new EnvironmentError('a worker does not answer: see the readiness of the gateway');
}

/** A worker answers in less than 1 ms, unless its machine is overloaded. */
const ANSWER_TIMEOUT_MS = 5000;
const WATCH_INTERVAL_MS = 2000;
const WATCH_CHECKS = 5;
