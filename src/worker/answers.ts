/**
 * `Answers`: waits for what workers answer, but not for a worker whose process hangs. Such a worker is waited for once, and
 * not again until it has answered. Where its answer cannot be done without, its process is killed.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { EnvironmentError } from '../errors.ts';
import type { Worker } from './worker.ts';

export class Answers {
  readonly #clock: Clock;
  /** The workers that have not answered in time, and how many answers each of them owes. */
  readonly #late = new Map<Worker, number>();

  /** @param clock measures how long a worker takes */
  constructor(clock: Clock) {
    this.#clock = clock;
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
    const cancel = this.#clock.after(patienceMs, () => worker.kill?.(), true);
    return call(worker).finally(cancel);
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
