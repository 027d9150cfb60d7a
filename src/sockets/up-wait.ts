/**
 * Runs what a socket has to do as soon as its stack is up, in the order in which it was asked for.
 * @module
 */
import type { SocketHost } from './host.ts';

/** Once the stack was up, everything runs at once: what is sent while the tunnel is down waits in a queue. */
export class UpWait {
  readonly #host: SocketHost;
  #isUp = false;
  #waiting: Waiting[] = [];

  constructor(host: SocketHost) {
    this.#host = host;
  }

  get isUp(): boolean {
    return this.#isUp;
  }

  /** Calls `run` when the stack is up, at once if it has been; or `fail` if that takes too long. */
  whenUp(run: () => void, fail: (error: Error) => void): void {
    if (this.#isUp) {
      run();
      return;
    }
    this.#waiting.push({ run, fail });
    if (this.#waiting.length > 1) return;
    // What listeners throw must not become the rejection of this promise.
    this.#host.whenUp().then(
      () => process.nextTick(() => this.#onUp()),
      (error: Error) => process.nextTick(() => this.cancel(error))
    );
  }

  /** Fails everything that waits. */
  cancel(error: Error): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const { fail } of waiting) fail(error);
  }

  #onUp(): void {
    this.#isUp = true;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const { run } of waiting) run();
  }
}

interface Waiting {
  readonly run: () => void;
  readonly fail: (error: Error) => void;
}
