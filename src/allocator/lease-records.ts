/**
 * The records of an allocator's leases, and the order in which addresses were released.
 *
 * A record is a number; 0 is none. The numbers of a record and the text of its key lie side by side in one buffer, so
 * that using it costs two lines of the cache, and the collector of garbage has nothing to look at. Records are removed and lists are changed in
 * constant time. A list is a ring of records that begins with one of its own.
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import { KeyTable } from './key-table.ts';
import { isUnfit, KEY_BYTES, KEY_WORDS, PackedKey } from './packed-key.ts';

/** Where the address of a record is. */
export interface Place {
  /** What `addPlace` has returned. */
  readonly number: number;
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
  /** The same buffer. */
  #bytes: Buffer = Buffer.from(this.#words.buffer);
  /** The key that was used last. */
  readonly #packed = new PackedKey();
  /** The keys that do not fit into their records. */
  readonly #unfit = new Map<number, string>();
  /** The first record that was never used. */
  #end = 1;
  /** The places by the number that records have; none has number 0. */
  readonly #places: (Place | undefined)[] = [undefined];
  /** The records that `find` returns. */
  readonly #named = new KeyTable((record) => this.#isPacked(record));
  /** The first of the removed records; each names the next one. */
  #removed = 0;
  #size = 0;

  /** How many leases there are. */
  get size(): number {
    return this.#size;
  }

  /** Gives a place the number that `add` and `move` need. */
  addPlace(place: Place): number {
    const free = this.#places.indexOf(undefined, 1);
    const number = free < 0 ? this.#places.length : free;
    this.#places[number] = place;
    return number;
  }

  /** Removes a place without records, and its list. */
  removePlace(place: Place): void {
    this.#places[place.number] = undefined;
    this.#drop(place.resting);
  }

  /** Makes an empty list, and returns its record. */
  addList(): number {
    const list = this.#take(0, 0);
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
    const record = this.#take(place.number, index);
    this.#setKey(record, key);
    place.set(index, record);
    this.#size++;
    return record;
  }

  remove(record: number): void {
    this.unlink(record);
    this.unname(record);
    this.place(record).set(this.index(record), 0);
    this.#unfit.delete(record);
    this.#drop(record);
    this.#size--;
  }

  /** Moves a record out of its list, to another address. */
  move(record: number, place: Place, index: number): void {
    this.unlink(record);
    this.place(record).set(this.index(record), 0);
    this.#words[record * STRIDE + PLACE] = place.number;
    this.#words[record * STRIDE + INDEX] = index;
    place.set(index, record);
  }

  /** Returns the text of its key. It is made anew, which takes longer than all else here. */
  key(record: number): string {
    const at = record * STRIDE + KEY;
    if (isUnfit(this.#words, at)) return this.#unfit.get(record)!;
    const first = 4 * at;
    let end = first;
    while (end < first + KEY_BYTES && this.#bytes[end] !== 0) end++;
    return this.#bytes.toString('latin1', first, end);
  }

  place(record: number): Place {
    return this.#places[this.#words[record * STRIDE + PLACE]!]!;
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
    this.#packed.pack(key);
    return this.#named.get(this.#packed.hash);
  }

  /** Makes this the record of `key`, which it has already, in place of another one. */
  name(record: number, key: string): void {
    const other = this.find(key);
    if (other === record) return;
    if (other !== 0) this.unname(other);
    this.#named.set(record, this.#packed.hash);
  }

  /** Makes the key of the record have none, if it has this one. */
  unname(record: number): void {
    this.#named.delete(record, this.#words[record * STRIDE + HASH]!);
  }

  /**
   * Gives a record to another key, whose record it is then.
   *
   * @param before the record that the key has now; 0: none
   */
  rename(record: number, key: string, before: number): void {
    this.unname(record);
    if (before !== 0) this.unname(before);
    this.#unfit.delete(record);
    this.#setKey(record, key);
    this.#named.set(record, this.#packed.hash);
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
    for (let record = 1; record < this.#end; record++) {
      if (this.#words[record * STRIDE + PLACE] !== 0) yield record;
    }
  }

  /** Returns whether a record has the key that was packed last. */
  #isPacked(record: number): boolean {
    const packed = this.#packed.words;
    const words = this.#words;
    const at = record * STRIDE + KEY;
    for (let i = 0; i < KEY_WORDS; i++) if (words[at + i] !== packed[i]) return false;
    return this.#packed.fits || this.#unfit.get(record) === this.#packed.text;
  }

  #setKey(record: number, key: string): void {
    this.#packed.pack(key);
    const packed = this.#packed.words;
    const words = this.#words;
    const at = record * STRIDE + KEY;
    for (let i = 0; i < KEY_WORDS; i++) words[at + i] = packed[i]!;
    words[record * STRIDE + HASH] = this.#packed.hash;
    if (!this.#packed.fits) this.#unfit.set(record, key);
  }

  #take(place: number, index: number): number {
    let record = this.#removed;
    if (record === 0) {
      if ((this.#end + 1) * STRIDE > this.#words.length) this.#grow();
      record = this.#end++;
    } else {
      this.#removed = this.#words[record * STRIDE + NEXT]!;
    }
    const at = record * STRIDE;
    this.#words[at + INDEX] = index;
    this.#words[at + NEXT] = 0;
    this.#words[at + STATE] = InUse;
    this.#words[at + PLACE] = place;
    return record;
  }

  #drop(record: number): void {
    this.#words[record * STRIDE + PLACE] = 0;
    this.#words[record * STRIDE + NEXT] = this.#removed;
    this.#removed = record;
  }

  #grow(): void {
    // A quarter more: twice as much would leave half of it unused after each time.
    const records = Math.ceil(1.25 * (this.#words.length / STRIDE));
    const words = new Int32Array(records * STRIDE);
    words.set(this.#words);
    this.#words = words;
    this.#times = new Float64Array(words.buffer);
    this.#bytes = Buffer.from(words.buffer);
  }
}

/** The words of a record: as long as a line of the cache. */
const STRIDE = 16;
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
/** The number of its place; 0: it is a list, or removed. */
const PLACE = 7;
/** The text of its key; a list has none. */
const KEY = 8;
const FIRST_COUNT = 8;
