/**
 * `CloudCluster` makes a cloud gateway one machine of several that share a store: it registers the machine, says whether
 * its controller allocates addresses, claims the sites whose edges connect here, and tells the others what is in effect
 * here.
 *
 * | what happens | what follows here |
 * | --- | --- |
 * | an edge connects | its site is claimed; the workers take it, and then its tunnel comes up with the epoch of the claim |
 * | its last tunnel ends | the site is released: another machine may claim it |
 * | another machine has claimed it | routes, tunnel and plan of the site end here; the edge is told where it is |
 * | the controller has applied changes of leases | `applied/<name>`: addresses that were released may be leased again later |
 * | a revocation is in effect | `confirm/<name>`: the machine that was asked to revoke waits for it |
 * | the store is not reached | the gateway is degraded; what needs no change of the store goes on |
 * | the store was restored | this machine brings back what it knows, and waits for the others (`recalled-state.ts`) |
 * @module
 */
import type { CloseStack } from '../base/close-stack.ts';
import type { HostPort } from '../base/host-port.ts';
import {
  type Claim,
  ClusterAllocation,
  type ConfirmationReport,
  Confirmations,
  type DrainReport,
  drain,
  Election,
  type Holder,
  Horizon,
  type MachineStatus,
  Member,
  type MemberState,
  mayTake,
  type RecallWait,
  SiteClaims,
} from '../cluster/index.ts';
import type { Allocation, PresenceController } from '../control/index.ts';
import { LEASE_PREFIX } from '../control/stored-lease.ts';
import { errorFields } from '../observe/index.ts';
import { REVOCATIONS } from '../pki/revocation-index.ts';
import type { Store } from '../store/index.ts';
import type { Revoker } from '../trust/index.ts';
import {
  type AuthorizeVerdict,
  CloseCode,
  type TunnelEpoch,
  type TunnelRefusal,
} from '../tunnel/index.ts';
import type { WorkerPool } from '../worker/index.ts';
import type { ResolvedCloudOptions, ResolvedClusterOptions } from './cloud-options.ts';
import { RECALLED_STATE } from './recalled-state.ts';

/** What a machine of a cloud tells the rest of its gateway. */
export interface ClusterHooks {
  /** The machine does not reach the store, one sentence; undefined when it does. */
  readonly onFault: (fault: string | undefined) => void;
  readonly onProblem: (error: Error, site?: string) => void;
}

/** A machine of the cloud, with the sites that it holds. */
export interface ClusterMachine extends MachineStatus {
  readonly sites: number;
  /** Whether it allocates addresses for all. */
  readonly isController: boolean;
}

/** The parts that exist when a machine begins to hold sites. */
export interface ClusterParts {
  readonly workers: WorkerPool;
  readonly controller: PresenceController;
}

export class CloudCluster {
  readonly member: Member;
  readonly allocation: Allocation;
  readonly #options: ResolvedClusterOptions & Pick<ResolvedCloudOptions, 'logger'>;
  readonly #hooks: ClusterHooks;
  readonly #closing: CloseStack;
  readonly #election: Election;
  readonly #confirmations: Confirmations;
  /** How many tunnels each site has here. */
  readonly #tunnels = new Map<string, number>();
  #claims: SiteClaims | undefined;
  /** Ends the hand-overs of a drain. */
  #draining = new AbortController();
  /** The version of the last change of a revocation. */
  #revoked = 0;
  /** Settles when the changes of leases so far are applied and told. */
  #applying: Promise<void> | undefined;
  #isAppliedAgain = false;
  #cancelApply = (): void => {};

  private constructor(
    options: ResolvedClusterOptions & Pick<ResolvedCloudOptions, 'logger'>,
    hooks: ClusterHooks,
    closing: CloseStack,
    parts: {
      readonly member: Member;
      readonly election: Election;
      readonly horizon: Horizon;
      readonly confirmations: Confirmations;
    }
  ) {
    this.#options = options;
    this.#hooks = hooks;
    this.#closing = closing;
    this.member = parts.member;
    this.#election = parts.election;
    this.#confirmations = parts.confirmations;
    this.allocation = new ClusterAllocation(parts.member, parts.election, parts.horizon);
  }

  /**
   * Registers this machine, and stands for election. All that is opened is added to `closing`. If the store was restored
   * from a backup, this waits for other machines.
   *
   * @throws {ConflictError} if another process is this machine, or the store has the data of another cloud.
   * @throws {StoreError} if the store does not answer.
   * @throws the reason of `options.signal`, if that is aborted meanwhile.
   */
  static async join(
    options: ResolvedClusterOptions &
      Pick<ResolvedCloudOptions, 'logger' | 'clock' | 'ttlSeconds' | 'trustDomain' | 'signal'>,
    hooks: ClusterHooks,
    closing: CloseStack
  ): Promise<CloudCluster> {
    const { store, machine, ttlMs, maxDetachedMs, clock, ttlSeconds, trustDomain, signal } =
      options;
    const member = await Member.join({
      store,
      machine,
      endpoints: [],
      ttlMs,
      maxDetachedMs,
      cloud: trustDomain,
      dnsTtlMs: ttlSeconds * 1000,
      recalled: RECALLED_STATE,
      onRecall: waitReporter(options, hooks),
      signal,
      clock,
    });
    hooks.onFault(undefined);
    closing.add(() => member.close());
    const horizon = await Horizon.open(member, ttlSeconds * 1000);
    closing.add(async () => horizon.close());
    const confirmations = await Confirmations.open(member);
    closing.add(() => confirmations.close());
    const election = await Election.open(member);
    closing.add(() => election.close());
    const cluster = new CloudCluster(options, hooks, closing, {
      member,
      election,
      horizon,
      confirmations,
    });
    cluster.#follow();
    return cluster;
  }

  /** What the gateway stores goes through this: it is guarded by the life of this machine. */
  get store(): Store {
    return this.member.store;
  }

  /** The machines of the cloud, in the order of their names. */
  get machines(): readonly ClusterMachine[] {
    const { controller } = this.#election;
    return this.member.machines.list().map((machine) => ({
      ...machine,
      sites: this.#claims?.sitesOf(machine.name).length ?? 0,
      isController: machine.name === controller,
    }));
  }

  /** The names of the other machines that are alive. */
  get others(): readonly string[] {
    const live = this.member.machines.list().filter(({ isLive }) => isLive);
    return live.flatMap(({ name }) => (name === this.member.name ? [] : [name]));
  }

  /** Whether this machine allocates addresses for all. */
  get isController(): boolean {
    return this.allocation.guards !== undefined;
  }

  /** How many sites are here. */
  get heldSites(): number {
    return this.#claims?.held.size ?? 0;
  }

  /** Returns who holds a site, as this machine sees it; undefined if nobody does. */
  holderOf(site: string): Holder | undefined {
    return this.#claims?.holderOf(site);
  }

  /** Begins to claim sites. Must be called before the workers open. */
  async open({ workers, controller }: ClusterParts): Promise<void> {
    const claims = await SiteClaims.open({ member: this.member, liveness: workers });
    this.#closing.add(() => claims.close());
    this.#claims = claims;
    claims.on('held', ({ site, epoch }) => {
      this.#tried(workers.take(site, epoch.number), site);
    });
    claims.on('lost', ({ site, endpoints }) => {
      const close =
        endpoints.length === 0
          ? {
              code: CloseCode.Shutdown,
              reason: `${this.member.name} does not hold ${site} any more`,
            }
          : { code: CloseCode.Moved, reason: `another machine holds ${site}`, endpoints };
      this.#tried(workers.giveUp(site, close), site);
    });
    claims.on('problem', ({ error, site }) => this.#siteFailed(error, site));
    workers.on('tunnel', (tunnel) => {
      const { site } = tunnel;
      if (!claims.held.has(site)) {
        // It was lost while the tunnel came up.
        tunnel.close(CloseCode.Busy, `this machine does not hold ${site} any more`);
        return;
      }
      this.#tunnels.set(site, (this.#tunnels.get(site) ?? 0) + 1);
      tunnel.on('down', () => {
        const left = this.#tunnels.get(site)! - 1;
        if (left > 0) this.#tunnels.set(site, left);
        else {
          this.#tunnels.delete(site);
          claims.release(site);
        }
      });
    });
    const apply = (): void => this.#apply({ workers, controller });
    const unwatch = this.member.leasing.watch(LEASE_PREFIX, apply);
    this.#closing.add(async () => {
      unwatch();
      this.#cancelApply();
      this.#draining.abort();
    });
    apply();
  }

  /** Tells the others where edges reach this machine. */
  setEndpoints(listening: readonly HostPort[]): Promise<void> {
    const { endpoints = listening } = this.#options;
    const actualPort = listening[0]!.port;
    return this.member.setEndpoints(
      endpoints.map(({ host, port }) => ({ host, port: port || actualPort }))
    );
  }

  /** Decides about an edge that connects here, which may be that of a site that another machine holds. */
  async authorize(
    site: string,
    lastEpoch: TunnelEpoch | undefined,
    workers: WorkerPool
  ): Promise<AuthorizeVerdict> {
    const claim: Claim = await this.#claims!.claim(site, lastEpoch);
    if (claim.kind === 'moved') return { moved: claim.endpoints };
    if (claim.kind === 'busy') return busy(site, claim.retryAfterMs);
    const { epoch } = claim;
    await workers.take(site, epoch.number);
    // It may have been lost meanwhile.
    if (this.#claims!.held.get(site)?.epoch.number !== epoch.number) return busy(site, RETRY_MS);
    return { epoch, endpoints: this.#endpoints() };
  }

  /** Tells the others which revocations are in effect here. Those of now are. */
  followRevocations(revoker: Revoker): void {
    const { leasing } = this.member;
    this.#revoked = leasing.version;
    this.#confirmations.confirm(leasing.version);
    // The revoker follows the same watch, and was there before.
    const unwatch = leasing.watch(REVOCATIONS, (changes) => {
      // After an outage of the store, one call tells of several commits.
      const version = Math.max(this.#revoked, ...changes.map((change) => change.version));
      this.#revoked = version;
      revoker.settled().then(
        () => this.#confirmations.confirm(version),
        // The revoker reports it, and the machine that was asked to revoke reports that this one has not confirmed.
        () => {}
      );
    });
    this.#closing.add(async () => unwatch());
  }

  /** Waits until the machines that are alive have put all revocations that are stored now into effect. */
  revocationsConfirmed(): Promise<ConfirmationReport> {
    return this.#confirmations.settled(this.#revoked);
  }

  /** Hands all sites of this machine over to the others, and takes none until `resume`. */
  async drain(): Promise<DrainReport> {
    const { signal } = this.#draining;
    const report = await drain(this.member, this.#claims!, { signal });
    const others = this.member.machines.list().filter(({ name }) => name !== this.member.name);
    const isLast = !others.some(mayTake);
    // Somebody has to allocate addresses.
    if (!signal.aborted && !isLast) await this.#election.resign();
    return report;
  }

  /** Takes sites again. A drain that is in progress hands over no more. */
  resume(): Promise<void> {
    this.#draining.abort();
    this.#draining = new AbortController();
    return this.member.setDraining(false);
  }

  /** Hands a site of this machine over to another one. */
  move(site: string, machine: string): Promise<void> {
    return this.#claims!.handOver(site, machine);
  }

  /** Removes a machine from the cloud, on the operator's word that it is off. */
  remove(machine: string): Promise<void> {
    return this.member.remove(machine);
  }

  #follow(): void {
    const { member } = this;
    const { logger } = this.#options;
    member.on('state', ({ state }) => {
      if (state === 'closed') return;
      const text = `${member.name} ${STATE_TEXTS[state]}`;
      tellState(this.#options, this.#hooks, state, text);
    });
    member.on('problem', ({ error }) => this.#failed(error));
    this.#election.on('problem', ({ error }) => this.#failed(error));
    this.#election.on('change', ({ controller, epoch }) => {
      const text = controller === undefined ? 'no machine' : controller;
      logger.info({ event: 'controller_elected', epoch }, `${text} allocates addresses`);
    });
    this.#confirmations.on('problem', ({ error }) => this.#failed(error));
  }

  /** Tells the others what is applied here, when it is. */
  #apply(parts: ClusterParts): void {
    if (this.#applying !== undefined) {
      this.#isAppliedAgain = true;
      return;
    }
    const { version } = this.member.leasing;
    this.#applying = parts.controller
      .settled()
      .then(() => parts.workers.settled())
      .then(() => {
        // A process that hangs has not applied anything.
        if (parts.workers.fault() === undefined) this.member.setApplied(version);
        else this.#applyLater(parts);
      })
      .catch((error: Error) => this.#failed(error))
      .finally(() => {
        this.#applying = undefined;
        if (!this.#isAppliedAgain || this.#closing.isClosed) return;
        this.#isAppliedAgain = false;
        this.#apply(parts);
      });
  }

  #applyLater(parts: ClusterParts): void {
    this.#cancelApply();
    this.#cancelApply = this.member.clock.after(APPLY_RETRY_MS, () => this.#apply(parts), true);
  }

  /** Where edges reach the machines that are alive: the first endpoints of all, then the second ones. */
  #endpoints(): readonly HostPort[] {
    const lists = this.member.machines
      .list()
      .filter(mayTake)
      .map(({ endpoints }) => endpoints);
    const longest = Math.max(0, ...lists.map(({ length }) => length));
    const inTurns = Array.from({ length: longest }, (_, at) =>
      lists.flatMap((endpoints) => endpoints[at] ?? [])
    );
    return inTurns.flat().slice(0, MAX_ENDPOINTS);
  }

  #tried(work: Promise<void>, site: string): void {
    work.catch((error: Error) => this.#siteFailed(error, site));
  }

  #failed(error: Error): void {
    if (this.#closing.isClosed) return;
    const { name } = this.member;
    const fields = { event: 'machine_failed', machine: name, ...errorFields(error) } as const;
    this.#options.logger.warn(fields, `${name}: ${error.message}`);
    this.#hooks.onProblem(error);
  }

  #siteFailed(error: Error, site: string): void {
    if (this.#closing.isClosed) return;
    const fields = { event: 'site_claim_failed', site, ...errorFields(error) } as const;
    this.#options.logger.warn(fields, `${site}: ${error.message}`);
    this.#hooks.onProblem(error, site);
  }
}

/** Returns a function that says what a restored store waits for. */
function waitReporter(
  options: ResolvedClusterOptions & Pick<ResolvedCloudOptions, 'logger'>,
  hooks: ClusterHooks
): (wait: RecallWait) => void {
  const { machine } = options;
  return ({ machines, leftMs }) => {
    const left = Number.isFinite(leftMs)
      ? `at most ${Math.ceil(leftMs / 1000)} s`
      : 'without an end';
    const what =
      machines.length === 0
        ? 'until cached names have expired'
        : `for ${machines.join(', ')}: start it, or remove it if it is off`;
    const text = `the store was restored from a backup: ${machine} waits ${left} ${what}`;
    tellState(options, hooks, 'restoring', text);
  };
}

/** Logs the state of this machine, and says whether it is a fault of the gateway. */
function tellState(
  { machine, logger }: ResolvedClusterOptions & Pick<ResolvedCloudOptions, 'logger'>,
  hooks: ClusterHooks,
  state: MemberState | 'restoring',
  text: string
): void {
  logger.warn({ event: 'machine_state', machine, state }, text);
  hooks.onFault(state === 'attached' ? undefined : text);
}

/** Refuses an edge for a moment. */
function busy(site: string, retryAfterMs: number): TunnelRefusal {
  const reason = `it is not decided which machine holds ${site}`;
  return { code: CloseCode.Busy, reason, retryAfterMs };
}

const RETRY_MS = 500;
const STATE_TEXTS = {
  attached: 'reaches the store again',
  detached: 'does not reach the store: tunnels go on, and nothing can be changed',
  removed:
    'was removed from the cloud, and ends its tunnels: start its gateway again to have it back',
} as const;
/** How soon it is looked again whether a process hangs. */
const APPLY_RETRY_MS = 1000;
/** How many endpoints a WELCOME names at most. */
const MAX_ENDPOINTS = 16;
