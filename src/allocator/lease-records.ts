/**
 * The records of an allocator's leases, and the order in which addresses were released.
 *
 * A record is a number; 0 is none. The numbers of a record lie side by side in one buffer, so that using it costs one
 * line of the cache, and the collector of garbage has nothing to look at. Records are removed and lists are changed in
 * constant time. A list is a ring of records that begins with one of its own.
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import { KeyTable } from './key-table.ts';

/** Where the address of a record is. */
export interface Place {
  /** The list of the released addresses whose quarantine has not been noticed to end. */
  readonly resting: number;
  /** Returns the address that has an index. */
  at(index: number): IpAddress;
  /** Notes which record an index has; 0: none. */
  set(index: number, record: number): void;
}

/** What a record's address is doing. */
export const InUse = 0;
/** It was released, and is in quarantine. */
export const Resting = 1;
/** It has left the quarantine; its key may have it back as long as no other key has taken it. */
export const Rested = 2;
export type State = typeof InUse | typeof Resting | typeof Rested;

export class LeaseRecords {
  #words: Int32Array = new Int32Array(FIRST_COUNT * STRIDE);
  /** The same buffer. */
  #times: Float64Array = new Float64Array(this.#words.buffer);
  readonly #keys: string[] = [''];
  readonly #places: (Place | undefined)[] = [undefined];
  /** The records that `find` returns. */
  readonly #named = new KeyTable(this.#keys);
  /** The first of the removed records; each names the next one. */
  #removed = 0;
  #size = 0;

  /** How many leases there are. */
  get size(): number {
    return this.#size;
  }

  /** Makes an empty list, and returns its record. */
  addList(): number {
    const list = this.#take('', undefined, 0);
    const at = list * STRIDE;
    this.#words[at + PREVIOUS] = list;
    this.#words[at + NEXT] = list;
    return list;
  }

  /** Removes a list that is empty. */
  removeList(list: number): void {
    this.#drop(list);
  }

  /** Adds a lease in use, which is in no list; its key is not found by it yet. */
  add(key: string, place: Place, index: number): number {
    const record = this.#take(key, place, index);
    place.set(index, record);
    this.#size++;
    return record;
  }

  remove(record: number): void {
    this.unlink(record);
    this.unname(record);
    this.place(record).set(this.index(record), 0);
    this.#drop(record);
    this.#size--;
  }

  /** Moves a record out of its list, to another address. */
  move(record: number, place: Place, index: number): void {
    this.unlink(record);
    this.place(record).set(this.index(record), 0);
    this.#places[record] = place;
    this.#words[record * STRIDE + INDEX] = index;
    place.set(index, record);
  }

  key(record: number): string {
    return this.#keys[record]!;
  }

  place(record: number): Place {
    return this.#places[record]!;
  }

  index(record: number): number {
    return this.#words[record * STRIDE + INDEX]! >>> 0;
  }

  state(record: number): State {
    return this.#words[record * STRIDE + STATE] as State;
  }

  setState(record: number, state: State): void {
    this.#words[record * STRIDE + STATE] = state;
  }

  /** Returns when a record that is not in use was released, in ms of the wall clock. */
  releasedAt(record: number): number {
    return this.#times[(record * STRIDE + TIME) / 2]!;
  }

  setReleasedAt(record: number, ms: number): void {
    this.#times[(record * STRIDE + TIME) / 2] = ms;
  }

  /** Returns the record that `name` gave to a key. */
  find(key: string): number {
    return this.#named.get(key, this.#named.hash(key));
  }

  /** Makes this the record of its key, in place of another one. */
  name(record: number): void {
    const hash = this.#words[record * STRIDE + HASH]!;
    const other = this.#named.get(this.#keys[record]!, hash);
    if (other === record) return;
    if (other !== 0) this.#named.delete(other, hash);
    this.#named.set(record, hash);
  }

  /** Makes the key of the record have none, if it has this one. */
  unname(record: number): void {
    this.#named.delete(record, this.#words[record * STRIDE + HASH]!);
  }

  /** Gives a record to another key, whose record it is then. */
  rename(record: number, key: string): void {
    this.unname(record);
    this.#keys[record] = key;
    this.#words[record * STRIDE + HASH] = this.#named.hash(key);
    this.name(record);
  }

  /** Returns the record that has been in a list the longest. */
  first(list: number): number {
    const first = this.#words[list * STRIDE + NEXT]!;
    return first === list ? 0 : first;
  }

  /** Puts a record that is in no list at the end of one. */
  append(list: number, record: number): void {
    const words = this.#words;
    const last = words[list * STRIDE + PREVIOUS]!;
    words[last * STRIDE + NEXT] = record;
    words[record * STRIDE + PREVIOUS] = last;
    words[record * STRIDE + NEXT] = list;
    words[list * STRIDE + PREVIOUS] = record;
  }

  /** Takes a record out of the list that it is in, if there is one. */
  unlink(record: number): void {
    const words = this.#words;
    const next = words[record * STRIDE + NEXT]!;
    if (next === 0) return;
    const previous = words[record * STRIDE + PREVIOUS]!;
    words[previous * STRIDE + NEXT] = next;
    words[next * STRIDE + PREVIOUS] = previous;
    words[record * STRIDE + NEXT] = 0;
  }

  /** Returns all leases. They may be removed and moved meanwhile; those that are added may be missing. */
  *all(): Generator<number> {
    for (let record = 1; record < this.#keys.length; record++) {
      if (this.#places[record] !== undefined) yield record;
    }
  }

  #take(key: string, place: Place | undefined, index: number): number {
    let record = this.#removed;
    if (record === 0) {
      record = this.#keys.length;
      if ((record + 1) * STRIDE > this.#words.length) this.#grow();
      this.#keys.push(key);
      this.#places.push(place);
    } else {
      this.#removed = this.#words[record * STRIDE + NEXT]!;
      this.#keys[record] = key;
      this.#places[record] = place;
    }
    const at = record * STRIDE;
    this.#words[at + INDEX] = index;
    this.#words[at + NEXT] = 0;
    this.#words[at + STATE] = InUse;
    this.#words[at + HASH] = this.#named.hash(key);
    return record;
  }

  #drop(record: number): void {
    this.#keys[record] = '';
    this.#places[record] = undefined;
    this.#words[record * STRIDE + NEXT] = this.#removed;
    this.#removed = record;
  }

  #grow(): void {
    const words = new Int32Array(2 * this.#words.length);
    words.set(this.#words);
    this.#words = words;
    this.#times = new Float64Array(words.buffer);
  }
}

/** The words of a record: half a line of the cache. */
const STRIDE = 8;
/** The index of the address in its place, an unsigned number. */
const INDEX = 0;
const STATE = 1;
/** The neighbours in its list; a next one of 0: it is in none. */
const PREVIOUS = 2;
const NEXT = 3;
/** Two words: when the address was released. */
const TIME = 4;
/** The hash of its key. */
const HASH = 6;
const FIRST_COUNT = 8;
