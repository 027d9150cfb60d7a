/**
 * Opens the parts of a cloud gateway and connects them. In this order each part finds what it needs, and no port is
 * open before the gateway knows which sites to admit:
 *
 * 1. this machine among several, if there are; the state (store, secrets), the audit log and the desired state
 * 2. the CA
 * 3. presences, and the names of the cloud's own site
 * 4. the workers: devices, tunnel ports
 * 5. the enrolment port
 * @module
 */
import { join } from 'node:path';
import { AuditTrail } from '../audit/index.ts';
import type { Clock } from '../base/clock.ts';
import type { CloseStack } from '../base/close-stack.ts';
import type { HostPort } from '../base/host-port.ts';
import { ControlServer, PresenceController, type Snapshot } from '../control/index.ts';
import { isPacketDevice } from '../device/index.ts';
import { DnsServer } from '../dns/index.ts';
import { ConfigError, ConflictError } from '../errors.ts';
import { errorFields, type LogEvent, type MetricsServer } from '../observe/index.ts';
import { type CertificateAuthority, EnrolmentServer } from '../pki/index.ts';
import { CLOUD, Registry } from '../registry/index.ts';
import type { Store } from '../store/index.ts';
import { Revoker } from '../trust/index.ts';
import { CloseCode } from '../tunnel/index.ts';
import type { WorkerPool } from '../worker/index.ts';
import { AuthorityKeeper } from './authority-keeper.ts';
import { CloudCluster } from './cloud-cluster.ts';
import { deviceOf, GivenDevice, stackOr } from './cloud-device.ts';
import { CloudNames } from './cloud-names.ts';
import { MAX_ENROLMENT_TUNNELS, type ResolvedCloudOptions } from './cloud-options.ts';
import { CloudPools } from './cloud-pools.ts';
import { CloudSockets } from './cloud-sockets.ts';
import { createPool } from './cloud-workers.ts';
import { type EdgeChange, EdgeTunnels } from './edge-tunnels.ts';
import type { MeasuredStore } from './measured-store.ts';
import { type GatewayState, openSharedState, openState } from './state.ts';

export interface CloudParts {
  /** Undefined if this gateway is the only one of its cloud. */
  readonly cluster: CloudCluster | undefined;
  readonly store: MeasuredStore;
  /** Undefined without the option `metrics`. */
  readonly metrics: MetricsServer | undefined;
  readonly registry: Registry;
  readonly controller: PresenceController;
  readonly trust: AuthorityKeeper;
  readonly workers: WorkerPool;
  readonly pools: CloudPools;
  /** Resolves when the present pools of the cloud's site are routed to its devices, or the attempt has failed. */
  readonly routed: () => Promise<void>;
  readonly control: ControlServer;
  readonly tunnels: EdgeTunnels;
  readonly enrolment: EnrolmentServer;
  readonly enrolmentAddress: () => HostPort;
  readonly revoker: Revoker;
  /** Undefined without a state directory. */
  readonly audit: AuditTrail | undefined;
  readonly names: CloudNames;
  /** Undefined without the option `dns`. */
  readonly dns: DnsServer | undefined;
  readonly sockets: CloudSockets;
}

/** How the parts report to the gateway. */
export interface CloudHooks {
  readonly onEdge: (change: EdgeChange) => void;
  readonly onProblem: (error: Error, site?: string) => void;
  /** A fault of the subject `ca`, `workers` or `cluster`, one sentence; undefined when it is over. */
  readonly onFault: (subject: string, fault: string | undefined) => void;
}

/** What every step of opening needs. */
interface Opening {
  readonly options: ResolvedCloudOptions;
  readonly closing: CloseStack;
  readonly hooks: CloudHooks;
  /** Returns a function that logs an error of a part, and reports it to the host program. */
  readonly reporter: (part: string, event: LogEvent) => (error: Error) => void;
}

/**
 * Opens all parts, and adds each to `closing`, which the caller closes also if this rejects.
 *
 * @throws {PresenceError} as `CloudGateway.start` says.
 */
export async function openCloudParts(
  options: ResolvedCloudOptions,
  closing: CloseStack,
  hooks: CloudHooks
): Promise<Omit<CloudParts, 'metrics'>> {
  const { logger, clock, signal } = options;
  const device = stackOr(options.device, clock);
  const given = isPacketDevice(device) ? new GivenDevice(device) : undefined;
  if (given !== undefined) closing.add(() => given.close());
  const reporter: Opening['reporter'] = (part, event) => (error) => {
    logger.warn({ event, ...errorFields(error) }, `${part}: ${error.message}`);
    hooks.onProblem(error);
  };
  const opening: Opening = { options, closing, hooks, reporter };

  signal?.throwIfAborted();
  const cluster = await joinCluster(opening);
  const { store, secrets } =
    cluster === undefined
      ? await openState(options, closing)
      : await openSharedState(cluster.store, { ...options, passphrase: options.trust.passphrase });
  const { registry, audit } = await openRegistry(opening, store);
  const stack = isPacketDevice(device) ? device : undefined;
  const sockets = new CloudSockets(stack, options.device, registry);
  closing.add(() => sockets.finish());

  signal?.throwIfAborted();
  const trust = await openAuthority(opening, { store, secrets, audit });
  const { authority } = trust;
  const { revocations } = authority;

  signal?.throwIfAborted();
  const enrolment = createEnrolment(opening, authority, audit, () => workers);
  const workers = createPool(options, {
    device: isPacketDevice(device) ? async () => given!.take() : deviceOf(device, logger, registry),
    registry,
    trust,
    enrolment,
    admit: (...client) => controller.admit(...client),
    cluster,
    onProblem: hooks.onProblem,
  });
  const pools = new CloudPools(options, registry, workers);
  let routing = Promise.resolve();
  let cancelRetry = (): void => {};
  closing.add(() => cancelRetry());
  const routePools = (): void => {
    cancelRetry();
    routing = routing
      .then(() => pools.follow())
      .catch((error: Error) => {
        reporter('device', 'pool_routes_failed')(error);
        if (!closing.isClosed) cancelRetry = clock.after(ROUTE_RETRY_MS, routePools, true);
      });
  };
  const { ttlSeconds } = options;
  const isTransit = workers.transit !== undefined;
  const onError = reporter('names', 'names_failed');
  const names = new CloudNames({ registry, ttlSeconds, isTransit, clock, onError });
  const controller = await PresenceController.start({
    registry,
    store,
    clock,
    translator: sockets.before(names.after(pools.after(workers, routePools))),
    transit: workers.transit,
    allocation: cluster?.allocation,
    // A stack of sockets takes its site whole.
    ownSite: sockets.hasStack ? undefined : CLOUD,
    ttlSeconds,
    presenceUses: () => workers.presenceUses(),
    ...leaseOptions(options),
    suspended: revocations.table.sites,
  });
  closing.add(() => controller.close());
  controller.on('problem', ({ error }) => reporter('presence', 'presence_failed')(error));
  controller.on('warning', ({ message, realm, site = realm }) =>
    logger.warn({ event: 'pool_warning', site }, `addresses: ${message}`)
  );
  const dns = options.dns && (await DnsServer.listen({ ...options.dns, clock }));
  if (dns !== undefined) {
    closing.add(() => dns.close());
    names.serve(dns);
  }
  if (sockets.hasStack) followSite(opening, controller, sockets);

  const revoker = new Revoker({
    revocations,
    controller,
    clock,
    terminateRevoked: (reason) =>
      workers.terminate({ unwanted: true }, { code: CloseCode.Revoked, reason }),
  });
  closing.add(() => revoker.close());
  const onRevocationError = reporter('revocation', 'revocation_failed');
  revoker.on('problem', ({ error }) => onRevocationError(error));
  const control = createControl(opening, controller, trust);
  const tunnels = serveTunnels(opening, { control, workers, audit });
  tunnels.on('edge', (change) => sockets.onEdge(change));
  trust.on('retired', () => {
    const reason = 'the CA of the certificate is retired';
    workers
      .terminate({ unwanted: true }, { code: CloseCode.Untrusted, reason })
      .catch(onRevocationError);
  });
  revocations.on('reinstated', () => workers.refreshRevocations());
  registry.on('change', ({ sites }) => {
    for (const site of sites) {
      if (site !== CLOUD) workers.setSite(site, registry.site(site) !== undefined);
    }
  });

  signal?.throwIfAborted();
  closing.add(() => workers.close());
  await pools.follow();
  cluster?.followRevocations(revoker);
  await cluster?.open({ workers, controller });
  await workers.open();
  await cluster?.setEndpoints(workers.addresses.map(({ tunnel }) => tunnel));
  const own = [...workers.addresses.map(({ tunnel }) => tunnel), dns?.address];
  sockets.setOwnListeners(own);

  signal?.throwIfAborted();
  // Enrolment closes before the tunnels: it waits for redemptions in progress.
  closing.add(() => enrolment.close());
  const { listen } = options.enrolment;
  const apart =
    listen === 'shared'
      ? undefined
      : { host: listen.host, port: (await enrolment.listen(listen)).port };
  const enrolmentAddress = (): HostPort => apart ?? workers.addresses[0]!.tunnel;
  sockets.setOwnListeners([...own, apart]);
  return {
    cluster,
    store,
    registry,
    controller,
    trust,
    workers,
    pools,
    routed: () => routing,
    control,
    tunnels,
    enrolment,
    enrolmentAddress,
    revoker,
    audit,
    names,
    dns,
    sockets,
  };
}

/** Registers this machine, if it is one of several. */
async function joinCluster({
  options,
  closing,
  hooks,
}: Opening): Promise<CloudCluster | undefined> {
  if (options.cluster === undefined) return undefined;
  return CloudCluster.join(
    { ...options, ...options.cluster },
    { onFault: (fault) => hooks.onFault('cluster', fault), onProblem: hooks.onProblem },
    closing
  );
}

/** Opens the desired state, with the audit log that follows it from its first change on. */
async function openRegistry(
  { options, closing, reporter }: Opening,
  store: Store
): Promise<Pick<CloudParts, 'registry' | 'audit'>> {
  const registry = await Registry.open(store, { clock: options.clock });
  closing.add(() => registry.close());
  registry.on('problem', ({ error }) => reporter('desired state', 'registry_failed')(error));
  const audit = await openAudit(options, closing, reporter('audit log', 'audit_failed'));
  audit?.follow(registry);
  if (options.desired !== undefined) await applyDesired(registry, options.desired, 'desired');
  return { registry, audit };
}

/** Opens the CA, watches when it expires, and removes records of expired certificates every hour. */
async function openAuthority(
  { options, closing, hooks, reporter }: Opening,
  { store, secrets, audit }: GatewayState & Pick<CloudParts, 'audit'>
): Promise<AuthorityKeeper> {
  const { trustDomain, clock, logger } = options;
  const trust = await AuthorityKeeper.open({
    ...options.trust,
    trustDomain,
    secrets,
    store,
    clock,
    logger,
  });
  closing.add(() => trust.close());
  const { authority } = trust;
  trust.on('renewal', ({ site, serial }) => audit?.renewal(site, serial));
  trust.on('refusedRenewal', ({ certificate, error }) => audit?.refusedRenewal(certificate, error));
  trust.on('problem', ({ error }) => hooks.onProblem(error));
  const reportExpiry = (): void => {
    hooks.onFault('ca', trust.isCaExpired ? trust.caWarning : undefined);
  };
  trust.on('problem', reportExpiry);
  authority.on('trust', reportExpiry);
  reportExpiry();
  await authority.prune();
  const onPruneError = reporter('pruning', 'prune_failed');
  closing.add(everyHour(clock, () => authority.prune().catch(onPruneError)));
  return trust;
}

/** @param workers returns the pool, whose addresses edges receive when they enrol */
function createEnrolment(
  { options, reporter }: Opening,
  authority: CertificateAuthority,
  audit: AuditTrail | undefined,
  workers: () => WorkerPool
): EnrolmentServer {
  const { authorize, clock } = options;
  const tunnelEndpoints = (): readonly HostPort[] => {
    // `flatMap` skips the gaps of workers that are not open yet.
    const listening = workers().addresses.flatMap(({ tunnel }) => [tunnel]);
    const { tunnels } = options.enrolment;
    if (tunnels === undefined) return listening.slice(0, MAX_ENROLMENT_TUNNELS);
    const actualPort = workers().portOf(0) ?? 0;
    return tunnels.map(({ host, port }) => ({ host, port: port || actualPort }));
  };
  const enrolment = new EnrolmentServer({
    authority,
    clock,
    tunnels: tunnelEndpoints,
    ...(authorize && { authorize: (request) => authorize({ ...request, at: 'enrolment' }) }),
  });
  enrolment.on('problem', ({ error }) => reporter('enrolment', 'enrolment_server_failed')(error));
  enrolment.on('outcome', (outcome) => audit?.enrolment(outcome));
  return enrolment;
}

/** Tells the stack of sockets what the cloud's own site is like. */
function followSite(
  { reporter }: Opening,
  controller: PresenceController,
  sockets: CloudSockets
): void {
  const report = reporter('device', 'site_sockets_failed');
  const apply = (snapshot: Snapshot | undefined): void => {
    if (snapshot?.site !== CLOUD) return;
    const error = sockets.apply(snapshot);
    if (error !== undefined) report(error);
  };
  controller.on('snapshot', apply);
  apply(controller.snapshot(CLOUD));
}

/** Creates the server that sends snapshots and trust to the edges, and renews their certificates. */
function createControl(
  { options, closing, hooks }: Opening,
  controller: PresenceController,
  trust: AuthorityKeeper
): ControlServer {
  const control = new ControlServer(controller, {
    trust: trust.provider,
    maxRenewalsPerHour: renewalsPerHour(options),
  });
  closing.add(() => control.close());
  control.on('problem', ({ site, error }) => {
    const fields = { event: 'control_server_failed', site, ...errorFields(error) } as const;
    options.logger.warn(fields, `${site}: ${error.message}`);
    hooks.onProblem(error, site);
  });
  trust.authority.on('trust', () => control.announceTrust());
  return control;
}

/** Connects the tunnels of the workers to the control server, and reports tunnels, refusals and workers that are down. */
function serveTunnels(
  { options, hooks }: Opening,
  { control, workers, audit }: Pick<CloudParts, 'control' | 'workers' | 'audit'>
): EdgeTunnels {
  const { logger, clock } = options;
  const tunnels = new EdgeTunnels(control, logger);
  tunnels.on('edge', hooks.onEdge);
  workers.on('tunnel', (tunnel) => tunnels.attach(tunnel));
  workers.on('refused', (refusal) => {
    tunnels.refused(refusal, clock.monotonicMs());
    audit?.refusedHandshake(refusal);
  });
  workers.on('workers', ({ running, total }) => {
    const fault = running < total ? `${total - running} of ${total} workers are down` : undefined;
    hooks.onFault('workers', fault);
  });
  return tunnels;
}

/**
 * Replaces the part of the desired state that belongs to the host program.
 *
 * @throws {ConfigError} if the desired state is not usable; the error names the place from `path` on.
 * @throws {ConflictError} without a `path`, if the admin interface keeps one of the records.
 */
export async function applyDesired(registry: Registry, desired: unknown, path = ''): Promise<void> {
  try {
    checkCloud(desired);
    await registry.apply(desired, 'file');
  } catch (error) {
    const hasPath = error instanceof ConfigError || error instanceof ConflictError;
    if (path === '' || !hasPath) throw error;
    const reason = error.path === '' ? error.message : error.message.slice(error.path.length + 2);
    const place = error.path === '' ? path : `${path}.${error.path}`;
    throw new ConfigError(place, reason, { cause: error });
  }
}

/**
 * Requires the site `cloud`, which this gateway serves.
 *
 * @throws {ConfigError} if the list of sites lacks it. The registry refuses anything that is not a list.
 */
function checkCloud(desired: unknown): void {
  const sites = (desired as { sites?: unknown } | null)?.sites;
  if (!Array.isArray(sites) || sites.some((site) => site?.name === CLOUD)) return;
  throw new ConfigError('sites', `there is no site with the name "${CLOUD}"`);
}

async function openAudit(
  { stateDirectory, clock }: ResolvedCloudOptions,
  closing: CloseStack,
  onProblem: (error: Error) => void
): Promise<AuditTrail | undefined> {
  if (stateDirectory === undefined) return undefined;
  const audit = await AuditTrail.open({ path: join(stateDirectory, 'audit.jsonl'), clock });
  closing.add(() => audit.close());
  audit.on('problem', ({ error }) => onProblem(error));
  return audit;
}

function leaseOptions({ leases }: ResolvedCloudOptions): {
  readonly clientIdleMs?: number;
  readonly pressedIdleMs?: number;
  readonly releaseSuspended: boolean;
  readonly overlapMs?: number;
} {
  const { idleMs, pressedIdleMs, releaseRevoked = false, overlapMs } = leases;
  return {
    ...(idleMs === undefined ? {} : { clientIdleMs: idleMs }),
    ...(pressedIdleMs === undefined ? {} : { pressedIdleMs }),
    ...(overlapMs === undefined ? {} : { overlapMs }),
    releaseSuspended: releaseRevoked,
  };
}

/** Returns six per lifetime, and at least 12: an edge renews once in two thirds of it, and some attempts may fail. */
function renewalsPerHour({ trust }: ResolvedCloudOptions): number {
  return Math.max(12, Math.ceil((6 * HOUR_MS) / trust.certificateLifetimeMs));
}

/** Calls `work` every hour. Returns the function that stops it. */
function everyHour(clock: Clock, work: () => Promise<unknown>): () => void {
  let cancel = (): void => {};
  const wait = (): void => {
    cancel = clock.after(
      HOUR_MS,
      () => {
        wait();
        void work();
      },
      true
    );
  };
  wait();
  return () => cancel();
}

const HOUR_MS = 3_600_000;
/** When routes that the machine has refused are tried again. */
const ROUTE_RETRY_MS = 1_000;
