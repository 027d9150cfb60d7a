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
   * An address could not be leased, or a commit has failed; the rest of the state is in force nevertheless. A full
   * pool is reported once, until it had room again. A problem at the start is reported in the next turn of the event
   * loop.
   */
  problem: [problem: { readonly error: Error }];
  /**
   * Addresses get scarce, or quotas exceed a pool. Each warning is given once, until its reason is gone. A warning at
   * the start is given in the next turn of the event loop.
   */
  warning: [warning: PoolWarning];
}

/** The host that a presence stands for. */
export interface Whois {
  readonly site: string;
  readonly address: IpAddress;
  /** The names of the services that the host offers. */
  readonly services: readonly string[];
}

/** A host was refused a presence because it is not a client of any service there. */
export class NotAdmittedError extends PresenceError {
  constructor(message: string) {
    super('ERR_PRESENCE_NOT_ADMITTED', message);
  }
}

/**
 * Derives everything from the desired state; a cloud has one. It processes changes one after the other, and derives the
 * whole again at each change, except that it adds a new client alone. Only stored presences get into the plan, a
 * snapshot or an answer.
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
  readonly #leases: LeaseTable;
  readonly #pools: PoolWatch;
  #sweep: IdleSweep | undefined;
  readonly #snapshots: SnapshotPublisher;
  #desired: DesiredIndex;
  /** Whether the plan in force differs from `#desired` and `#leases`, or will when everything is stored. */
  #isStale = true;
  readonly #admissions = new Map<string, Promise<void>>();
  #arrivals: Arrival[] = [];
  #problems: ReadonlyMap<string, Error> = new Map();
  #work: Promise<unknown> = Promise.resolve();
  #isDeriveQueued = false;
  #endRetry: (() => void) | undefined;
  #isClosed = false;
  #closing: Promise<void> | undefined;

  private constructor(options: ResolvedControllerOptions, leases: LeaseTable) {
    super();
    this.#options = options;
    this.#registry = options.registry;
    this.#translator = options.translator;
    this.#transit = options.transit;
    this.#ttlSeconds = options.ttlSeconds;
    this.#retryMs = options.retryMs;
    this.#suspended = new Set(options.suspended);
    this.#leases = leases;
    this.#pools = new PoolWatch(leases);
    this.#desired = new DesiredIndex({ sites: [], services: [], exposures: [] }, this.#transit);
    this.#snapshots = new SnapshotPublisher({
      ...options,
      viewOf: (site) => this.#viewOf(site),
      onSnapshot: (snapshot) => this.emit('snapshot', snapshot),
    });
  }

  /**
   * Reads the leases and derives everything once, and then follows the registry.
   *
   * @throws {ApiMisuseError} naming the option that is wrong; then nothing was read or written.
   * @throws {StoreError} if the store cannot be read or written, or an entry is not a lease.
   */
  static async start(options: PresenceControllerOptions): Promise<PresenceController> {
    const resolved = resolveControllerOptions(options);
    const leases = await LeaseTable.open({ ...resolved, storeUseMs: resolved.pressedIdleMs });
    const controller = new PresenceController(resolved, leases);
    // The listener comes first, so that no change is missed while the leases are being stored.
    options.registry.on('change', controller.#onChange);
    try {
      const { problems, warnings } = await controller.#enqueue(() => controller.#derive());
      setImmediate(() => {
        controller.#reportNew(problems);
        controller.#emitWarnings(warnings);
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

  /** Resolves when all changes of the registry so far are in force. */
  settled(): Promise<void> {
    return this.#enqueue(async () => {});
  }

  /** Returns a site's current snapshot; undefined for a site that does not exist or is suspended. */
  snapshot(site: string): Snapshot | undefined {
    return this.#snapshots.snapshot(site);
  }

  /**
   * Gives the host `source` of the site `ingress` a presence of IP version `family` in the site `egress`. When it
   * resolves, the presence is stored and bound. Calls at the same time share one commit. If the source is a presence in
   * the transit realm, the host that it stands for gets the presence.
   *
   * @param family the version of the service that the host uses there, which need not be the host's own
   * @throws {ApiMisuseError} if `source` is not an address, or the controller is closed.
   * @throws {NotAdmittedError} if the host is not a client of such a service there, or a site is suspended.
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
   * Takes a site out of the plan or back into it, within this call. Its leases are kept, unless `releaseSuspended` is
   * set. The site need not exist.
   */
  suspend(site: string, isSuspended: boolean): void {
    if (this.#suspended.has(site) === isSuspended) return;
    if (isSuspended) this.#suspended.add(site);
    else this.#suspended.delete(site);
    this.#load();
    if (isSuspended && this.#options.releaseSuspended) this.#releaseLater(site);
  }

  /**
   * Ends the leases that the clients of a site have in other sites. After the quarantine, any host may get their
   * addresses. Presences of its services stay, because exposures need them. A site that is not suspended gets new leases
   * when its clients send again, with the same addresses unless another site has needed them.
   *
   * @returns how many leases were ended
   * @throws {StoreError} if it cannot be stored; the leases are out of use nevertheless.
   */
  releaseClients(site: string): Promise<number> {
    if (this.#isClosed) return Promise.reject(new ApiMisuseError('the controller is closed'));
    return this.#enqueue(async () => {
      const released = this.#leases.releaseClients(site);
      if (released > 0) await this.#storeEnded();
      return released;
    });
  }

  /**
   * Returns the host that an address stands for in a site; undefined if the address is not a presence there.
   *
   * @throws {ApiMisuseError} if it is not an address.
   */
  whois(site: string, address: AddressInput): Whois | undefined {
    const endpoint = this.#leases.holder(site, IpAddress.from(address));
    if (endpoint === undefined) return undefined;
    const services = this.#desired.servicesAt(endpoint);
    return { site: endpoint.realm, address: endpoint.address, services };
  }

  /** Returns the presences in use. */
  presences(): Presence[] {
    return this.#leases.presences();
  }

  poolStats(site: string): PoolStatus | undefined {
    return this.#pools.status(site);
  }

  /** The warnings that were given and whose reasons are not gone. */
  get warnings(): PoolWarning[] {
    return this.#pools.warnings;
  }

  /** Stops following the registry, and waits for the work under way. */
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
    this.#leases.noteClock();
    // If this fails, the lease clock continues from its last stored time, so that nothing ends too early.
    await this.#leases.commit().catch(() => {});
  }

  /** Changes that come while an earlier one is processed are processed together. */
  readonly #onChange = (): void => {
    if (this.#isDeriveQueued || this.#isClosed) return;
    this.#isDeriveQueued = true;
    this.#enqueue(async () => {
      this.#isDeriveQueued = false;
      try {
        const { problems, warnings } = await this.#derive();
        this.#reportNew(problems);
        this.#emitWarnings(warnings);
      } catch (error) {
        this.emit('problem', { error: error as Error });
      }
    }).catch(throwToProcess);
  };

  /** Runs work after all earlier work, even if that has failed. */
  #enqueue<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#work.then(work);
    this.#work = result.catch(() => {});
    return result;
  }

  /**
   * Adapts the leases to the desired state, stores them, and only then uses them. A lease that is not needed any more is
   * out of use even if that cannot be stored.
   */
  async #derive(): Promise<Derivation> {
    const { state } = this.#registry;
    if (state !== this.#desired.state) {
      this.#desired = new DesiredIndex(state, this.#transit);
      this.#isStale = true;
    }
    const problems = this.#leases.fit(this.#desired);
    try {
      if (await this.#leases.commit()) this.#isStale = true;
    } catch (error) {
      this.#load();
      this.#retryLater();
      throw error;
    }
    if (this.#isStale) this.#load();
    if (problems.size > 0) this.#retryLater();
    return { problems, warnings: this.#pools.checkAll(this.#desired) };
  }

  #reportNew(problems: ReadonlyMap<string, Error>): void {
    const before = this.#problems;
    this.#problems = problems;
    for (const [key, error] of problems) {
      if (!before.has(key)) this.emit('problem', { error });
    }
  }

  #emitWarnings(warnings: readonly PoolWarning[]): void {
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
          this.#leases.touch(uses);
          await this.#leases.commit();
        }),
      end: () =>
        this.#enqueue(async () => {
          const rules = { idleMs: clientIdleMs, pressedIdleMs, atMost: ENDED_PER_TURN };
          const ended = this.#leases.endIdle(rules);
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

  /** Stores that leases were ended. They are out of use even if that fails. */
  async #storeEnded(): Promise<void> {
    try {
      await this.#leases.commit();
    } catch (error) {
      this.#retryLater();
      throw error;
    } finally {
      this.#load();
      this.#emitWarnings(this.#pools.checkAll(this.#desired));
    }
  }

  #retryLater(): void {
    if (this.#isClosed) return;
    this.#endRetry?.();
    this.#endRetry = this.#options.clock.after(this.#retryMs, this.#onChange, true);
  }

  /** Leases addresses to the clients that were to be admitted since the last call, in one commit. */
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
      await this.#leases.commit();
      // The commit has also stored the changes of an earlier one that had failed.
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
          const address = this.#leases.address(realm, presenceKey(of.key, family))!;
          this.#translator.bind({ realm, address, of });
          this.#snapshots.mark(realm);
        }
        arrival.resolve();
      } catch (error) {
        arrival.reject(error);
      }
    }
    this.#checkPools(admitted.flatMap(({ leased }) => leased));
  }

  #checkPools(leased: readonly Leased[]): void {
    for (const { realm, of, family } of leased) {
      const maxClients = this.#desired.sites.get(of.realm)?.maxClients ?? 0;
      this.#emitWarnings(this.#pools.check(realm, family, of.realm, maxClients));
    }
  }

  /** Leases what a client needs. Returns the presence in the egress site, after the one in the transit realm. */
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
    // All are checked first: nothing is leased in the transit realm if the egress site has no address.
    for (const each of leased) this.#leases.check(each.realm, client, each.family, site.maxClients);
    for (const each of leased) this.#leases.admit(each.realm, client, each.family, site.maxClients);
    return leased;
  }

  #clientBehind(realm: string, address: IpAddress): Endpoint {
    const client = realm === this.#transit ? this.#leases.holder(realm, address) : undefined;
    return client ?? new Endpoint(realm, address.canonical());
  }

  #isLive(site: string): boolean {
    return this.#desired.sites.has(site) && !this.#suspended.has(site);
  }

  /** Loads the plan into the translator, and marks every snapshot for renewal. */
  #load(): void {
    const isLive = (site: string) => this.#isLive(site);
    this.#translator.load(planOf(this.#desired, this.#leases.presences(), isLive));
    this.#isStale = this.#leases.hasPending;
    this.#snapshots.markAll(this.#desired.sites.keys());
  }

  #viewOf(name: string): SiteView | undefined {
    const site = this.#isLive(name) ? this.#desired.sites.get(name) : undefined;
    const isLive = (realm: string) => this.#isLive(realm);
    return site && viewOf(site, this.#ttlSeconds, this.#desired, this.#leases, isLive);
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

/** A presence that a host has in a realm now. */
interface Leased {
  readonly realm: string;
  readonly of: Endpoint;
  readonly family: Family;
}

const HOUR_MS = 3_600_000;
/** How many leases end in one commit; the plan is loaded once for them. */
const ENDED_PER_TURN = 512;
