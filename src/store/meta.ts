/**
 * The entry `meta` of a store that several machines share. It says for which store the data is valid: a store that was
 * restored from a backup has another `LeasingStore.clusterId`.
 * @module
 */
export const META_KEY = 'meta';

export interface StoreMeta {
  /** `LeasingStore.clusterId` of the store for which the data is valid. */
  readonly cluster: string;
  /** What tells this data from that of all others, also of a cloud with the same name. It stays through a restore. */
  readonly id?: string | undefined;
  /** The name of the cloud. */
  readonly cloud?: string | undefined;
  /**
   * What is added to the numbers that the store itself gives to its commits, default 0. It is raised with each restore,
   * so that versions only increase.
   */
  readonly versionBase?: number | undefined;
}

/** Returns what is added to the store's own numbers; 0 if the value of the entry says nothing. */
export function versionBaseOf(value: unknown): number {
  const base = (value as Partial<StoreMeta> | null | undefined)?.versionBase;
  return Number.isSafeInteger(base) ? base! : 0;
}
