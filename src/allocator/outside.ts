/**
 * The leases of addresses that an allocator does not lease any more: they are in use until they are released, and then
 * in quarantine.
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import type { Place } from './lease-records.ts';

export class Outside implements Place {
  readonly resting: number;
  readonly #addresses = new Map<number, IpAddress>();
  /** Keyed by the text of the address. */
  readonly #records = new Map<string, number>();
  #nextIndex = 0;

  /** @param resting an empty list */
  constructor(resting: number) {
    this.resting = resting;
  }

  /** Returns an index for an address. It lasts until its record is removed. */
  add(address: IpAddress): number {
    // A number beyond 2^32 does not fit into a record.
    while (this.#addresses.has(this.#nextIndex)) this.#nextIndex = (this.#nextIndex + 1) >>> 0;
    const index = this.#nextIndex;
    this.#nextIndex = (index + 1) >>> 0;
    this.#addresses.set(index, address);
    return index;
  }

  at(index: number): IpAddress {
    return this.#addresses.get(index)!;
  }

  /** Returns the record of an address; 0: none. */
  recordOf(address: IpAddress): number {
    return this.#records.size === 0 ? 0 : (this.#records.get(address.toString()) ?? 0);
  }

  set(index: number, record: number): void {
    const text = this.at(index).toString();
    if (record !== 0) {
      this.#records.set(text, record);
      return;
    }
    this.#records.delete(text);
    this.#addresses.delete(index);
  }

  records(): number[] {
    return [...this.#records.values()];
  }
}
