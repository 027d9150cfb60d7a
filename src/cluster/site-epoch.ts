/**
 * The epoch of a site: which of two holders is the later one.
 * @module
 */

export interface SiteEpoch {
  /** `LeasingStore.clusterId` of the store that has given the number. Numbers of different stores cannot be compared. */
  readonly cluster: string;
  /** The version of the holder's key. It is higher for a later holder, also after a hand-over. */
  readonly number: number;
}

export function isSameEpoch(a: SiteEpoch | undefined, b: SiteEpoch | undefined): boolean {
  return a !== undefined && b !== undefined && a.cluster === b.cluster && a.number === b.number;
}
