/**
 * The connections of a listener that are accepted, and whose TLS has not begun yet. TLS begins for a few of them in each
 * turn of the event loop, so that packets of the tunnels that are up are held up for a few handshakes at most, and a
 * handshake that has begun ends soon, however many peers come at once.
 *
 * Addresses take turns, and one that has no room yet is passed over. When too many connections wait, one of the address
 * with the most waiting connections has to go. One address can thus not keep others out.
 * @module
 */
import type { Clock } from '../base/clock.ts';

export interface StartQueueOptions<T> {
  /** How many may wait. */
  readonly max: number;
  readonly clock: Clock;
  /** Whether a connection of this address may begin now. */
  readonly hasRoom: (address: string) => boolean;
  readonly begin: (item: T) => void;
}

/** A connection that waits. */
export interface Waiting {
  /** The key of its address. */
  readonly address: string;
}

export class StartQueue<T extends Waiting> {
  readonly #options: StartQueueOptions<T>;
  /** Keyed by address, the one whose turn is next first; its connections, the oldest first. */
  readonly #waiting = new Map<string, Set<T>>();
  #size = 0;
  /** How many have begun in this turn of the event loop. */
  #begun = 0;
  #isChecking = false;
  #cancelCheck: (() => void) | undefined;

  constructor(options: StartQueueOptions<T>) {
    this.#options = options;
  }

  /** How many wait. */
  get size(): number {
    return this.#size;
  }

  /**
   * Begins with the connection now, or later.
   *
   * @returns the connection that has to go because too many wait. It may be this one.
   */
  add(item: T): T | undefined {
    const same = this.#waiting.get(item.address);
    if (same === undefined) this.#waiting.set(item.address, new Set([item]));
    else same.add(item);
    this.#size++;
    this.check();
    if (this.#size <= this.#options.max) return undefined;
    const excess = this.#newestOfMost(item);
    this.delete(excess);
    return excess;
  }

  /** Takes a connection out that is gone. It may have begun before. */
  delete(item: T): void {
    const same = this.#waiting.get(item.address);
    if (same === undefined || !same.delete(item)) return;
    this.#size--;
    if (same.size === 0) this.#waiting.delete(item.address);
  }

  /** Begins with those that may begin. It is called when a handshake has ended; the queue itself looks now and then. */
  check(): void {
    // To begin with one may end another one, which calls this again.
    if (this.#isChecking) return;
    this.#isChecking = true;
    while (this.#begun < STARTS_PER_TURN) {
      const item = this.#next();
      if (item === undefined) break;
      if (this.#begun++ === 0) setImmediate(() => this.#onTurn());
      this.#options.begin(item);
    }
    this.#isChecking = false;
    this.#planCheck();
  }

  #planCheck(): void {
    if (this.#size === 0) {
      this.#cancelCheck?.();
      this.#cancelCheck = undefined;
      return;
    }
    this.#cancelCheck ??= this.#options.clock.after(CHECK_MS, () => {
      this.#cancelCheck = undefined;
      this.check();
    });
  }

  #onTurn(): void {
    this.#begun = 0;
    this.check();
  }

  /** Takes out the one that begins next. */
  #next(): T | undefined {
    for (const [address, same] of this.#waiting) {
      if (!this.#options.hasRoom(address)) continue;
      const [item] = same;
      if (item === undefined) continue;
      this.delete(item);
      // Its address comes last now.
      if (same.size > 0) {
        this.#waiting.delete(address);
        this.#waiting.set(address, same);
      }
      return item;
    }
    return undefined;
  }

  /** Returns the newest one of the address with most; `added` if its address is one of these. */
  #newestOfMost(added: T): T {
    let newest = added;
    let most = this.#waiting.get(added.address)?.size ?? 0;
    for (const same of this.#waiting.values()) {
      if (same.size <= most) continue;
      most = same.size;
      newest = [...same].at(-1)!;
    }
    return newest;
  }
}

/** About 4 ms of one core. */
const STARTS_PER_TURN = 2;
/** How often it looks whether one that has no room may take the place of one that is late, in ms. */
const CHECK_MS = 100;
