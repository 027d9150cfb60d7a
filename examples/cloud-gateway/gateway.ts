/**
 * The reference cloud gateway: how the parts of the library are wired together.
 * @module
 */
import { join } from 'node:path';
import {
  AdminServer,
  AuditTrail,
  AuthorityKeeper,
  adminRoutes,
  CLOUD,
  CloseCode,
  ConfigError,
  ControlServer,
  type Credentials,
  DnsListener,
  EnrolmentServer,
  FileSecrets,
  FileStore,
  type PacketDevice,
  PresenceController,
  type PresenceControllerOptions,
  Registry,
  Revoker,
  SiteResolver,
  type Snapshot,
  Zone,
  zoneDataOf,
} from 'virtual-presence';
import {
  type HostPort,
  type RefusedPeer,
  type SiteTunnel,
  WorkerPool,
} from 'virtual-presence/worker';
import { within } from '../program/config-file.ts';
import type { TunConfig } from '../program/device.ts';
import { readPassphrase } from '../program/files.ts';
import { readyLine } from '../program/listening.ts';
import { type CloudConfig, checkProcesses } from './config.ts';
import type { CloudGateway, CloudListening } from './parts.ts';

export interface CloudGatewayOptions {
  readonly config: CloudConfig;
  /** Opens a device that is no TUN; a TUN of the file's is opened by the workers. */
  readonly openDevice?: (() => Promise<PacketDevice>) | undefined;
  readonly log: (line: string) => void;
  /** Reads the file again and has its desired state applied. Returns the other keys that have changed. */
  readonly reread: (
    apply: (desired: unknown) => Promise<void>
  ) => Promise<readonly (keyof CloudConfig)[]>;
}

export async function startCloudGateway(options: CloudGatewayOptions): Promise<CloudGateway> {
  const { config, log } = options;
  // Whatever was opened is closed again, last first, when the start fails half-way.
  const opened: (() => unknown)[] = [];
  const close = async () => {
    for (const end of opened.splice(0).reverse()) await end();
  };

  try {
    checkProcesses(config);
    const { listen: dnsListen, ...resolverOptions } = config.dns;
    const resolver = within('dns', () => new SiteResolver(resolverOptions));
    opened.push(() => resolver.close());

    const secrets = await FileSecrets.open(config.stateDirectory);
    const store = await FileStore.open({ path: join(secrets.path, 'store.journal') });
    opened.push(() => store.close());
    const registry = await Registry.open(store);
    opened.push(() => registry.close());
    registry.on('problem', (error) => log(`desired state: ${error.message}`));
    const audit = await AuditTrail.open({ path: join(secrets.path, 'audit.jsonl') });
    audit.on('problem', ({ error }) => log(`audit log: ${error.message}`));
    opened.push(() => audit.close());
    audit.follow(registry);
    const apply = (desired: unknown) =>
      within('desired', () => {
        checkCloud(desired);
        return registry.apply(desired, 'file');
      });
    await apply(config.desired);

    const { passphraseFile, certificateLifetimeSeconds, ...newCa } = config.trust;
    const trust = await AuthorityKeeper.open({
      ...newCa,
      trustDomain: config.trustDomain,
      certificateLifetimeMs: certificateLifetimeSeconds * 1000,
      passphrase: passphraseFile && readPassphrase('trust.passphraseFile', passphraseFile),
      secrets,
      store,
      log,
    });
    opened.push(() => trust.close());
    trust.on('renewal', ({ site, serial }) => audit.renewal(site, serial));
    trust.on('refusedRenewal', ({ certificate, error }) =>
      audit.refusedRenewal(certificate, error)
    );
    const { authority } = trust;
    await authority.prune();
    opened.push(everyHour(() => authority.prune(), log));
    const { revocations } = authority;
    const logRefusal = refusalLog(log);
    const edgeSites = () => siteNames(registry).filter((name) => name !== CLOUD);
    const enrolment = new EnrolmentServer({ authority });
    enrolment.on('problem', ({ error }) => log(`enrolment: ${error.message}`));
    enrolment.on('outcome', (outcome) => audit.enrolment(outcome));
    const isShared = config.enrolment.listen === 'shared';
    // A new site knows but the hash of the root, so it has to be shown the root.
    const shown = (credentials: Credentials): Credentials =>
      isShared ? { ...credentials, cert: `${credentials.cert}${credentials.ca}` } : credentials;
    const workers = new WorkerPool({
      workers: config.processes ?? 1,
      device: options.openDevice ?? tunOf(config),
      tunnel: config.tunnel,
      ...(config.limits && { limits: config.limits }),
      credentials: () => shown(trust.credentials),
      ...(isShared && {
        otherProtocols: { [EnrolmentServer.alpn]: (socket) => enrolment.handle(socket) },
      }),
      access: () => ({
        sites: edgeSites(),
        revocations: revocations.table,
        retired: trust.retired.map(String),
      }),
      admit: (...client) => controller.admit(...client),
      log,
    });
    workers.on('tunnel', (tunnel) => attach(tunnel));
    workers.on('refused', (refusal) => {
      logRefusal(refusal);
      audit.refusedHandshake(refusal);
    });
    trust.on('credentials', (credentials) => workers.setCredentials(shown(credentials)));
    const controller = await PresenceController.start({
      registry,
      store,
      translator: workers,
      transit: workers.transit,
      ttlSeconds: config.ttlSeconds,
      presenceUses: () => workers.presenceUses(),
      ...leaseOptions(config),
      blocked: revocations.table.sites,
    });
    opened.push(() => controller.close());
    controller.on('problem', (error) => log(`presence: ${error.message}`));
    controller.on('warning', ({ message }) => log(`addresses: ${message}`));

    const serve = (snapshot: Snapshot) => {
      resolver.setSources(snapshot.sources);
      resolver.setZone(Zone.compile(zoneDataOf(snapshot, [dnsListen.host])));
    };
    controller.on('snapshot', (snapshot) => {
      if (snapshot.site === CLOUD) serve(snapshot);
    });
    serve(controller.snapshot(CLOUD)!);
    const dns = await DnsListener.listen({ resolver, ...dnsListen });
    opened.push(() => dns.close());

    const revoker = new Revoker({
      revocations,
      controller,
      cutRevoked: (reason) =>
        workers.terminate({ unwanted: true }, { code: CloseCode.Revoked, reason }),
    });
    revoker.on('problem', ({ error }) => log(`revocation: ${error.message}`));
    opened.push(() => revoker.close());
    revocations.on('reinstated', () => workers.refreshAccess());
    registry.on('change', () => workers.refreshAccess());

    const control = new ControlServer(controller, {
      trust: trust.provider,
      maxRenewalsPerHour: renewalsPerHour(config),
    });
    opened.push(() => control.close());
    control.on('problem', (site, error) => log(`${site}: ${error.message}`));
    authority.on('trust', () => control.announceTrust());
    const tunnels = new Set<SiteTunnel>();
    const attach = (tunnel: SiteTunnel): void => {
      const { site, remoteAddress, cipher, keyExchange = 'group not told' } = tunnel;
      const detach = control.attach(site, tunnel, (error) => {
        log(`${site}: ${error.message}`);
        tunnel.close(CloseCode.ProtocolError, error.message);
      });
      tunnels.add(tunnel);
      log(`${site}: up from ${remoteAddress}, ${cipher}, ${keyExchange}`);
      tunnel.on('renewed', () => log(`${site}: shows a renewed certificate`));
      tunnel.on('down', ({ code, reason }) => {
        tunnels.delete(tunnel);
        detach();
        log(`${site}: down, ${code} ${reason}`.trimEnd());
      });
    };
    opened.push(() => workers.close());
    await workers.open();

    const revoke: CloudGateway['revoke'] = async (scope, reason) => {
      audit.revocationBegins(scope, reason);
      const receipt = await revoker.revoke(scope, reason);
      audit.revocation(receipt);
      const { tunnelsClosed, elapsedMs } = receipt;
      const what = Object.values(scope)[0];
      log(`${what}: revoked, ${tunnelsClosed} tunnels closed in ${elapsedMs.toFixed(1)} ms`);
      return receipt;
    };
    const reinstate = async (site: string): Promise<void> => {
      await revoker.reinstate(site);
      audit.reinstatement(site);
    };
    const rotateCa: CloudGateway['rotateCa'] = async (step, { ca, force = false } = {}) => {
      if (step === 'retire' && !force) {
        const stale = [...tunnels].filter(({ certificate }) => !authority.isCurrent(certificate));
        const sites = stale.map(({ site }) => site).join(', ');
        if (stale.length > 0) {
          throw new ConfigError('step', `not renewed yet: ${sites}; "force" cuts them off`);
        }
      }
      if (step === 'prepare') await trust.prepare(ca);
      else await trust[step]();
      audit.ca(step);
      log(`change of CA: ${step}`);
      if (step !== 'retire') return;
      await workers.terminate(
        { unwanted: true },
        { code: CloseCode.Untrusted, reason: 'the CA of the certificate is retired' }
      );
    };

    const reload = async () => {
      const needRestart = await options.reread(apply);
      if (needRestart.length > 0) log(`changed, and needs a restart: ${needRestart.join(', ')}`);
      return { needRestart };
    };

    // Before the tunnels are: it waits for redemptions under way.
    opened.push(() => enrolment.close());
    const { listen } = config.enrolment;
    const enrolmentListening: HostPort =
      listen === 'shared'
        ? workers.addresses[0]!.tunnel
        : { host: listen.host, port: (await enrolment.listen(listen)).port };
    const listening: CloudListening = {
      // One that is started again may have another port then.
      get tunnels() {
        return workers.addresses.map(({ tunnel }) => tunnel);
      },
      enrolment: enrolmentListening,
      dns: { host: dns.host, port: dns.port },
      ...(workers.addresses[0]?.device && { device: workers.addresses[0].device }),
    };

    const endpoints = config.enrolment.endpoints.map((text) =>
      text.replace(/:0+$/, `:${enrolmentListening.port}`)
    );
    const gateway: CloudGateway = {
      registry,
      controller,
      authority,
      workers,
      workerCount: workers.size,
      listening,
      async status() {
        const names = siteNames(registry);
        const { verdicts, workers: processes, ...status } = await workers.status(names);
        return {
          pid: process.pid,
          listening,
          sites: names.map((name) => ({
            name,
            process: name === CLOUD ? undefined : workers.holderOf(name),
            revoked: authority.isSiteRevoked(name),
            edge: control.status(name),
            pool: controller.poolStats(name),
            verdicts: verdicts[name],
          })),
          ...status,
          processes,
          dns: { ...resolver.counters, ...dns.counters },
          enrolment: enrolment.counters,
          renewals: control.renewals,
          ca: {
            rollover: authority.rollover,
            spki: authority.spkiHash,
            notAfter: trust.caNotAfter,
            warning: trust.caWarning,
          },
          audit: audit.head,
          warnings: controller.warnings,
        };
      },
      paths: () => workers.paths(),
      explain: (packet, realm) => workers.explain(packet, realm),
      async createToken(options) {
        const token = await authority.createToken({ ...options, endpoints });
        audit.token(options.site);
        return token;
      },
      async releaseClients(site) {
        const released = await controller.releaseClients(site);
        audit.release(site, released);
        return released;
      },
      moveSite: (site, worker) => workers.move(site, worker),
      reload,
      revoke,
      reinstate,
      rotateCa,
      close,
    };
    const admin = await AdminServer.listen({
      socketPath: config.adminSocket,
      routes: adminRoutes(gateway),
    });
    opened.push(() => admin.close());
    log(readyLine('cloud gateway', listening));
    return gateway;
  } catch (error) {
    await close();
    throw error;
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

/** @throws {ConfigError} if the file asks for another device, which is for `openDevice`. */
function tunOf({ device }: CloudConfig): TunConfig {
  if (device.type === 'tun') return device;
  throw new ConfigError('device', `expected a TUN, got ${device.type}`);
}

function siteNames({ state }: Registry): string[] {
  return state.sites.map(({ name }) => name);
}

function leaseOptions({ leases = {} }: CloudConfig): Partial<PresenceControllerOptions> {
  const { idleSeconds, pressedIdleSeconds, releaseRevoked = false } = leases;
  return {
    ...(idleSeconds === undefined ? {} : { clientIdleMs: idleSeconds * 1000 }),
    ...(pressedIdleSeconds === undefined ? {} : { pressedIdleMs: pressedIdleSeconds * 1000 }),
    releaseBlocked: releaseRevoked,
  };
}

/** An edge renews once in two thirds of the lifetime; this leaves room for some attempts that fail. */
function renewalsPerHour({ trust }: CloudConfig): number {
  return Math.max(12, Math.ceil((6 * 3600) / trust.certificateLifetimeSeconds));
}

/**
 * Logs refused peers that are known, of each site and for each reason once in a while: they can knock as
 * often as they like. Strangers are for the counters and the audit log.
 */
function refusalLog(log: (line: string) => void): (refusal: RefusedPeer) => void {
  const loggedMs = new Map<string, number>();
  return ({ remoteAddress, code, reason, site }) => {
    if (site === undefined) return;
    const key = `${site} ${code}`;
    const nowMs = performance.now();
    if (nowMs - (loggedMs.get(key) ?? Number.NEGATIVE_INFINITY) < REFUSAL_LOG_INTERVAL_MS) return;
    loggedMs.set(key, nowMs);
    log(`refused ${remoteAddress}: ${code}, ${reason}`);
  };
}

const REFUSAL_LOG_INTERVAL_MS = 10_000;

/** Returns the function that ends it. */
function everyHour(work: () => Promise<unknown>, log: (line: string) => void): () => void {
  const timer = setInterval(() => {
    work().catch((error: Error) => log(error.message));
  }, HOUR_MS);
  timer.unref();
  return () => clearInterval(timer);
}

const HOUR_MS = 3_600_000;
