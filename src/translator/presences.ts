/**
 * The presences of a plan: which host an address stands for, and which address stands for a host.
 * @module
 */
import type { Family, IpAddress } from '../base/address.ts';
import {
  addressAt,
  addressTables,
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
  /** Key: (host, realm, IP version). Value: the record number of the presence. */
  readonly #ofHosts = new IntTable(3, 1, MAX_RECORDS);
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

  /** Returns the record number of a host's presence in a realm, or -1. */
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

  /** Returns the address that stands for a host in a realm. */
  addressOf(host: Host, realm: number, family: Family): IpAddress | undefined {
    const record = this.find(host, realm, family);
    return record < 0 ? undefined : addressAt(this.#tables[family], record);
  }

  /**
   * Adds a presence.
   *
   * @param address stands for nothing yet
   * @param home the realm of the host
   * @param of the address of the host, which has no presence of this IP version in the realm yet
   */
  add(realm: number, address: IpAddress, home: number, of: IpAddress): void {
    const { family } = address;
    const host = this.#hosts.hold(home, of);
    const table = this.#tables[family];
    const record = insertAddress(table, realm, address);
    table.words[valueAt(table, record)] = host;
    this.#inRealm[family].add(realm, record);
    this.#ofRealm[family].add(home, record);
    const ofHosts = this.#ofHosts;
    ofHosts.key[0] = host;
    ofHosts.key[1] = realm;
    ofHosts.key[2] = family;
    const entry = ofHosts.insert();
    ofHosts.words[valueAt(ofHosts, entry)] = record;
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
    this.#ofHosts.remove(this.#ofHosts.find3(host, realm, family));
    table.release(record);
    this.#hosts.drop(host);
  }
}
