/**
 * Loopback addresses for names. A name has the same address after a restart, unless two names hash to one address and
 * the other one was there first. An address does not change its name as long as another one is free.
 * @module
 */
import { createHash } from 'node:crypto';
import type { IpAddress } from '../../base/address.ts';
import type { IpPrefix } from '../../base/prefix.ts';

export class LoopbackAddresses {
  readonly #prefix: IpPrefix;
  /** Not the first and the last address, which mean a network and all its hosts elsewhere. */
  readonly #usable: number;
  readonly #indexes = new Map<string, number>();
  readonly #names = new Map<number, string>();
  /** Names that are not in use, which keep their addresses for the time being; the oldest first. */
  readonly #released = new Set<string>();

  constructor(prefix: IpPrefix) {
    this.#prefix = prefix;
    this.#usable = prefix.size - 2;
  }

  /** Returns the address of the name; undefined if all are in use. */
  assign(name: string): IpAddress | undefined {
    this.#released.delete(name);
    let index = this.#indexes.get(name);
    if (index === undefined) {
      if (this.#names.size === this.#usable) this.#forgetOldest();
      if (this.#names.size === this.#usable) return undefined;
      index = 1 + (createHash('sha256').update(name).digest().readUInt32BE() % this.#usable);
      while (this.#names.has(index)) index = index === this.#usable ? 1 : index + 1;
      this.#indexes.set(name, index);
      this.#names.set(index, name);
    }
    return this.#prefix.at(index);
  }

  /** The name is not in use any more. */
  release(name: string): void {
    if (this.#indexes.has(name)) this.#released.add(name);
    if (this.#released.size > MAX_RELEASED) this.#forgetOldest();
  }

  #forgetOldest(): void {
    for (const name of this.#released) {
      this.#released.delete(name);
      this.#names.delete(this.#indexes.get(name)!);
      this.#indexes.delete(name);
      return;
    }
  }
}

/** How many names that are gone keep their addresses. */
const MAX_RELEASED = 4096;
