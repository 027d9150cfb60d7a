/**
 * Finds the other paths between the two hosts of a path, and numbers the pairs of hosts. All paths between two hosts
 * have one number (`PATH_PAIR`). There are two of them, one in each direction, and more while a realm is renumbered.
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import type { Bindings, Resolution } from './bindings.ts';
import { PATH_PAIR } from './layout.ts';
import type { PathTable } from './path-table.ts';

/** What is needed of all paths. */
interface PathTables {
  readonly bindings: Bindings;
  table(family: 4 | 6): PathTable;
}

export class PathPairs {
  readonly #paths: PathTables;
  /** The number that the last pair of hosts got. */
  #last = 0;
  readonly #savedKey = new Int32Array(9);

  constructor(paths: PathTables) {
    this.#paths = paths;
  }

  /** Returns a path in the other direction, or -1 if none is open. The path of the table's key leads to `resolution`. */
  pathBack(table: PathTable, resolution: Resolution): number {
    const { egress, family, source, destination } = resolution;
    const { bindings } = this.#paths;
    const saved = this.#savedKey;
    saved.set(table.key);
    const back = this.#paths.table(family);
    back.key[0] = egress;
    for (let i = 0; i < back.width; i++) {
      back.key[1 + i] = destination[i]!;
      back.key[1 + back.width + i] = source[i]!;
    }
    let path = back.find();
    if (path < 0 && resolution.isOverlapping) {
      const own = bindings.addressesIn(egress, family, saved[0]!, table.family, saved, 1);
      path = findTo(back, own);
    }
    for (let i = 0; i < table.keyWords; i++) table.key[i] = saved[i]!;
    return path;
  }

  /**
   * Returns the number for the pair of hosts: that of another path between them if one is open, otherwise a new one. A
   * path that is not kept gets `NO_PAIR`.
   *
   * @param back the result of `pathBack`
   */
  pairOf(back: number, table: PathTable, resolution: Resolution, isKept: boolean): number {
    if (back >= 0) return pairAt(this.#paths.table(resolution.family), back) ^ 1;
    const beside = resolution.isOverlapping ? this.#pathBeside(table, resolution) : -1;
    if (beside >= 0) return pairAt(table, beside);
    if (!isKept) return NO_PAIR;
    this.#last = this.#last === MAX_PAIRS ? 1 : this.#last + 1;
    return this.#last << 1;
  }

  /** Returns a path in the same direction to another address of the same host, or -1 if none is open. */
  #pathBeside(table: PathTable, { egress, family, destination }: Resolution): number {
    const { key, keyWords, width } = table;
    const { bindings } = this.#paths;
    const saved = this.#savedKey;
    saved.set(key);
    const others = bindings.addressesIn(key[0]!, table.family, egress, family, destination, 0);
    const path = findTo(table, others);
    for (let i = 1 + width; i < keyWords; i++) key[i] = saved[i]!;
    return path;
  }
}

/** Returns an open path from the source in the table's key to one of the addresses, or -1. It changes the key. */
function findTo(table: PathTable, addresses: readonly IpAddress[]): number {
  for (const { words } of addresses) {
    for (let i = 0; i < table.width; i++) table.key[1 + table.width + i] = words[i]!;
    const path = table.find();
    if (path >= 0) return path;
  }
  return -1;
}

function pairAt(table: PathTable, path: number): number {
  return table.words[path * table.stride + table.keyWords + PATH_PAIR]!;
}

/** The pair number of a path that is not kept. */
export const NO_PAIR = 0;
/** After this many pairs the numbers start again; the sessions of the first pairs have ended by then. */
const MAX_PAIRS = 0x07ff_ffff;
