/**
 * How the parts of a cloud gateway are wired together. They are opened in this order, so that each finds what it
 * needs, and so that no port is open before the gateway knows whom to let in:
 *
 * 1. what is kept, and the desired state
 * 2. the CA
 * 3. presences, and the names of the cloud's own site
 * 4. the workers: devices, tunnel ports
 * 5. enrolment
 * @module
 */
import { join } from 'node:path';
import { AuditTrail } from '../audit/index.ts';
import type { Clock } from '../base/clock.ts';
import type { CloseStack } from '../base/close-stack.ts';
import type { HostPort } from '../base/host-port.ts';
import type { IpPrefix } from '../base/prefix.ts';
import { ControlServer, PresenceController, type Snapshot } from '../control/index.ts';
import {
  isPacketDevice,
  openDevice,
  type PacketDevice,
  type ResolvedDeviceOptions,
} from '../device/index.ts';
import { DnsServer } from '../dns/index.ts';
import { ApiMisuseError, ConfigError } from '../errors.ts';
import type { Logger } from '../observe/index.ts';
import { type Credentials, EnrolmentServer } from '../pki/index.ts';
import { CLOUD, Registry } from '../registry/index.ts';
import { Revoker } from '../trust/index.ts';
import { CloseCode, type TunnelRefusal } from '../tunnel/index.ts';
import { WorkerPool, type WorkerPoolOptions } from '../worker/index.ts';
import { AuthorityKeeper } from './authority-keeper.ts';
import { MAX_TOLD_TUNNELS, type ResolvedCloudOptions } from './cloud-options.ts';
import { type EdgeChange, EdgeTunnels } from './edge-tunnels.ts';
import { serveNames } from './site-names.ts';
import { openState } from './state.ts';

export interface CloudParts {
  readonly registry: Registry;
  readonly controller: PresenceController;
  readonly trust: AuthorityKeeper;
  readonly workers: WorkerPool;
  /** Resolves when the pools of the cloud's site, as they are now, lead to its devices, or that has failed. */
  readonly routed: () => Promise<void>;
  readonly control: ControlServer;
  readonly tunnels: EdgeTunnels;
  readonly enrolment: EnrolmentServer;
  readonly enrolmentAddress: () => HostPort;
  readonly revoker: Revoker;
  /** Absent where there is no state directory. */
  readonly audit: AuditTrail | undefined;
  readonly names: DnsServer | undefined;
}

/** What the gateway is told. */
export interface CloudHooks {
  readonly onEdge: (change: EdgeChange) => void;
  readonly onProblem: (error: Error, site?: string) => void;
  /** Something that is amiss, by what it is about; undefined when it is mended. */
  readonly onFault: (about: string, fault: string | undefined) => void;
}

/**
 * Opens all parts, and has them closed by `closing`, also those of an opening that has failed.
 *
 * @throws {PresenceError} as `CloudGateway.start` says.
 */
export async function openCloudParts(
  options: ResolvedCloudOptions,
  closing: CloseStack,
  hooks: CloudHooks
): Promise<CloudParts> {
  const { device, logger, clock, signal } = options;
  const given = isPacketDevice(device) ? new GivenDevice(device) : undefined;
  if (given !== undefined) closing.add(() => given.close());
  /** Logs a fault and tells the host. */
  const problemOf = (what: string) => (error: Error) => {
    logger.warn({ err: error }, `${what}: ${error.message}`);
    hooks.onProblem(error);
  };

  signal?.throwIfAborted();
  const { store, secrets } = await openState(options, closing);
  const registry = await Registry.open(store);
  closing.add(() => registry.close());
  registry.on('problem', ({ error }) => problemOf('desired state')(error));
  const audit = await openAudit(options, closing, problemOf('audit log'));
  audit?.follow(registry);
  if (options.desired !== undefined) await applyDesired(registry, options.desired, 'desired');

  signal?.throwIfAborted();
  const trust = await AuthorityKeeper.open({
    ...options.trust,
    trustDomain: options.trustDomain,
    secrets,
    store,
    clock,
    logger,
  });
  closing.add(() => trust.close());
  const { authority } = trust;
  const { revocations } = authority;
  trust.on('renewal', ({ site, serial }) => audit?.renewal(site, serial));
  trust.on('refusedRenewal', ({ certificate, error }) => audit?.refusedRenewal(certificate, error));
  trust.on('problem', ({ error }) => hooks.onProblem(error));
  const watchCa = (): void => {
    const hasRunOut = trust.caNotAfter.getTime() <= clock.wallMs();
    hooks.onFault('ca', hasRunOut ? trust.caWarning : undefined);
  };
  trust.on('problem', watchCa);
  authority.on('trust', watchCa);
  watchCa();
  await authority.prune();
  closing.add(everyHour(clock, () => authority.prune().catch(problemOf('pruning'))));

  signal?.throwIfAborted();
  const tunnelEndpoints = (): readonly HostPort[] => {
    // Where a worker is not open yet, there is a hole.
    const listening = workers.addresses.flatMap(({ tunnel }) => [tunnel]);
    const { tunnels } = options.enrolment;
    if (tunnels === undefined) return listening.slice(0, MAX_TOLD_TUNNELS);
    const taken = workers.portOf(0) ?? 0;
    return tunnels.map(({ host, port }) => ({ host, port: port || taken }));
  };
  const enrolment = new EnrolmentServer({
    authority,
    clock,
    tunnels: tunnelEndpoints,
    ...(options.authorize && {
      authorize: (request) => options.authorize!({ ...request, at: 'enrolment' }),
    }),
  });
  enrolment.on('problem', ({ error }) => problemOf('enrolment')(error));
  enrolment.on('outcome', (outcome) => audit?.enrolment(outcome));
  const workers = openPool(options, {
    device: isPacketDevice(device) ? async () => given!.take() : deviceOf(device, logger, registry),
    registry,
    trust,
    enrolment,
    admit: (...client) => controller.admit(...client),
    onProblem: hooks.onProblem,
  });
  const routePools = poolRouter(options, registry, workers);
  const controller = await PresenceController.start({
    registry,
    store,
    clock,
    translator: workers,
    transit: workers.transit,
    ttlSeconds: options.ttlSeconds,
    presenceUses: () => workers.presenceUses(),
    ...leaseOptions(options),
    suspended: revocations.table.sites,
  });
  closing.add(() => controller.close());
  controller.on('problem', ({ error }) => problemOf('presence')(error));
  controller.on('warning', ({ message }) => logger.warn({}, `addresses: ${message}`));

  const names = options.dns && (await DnsServer.listen({ ...options.dns, clock }));
  if (names !== undefined) {
    closing.add(() => names.close());
    const serve = (snapshot: Snapshot | undefined): void => {
      if (snapshot?.site === CLOUD) serveNames(names, snapshot);
    };
    controller.on('snapshot', serve);
    serve(controller.snapshot(CLOUD));
  }

  const revoker = new Revoker({
    revocations,
    controller,
    clock,
    terminateRevoked: (reason) =>
      workers.terminate({ unwanted: true }, { code: CloseCode.Revoked, reason }),
  });
  closing.add(() => revoker.close());
  revoker.on('problem', ({ error }) => problemOf('revocation')(error));
  const control = new ControlServer(controller, {
    trust: trust.provider,
    maxRenewalsPerHour: renewalsPerHour(options),
  });
  closing.add(() => control.close());
  control.on('problem', ({ site, error }) => {
    logger.warn({ site, err: error }, `${site}: ${error.message}`);
    hooks.onProblem(error, site);
  });
  authority.on('trust', () => control.announceTrust());

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
  revocations.on('reinstated', () => workers.refreshAccess());
  let routing = Promise.resolve();
  registry.on('change', () => {
    workers.refreshAccess();
    routing = routing.then(routePools).catch(problemOf('device'));
  });
  signal?.throwIfAborted();
  closing.add(() => workers.close());
  await workers.open();

  signal?.throwIfAborted();
  // Before the tunnels are: it waits for redemptions under way.
  closing.add(() => enrolment.close());
  const { listen } = options.enrolment;
  const own =
    listen === 'shared'
      ? undefined
      : { host: listen.host, port: (await enrolment.listen(listen)).port };
  const enrolmentAddress = (): HostPort => own ?? workers.addresses[0]!.tunnel;
  return {
    registry,
    controller,
    trust,
    workers,
    routed: () => routing,
    control,
    tunnels,
    enrolment,
    enrolmentAddress,
    revoker,
    audit,
    names,
  };
}

/**
 * Replaces what the gateway's own program has asked for.
 *
 * @throws {ConfigError} if the desired state is not usable; the error names the place from `path` on.
 */
export async function applyDesired(registry: Registry, desired: unknown, path = ''): Promise<void> {
  try {
    checkCloud(desired);
    await registry.apply(desired, 'file');
  } catch (error) {
    if (path === '' || !(error instanceof ConfigError)) throw error;
    const reason = error.path === '' ? error.message : error.message.slice(error.path.length + 2);
    const place = error.path === '' ? path : `${path}.${error.path}`;
    throw new ConfigError(place, reason, { cause: error });
  }
}

/**
 * The gateway is the cloud's: without that site it serves nobody.
 *
 * @throws {ConfigError} if a list of sites has none; what is no list is for the registry to refuse.
 */
function checkCloud(desired: unknown): void {
  const sites = (desired as { sites?: unknown } | null)?.sites;
  if (!Array.isArray(sites) || sites.some((site) => site?.name === CLOUD)) return;
  throw new ConfigError('sites', `there is none with the name "${CLOUD}"`);
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

function openPool(
  options: ResolvedCloudOptions,
  parts: {
    readonly device: WorkerPoolOptions['device'];
    readonly registry: Registry;
    readonly trust: AuthorityKeeper;
    readonly enrolment: EnrolmentServer;
    readonly admit: PresenceController['admit'];
    readonly onProblem: CloudHooks['onProblem'];
  }
): WorkerPool {
  const { device, registry, trust, enrolment, admit } = parts;
  const { authorize, clock, logger, limits, tunnel, workers, workerMain } = options;
  const isShared = options.enrolment.listen === 'shared';
  // A new site knows but the hash of the root, so it has to be shown the root.
  const shown = (credentials: Credentials): Credentials =>
    isShared ? { ...credentials, cert: `${credentials.cert}${credentials.ca}` } : credentials;
  const pool = new WorkerPool({
    workers,
    device,
    tunnel,
    limits,
    clock,
    logger,
    credentials: () => shown(trust.credentials),
    access: () => ({
      sites: registry.state.sites.map(({ name }) => name).filter((name) => name !== CLOUD),
      revocations: trust.authority.revocations.table,
      retired: trust.retired.map(String),
    }),
    admit,
    ...(workerMain && { workerMain }),
    ...(authorize && {
      // The worker logs what is thrown, and lets nobody in.
      authorize: ({ site, remoteAddress }) =>
        askAtHandshake(authorize, { site, remoteAddress }).catch((error: Error) => {
          parts.onProblem(error, site);
          throw error;
        }),
    }),
    ...(isShared && {
      otherProtocols: { [EnrolmentServer.alpn]: (socket) => enrolment.handle(socket) },
    }),
  });
  trust.on('credentials', (credentials) => pool.setCredentials(shown(credentials)));
  return pool;
}

/**
 * Asks the host whether a connection of a tunnel may come up.
 *
 * @throws what the host throws; or {ApiMisuseError} if its answer is none.
 */
async function askAtHandshake(
  authorize: NonNullable<ResolvedCloudOptions['authorize']>,
  peer: { readonly site: string; readonly remoteAddress: string }
): Promise<TunnelRefusal | undefined> {
  const reason: unknown = await authorize({ ...peer, at: 'handshake' });
  if (reason === undefined) return undefined;
  if (typeof reason === 'string') return { code: NOT_AUTHORIZED, reason };
  const text = `authorize must return undefined or a reason in text, not ${typeof reason}`;
  throw new ApiMisuseError(text);
}

/** What the pool opens; the routes of a TUN are the pools of the cloud's site unless the operator has named some. */
function deviceOf(
  device: ResolvedDeviceOptions,
  logger: Logger,
  registry: Registry
): WorkerPoolOptions['device'] {
  if (device.type !== 'tun') {
    return () => openDevice(device, (problem) => logger.warn({}, `device: ${problem}`));
  }
  const { type: _, ...tun } = device;
  return { ...tun, routes: tun.routes ?? cloudPools(registry) };
}

function cloudPools(registry: Registry): readonly IpPrefix[] {
  return registry.site(CLOUD)?.pools ?? [];
}

/** A device of the host's, which is closed once: by the worker, as soon as that has it. */
class GivenDevice {
  readonly #device: PacketDevice;
  #isTaken = false;

  constructor(device: PacketDevice) {
    this.#device = device;
  }

  take(): PacketDevice {
    this.#isTaken = true;
    return this.#device;
  }

  async close(): Promise<void> {
    if (!this.#isTaken) await this.#device.close();
  }
}

/**
 * Returns the function that brings the pools of the cloud's site to the devices if they are others than before,
 * unless the operator has said what is to be routed.
 */
function poolRouter(
  { device }: ResolvedCloudOptions,
  registry: Registry,
  workers: WorkerPool
): () => Promise<void> {
  if (isPacketDevice(device) || device.type !== 'tun' || device.routes !== undefined) {
    return async () => {};
  }
  // What `deviceOf` has told the workers.
  let routed = cloudPools(registry);
  return async () => {
    const pools = cloudPools(registry);
    // Changes are many, and each call runs programs.
    if (pools.join() === routed.join()) return;
    await workers.setRoutes(pools);
    routed = pools;
  };
}

function leaseOptions({ leases }: ResolvedCloudOptions): {
  readonly clientIdleMs?: number;
  readonly pressedIdleMs?: number;
  readonly releaseSuspended: boolean;
} {
  const { idleMs, pressedIdleMs, releaseRevoked = false } = leases;
  return {
    ...(idleMs === undefined ? {} : { clientIdleMs: idleMs }),
    ...(pressedIdleMs === undefined ? {} : { pressedIdleMs }),
    releaseSuspended: releaseRevoked,
  };
}

/** An edge renews once in two thirds of the lifetime; this leaves room for some attempts that fail. */
function renewalsPerHour({ trust }: ResolvedCloudOptions): number {
  return Math.max(12, Math.ceil((6 * HOUR_MS) / trust.certificateLifetimeMs));
}

/** Returns the function that ends it. */
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
/** What an edge is told that the host's `authorize` does not let in. */
const NOT_AUTHORIZED = 'not-authorized';
