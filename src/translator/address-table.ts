/**
 * Tables with the key (realm, address), one for each IP version: hosts and presences. Their records are in lists by
 * realm.
 * @module
 */
import { type Family, IpAddress } from '../base/address.ts';
import { IntLists } from './int-lists.ts';
import { IntTable } from './int-table.ts';

export type ByFamily<T> = Readonly<Record<Family, T>>;

/** Creates the tables of both IP versions. A record has one word of value. */
export function addressTables(): ByFamily<IntTable> {
  return { 4: new IntTable(2, 1, MAX_RECORDS), 6: new IntTable(5, 1, MAX_RECORDS) };
}

/** Creates lists for the records of both tables. */
export function listsByFamily(): ByFamily<IntLists> {
  return { 4: new IntLists(), 6: new IntLists() };
}

/** Finds the record of the address at `words[at]`; -1 if there is none. */
export function findAddress(
  table: IntTable,
  realm: number,
  words: ArrayLike<number>,
  at: number
): number {
  setKey(table, realm, words, at);
  return table.find();
}

/** Adds a record for an address that has none. */
export function insertAddress(table: IntTable, realm: number, { words }: IpAddress): number {
  setKey(table, realm, words, 0);
  return table.insert();
}

/** Returns the realm in a record's key. */
export function realmAt(table: IntTable, record: number): number {
  return table.words[record * table.stride]!;
}

/** Returns the address in a record's key. */
export function addressAt(table: IntTable, record: number): IpAddress {
  const at = record * table.stride;
  return IpAddress.fromWords(Array.from(table.words.subarray(at + 1, at + table.keyWords)));
}

/** Returns the index of a record's value. */
export function valueAt(table: IntTable, record: number): number {
  return record * table.stride + table.keyWords;
}

function setKey(table: IntTable, realm: number, words: ArrayLike<number>, at: number): void {
  table.key[0] = realm;
  for (let i = 1; i < table.keyWords; i++) table.key[i] = words[at + i - 1]!;
}

/** The host bounds its plans; this limit only keeps a record number a small integer. */
export const MAX_RECORDS: number = 2 ** 26;
