/**
 * The connections of a listener that are accepted, and whose TLS has not begun yet. The work of a TLS handshake begins
 * for a few of them in each turn of the event loop, in the order in which they came. So the packets of the tunnels that
 * are up are held up for a few handshakes at most, and handshakes that have begun end soon, however many peers come at
 * once. A peer that is silent holds up nobody, because nothing waits for the end of a handshake.
 * @module
 */
import type { Socket } from 'node:net';

export class StartQueue<T extends { readonly socket: Socket }> {
  readonly #max: number;
  readonly #begin: (item: T) => void;
  readonly #waiting: T[] = [];
  /** Where the one that begins next is in `#waiting`. */
  #next = 0;
  /** How many have begun in this turn of the event loop. */
  #begun = 0;
  #hasTurn = false;

  /**
   * @param max how many may wait
   * @param begin called once for each connection, and not for one that is destroyed by then
   */
  constructor(max: number, begin: (item: T) => void) {
    this.#max = max;
    this.#begin = begin;
  }

  /** Whether no more may wait. Those that were destroyed meanwhile count until it is their turn. */
  get isFull(): boolean {
    return this.#waiting.length - this.#next >= this.#max;
  }

  /** Begins with the connection now, or in one of the next turns of the event loop. */
  add(item: T): void {
    this.#waiting.push(item);
    this.#beginSome();
  }

  #beginSome(): void {
    while (this.#begun < STARTS_PER_TURN && this.#next < this.#waiting.length) {
      const item = this.#waiting[this.#next++]!;
      if (item.socket.destroyed) continue;
      this.#begun++;
      this.#begin(item);
    }
    // Those that have begun are cut off when they are half of the list, so that each one moves the others rarely.
    if (2 * this.#next >= this.#waiting.length) {
      this.#waiting.splice(0, this.#next);
      this.#next = 0;
    }
    if (this.#begun === 0 || this.#hasTurn) return;
    this.#hasTurn = true;
    setImmediate(() => {
      this.#hasTurn = false;
      this.#begun = 0;
      this.#beginSome();
    });
  }
}

/** About 4 ms of one core. */
const STARTS_PER_TURN = 2;
