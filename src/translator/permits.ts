/**
 * The permits of a plan, by the pair of a service and the realm of its clients.
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import { MAX_RECORDS } from './address-table.ts';
import { type Allowance, Allowances } from './allowances.ts';
import type { Host, Hosts } from './hosts.ts';
import { IntLists } from './int-lists.ts';
import { IntTable } from './int-table.ts';
import type { Permit } from './plan.ts';

/** Holds the host of each service. */
export class Permits {
  readonly #hosts: Hosts;
  /** Key: (service, clients' realm). */
  readonly #pairs = new IntTable(2, 0, MAX_RECORDS);
  readonly #allowances = new Allowances();
  /** What the permits allow, by the number of their pair. Nearly all pairs have one permit, and share their list. */
  readonly #permits: (readonly Allowance[])[] = [];
  /** The pairs by the clients' realm, and by the realm of the service. */
  readonly #from = new IntLists();
  readonly #to = new IntLists();

  constructor(hosts: Hosts) {
    this.#hosts = hosts;
  }

  /** Returns the permits for clients of a realm to use a service. */
  of(service: Host, realm: number): readonly Allowance[] {
    const pair = this.#find(service, realm);
    return pair < 0 ? NONE : this.#permits[pair]!;
  }

  /** Returns how many services the clients of a realm have permits for. */
  countFrom(realm: number): number {
    return this.#from.length(realm);
  }

  /**
   * Adds a permit.
   *
   * @param realm the realm of the clients
   * @param home the realm of the service, which has this address there
   */
  add(realm: number, home: number, address: IpAddress, permit: Permit): void {
    let pair = this.#find(this.#serviceAt(home, address), realm);
    if (pair < 0) pair = this.#insert(realm, home, address);
    const before = this.#permits[pair]!;
    const allowance = this.#allowances.hold(permit);
    if (before.length === 0) this.#permits[pair] = allowance.alone;
    else if (before.length === 1) this.#permits[pair] = [...before, allowance];
    else (before as Allowance[]).push(allowance);
  }

  /** Replaces all permits of a pair. Returns false if they are the same as before. The parameters are those of `add`. */
  set(realm: number, home: number, address: IpAddress, permits: readonly Permit[]): boolean {
    let pair = this.#find(this.#serviceAt(home, address), realm);
    const before = pair < 0 ? NONE : this.#permits[pair]!;
    const after = permits.map((permit) => this.#allowances.hold(permit));
    const isSame = before.length === after.length && before.every((each, i) => each === after[i]);
    if (after.length === 0 && pair >= 0) {
      this.#remove(pair);
    } else if (after.length > 0) {
      if (pair < 0) pair = this.#insert(realm, home, address);
      this.#permits[pair] = after.length === 1 ? after[0]!.alone : after;
      for (const each of before) this.#allowances.drop(each);
    }
    return !isSame;
  }

  /** Removes the permits of a realm's clients, and those for its services. */
  removeRealm(realm: number): void {
    for (const lists of [this.#from, this.#to]) {
      for (const pair of lists.membersOf(realm)) this.#remove(pair);
    }
  }

  /** The memory of the tables in bytes, without the permits themselves. */
  get byteLength(): number {
    return this.#pairs.byteLength + this.#from.byteLength + this.#to.byteLength;
  }

  #serviceAt(home: number, { family, words }: IpAddress): Host {
    return this.#hosts.find(home, family, words, 0);
  }

  #find(service: Host, realm: number): number {
    this.#pairs.key[0] = service;
    this.#pairs.key[1] = realm;
    return this.#pairs.find();
  }

  #insert(realm: number, home: number, address: IpAddress): number {
    this.#pairs.key[0] = this.#hosts.hold(home, address);
    this.#pairs.key[1] = realm;
    const pair = this.#pairs.insert();
    this.#from.add(realm, pair);
    this.#to.add(home, pair);
    this.#permits[pair] = NONE;
    return pair;
  }

  #remove(pair: number): void {
    const at = pair * this.#pairs.stride;
    const service = this.#pairs.words[at]!;
    this.#from.remove(this.#pairs.words[at + 1]!, pair);
    this.#to.remove(this.#hosts.realmOf(service), pair);
    this.#pairs.release(pair);
    for (const each of this.#permits[pair]!) this.#allowances.drop(each);
    this.#permits[pair] = NONE;
    this.#hosts.drop(service);
  }
}

const NONE: readonly Allowance[] = [];
