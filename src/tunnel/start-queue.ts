/**
 * The connections of a listener that are accepted, and whose TLS has not begun yet. The work of a TLS handshake begins
 * for a few of them in each turn of the event loop, in the order in which they came. So the packets of the tunnels that
 * are up are held up for a few handshakes at most, and handshakes that have begun end soon, however many peers come at
 * once. While as many handshakes are under way as may be, the next one waits for the end of one, so that no work is in
 * vain; but for 50 turns only, so that peers that are silent do not keep others out.
 * @module
 */
import type { Socket } from 'node:net';

export class StartQueue<T extends { readonly socket: Socket }> {
  readonly #max: number;
  readonly #begin: (item: T) => void;
  readonly #hasRoom: () => boolean;
  readonly #waiting: T[] = [];
  /** Where the one that begins next is in `#waiting`. */
  #next = 0;
  /** How many have begun in this turn of the event loop. */
  #begun = 0;
  #hasTurn = false;
  /** In how many turns in a row the next one has waited for the end of a handshake. */
  #heldTurns = 0;

  /**
   * @param max how many may wait
   * @param begin called once for each connection, and not for one that is destroyed by then
   * @param hasRoom whether a connection may begin without another having to end for it
   */
  constructor(max: number, begin: (item: T) => void, hasRoom: () => boolean) {
    this.#max = max;
    this.#begin = begin;
    this.#hasRoom = hasRoom;
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
      const item = this.#waiting[this.#next]!;
      const isGone = item.socket.destroyed;
      if (!isGone && !this.#hasRoom() && this.#heldTurns < MAX_HELD_TURNS) break;
      this.#next++;
      if (isGone) continue;
      this.#heldTurns = 0;
      this.#begun++;
      this.#begin(item);
    }
    // Those that have begun are cut off when they are half of the list, so that each one moves the others rarely.
    if (2 * this.#next >= this.#waiting.length) {
      this.#waiting.splice(0, this.#next);
      this.#next = 0;
    }
    const isIdle = this.#begun === 0 && this.#waiting.length === 0;
    if (isIdle || this.#hasTurn) return;
    this.#hasTurn = true;
    setImmediate(() => {
      this.#hasTurn = false;
      if (this.#begun === 0) this.#heldTurns++;
      this.#begun = 0;
      this.#beginSome();
    });
  }
}

/** About 4 ms of one core. */
const STARTS_PER_TURN = 2;
/** Turns of the event loop are short while peers are silent, and long while there is work. */
const MAX_HELD_TURNS = 50;
