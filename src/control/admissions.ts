/**
 * Admits clients: leases addresses to those that arrive at the same time, in one commit. If they are many, each commit
 * has as many as are admitted within a turn of the event loop. While another process allocates, that one is asked for
 * each client that may have a presence by what is known here.
 * @module
 */
import { createHash } from 'node:crypto';
import type { Family } from '../base/address.ts';
import type { Endpoint } from '../base/endpoint.ts';
import type { Slices } from '../base/slices.ts';
import { PoolExhaustedError, PresenceError, QuotaExceededError } from '../errors.ts';
import type { AllocatorRequests } from './allocator-requests.ts';
import type { DerivedState } from './derivation-check.ts';
import { presenceKey } from './presence-key.ts';
import { ADMIT_PREFIX, type AskedAdmission } from './shown-requests.ts';

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
  /** The presence could not be stored, no process allocates, or the controller was closed. */
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
  /** Returns whether changes of the desired state wait to be derived. */
  readonly isDeriving: () => boolean;
  /** Asks the process that allocates; undefined if this one always does. */
  readonly ask?: AllocatorRequests['ask'] | undefined;
  /** The name of this process among those that ask. */
  readonly name?: string | undefined;
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
        this.#arrive({ isAsked: false, client, egress, family, resolve, reject, end: () => {} });
      }).finally(() => this.#admissions.delete(key));
      this.#admissions.set(key, admission);
      admission.then(
        () => this.counters.admitted++,
        (error: unknown) => this.counters[outcomeOf(error)]++
      );
    }
    return admission;
  }

  /**
   * Admits a client for another process.
   *
   * @param end is called before the outcome is stored; with false if it was put off, because another process allocates,
   *   or a change of the desired state may admit the client
   */
  admitFor(asked: AskedAdmission, end: (isAnswered: boolean) => void): void {
    const nothing = (): void => {};
    this.#arrive({ ...asked, isAsked: true, resolve: nothing, reject: nothing, end });
  }

  #arrive(arrival: Arrival): void {
    this.#arrivals.push(arrival);
    if (this.#arrivals.length > 1) return;
    void this.#options.enqueue(() => this.#admitArrivals());
  }

  /** Admits the clients that were to be admitted since the last call. */
  async #admitArrivals(): Promise<void> {
    const arrivals = this.#arrivals;
    this.#arrivals = [];
    const { slices } = this.#options;
    for (let at = 0; at < arrivals.length; ) {
      if (at > 0) await slices.next();
      if (this.#isFollowing) {
        for (const arrival of arrivals.slice(at)) this.#askFor(arrival);
        return;
      }
      const admitted: Arrival[] = [];
      for (let taken = 0; at < arrivals.length; taken++) {
        if (taken >= LEAST_PER_COMMIT && slices.used > LEASE_PART) break;
        const arrival = arrivals[at++]!;
        let isAnswered = true;
        try {
          this.#leaseTo(arrival);
          admitted.push(arrival);
        } catch (error) {
          arrival.reject(error);
          // The machine that asks may know of an exposure that is not derived here.
          isAnswered = !(error instanceof NotAdmittedError && this.#options.isDeriving());
        }
        arrival.end(isAnswered);
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
    if (this.#isFollowing) {
      // The store has refused the commit, because another process allocates now.
      for (const arrival of admitted) this.#askFor(arrival);
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

  get #isFollowing(): boolean {
    return this.#options.state().leases.isFollowing;
  }

  /** Asks the process that allocates for a client that this process may ask for. */
  #askFor(arrival: Arrival): void {
    arrival.end(false);
    // Its own request reaches the process that allocates now.
    if (arrival.isAsked) return;
    const { client, egress, family, resolve, reject } = arrival;
    const { ask, name } = this.#options;
    try {
      this.#check(arrival);
    } catch (error) {
      reject(error);
      return;
    }
    if (this.#isServed(arrival)) {
      resolve();
      return;
    }
    const text = `${client.key} ${egress} IPv${family}`;
    const hash = createHash('sha256').update(text).digest('hex').slice(0, HASH_LENGTH);
    const key = `${ADMIT_PREFIX}${name}/${client.realm}/${hash}`;
    ask!(key, client.realm, { client: client.key, egress, family }).then(() => {
      if (this.#isServed(arrival)) resolve();
      else reject(this.#refusalOf(arrival));
    }, reject);
  }

  /** Returns why the process that allocates has refused a client. */
  #refusalOf(arrival: Arrival): unknown {
    try {
      this.#check(arrival);
    } catch (error) {
      return error;
    }
    const { egress, family } = arrival;
    return new PoolExhaustedError(
      `the machine that allocates has no IPv${family} address of "${egress}" for ${arrival.client}, or what is desired has changed meanwhile`
    );
  }

  /** Returns whether a client has all that it needs. */
  #isServed(arrival: Arrival): boolean {
    const { leases, isLive } = this.#options.state();
    const { client, egress } = arrival;
    if (!isLive(egress) || !isLive(client.realm)) return false;
    return this.#needsOf(arrival).every(
      ({ realm, family }) => leases.address(realm, presenceKey(client.key, family)) !== undefined
    );
  }

  /** Leases what a client needs. */
  #leaseTo(arrival: Arrival): void {
    const maxClients = this.#check(arrival);
    const { leases } = this.#options.state();
    for (const { realm, family } of this.#needsOf(arrival)) {
      leases.admit(realm, arrival.client, family, maxClients);
    }
  }

  /**
   * Checks that a client may have what it needs: all of it, so that nothing is leased in the transit realm if the egress
   * site has no address. Returns the `maxClients` of its site.
   */
  #check(arrival: Arrival): number {
    const { client, egress, family } = arrival;
    const { desired, leases, isLive } = this.#options.state();
    const site = desired.sites.get(client.realm);
    const isAdmitted =
      site !== undefined &&
      isLive(client.realm) &&
      isLive(egress) &&
      desired.isAdmitted(egress, client, family);
    if (!isAdmitted) throw notAdmitted(arrival);
    const { maxClients } = site;
    for (const each of this.#needsOf(arrival)) {
      leases.check(each.realm, client, each.family, maxClients);
    }
    return maxClients;
  }

  /** Returns the presences that a client needs: one in the egress site, and perhaps one in the transit realm. */
  #needsOf({ client, egress, family }: Arrival): { realm: string; family: Family }[] {
    const { desired } = this.#options.state();
    const needed = [{ realm: egress, family }];
    const between = desired.transitFamily(client.realm, egress, client.address.family, family);
    if (between !== undefined) needed.unshift({ realm: desired.transit!, family: between });
    return needed;
  }
}

function outcomeOf(error: unknown): keyof AdmissionCounters {
  if (error instanceof NotAdmittedError) return 'refused';
  if (error instanceof QuotaExceededError) return 'quotaExceeded';
  return error instanceof PoolExhaustedError ? 'poolExhausted' : 'failed';
}

interface Arrival {
  /** Whether another process has asked for the client. */
  readonly isAsked: boolean;
  readonly client: Endpoint;
  readonly egress: string;
  readonly family: Family;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
  /** Is called before the outcome is stored; with false if there is none yet for another process that asks. */
  readonly end: (isAnswered: boolean) => void;
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
/** How much of a hash tells the clients of a site apart, in hexadecimal digits. */
const HASH_LENGTH = 32;
