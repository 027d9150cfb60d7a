/**
 * Whether packets of a stack can flow, in general and to a presence, and the wait until they can.
 * @module
 */
import type { IpAddress } from '../../base/address.ts';
import type { Clock } from '../../base/clock.ts';
import { abortError } from '../node/abort.ts';
import { systemError } from '../node/system-error.ts';

/** What new connections wait for: the link and an address of the stack. */
export class TunnelWait {
  readonly #clock: Clock;
  readonly #waitMs: number;
  readonly #waiting = new Set<() => void>();
  readonly #watching = new Set<Watch>();
  /** The timer of all who watch, while packets do not flow at all. */
  #stopTimer: (() => void) | undefined;
  #isUp = true;
  #hasAddress = false;
  #failure: Error | undefined;
  #isFinal = false;
  #failureTo: (remote: IpAddress) => Error | undefined = () => undefined;

  /** @param waitMs how long `whenUp` waits at most */
  constructor(clock: Clock, waitMs: number) {
    this.#clock = clock;
    this.#waitMs = waitMs;
  }

  /** Whether packets can flow. */
  get isOpen(): boolean {
    return this.#isUp && this.#hasAddress && !this.#isFinal;
  }

  setUp(isUp: boolean): void {
    this.#isUp = isUp;
    this.#look();
  }

  setAddress(hasAddress: boolean): void {
    this.#hasAddress = hasAddress;
    this.#look();
  }

  /** @param isFinal whether waiting does not help, so that `whenUp` fails at once */
  setFailure(failure: Error | undefined, isFinal: boolean): void {
    this.#failure = failure;
    this.#isFinal = isFinal;
    this.#look();
  }

  /** @param failureTo returns why packets do not flow to this presence at present; undefined if they do */
  setFailureTo(failureTo: (remote: IpAddress) => Error | undefined): void {
    this.#failureTo = failureTo;
    this.#look();
  }

  /** Returns whether packets can flow to one of these presences; true if there are none. */
  canReach(remotes: readonly IpAddress[]): boolean {
    return remotes.length === 0 || remotes.some((remote) => this.#failureTo(remote) === undefined);
  }

  /**
   * Resolves when packets can flow, and flow to one of these presences if there are any.
   *
   * @throws a system error ENETDOWN, at once if waiting does not help, or after the wait; its `cause` is the failure.
   * @throws an AbortError whose `cause` is the reason of `signal`.
   */
  whenUp(signal?: AbortSignal, remotes: readonly IpAddress[] = []): Promise<void> {
    const isOpen = (): boolean => this.isOpen && this.canReach(remotes);
    if (isOpen() && signal?.aborted !== true) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const settle = (end: () => void): void => {
        this.#waiting.delete(look);
        signal?.removeEventListener('abort', look);
        endTimer();
        end();
      };
      const look = (): void => {
        if (signal?.aborted) settle(() => reject(abortError(signal)));
        else if (isOpen()) settle(resolve);
        else if (this.#isFinal) settle(() => reject(this.#error(remotes)));
      };
      const onTimeout = (): void => settle(() => reject(this.#error(remotes)));
      // Whatever brings the tunnel up keeps the process alive; those who wait may be gone already.
      const endTimer = this.#clock.after(this.#waitMs, onTimeout, true);
      this.#waiting.add(look);
      signal?.addEventListener('abort', look);
      look();
    });
  }

  /**
   * Calls `onDown` once, with the error that `whenUp` would throw: when waiting does not help, perhaps within this call,
   * or when packets have not flowed, to any of these presences if there are some, for as long as `whenUp` waits.
   *
   * @param remotes returns the presences
   * @returns a function that ends the watch
   */
  watch(
    onDown: (error: Error) => void,
    remotes: () => readonly IpAddress[] = () => []
  ): () => void {
    const watch: Watch = { onDown, remotes, stopTimer: undefined };
    this.#watching.add(watch);
    this.#tell();
    return () => {
      if (!this.#watching.delete(watch)) return;
      watch.stopTimer?.();
      this.#tell();
    };
  }

  #error([remote]: readonly IpAddress[]): Error {
    const why = this.#isUp ? 'the stack has no address yet' : 'the tunnel is down';
    const failure = this.isOpen && remote !== undefined ? this.#failureTo(remote) : this.#failure;
    const cause = failure ?? new Error(why);
    return systemError('ENETDOWN', 'connect', { cause });
  }

  #look(): void {
    for (const look of [...this.#waiting]) look();
    for (const watch of this.#watching) this.#watchSite(watch);
    this.#tell();
  }

  /** Sets the timer of one who watches, while packets flow, but not to its presences. */
  #watchSite(watch: Watch): void {
    if (!this.isOpen || this.canReach(watch.remotes())) {
      watch.stopTimer?.();
      watch.stopTimer = undefined;
    } else {
      watch.stopTimer ??= this.#clock.after(this.#waitMs, () => this.#giveUp([watch]), true);
    }
  }

  /** Tells those who watch if it is time, or sets the timer for that. */
  #tell(): void {
    const isWatched = this.#watching.size > 0;
    if (!this.#isFinal && !this.isOpen && isWatched) {
      this.#stopTimer ??= this.#clock.after(this.#waitMs, () => this.#giveUpAll(), true);
      return;
    }
    this.#stopTimer?.();
    this.#stopTimer = undefined;
    if (this.#isFinal) this.#giveUpAll();
  }

  #giveUpAll(): void {
    this.#stopTimer = undefined;
    this.#giveUp([...this.#watching]);
  }

  #giveUp(watching: readonly Watch[]): void {
    for (const watch of watching) {
      this.#watching.delete(watch);
      watch.stopTimer?.();
    }
    for (const { onDown, remotes } of watching) onDown(this.#error(remotes()));
  }
}

/** One who watches. */
interface Watch {
  readonly onDown: (error: Error) => void;
  readonly remotes: () => readonly IpAddress[];
  /** Ends its own timer, which runs while packets do not flow to its presences. */
  stopTimer: (() => void) | undefined;
}
