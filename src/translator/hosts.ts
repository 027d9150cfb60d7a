/**
 * The real hosts that presences and permits name. A host is a number, and it exists as long as something names it. Hosts
 * are records in tables, not objects, because a plan may have a million of them.
 * @module
 */
import type { Family, IpAddress } from '../base/address.ts';
import type { IpPrefix } from '../base/prefix.ts';
import {
  addressAt,
  addressTables,
  findAddress,
  insertAddress,
  listsByFamily,
  realmAt,
  valueAt,
} from './address-table.ts';
import type { IntTable } from './int-table.ts';
import { containsWords } from './plan.ts';

/** Twice the record number in the table of its IP version, plus 1 for IPv6; -1 for none. */
export type Host = number;

export class Hosts {
  /** Key: (realm, address). Value: how often the host is held. */
  readonly #tables = addressTables();
  /** The hosts of each realm. */
  readonly #ofRealm = listsByFamily();

  /** Returns the host with the address at `words[at]`, or -1. */
  find(realm: number, family: Family, words: ArrayLike<number>, at: number): Host {
    return hostOf(findAddress(this.#tables[family], realm, words, at), family);
  }

  /** Returns the host with an address, and keeps it until `drop` has been called as often as `hold`. */
  hold(realm: number, address: IpAddress): Host {
    const { family, words } = address;
    const table = this.#tables[family];
    let record = findAddress(table, realm, words, 0);
    if (record < 0) {
      record = insertAddress(table, realm, address);
      this.#ofRealm[family].add(realm, record);
    }
    table.words[valueAt(table, record)]!++;
    return hostOf(record, family);
  }

  drop(host: Host): void {
    const family = familyOf(host);
    const table = this.#tables[family];
    const record = host >>> 1;
    if (--table.words[valueAt(table, record)]! > 0) return;
    this.#ofRealm[family].remove(realmAt(table, record), record);
    table.release(record);
  }

  realmOf(host: Host): number {
    return realmAt(this.#tables[familyOf(host)], host >>> 1);
  }

  addressOf(host: Host): IpAddress {
    return addressAt(this.#tables[familyOf(host)], host >>> 1);
  }

  /** Returns the table of an IP version: a host's realm and address are the key of its record. */
  table(family: Family): IntTable {
    return this.#tables[family];
  }

  /** Returns whether a host of the realm has an address in one of the prefixes. */
  isAnyIn(realm: number, prefixes: readonly IpPrefix[]): boolean {
    return ([4, 6] as const).some((family) => {
      const { words, stride } = this.#tables[family];
      return this.#ofRealm[family]
        .membersOf(realm)
        .some((record) => containsWords(prefixes, family, words, record * stride + 1));
    });
  }

  /** The memory of the tables in bytes. */
  get byteLength(): number {
    const parts = [this.#tables[4], this.#tables[6], this.#ofRealm[4], this.#ofRealm[6]];
    return parts.reduce((sum, { byteLength }) => sum + byteLength, 0);
  }
}

export function familyOf(host: Host): Family {
  return (host & 1) === 1 ? 6 : 4;
}

function hostOf(record: number, family: Family): Host {
  return record < 0 ? -1 : 2 * record + (family === 6 ? 1 : 0);
}
