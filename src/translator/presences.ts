/**
 * The presences of a plan: which host an address stands for, and which address stands for a host. While a realm is
 * renumbered, several addresses of one IP version may stand for a host there.
 * @module
 */
import type { Family, IpAddress } from '../base/address.ts';
import {
  addressAt,
  addressTables,
  type ByFamily,
  findAddress,
  insertAddress,
  listsByFamily,
  MAX_RECORDS,
  realmAt,
  valueAt,
} from './address-table.ts';
import type { Host, Hosts } from './hosts.ts';
import { IntTable } from './int-table.ts';

/** Holds the host of each presence. */
export class Presences {
  readonly #hosts: Hosts;
  /** Key: (realm, address). Value: the host that it stands for. */
  readonly #tables = addressTables();
  /** Key: (host, realm, IP version). Value: the record number of the presence under which the host's packets leave. */
  readonly #ofHosts = new IntTable(3, 1, MAX_RECORDS);
  /** Keyed by host, realm and IP version: the record numbers of a host's presences, if there are several, in order. */
  readonly #several = new Map<string, number[]>();
  /** Keyed by the record number: `formerUntil` of the presence. */
  readonly #former: ByFamily<Map<number, number>> = { 4: new Map(), 6: new Map() };
  /** The presences in each realm. */
  readonly #inRealm = listsByFamily();
  /** The presences that hosts of each realm have in other realms. */
  readonly #ofRealm = listsByFamily();

  constructor(hosts: Hosts) {
    this.#hosts = hosts;
  }

  /** Returns the host that the address at `words[at]` stands for, or -1. */
  hostAt(realm: number, family: Family, words: ArrayLike<number>, at: number): Host {
    const table = this.#tables[family];
    const record = findAddress(table, realm, words, at);
    return record < 0 ? -1 : table.words[valueAt(table, record)]!;
  }

  /** Whether any host has several addresses of one IP version in a realm. */
  get isOverlapping(): boolean {
    return this.#several.size > 0;
  }

  /** Returns the record numbers of a host's presences in a realm, if it has several; undefined if not. */
  several(host: Host, realm: number, family: Family): readonly number[] | undefined {
    return this.isOverlapping ? this.#several.get(keyOf(host, realm, family)) : undefined;
  }

  /** Returns the record number of the presence in a realm under which a host's packets leave, or -1. */
  find(host: Host, realm: number, family: Family): number {
    const record = this.#ofHosts.find3(host, realm, family);
    return record < 0 ? -1 : this.#ofHosts.words[valueAt(this.#ofHosts, record)]!;
  }

  /** Returns how many presences there are in a realm. */
  countIn(realm: number): number {
    return this.#inRealm[4].length(realm) + this.#inRealm[6].length(realm);
  }

  /** Returns the table of an IP version: the address of a presence is in the key of its record. */
  table(family: Family): IntTable {
    return this.#tables[family];
  }

  /** Returns the address that stands for a host in a realm and is not a former one. */
  addressOf(host: Host, realm: number, family: Family): IpAddress | undefined {
    const record = this.several(host, realm, family)?.at(-1) ?? this.find(host, realm, family);
    if (record < 0 || this.#former[family].has(record)) return undefined;
    return addressAt(this.#tables[family], record);
  }

  /** Returns until when the address at `words[at]`, a presence, is a former one; undefined if it is none. */
  formerUntil(realm: number, { family, words }: IpAddress): number | undefined {
    return this.#former[family].get(findAddress(this.#tables[family], realm, words, 0));
  }

  /**
   * Adds a presence.
   *
   * @param address stands for nothing yet
   * @param home the realm of the host
   * @param of the address of the host, which has only former presences of this IP version in the realm yet, or this one
   *   is a former one
   * @returns whether the host has several now
   */
  add(
    realm: number,
    address: IpAddress,
    home: number,
    of: IpAddress,
    formerUntil: number | undefined
  ): boolean {
    const { family } = address;
    const host = this.#hosts.hold(home, of);
    const table = this.#tables[family];
    const record = insertAddress(table, realm, address);
    table.words[valueAt(table, record)] = host;
    this.#inRealm[family].add(realm, record);
    this.#ofRealm[family].add(home, record);
    if (formerUntil !== undefined) this.#former[family].set(record, formerUntil);
    const present = this.find(host, realm, family);
    if (present >= 0) {
      const before = this.several(host, realm, family) ?? [present];
      this.#order(host, realm, family, [...before, record]);
      return true;
    }
    const ofHosts = this.#ofHosts;
    ofHosts.key[0] = host;
    ofHosts.key[1] = realm;
    ofHosts.key[2] = family;
    const entry = ofHosts.insert();
    ofHosts.words[valueAt(ofHosts, entry)] = record;
    return false;
  }

  /** Removes the presence with an address, which must be there. */
  remove(realm: number, { family, words }: IpAddress): void {
    this.#removeRecord(family, findAddress(this.#tables[family], realm, words, 0));
  }

  /** Removes the presences in a realm, and those of its hosts. */
  removeRealm(realm: number): void {
    for (const family of [4, 6] as const) {
      for (const lists of [this.#inRealm, this.#ofRealm]) {
        for (const record of lists[family].membersOf(realm)) this.#removeRecord(family, record);
      }
    }
  }

  /** The memory of the tables in bytes. */
  get byteLength(): number {
    const byFamily = [this.#tables, this.#inRealm, this.#ofRealm];
    const parts = [this.#ofHosts, ...byFamily.flatMap((each) => [each[4], each[6]])];
    return parts.reduce((sum, { byteLength }) => sum + byteLength, 0);
  }

  #removeRecord(family: Family, record: number): void {
    const table = this.#tables[family];
    const realm = realmAt(table, record);
    const host = table.words[valueAt(table, record)]!;
    this.#inRealm[family].remove(realm, record);
    this.#ofRealm[family].remove(this.#hosts.realmOf(host), record);
    const others = this.several(host, realm, family)?.filter((each) => each !== record);
    if (others === undefined) this.#ofHosts.remove(this.#ofHosts.find3(host, realm, family));
    else this.#order(host, realm, family, others);
    this.#former[family].delete(record);
    table.release(record);
    this.#hosts.drop(host);
  }

  /** Notes the presences of a host in a realm, and puts the one first under which its packets leave. */
  #order(host: Host, realm: number, family: Family, records: number[]): void {
    const table = this.#tables[family];
    const former = this.#former[family];
    const endOf = (record: number): number => former.get(record) ?? Number.POSITIVE_INFINITY;
    const textOf = (record: number): string => addressAt(table, record).toString();
    records.sort((a, b) => {
      if (endOf(a) !== endOf(b)) return endOf(a) < endOf(b) ? -1 : 1;
      return textOf(a) < textOf(b) ? -1 : 1;
    });
    const key = keyOf(host, realm, family);
    if (records.length > 1) this.#several.set(key, records);
    else this.#several.delete(key);
    const ofHosts = this.#ofHosts;
    ofHosts.words[valueAt(ofHosts, ofHosts.find3(host, realm, family))] = records[0]!;
  }
}

function keyOf(host: Host, realm: number, family: Family): string {
  return `${host} ${realm} ${family}`;
}
