/**
 * Admits clients: leases addresses to those that arrive at the same time, in one commit. If they are many, each commit
 * has as many as are admitted within a turn of the event loop.
 * @module
 */
import type { Family } from '../base/address.ts';
import type { Endpoint } from '../base/endpoint.ts';
import type { Slices } from '../base/slices.ts';
import { PoolExhaustedError, PresenceError, QuotaExceededError } from '../errors.ts';
import type { DerivedState } from './derivation-check.ts';

/** A host was refused a presence because it is not a client of any service there. */
export class NotAdmittedError extends PresenceError {
  constructor(message: string) {
    super('ERR_PRESENCE_NOT_ADMITTED', message);
  }
}

/** Requests for presences by outcome, cumulative. */
export interface AdmissionCounters {
  admitted: number;
  /** The host is no client there, or a site is suspended. */
  refused: number;
  /** The site has as many clients, or as many addresses, as it may. */
  quotaExceeded: number;
  poolExhausted: number;
  /** The presence could not be stored, or the controller was closed. */
  failed: number;
}

export interface AdmissionsOptions {
  /** Returns what is in force now. */
  readonly state: () => Pick<DerivedState, 'desired' | 'leases' | 'isLive'>;
  readonly slices: Slices;
  /** Runs work after all earlier work of the controller. */
  readonly enqueue: (work: () => Promise<void>) => Promise<void>;
  /** Stores the changed leases and puts them to use. If it fails, the clients are refused. */
  readonly store: () => Promise<void>;
}

export class Admissions {
  readonly counters: AdmissionCounters = {
    admitted: 0,
    refused: 0,
    quotaExceeded: 0,
    poolExhausted: 0,
    failed: 0,
  };
  readonly #options: AdmissionsOptions;
  /** Keyed by realm, IP version and client: what is under way. */
  readonly #admissions = new Map<string, Promise<void>>();
  #arrivals: Arrival[] = [];

  constructor(options: AdmissionsOptions) {
    this.#options = options;
  }

  /**
   * Gives a host a presence in the site `egress`.
   *
   * @throws {NotAdmittedError} if the host is not a client of such a service there, or a site is suspended.
   * @throws {AllocatorError} if there is no address for it.
   * @throws {StoreError} if it cannot be stored.
   */
  admit(client: Endpoint, egress: string, family: Family): Promise<void> {
    const key = `${egress} IPv${family}|${client.key}`;
    let admission = this.#admissions.get(key);
    if (admission === undefined) {
      admission = new Promise<void>((resolve, reject) => {
        this.#arrivals.push({ client, egress, family, resolve, reject });
        if (this.#arrivals.length > 1) return;
        void this.#options.enqueue(() => this.#admitArrivals());
      }).finally(() => this.#admissions.delete(key));
      this.#admissions.set(key, admission);
      admission.then(
        () => this.counters.admitted++,
        (error: unknown) => this.counters[outcomeOf(error)]++
      );
    }
    return admission;
  }

  /** Admits the clients that were to be admitted since the last call. */
  async #admitArrivals(): Promise<void> {
    const arrivals = this.#arrivals;
    this.#arrivals = [];
    const { slices } = this.#options;
    for (let at = 0; at < arrivals.length; ) {
      if (at > 0) await slices.next();
      const admitted: Arrival[] = [];
      for (let taken = 0; at < arrivals.length; taken++) {
        if (taken >= LEAST_PER_COMMIT && slices.used > LEASE_PART) break;
        const arrival = arrivals[at++]!;
        try {
          this.#leaseTo(arrival);
          admitted.push(arrival);
        } catch (error) {
          arrival.reject(error);
        }
      }
      await this.#store(admitted);
    }
  }

  async #store(admitted: readonly Arrival[]): Promise<void> {
    const { store, state } = this.#options;
    try {
      await store();
    } catch (error) {
      for (const arrival of admitted) arrival.reject(error);
      return;
    }
    const { isLive } = state();
    for (const arrival of admitted) {
      // A site may have been suspended meanwhile.
      const isBound = isLive(arrival.egress) && isLive(arrival.client.realm);
      if (isBound) arrival.resolve();
      else arrival.reject(notAdmitted(arrival));
    }
  }

  /** Leases what a client needs: a presence in the egress site, and perhaps one in the transit realm. */
  #leaseTo(arrival: Arrival): void {
    const { client, egress, family } = arrival;
    const { realm: ingress, address } = client;
    const { desired, leases, isLive } = this.#options.state();
    const site = desired.sites.get(ingress);
    const isAdmitted =
      site !== undefined &&
      isLive(ingress) &&
      isLive(egress) &&
      desired.isAdmitted(egress, client, family);
    if (!isAdmitted) throw notAdmitted(arrival);
    const leased = [{ realm: egress, family }];
    const between = desired.transitFamily(ingress, egress, address.family, family);
    if (between !== undefined) leased.unshift({ realm: desired.transit!, family: between });
    const { maxClients } = site;
    // All are checked first: nothing is leased in the transit realm if the egress site has no address.
    for (const each of leased) leases.check(each.realm, client, each.family, maxClients);
    for (const each of leased) leases.admit(each.realm, client, each.family, maxClients);
  }
}

function outcomeOf(error: unknown): keyof AdmissionCounters {
  if (error instanceof NotAdmittedError) return 'refused';
  if (error instanceof QuotaExceededError) return 'quotaExceeded';
  return error instanceof PoolExhaustedError ? 'poolExhausted' : 'failed';
}

interface Arrival {
  readonly client: Endpoint;
  readonly egress: string;
  readonly family: Family;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

function notAdmitted({ client, egress, family }: Arrival): NotAdmittedError {
  const { realm, address } = client;
  return new NotAdmittedError(
    `${address} of "${realm}" is no client of an IPv${family} service of "${egress}"`
  );
}

/** How many clients one commit has at least, and how much of a slice it may take to lease for more. */
const LEAST_PER_COMMIT = 16;
const LEASE_PART = 0.4;
