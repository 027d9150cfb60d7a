/**
 * What the writers of the crash test commit, and what the store must hold then. A writer's commits depend only on the
 * seed and on how many it has made, so that the state of a store follows from these numbers alone.
 * @module
 */
import type { Json, Write } from '../../src/store/index.ts';
import { Random } from '../support/random.ts';

export const WRITERS = 6;
/** One writer commits all entries of a table at once now and then, in a line of several parts. */
const TABLE = 1000;
const ADDRESSES = 24;

/** One writer: it binds addresses to clients and releases them, and each client has one address. */
export class Writer {
  readonly id: number;
  /** How many commits it has made. */
  count: number;
  readonly #seed: number;
  /** The client of each address. */
  readonly #leases: Map<number, number>;
  /** The commit that wrote the table; 0 for none. */
  #tableAt: number;

  constructor(seed: number, id: number, before?: Writer) {
    this.id = id;
    this.#seed = seed;
    this.count = before?.count ?? 0;
    this.#leases = new Map(before === undefined ? [] : before.#leases);
    this.#tableAt = before === undefined ? 0 : before.#tableAt;
  }

  /** Returns the writer as it is after `count` commits, which are not fewer than it has made. */
  after(count: number): Writer {
    const later = new Writer(this.#seed, this.id, this);
    while (later.count < count) later.next();
    return later;
  }

  /** Returns the writes of the next commit. */
  next(): Write[] {
    const number = ++this.count;
    const random = new Random((this.#seed * WRITERS + this.id) * 1_000_003 + number);
    const sequence = { key: `sequence/${this.id}`, value: number };
    if (this.id === 0 && random.chance(0.03)) {
      this.#tableAt = number;
      return [sequence, ...this.#table()];
    }
    const address = random.below(ADDRESSES);
    const client = this.#leases.get(address);
    if (client === undefined) {
      this.#leases.set(address, number);
      const [lease, owner] = this.#lease(address, number);
      return [sequence, { ...lease!, expect: 0 }, { ...owner!, expect: 0 }];
    }
    this.#leases.delete(address);
    return [
      sequence,
      ...this.#lease(address, client).map(({ key }) => ({ key, value: undefined })),
    ];
  }

  /** Returns the entries that the writer has in the store. */
  entries(): readonly { readonly key: string; readonly value: Json }[] {
    if (this.count === 0) return [];
    return [
      { key: `sequence/${this.id}`, value: this.count },
      ...(this.#tableAt === 0 ? [] : this.#table()),
      ...[...this.#leases].flatMap(([address, client]) => this.#lease(address, client)),
    ];
  }

  #table(): { key: string; value: Json }[] {
    const value = { number: this.#tableAt, padding: 'x'.repeat(60) };
    return Array.from({ length: TABLE }, (_, i) => ({ key: `table/${i}`, value }));
  }

  /** The entry of an address and that of its client. `number` is that of the commit. */
  #lease(address: number, number: number): { key: string; value: Json }[] {
    const client = `${this.id}-${number}`;
    const place = `10.0.${this.id}.${address}`;
    return [
      { key: `lease/${place}`, value: { client, number } },
      { key: `client/${client}`, value: { address: place, number } },
    ];
  }
}
