/**
 * Decides which connection may send next: deficit round robin (Shreedhar and Varghese, 1995) with a first turn for flows
 * that were idle, in the spirit of FQ-CoDel ([RFC 8290](https://www.rfc-editor.org/rfc/rfc8290#section-4)).
 *
 * There are three classes, served in this order: items that owe only an ACK or another control segment; flows that were
 * idle; the rest. In a *round* every item of the rest gets a turn, and every item may send one quantum of bytes, in
 * whatever class: bytes that it sends as a formerly idle flow are missing in its turn. So a flow that is idle now and
 * then is served early, and yet never gets more than a flow that always has something to send. Ever new flows cannot
 * hold up the rest either: after four quanta of theirs, one item of the rest has its turn.
 * @module
 */

/** The classes of items that may send. */
export const ReadyClass = {
  /** The item is not in the queue. */
  None: 0,
  /** It owes only an ACK or another control segment. */
  Control: 1,
  /** It was idle and has something to send now. */
  New: 2,
  /** It has something to send. */
  Bulk: 3,
} as const;

export type ReadyClass = (typeof ReadyClass)[keyof typeof ReadyClass];

/** A list of a queue, which only the queue looks into. */
export interface ReadyItems {
  append(item: Ready, as: ReadyClass): void;
  remove(item: Ready): void;
}

/** What an item of a queue carries. Only the queue writes these fields. */
export interface Ready {
  readyNext: Ready | undefined;
  readyPrevious: Ready | undefined;
  /** Its class; `None` at first. */
  readyClass: ReadyClass;
  /** Its class once it has sent the control segment that it owes: `None`, `New` or `Bulk`; `None` at first. */
  readyAfter: ReadyClass;
  /** The list that it is in; undefined at first. */
  readyList: ReadyItems | undefined;
  /** The bytes that it may still send in its round; 0 at first. */
  readyDeficit: number;
  /** The round to which the deficit belongs; -1 at first. */
  readyRound: number;
}

/**
 * The ring of the connections that may send. No call allocates anything, and the cost of a call does not depend on the
 * number of items.
 *
 * The sender calls `next`, builds one packet of that item, and calls `charge`; when the item has nothing more to send,
 * it calls `remove`. An item of class `Control` sends one segment without data: `charge` then gives it the place that
 * it has for its data, if it was added for data too, and takes it out otherwise.
 */
export class ReadyQueue<T extends Ready> {
  /** The number of items. */
  size = 0;

  readonly #quantum: number;
  readonly #maxNewBytes: number;
  readonly #control: ReadyList = new ReadyList();
  readonly #new: ReadyList = new ReadyList();
  /** The items of class `Bulk` that have their turn in this round. */
  #current: ReadyList = new ReadyList();
  /** The items of class `Bulk` that have had their turn in this round. */
  #later: ReadyList = new ReadyList();
  #round = 0;
  /** The bytes that flows of class `New` sent since one of class `Bulk` had its turn. */
  #newBytes = 0;

  /** @param quantum the bytes of a turn */
  constructor(quantum: number = QUANTUM) {
    this.#quantum = quantum;
    this.#maxNewBytes = NEW_QUANTA * quantum;
  }

  /**
   * Adds an item. One that is in the queue stays where it is, except that it becomes `Control` if it is not: it then
   * sends its ACK first and keeps its class for its data.
   */
  add(item: T, as: ReadyClass): void {
    if (as === ReadyClass.None) return;
    const before = item.readyClass;
    if (before === ReadyClass.None) {
      if (as === ReadyClass.Control) {
        this.#control.append(item, ReadyClass.Control);
        this.size++;
      } else {
        this.#linkForData(item, as);
      }
    } else if (before === ReadyClass.Control) {
      if (as !== ReadyClass.Control && item.readyAfter === ReadyClass.None) item.readyAfter = as;
    } else if (as === ReadyClass.Control) {
      item.readyList!.remove(item);
      item.readyAfter = before;
      this.#control.append(item, ReadyClass.Control);
    }
  }

  /** Returns the item that may send the next packet; it stays in the queue. */
  next(): T | undefined {
    if (this.#control.first !== undefined) return this.#control.first as T;
    for (;;) {
      const hasBulk = this.#hasBulk();
      if (this.#new.first !== undefined && !(hasBulk && this.#newBytes >= this.#maxNewBytes)) {
        return this.#new.first as T;
      }
      if (!hasBulk) return undefined;
      const item = this.#current.first;
      if (item === undefined) this.#beginRound();
      else if (item.readyDeficit > 0) return item as T;
      else this.#endTurn(item);
    }
  }

  /**
   * Records that an item sent a packet of this many bytes, headers included; 0 if it had none to send. The item may
   * have left the queue meanwhile.
   */
  charge(item: T, bytes: number): void {
    item.readyDeficit -= bytes;
    const as = item.readyClass;
    if (as === ReadyClass.None) return;
    if (as === ReadyClass.Control) {
      const after = item.readyAfter;
      this.#unlink(item);
      if (after !== ReadyClass.None) this.#linkForData(item, after);
      return;
    }
    if (as === ReadyClass.New && this.#hasBulk()) this.#newBytes += bytes;
    if (item.readyDeficit <= 0) this.#endTurn(item);
  }

  /** Takes an item out, because it has nothing to send or is gone; it may be one that is not in the queue. */
  remove(item: T): void {
    if (item.readyClass === ReadyClass.None) return;
    if (item === this.#current.first) this.#newBytes = 0;
    this.#unlink(item);
  }

  #hasBulk(): boolean {
    return this.#current.first !== undefined || this.#later.first !== undefined;
  }

  #unlink(item: Ready): void {
    item.readyList!.remove(item);
    item.readyAfter = ReadyClass.None;
    this.size--;
  }

  /** Adds an item that is in no list to that of a class other than `Control`. */
  #linkForData(item: Ready, as: ReadyClass): void {
    this.size++;
    // Nobody waits for a turn, so whoever sent much before takes nothing from others.
    if (!this.#hasBulk()) this.#round = (this.#round + 1) | 0;
    const nextRound = (this.#round + 1) | 0;
    if (item.readyRound !== this.#round && item.readyRound !== nextRound) {
      item.readyRound = this.#round;
      item.readyDeficit = this.#quantum;
    } else if (item.readyRound === this.#round && item.readyDeficit <= 0) {
      item.readyRound = nextRound;
      item.readyDeficit += this.#quantum;
    }
    if (item.readyRound === nextRound) this.#later.append(item, ReadyClass.Bulk);
    else if (as === ReadyClass.New) this.#new.append(item, ReadyClass.New);
    else this.#current.append(item, ReadyClass.Bulk);
  }

  /** An item has sent what it may in this round: it waits for its turn in the next one. */
  #endTurn(item: Ready): void {
    if (item === this.#current.first) this.#newBytes = 0;
    item.readyList!.remove(item);
    item.readyRound = (this.#round + 1) | 0;
    item.readyDeficit += this.#quantum;
    this.#later.append(item, ReadyClass.Bulk);
  }

  #beginRound(): void {
    const empty = this.#current;
    this.#current = this.#later;
    this.#later = empty;
    this.#round = (this.#round + 1) | 0;
  }
}

/** A list through the items. */
class ReadyList implements ReadyItems {
  first: Ready | undefined = undefined;
  #last: Ready | undefined = undefined;

  append(item: Ready, as: ReadyClass): void {
    item.readyClass = as;
    item.readyList = this;
    item.readyNext = undefined;
    item.readyPrevious = this.#last;
    if (this.#last === undefined) this.first = item;
    else this.#last.readyNext = item;
    this.#last = item;
  }

  remove(item: Ready): void {
    const { readyNext, readyPrevious } = item;
    if (readyPrevious === undefined) this.first = readyNext;
    else readyPrevious.readyNext = readyNext;
    if (readyNext === undefined) this.#last = readyPrevious;
    else readyNext.readyPrevious = readyPrevious;
    item.readyClass = ReadyClass.None;
    item.readyList = undefined;
    item.readyNext = undefined;
    item.readyPrevious = undefined;
  }
}

/** The bytes of a turn: the largest packet. */
const QUANTUM = 64 * 1024;

/** The quanta that formerly idle flows may send in sequence while others wait: they may be ever new ones. */
const NEW_QUANTA = 4;
