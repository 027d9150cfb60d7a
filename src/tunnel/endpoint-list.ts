/**
 * The endpoints that a dialling side knows, in the order in which it tries them: those that it is configured with, and
 * those that the listening side has named in WELCOME, which are kept in memory only.
 *
 * 1. The lowest priority comes first. A learned endpoint has the highest number of the configured ones.
 * 2. Endpoints of one priority are ordered by a hash of the own identity and the endpoint (rendezvous hashing). So the
 *    sites spread over them, and those of an endpoint that is lost spread over the others.
 * 3. An endpoint that has failed comes last for `AVOID_MS`, and of several such ones the first that has failed.
 * @module
 */
import { createHash } from 'node:crypto';
import { formatHostPort, type HostPort, type RankedHostPort } from '../base/host-port.ts';

export class EndpointList {
  readonly #identity: string;
  readonly #configured: readonly Entry[];
  #learned: readonly Entry[] = [];

  /** @param identity the own one, as text */
  constructor(identity: string, configured: readonly Required<RankedHostPort>[]) {
    this.#identity = identity;
    this.#configured = this.#entriesOf(configured, []);
  }

  /** Replaces the endpoints that were learned before. */
  learn(endpoints: readonly HostPort[]): void {
    const priority = Math.max(...this.#configured.map((entry) => entry.priority));
    const known = [...this.#configured, ...this.#learned];
    this.#learned = this.#entriesOf(
      endpoints.map(({ host, port }) => ({ host, port, priority })),
      known
    ).filter((entry) => !this.#configured.includes(entry));
  }

  /** An endpoint could not be reached, has refused the tunnel, or has lost it. */
  failed(endpoint: HostPort, nowMs: number): void {
    const key = formatHostPort(endpoint);
    const entry = this.#all.find((each) => each.key === key);
    if (entry !== undefined) entry.failedMs = nowMs;
  }

  /** Returns all endpoints, the one to try first in front. */
  order(nowMs: number): HostPort[] {
    const avoided = (entry: Entry): number =>
      nowMs - entry.failedMs < AVOID_MS ? entry.failedMs : Number.NEGATIVE_INFINITY;
    return this.#all
      .sort(
        (a, b) =>
          compare(avoided(a), avoided(b)) || a.priority - b.priority || compare(a.rank, b.rank)
      )
      .map(({ host, port }) => ({ host, port }));
  }

  get #all(): Entry[] {
    return [...this.#configured, ...this.#learned];
  }

  /** Returns one entry for each endpoint; that of `known` if there is one. */
  #entriesOf(
    endpoints: readonly Required<RankedHostPort>[],
    known: readonly Entry[]
  ): readonly Entry[] {
    const entries = new Map<string, Entry>();
    for (const { host, port, priority } of endpoints) {
      const key = formatHostPort({ host, port });
      const rank = createHash('sha256').update(`${this.#identity} ${key}`).digest('hex');
      const entry = known.find((each) => each.key === key);
      if (entries.has(key)) continue;
      entries.set(
        key,
        entry ?? { host, port, priority, key, rank, failedMs: Number.NEGATIVE_INFINITY }
      );
    }
    return [...entries.values()];
  }
}

interface Entry extends Required<RankedHostPort> {
  readonly key: string;
  readonly rank: string;
  /** When it failed last. */
  failedMs: number;
}

function compare<T extends number | string>(a: T, b: T): number {
  return a < b ? -1 : Number(a > b);
}

/** For how long an endpoint that has failed comes last, in ms. */
const AVOID_MS = 30_000;
