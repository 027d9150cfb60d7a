/**
 * What the command line of this benchmark says.
 * @module
 */

export interface Settings {
  /** A directory for files, which is removed at the end. */
  readonly home: string;
  /** The sizes, the largest last. */
  readonly sites: readonly number[];
  /** How many clients all sites have together. */
  readonly clients: number;
  /** How long a change is repeated, in s. */
  readonly seconds: number;
  /** The tunnels of the storm. */
  readonly tunnels: number;
  /** The takeovers of each kind, at each timing. */
  readonly rounds: number;
  readonly isQuick: boolean;
}
