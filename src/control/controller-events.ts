/**
 * What a `PresenceController` tells: its events, and the hosts that presences stand for.
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import type { PoolWarning } from './pool-watch.ts';
import type { Snapshot } from './snapshot.ts';

export interface PresenceControllerEvents {
  /** A site's snapshot has changed. */
  snapshot: [snapshot: Snapshot];
  /**
   * An address could not be leased, or a commit has failed; the rest of the state is in force nevertheless. A full
   * pool is reported once, until it had room again. A problem at the start is reported in the next turn of the event
   * loop. A `DerivationError` says that something in force was not what it has to be, and that it is put right.
   */
  problem: [problem: { readonly error: Error }];
  /**
   * Addresses get scarce, or quotas exceed a pool. Each warning is given once, until its reason is gone. A warning at
   * the start is given in the next turn of the event loop.
   */
  warning: [warning: PoolWarning];
}

/** What a derivation has to say beside its result. */
export interface Derivation {
  readonly problems: readonly Error[];
  readonly warnings: readonly PoolWarning[];
}

/** The host that a presence stands for. */
export interface Whois {
  readonly site: string;
  readonly address: IpAddress;
  /** The names of the services that the host offers. */
  readonly services: readonly string[];
}
