/**
 * What an allocator hands out.
 * @module
 */

/** An address and the key it belongs to. */
export interface Lease {
  readonly key: string;
  readonly address: string;
  /** When it was released, in ms of the wall clock; absent while it is in use. */
  readonly releasedAt?: number;
}
