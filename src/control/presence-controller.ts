/**
 * Derives presences, the translator's plan and every site's snapshot from the desired state.
 * @module
 */
import { EventEmitter } from 'eventemitter3';
import { type AddressInput, type Family, IpAddress } from '../base/address.ts';
import { throwToProcess } from '../base/emitter.ts';
import { Endpoint } from '../base/endpoint.ts';
import { type Slices, slicesOf } from '../base/slices.ts';
import { type AllocatorError, ApiMisuseError } from '../errors.ts';
import type { Touched } from '../registry/index.ts';
import type { Presence } from '../translator/index.ts';
import { Admissions } from './admissions.ts';
import { AllocationRole, type AllocationWork } from './allocation-role.ts';
import { ClientLeases } from './client-leases.ts';
import type { Derivation, PresenceControllerEvents, Whois } from './controller-events.ts';
import {
  type PresenceControllerOptions,
  type ResolvedControllerOptions,
  resolveControllerOptions,
} from './controller-options.ts';
import { DerivationAudit, type DerivationAuditCounters } from './derivation-audit.ts';
import type { DesiredIndex } from './desired-index.ts';
import { IndexChanges } from './index-changes.ts';
import type { LeaseTable } from './lease-table.ts';
import { type OpenedState, openState } from './opened-state.ts';
import { PlanFeed } from './plan-feed.ts';
import { type PoolStatus, type PoolWarning, PoolWatch } from './pool-watch.ts';
import { PresenceLookup } from './presence-lookup.ts';
import { type ControlMeasures, MeasuredState } from './site-measures.ts';
import { type SiteView, viewOf } from './site-view.ts';
import type { Snapshot } from './snapshot.ts';
import { SnapshotPublisher } from './snapshot-publisher.ts';
import { TouchedKeys } from './touched-keys.ts';

/**
 * Derives everything from the desired state; a cloud has one. It processes changes one after the other. A change costs
 * what it touches: presences, permits and snapshots of these keys are derived anew from the present state. The start is
 * the same with all keys. Only stored presences get into the plan, a snapshot or an answer.
 */
export class PresenceController
  extends EventEmitter<PresenceControllerEvents>
  implements AsyncDisposable
{
  /** Numbers for monitoring. */
  readonly measures: ControlMeasures;
  /** Answers questions about single presences. */
  readonly lookup: PresenceLookup;
  readonly #suspended: Set<string>;
  readonly #options: ResolvedControllerOptions;
  #desired!: DesiredIndex;
  #leases!: LeaseTable;
  #pools!: PoolWatch;
  readonly #plan: PlanFeed;
  /** Undefined if this process always allocates. */
  readonly #role: AllocationRole | undefined;
  readonly #clients: ClientLeases;
  readonly #audit: DerivationAudit;
  readonly #snapshots: SnapshotPublisher;
  readonly #slices: Slices;
  /** What the registry has changed and is not derived yet. */
  readonly #touched = new TouchedKeys();
  /** What has changed in the index, until the leases fit it. */
  #changes = new IndexChanges(false);
  /** Whether the next derivation tries again what has failed. */
  #isRetry = false;
  readonly #admissions: Admissions;
  #work: Promise<unknown> = Promise.resolve();
  #isDeriveQueued = false;
  #endRetry: (() => void) | undefined;
  #isClosed = false;
  #closing: Promise<void> | undefined;

  private constructor(
    options: ResolvedControllerOptions,
    opened: OpenedState,
    role: AllocationRole | undefined
  ) {
    super();
    this.#options = options;
    this.#role = role;
    this.#slices = slicesOf(options.clock);
    this.#suspended = new Set(options.suspended);
    this.#plan = new PlanFeed({
      translator: options.translator,
      isLive: (site) => this.#isLive(site),
      onRefused: (error) => {
        this.#enqueue(async () => {
          this.emit('problem', { error });
        }).catch(throwToProcess);
      },
    });
    this.#use(opened);
    const state = () => ({
      desired: this.#desired,
      leases: this.#leases,
      snapshots: this.#snapshots,
      isLive: (site: string) => this.#isLive(site),
    });
    this.lookup = new PresenceLookup(state);
    this.#admissions = new Admissions({
      state,
      slices: this.#slices,
      enqueue: (work) => this.#enqueue(work),
      store: () => this.#storeAndCheck(),
      isDeriving: () => this.#isDeriveQueued,
      ask: role && ((...request) => role.requests.ask(...request)),
      name: options.allocation?.name,
    });
    this.measures = new MeasuredState(state, this.#admissions.counters);
    this.#clients = new ClientLeases({
      ...options,
      role,
      leases: () => this.#leases,
      enqueue: (work) => this.#enqueue(work),
      storeEnded: () => this.#storeAndCheck(),
      onError: (error) => this.emit('problem', { error }),
    });
    this.#snapshots = new SnapshotPublisher({
      ...options,
      viewOf: (site) => this.#viewOf(site),
      onSnapshot: (snapshot) => this.emit('snapshot', snapshot),
    });
    this.#audit = new DerivationAudit({
      ...options,
      source: options.registry,
      transit: options.transit,
      state,
      isKnown: role && ((entry) => role.hasTaken(entry)),
      isQuiet: () => this.#touched.isEmpty && this.#changes.isEmpty && this.#plan.isLoaded,
      settled: () => this.settled(),
      repair: () => this.#enqueue(() => this.#reopen(true)),
      onProblem: (error) => this.emit('problem', { error }),
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
    const role = AllocationRole.of(resolved);
    const opened = await openState(resolved, role).catch((error: unknown) => {
      role?.close();
      throw error;
    });
    const controller = new PresenceController(resolved, opened, role);
    // The listener comes first, so that no change is missed while the leases are being stored.
    options.registry.on('change', controller.#onChange);
    try {
      const derivation = await controller.#enqueue(() => controller.#deriveAll(opened));
      setImmediate(() => controller.#report(derivation));
      await role?.start(controller.#roleWork());
      controller.#clients.beginSweeps();
      if (resolved.releaseSuspended) controller.#clients.releaseLater(controller.#suspended);
    } catch (error) {
      await controller.close();
      throw error;
    }
    return controller;
  }

  /** Resolves when all changes of the registry are in force, and all leases, that the watches have shown so far. */
  async settled(): Promise<void> {
    do await this.#enqueue(async () => {});
    while (this.#isDeriveQueued && !this.#isClosed);
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
   * @throws {AllocatorUnavailableError} if another process allocates, and does not answer.
   */
  admit(ingress: string, source: AddressInput, egress: string, family: Family): Promise<void> {
    if (this.#isClosed) return Promise.reject(new ApiMisuseError('the controller is closed'));
    let client: Endpoint;
    try {
      client = this.#clientBehind(ingress, IpAddress.from(source));
    } catch (error) {
      return Promise.reject(error);
    }
    return this.#admissions.admit(client, egress, family);
  }

  /**
   * Takes a site out of the plan or back into it, within this call. Its leases are kept, unless `releaseSuspended` is
   * set. The site need not exist.
   */
  suspend(site: string, isSuspended: boolean): void {
    if (this.#suspended.has(site) === isSuspended) return;
    if (isSuspended) this.#suspended.add(site);
    else this.#suspended.delete(site);
    for (const view of this.#plan.noteSite(site)) this.#snapshots.mark(view);
    this.#push();
    if (isSuspended && this.#options.releaseSuspended) this.#clients.releaseLater([site]);
  }

  /**
   * Ends the leases that the clients of a site have in other sites. After the quarantine, any host may get their
   * addresses. Presences of its services stay, because exposures need them. A site that is not suspended gets new leases
   * when its clients send again, with the same addresses unless another site has needed them.
   *
   * @returns how many leases were ended
   * @throws {StoreError} if it cannot be stored; the leases are out of use nevertheless.
   * @throws {AllocatorUnavailableError} if another process allocates, and does not answer.
   */
  releaseClients(site: string): Promise<number> {
    if (this.#isClosed) return Promise.reject(new ApiMisuseError('the controller is closed'));
    return this.#clients.release(site);
  }

  /**
   * Returns the host that an address stands for in a site; undefined if the address is not a presence there.
   *
   * @throws {ApiMisuseError} if it is not an address.
   */
  whois(site: string, address: AddressInput): Whois | undefined {
    return this.lookup.whois(site, IpAddress.from(address));
  }

  /** Returns the presences in use in a realm, or in all of them. */
  presences(realm?: string): Presence[] {
    return this.#leases.presences(realm);
  }

  poolStats(site: string): PoolStatus | undefined {
    return this.#pools.status(site);
  }

  /** The warnings that were given and whose reasons are not gone. */
  get warnings(): PoolWarning[] {
    return this.#pools.warnings;
  }

  /** Returns the counters of the audit, which compares what is in force with the records and the stored leases. */
  get audited(): DerivationAuditCounters {
    return this.#audit.counters;
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
    this.#options.registry.off('change', this.#onChange);
    this.#snapshots.close();
    this.#clients.close();
    this.#audit.close();
    this.#role?.close();
    this.#endRetry?.();
    await this.#work;
    this.#leases.noteClock();
    // If this fails, the lease clock continues from its last stored time, so that nothing ends too early.
    await this.#leases.commit().catch(() => {});
  }

  readonly #onChange = (touched: Touched): void => {
    this.#touched.add(touched);
    this.#deriveLater();
  };

  readonly #onRetry = (): void => {
    this.#endRetry = undefined;
    this.#isRetry = true;
    this.#deriveLater();
  };

  /** Changes that come while an earlier one is processed are processed together, many of them in several turns. */
  #deriveLater(): void {
    if (this.#isDeriveQueued || this.#isClosed) return;
    this.#isDeriveQueued = true;
    this.#enqueue(async () => {
      this.#isDeriveQueued = false;
      try {
        this.#report(await this.#derive());
      } catch (error) {
        this.emit('problem', { error: error as Error });
        this.#retryLater();
        return;
      }
      if (this.#isDeriveQueued || this.#touched.isEmpty) return;
      // Packets and clients come in between.
      this.#deriveLater();
      await this.#slices.next();
    }).catch(throwToProcess);
  }

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
    // If this throws, what is touched stays so, and what has changed in the index is taken the next time.
    const changes = this.#changes;
    await this.#desired.updateSome(this.#touched, changes, this.#slices);
    // A site may be suspended between two slices, and its plan then refers to what is desired.
    this.#plan.noteDesired(changes);
    return this.#putToUse(changes, await this.#fit(this.#leases, changes));
  }

  /** Derives everything. What is in force stays so until then. */
  async #deriveAll(opened: OpenedState): Promise<Derivation> {
    const changes = new IndexChanges(true);
    opened.desired.updateAll(changes);
    const problems = await this.#fit(opened.leases, changes);
    this.#use(opened);
    return this.#putToUse(changes, problems);
  }

  async #putToUse(changes: IndexChanges, problems: AllocatorError[]): Promise<Derivation> {
    this.#changes = new IndexChanges(false);
    this.#isRetry = false;
    this.#markViews(changes);
    await this.#store();
    if (this.#leases.isWaiting) this.#retryLater();
    return { problems, warnings: this.#pools.check() };
  }

  /** Fits the leases in slices. */
  async #fit(leases: LeaseTable, changes: IndexChanges): Promise<AllocatorError[]> {
    const problems: AllocatorError[] = [];
    const steps = leases.fit(changes, this.#isRetry, problems);
    while (!this.#slices.run(steps, LEAST_FITTED)) await this.#slices.next();
    return problems;
  }

  #use({ desired, leases }: OpenedState): void {
    this.#desired = desired;
    this.#leases = leases;
    this.#pools = new PoolWatch(desired, leases);
    this.#plan.use(desired, leases);
  }

  /**
   * Derives everything anew from the registry and the store, as at the start.
   *
   * @param isStored whether what is not stored yet is stored before, and not dropped
   */
  async #reopen(isStored: boolean): Promise<void> {
    if (this.#isClosed) return;
    if (isStored) {
      this.#leases.noteClock();
      await this.#store();
    }
    const opened = await openState(this.#options, this.#role);
    this.#report(await this.#deriveAll(opened));
    this.#snapshots.markAll(this.#desired.sites.keys());
  }

  #roleWork(): AllocationWork {
    return {
      leases: () => this.#leases,
      enqueue: (work) => this.#enqueue(work),
      fitAll: () => this.#fitAll(),
      reopen: () => this.#reopen(false),
      push: () => {
        this.#push();
        this.#report({ warnings: this.#pools.check() });
      },
      store: () => this.#storeAndCheck(),
      admit: (asked, end) => this.#admissions.admitFor(asked, end),
      onError: (error) => this.emit('problem', { error }),
    };
  }

  /** Fits all leases to the desired state that is in force, because this process allocates from now on. */
  async #fitAll(): Promise<void> {
    const changes = new IndexChanges(true);
    for (const name of this.#desired.sites.keys()) changes.sites.add(name);
    const problems = await this.#fit(this.#leases, changes);
    if (this.#options.releaseSuspended) this.#clients.releaseLater(this.#suspended);
    await this.#store();
    if (this.#leases.isWaiting) this.#retryLater();
    this.#report({ problems, warnings: this.#pools.check() });
  }

  #markViews({ views, realms }: IndexChanges): void {
    for (const site of views) this.#snapshots.mark(site);
    if (this.#options.transit === undefined) return;
    // Whether a host has a name as a client in the transit realm depends on the exposures to its site.
    const uses = this.#leases.realm(this.#options.transit)?.uses;
    for (const site of realms.get(this.#options.transit)?.parties ?? []) {
      const isPresent = (uses?.hostCount(site) ?? 0) > 0 || this.#desired.isHome(site);
      if (isPresent) this.#snapshots.mark(this.#options.transit);
    }
  }

  #report({ problems = [], warnings = [] }: Partial<Derivation>): void {
    for (const error of problems) this.emit('problem', { error });
    for (const warning of warnings) this.emit('warning', warning);
  }

  /** Stores changed leases and puts to use what is stored. Those that have ended are out of use even if that fails. */
  async #store(): Promise<void> {
    try {
      await this.#leases.commit();
    } catch (error) {
      if (await this.#role?.isLost(error)) return;
      this.#retryLater();
      throw error;
    } finally {
      this.#push();
    }
  }

  async #storeAndCheck(): Promise<void> {
    try {
      await this.#store();
    } finally {
      this.#report({ warnings: this.#pools.check() });
    }
  }

  #retryLater(): void {
    if (this.#isClosed) return;
    const { clock } = this.#options;
    const inMs = Math.min(this.#options.retryMs, this.#leases.overlapEndsInMs);
    this.#endRetry ??= clock.after(inMs, this.#onRetry, true);
  }

  #clientBehind(realm: string, address: IpAddress): Endpoint {
    const client =
      realm === this.#options.transit ? this.#leases.holder(realm, address) : undefined;
    return client ?? new Endpoint(realm, address.canonical());
  }

  #isLive(site: string): boolean {
    return this.#desired.sites.has(site) && !this.#suspended.has(site);
  }

  /** Gives the translator what has changed, and marks the snapshots of the sites where presences have changed. */
  #push(): void {
    const touched = this.#leases.takeTouched();
    this.#pools.note(touched.pools);
    for (const { realm } of touched.places.values()) this.#snapshots.mark(realm);
    for (const realm of touched.realms) this.#snapshots.mark(realm);
    this.#plan.push(touched);
  }

  #viewOf(name: string): SiteView | undefined {
    const site = this.#isLive(name) ? this.#desired.sites.get(name) : undefined;
    const isLive = (realm: string) => this.#isLive(realm);
    return site && viewOf(site, this.#options.ttlSeconds, this.#desired, this.#leases, isLive);
  }
}

/** How many sites are fitted at once in any case. */
const LEAST_FITTED = 8;
