/**
 * What an explanation reads of a cloud gateway.
 * @module
 */
import type { ConnectedEdgeStatus, PresenceLookup, Snapshot } from '../control/index.ts';
import type { Registry } from '../registry/index.ts';
import type { Explanation } from '../translator/index.ts';

/** The tunnel of a site that is up. */
export interface SiteTunnelStatus {
  /** How many connections carry packets. */
  readonly connections: number;
  /** The round-trip time that was measured last, in ms. */
  readonly rttMs: number | undefined;
}

export interface ExplainedWorld {
  readonly registry: Pick<
    Registry,
    | 'site'
    | 'service'
    | 'exposure'
    | 'sites'
    | 'services'
    | 'servicesOf'
    | 'sitesOf'
    | 'record'
    | 'exposureRecord'
  >;
  readonly lookup: PresenceLookup;
  /** Resolves when all changes of the registry so far are in force. */
  settled(): Promise<void>;
  /** Returns a site's current snapshot; undefined for a site without one. */
  snapshot(site: string): Snapshot | undefined;
  isRevoked(site: string): boolean;
  /** Returns the state of a site's edge; undefined if it is not connected. */
  edge(site: string): ConnectedEdgeStatus | undefined;
  /**
   * Returns the tunnel of a site; undefined if there is none.
   *
   * @throws {EnvironmentError} if the worker that holds the site is down.
   */
  tunnel(site: string): Promise<SiteTunnelStatus | undefined>;
  /** Returns why the tunnel of a site went down or was refused the last time, one clause; undefined if it never was. */
  lastFault(site: string): string | undefined;
  /**
   * Asks the data plane.
   *
   * @throws {EnvironmentError} if the worker that carries packets of the realm is down.
   */
  explain(packet: Uint8Array, realm: string): Promise<Explanation>;
  /** The time of day in ms since 1970. */
  nowMs(): number;
}
