/**
 * `SnapshotInForce`: the snapshot that an edge gateway acts on, and what follows it: the names of its DNS server, its
 * sockets and the routes of its machine. The snapshot comes from the cloud or from an earlier run, and it may expire.
 * @module
 */
import type { Snapshot, SnapshotExpiry } from '../control/index.ts';
import type { DnsServer } from '../dns/index.ts';
import type { SnapshotExpiredError } from '../errors.ts';
import type { EdgeRoutes } from './edge-routes.ts';
import type { EdgeSockets } from './edge-sockets.ts';
import { expireNames, serveNames } from './site-names.ts';

export class SnapshotInForce {
  readonly #sockets: EdgeSockets;
  readonly #routes: EdgeRoutes;
  readonly #names: DnsServer | undefined;
  #snapshot: Snapshot | undefined;
  #expired: SnapshotExpiredError | undefined;

  /** @param names undefined if the gateway answers no DNS queries */
  constructor(sockets: EdgeSockets, routes: EdgeRoutes, names: DnsServer | undefined) {
    this.#sockets = sockets;
    this.#routes = routes;
    this.#names = names;
  }

  /** Undefined before the first one, and while there is none because it has expired. */
  get snapshot(): Snapshot | undefined {
    return this.#snapshot;
  }

  /** Why there is none any more; undefined while there is one, and before the first. */
  get expired(): SnapshotExpiredError | undefined {
    return this.#expired;
  }

  /** Puts a snapshot in force. Returns what the sockets could not do, if there is something. */
  follow(snapshot: Snapshot): Error | undefined {
    this.#snapshot = snapshot;
    this.#expired = undefined;
    if (this.#names !== undefined) serveNames(this.#names, snapshot);
    const fault = this.#sockets.apply(snapshot);
    this.#routes.follow(snapshot.pools);
    return fault;
  }

  /**
   * Takes the snapshot out of force, because there was no contact with the cloud for too long.
   *
   * @returns whether it was in force: a session that begins says again what was said without it
   */
  expire({ snapshot, error }: SnapshotExpiry): boolean {
    if (this.#expired !== undefined) return false;
    this.#snapshot = undefined;
    this.#expired = error;
    if (this.#names !== undefined) expireNames(this.#names, snapshot);
    this.#sockets.expire(error);
    this.#routes.follow([]);
    return true;
  }
}
