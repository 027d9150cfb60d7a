/**
 * Derives presences, the translator's plan and every site's snapshot from the desired state.
 * @module
 */
import { EventEmitter } from 'eventemitter3';
import { type AddressInput, type Family, IpAddress } from '../base/address.ts';
import { throwToProcess } from '../base/emitter.ts';
import { Endpoint } from '../base/endpoint.ts';
import { ApiMisuseError, PresenceError } from '../errors.ts';
import type { Registry } from '../registry/index.ts';
import type { Presence } from '../translator/index.ts';
import {
  type PlanTarget,
  type PresenceControllerOptions,
  type ResolvedControllerOptions,
  resolveControllerOptions,
} from './controller-options.ts';
import { DesiredIndex } from './desired-index.ts';
import { IdleSweep } from './idle-sweep.ts';
import { LeaseTable } from './lease-table.ts';
import { planOf } from './plan.ts';
import { type PoolStatus, type PoolWarning, PoolWatch } from './pool-watch.ts';
import { presenceKey } from './presence-key.ts';
import { type SiteView, viewOf } from './site-view.ts';
import type { Snapshot } from './snapshot.ts';
import { SnapshotPublisher } from './snapshot-publisher.ts';

export interface PresenceControllerEvents {
  /** A site's snapshot has changed. */
  snapshot: [snapshot: Snapshot];
  /**
   * A presence could not be had, or nothing be stored; the rest of the state is in force all the
   * same. A full pool is told once until it was seen with room again. What was found at the start is
   * told in the next turn of the event loop.
   */
  problem: [problem: { readonly error: Error }];
  /**
   * Addresses get scarce, or quotas exceed a pool; told once until it is so no more. What was found at the
   * start is told in the next turn of the event loop.
   */
  warning: [warning: PoolWarning];
}

/** Whom a presence stands for. */
export interface Whois {
  readonly site: string;
  readonly address: IpAddress;
  /** Services at home there. */
  readonly services: readonly string[];
}

/** A host was refused a presence: it is, or has become, no client of any service there. */
export class NotAdmittedError extends PresenceError {
  constructor(message: string) {
    super('ERR_PRESENCE_NOT_ADMITTED', message);
  }
}

/**
 * One per cloud. Changes are serialised, and derived anew from the whole desired state; a client that
 * appears is added alone. Only presences that are stored get into the plan, a snapshot or an answer.
 */
export class PresenceController
  extends EventEmitter<PresenceControllerEvents>
  implements AsyncDisposable
{
  readonly #registry: Registry;
  readonly #translator: PlanTarget;
  readonly #transit: string | undefined;
  readonly #ttlSeconds: number;
  readonly #retryMs: number;
  readonly #suspended: Set<string>;
  readonly #options: ResolvedControllerOptions;
  readonly #book: LeaseTable;
  readonly #pools: PoolWatch;
  #sweep: IdleSweep | undefined;
  readonly #snapshots: SnapshotPublisher;
  #desired: DesiredIndex;
  /** The plan in force is not, or when all is stored will not be, what `#desired` and `#book` say. */
  #isStale = true;
  readonly #admissions = new Map<string, Promise<void>>();
  #arrivals: Arrival[] = [];
  #problems: ReadonlyMap<string, Error> = new Map();
  #work: Promise<unknown> = Promise.resolve();
  #isDeriveQueued = false;
  #endRetry: (() => void) | undefined;
  #isClosed = false;
  #closing: Promise<void> | undefined;

  private constructor(options: ResolvedControllerOptions, book: LeaseTable) {
    super();
    this.#options = options;
    this.#registry = options.registry;
    this.#translator = options.translator;
    this.#transit = options.transit;
    this.#ttlSeconds = options.ttlSeconds;
    this.#retryMs = options.retryMs;
    this.#suspended = new Set(options.suspended);
    this.#book = book;
    this.#pools = new PoolWatch(book);
    this.#desired = new DesiredIndex({ sites: [], services: [], exposures: [] }, this.#transit);
    this.#snapshots = new SnapshotPublisher({
      ...options,
      viewOf: (site) => this.#viewOf(site),
      onSnapshot: (snapshot) => this.emit('snapshot', snapshot),
    });
  }

  /**
   * Reads the leases and derives everything once; then follows the registry.
   *
   * @throws {ApiMisuseError} naming the option that is wrong; nothing was read or written then.
   * @throws {StoreError} if the store cannot be read or written, or has what is not a lease.
   */
  static async start(options: PresenceControllerOptions): Promise<PresenceController> {
    const resolved = resolveControllerOptions(options);
    const book = await LeaseTable.open({ ...resolved, storeUseMs: resolved.pressedIdleMs });
    const controller = new PresenceController(resolved, book);
    // First, so that no change is missed while the leases are being stored.
    options.registry.on('change', controller.#onChange);
    try {
      const { problems, warnings } = await controller.#enqueue(() => controller.#derive());
      setImmediate(() => {
        controller.#tell(problems);
        controller.#warn(warnings);
      });
      controller.#beginSweeps();
      if (resolved.releaseSuspended) {
        for (const site of controller.#suspended) controller.#releaseLater(site);
      }
    } catch (error) {
      await controller.close();
      throw error;
    }
    return controller;
  }

  /** Resolves when all that the registry has changed so far is derived and told. */
  settled(): Promise<void> {
    return this.#enqueue(async () => {});
  }

  /** Returns a site's view as it is now; undefined for a site that is not there, or is blocked. */
  snapshot(site: string): Snapshot | undefined {
    this.#snapshots.publish();
    return this.#snapshots.get(site);
  }

  /**
   * Gives the host `source` of the site `ingress` a presence of IP version `family` in the site
   * `egress`. When it resolves, the presence is stored and bound; hosts that ask at the same time share
   * one commit. A source that is a presence in the transit realm is the host it stands for.
   *
   * @param family the version of the service that the host uses there, whatever its own
   * @throws {ApiMisuseError} if `source` is not an address.
   * @throws {NotAdmittedError} if the host is no client of such a service there, or a site is blocked.
   * @throws {QuotaExceededError} if the site has as many clients there as it may, or as many addresses as the
   *   shares of other sites and the reserve for services leave to it.
   * @throws {PoolExhaustedError} if the egress site has no address left.
   * @throws {StoreError} if it cannot be stored.
   */
  admit(ingress: string, source: AddressInput, egress: string, family: Family): Promise<void> {
    if (this.#isClosed) return Promise.reject(new ApiMisuseError('the controller is closed'));
    let client: Endpoint;
    try {
      client = this.#clientBehind(ingress, IpAddress.from(source));
    } catch (error) {
      return Promise.reject(error);
    }
    const key = `${egress} IPv${family}|${client.key}`;
    let admission = this.#admissions.get(key);
    if (admission === undefined) {
      admission = new Promise<void>((resolve, reject) => {
        this.#arrivals.push({ client, egress, family, resolve, reject });
        if (this.#arrivals.length === 1) void this.#enqueue(() => this.#admitArrivals());
      }).finally(() => this.#admissions.delete(key));
      this.#admissions.set(key, admission);
    }
    return admission;
  }

  /**
   * Takes a site out of, or back into, the plan: at once, in this call. Its addresses are kept, unless
   * `releaseSuspended` is set. Also for one that there is not yet, or no more.
   */
  suspend(site: string, isSuspended: boolean): void {
    if (this.#suspended.has(site) === isSuspended) return;
    if (isSuspended) this.#suspended.add(site);
    else this.#suspended.delete(site);
    this.#load();
    if (isSuspended && this.#options.releaseSuspended) this.#releaseLater(site);
  }

  /**
   * Ends the leases that the clients of a site have in other sites; their addresses rest, and are anybody's
   * then. Presences of its services stay, for those are what exposures say. A site that is not blocked gets new
   * leases as its clients go on, the same addresses as long as no other site has needed them.
   *
   * @returns how many leases were ended
   * @throws {StoreError} if it cannot be stored; the leases are out of use all the same.
   */
  releaseClients(site: string): Promise<number> {
    if (this.#isClosed) return Promise.reject(new ApiMisuseError('the controller is closed'));
    return this.#enqueue(async () => {
      const released = this.#book.releaseClients(site);
      if (released > 0) await this.#storeEnded();
      return released;
    });
  }

  /**
   * Says whom an address stands for in a site.
   *
   * @throws {ApiMisuseError} if it is not an address.
   */
  whois(site: string, address: AddressInput): Whois | undefined {
    const endpoint = this.#book.holder(site, IpAddress.from(address));
    if (endpoint === undefined) return undefined;
    const services = this.#desired.servicesAt(endpoint);
    return { site: endpoint.realm, address: endpoint.address, services };
  }

  /** Lists the presences in use. */
  presences(): Presence[] {
    return this.#book.presences();
  }

  poolStats(site: string): PoolStatus | undefined {
    return this.#pools.status(site);
  }

  /** The warnings that have been told and are still so. */
  get warnings(): PoolWarning[] {
    return this.#pools.warnings;
  }

  /** Waits for what is under way and follows the registry no more. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#isClosed = true;
    this.#registry.off('change', this.#onChange);
    this.#snapshots.close();
    this.#sweep?.close();
    this.#endRetry?.();
    await this.#work;
    this.#book.noteClock();
    // Without it, the clock of leases goes on from where it was stored last: later, never too early.
    await this.#book.commit().catch(() => {});
  }

  /** Changes that come while others are being derived are derived together. */
  readonly #onChange = (): void => {
    if (this.#isDeriveQueued || this.#isClosed) return;
    this.#isDeriveQueued = true;
    this.#enqueue(async () => {
      this.#isDeriveQueued = false;
      try {
        const { problems, warnings } = await this.#derive();
        this.#tell(problems);
        this.#warn(warnings);
      } catch (error) {
        this.emit('problem', { error: error as Error });
      }
    }).catch(throwToProcess);
  };

  /** One after the other; one that fails does not keep the next from being done. */
  #enqueue<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#work.then(work);
    this.#work = result.catch(() => {});
    return result;
  }

  /**
   * Makes leases fit the desired state, stores them, and only then puts them to use. What is no
   * longer wanted is out of use even if that cannot be stored.
   */
  async #derive(): Promise<Derivation> {
    const { state } = this.#registry;
    if (state !== this.#desired.state) {
      this.#desired = new DesiredIndex(state, this.#transit);
      this.#isStale = true;
    }
    const problems = this.#book.fit(this.#desired);
    try {
      if (await this.#book.commit()) this.#isStale = true;
    } catch (error) {
      this.#load();
      this.#retryLater();
      throw error;
    }
    if (this.#isStale) this.#load();
    if (problems.size > 0) this.#retryLater();
    return { problems, warnings: this.#pools.checkAll(this.#desired) };
  }

  #tell(problems: ReadonlyMap<string, Error>): void {
    const before = this.#problems;
    this.#problems = problems;
    for (const [key, error] of problems) {
      if (!before.has(key)) this.emit('problem', { error });
    }
  }

  #warn(warnings: readonly PoolWarning[]): void {
    for (const warning of warnings) this.emit('warning', warning);
  }

  #beginSweeps(): void {
    const { presenceUses, clientIdleMs, pressedIdleMs, clock } = this.#options;
    if (presenceUses === undefined || this.#isClosed) return;
    this.#sweep = new IdleSweep({
      clock,
      everyMs: Math.min(HOUR_MS, pressedIdleMs / 4),
      ask: presenceUses,
      touch: (uses) =>
        this.#enqueue(async () => {
          this.#book.touch(uses);
          await this.#book.commit();
        }),
      end: () =>
        this.#enqueue(async () => {
          const rules = { idleMs: clientIdleMs, pressedIdleMs, atMost: ENDED_PER_TURN };
          const ended = this.#book.endIdle(rules);
          if (ended > 0) await this.#storeEnded();
          return ended === ENDED_PER_TURN;
        }),
      onError: (error) => this.emit('problem', { error }),
    });
  }

  #releaseLater(site: string): void {
    if (this.#isClosed) return;
    this.releaseClients(site).catch((error: Error) => this.emit('problem', { error }));
  }

  /** Stores that leases were ended; they are out of use even if that fails. */
  async #storeEnded(): Promise<void> {
    try {
      await this.#book.commit();
    } catch (error) {
      this.#retryLater();
      throw error;
    } finally {
      this.#load();
      this.#warn(this.#pools.checkAll(this.#desired));
    }
  }

  #retryLater(): void {
    if (this.#isClosed) return;
    this.#endRetry?.();
    this.#endRetry = this.#options.clock.after(this.#retryMs, this.#onChange, true);
  }

  /** Leases addresses to the clients that have arrived since the last turn, in one commit. */
  async #admitArrivals(): Promise<void> {
    const arrivals = this.#arrivals;
    this.#arrivals = [];
    const admitted: { readonly arrival: Arrival; readonly leased: readonly Leased[] }[] = [];
    for (const arrival of arrivals) {
      try {
        admitted.push({ arrival, leased: this.#leaseTo(arrival) });
      } catch (error) {
        arrival.reject(error);
      }
    }
    try {
      await this.#book.commit();
      // The commit has also stored what an earlier one had not.
      if (this.#isStale) this.#load();
    } catch (error) {
      this.#isStale = true;
      this.#retryLater();
      for (const { arrival } of admitted) arrival.reject(error);
      return;
    }
    for (const { arrival, leased } of admitted) {
      try {
        for (const { realm, of, family } of leased) {
          const address = this.#book.address(realm, presenceKey(of.key, family))!;
          this.#translator.bind({ realm, address, of });
          this.#snapshots.mark(realm);
        }
        arrival.resolve();
      } catch (error) {
        arrival.reject(error);
      }
    }
    this.#warnOf(admitted.flatMap(({ leased }) => leased));
  }

  #warnOf(leased: readonly Leased[]): void {
    for (const { realm, of, family } of leased) {
      const maxClients = this.#desired.sites.get(of.realm)?.maxClients ?? 0;
      this.#warn(this.#pools.check(realm, family, of.realm, maxClients));
    }
  }

  /** Returns what was leased: where it goes, after what is needed on the way. */
  #leaseTo({ client, egress, family }: Arrival): readonly Leased[] {
    const { realm: ingress, address } = client;
    const site = this.#desired.sites.get(ingress);
    const isAdmitted =
      site !== undefined &&
      this.#isLive(ingress) &&
      this.#isLive(egress) &&
      this.#desired.isAdmitted(egress, client, family);
    if (!isAdmitted) {
      throw new NotAdmittedError(
        `${address} of "${ingress}" is no client of an IPv${family} service of "${egress}"`
      );
    }
    const leased = [{ realm: egress, of: client, family }];
    const between = this.#desired.transitFamily(ingress, egress, address.family, family);
    if (between !== undefined)
      leased.unshift({ realm: this.#transit!, of: client, family: between });
    // All or none: nothing is leased on the way to where there is no room.
    for (const each of leased) this.#book.check(each.realm, client, each.family, site.maxClients);
    for (const each of leased) this.#book.admit(each.realm, client, each.family, site.maxClients);
    return leased;
  }

  #clientBehind(realm: string, address: IpAddress): Endpoint {
    const client = realm === this.#transit ? this.#book.holder(realm, address) : undefined;
    return client ?? new Endpoint(realm, address.canonical());
  }

  #isLive(site: string): boolean {
    return this.#desired.sites.has(site) && !this.#suspended.has(site);
  }

  /** Gives the translator the plan, and marks every snapshot for renewal. */
  #load(): void {
    const isLive = (site: string) => this.#isLive(site);
    this.#translator.load(planOf(this.#desired, this.#book.presences(), isLive));
    this.#isStale = this.#book.hasPending;
    this.#snapshots.markAll(this.#desired.sites.keys());
  }

  #viewOf(name: string): SiteView | undefined {
    const site = this.#isLive(name) ? this.#desired.sites.get(name) : undefined;
    const isLive = (realm: string) => this.#isLive(realm);
    return site && viewOf(site, this.#ttlSeconds, this.#desired, this.#book, isLive);
  }
}

interface Derivation {
  readonly problems: ReadonlyMap<string, Error>;
  readonly warnings: readonly PoolWarning[];
}

interface Arrival {
  readonly client: Endpoint;
  readonly egress: string;
  readonly family: Family;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** A presence that a host has got in a realm. */
interface Leased {
  readonly realm: string;
  readonly of: Endpoint;
  readonly family: Family;
}

const HOUR_MS = 3_600_000;
/** Leases that end in one commit; the plan is loaded once for them. */
const ENDED_PER_TURN = 512;
