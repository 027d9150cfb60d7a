/**
 * The reference cloud gateway: how the parts of the library are wired together.
 * @module
 */
import {
  AdminServer,
  CLOUD,
  CloseCode,
  ConfigError,
  ControlServer,
  DnsListener,
  EnrolmentServer,
  FileStore,
  type PacketDevice,
  PresenceController,
  type PresenceControllerOptions,
  Registry,
  Revoker,
  SiteResolver,
  type Snapshot,
  type TunnelCredentials,
  Zone,
  zoneDataOf,
} from 'virtual-presence';
import { within } from '../program/config-file.ts';
import type { HostPort } from '../program/fields.ts';
import { StateDirectory } from '../program/files.ts';
import { readyLine } from '../program/listening.ts';
import { type Access, isIssuedByOne } from './access.ts';
import { adminRoutes } from './admin-routes.ts';
import { AuditTrail } from './audit.ts';
import { type CloudConfig, checkProcesses } from './config.ts';
import type { RefusedPeer, SiteTunnel } from './member.ts';
import { Members } from './members.ts';
import type { CloudGateway, CloudListening } from './parts.ts';
import { Placement } from './placement.ts';
import { CloudTrust } from './trust.ts';

export interface CloudGatewayOptions {
  readonly config: CloudConfig;
  /** For one process; several open their own. */
  readonly openDevice: () => Promise<PacketDevice>;
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

    const state = new StateDirectory(config.stateDirectory);
    const store = await FileStore.open({ path: state.pathOf('store.journal') });
    opened.push(() => store.close());
    const registry = await Registry.open(store);
    opened.push(() => registry.close());
    registry.on('problem', (error) => log(`desired state: ${error.message}`));
    const audit = await AuditTrail.open(state.pathOf('audit.jsonl'), log);
    opened.push(() => audit.close());
    audit.follow(registry);
    const apply = (desired: unknown) =>
      within('desired', () => {
        checkCloud(desired);
        return registry.apply(desired, 'file');
      });
    await apply(config.desired);

    const trust = await CloudTrust.open({
      trustDomain: config.trustDomain,
      config: config.trust,
      state,
      store,
      log,
      onRenewal: (site, serial) => audit.renewal(site, serial),
      onRefusedRenewal: (certificate, error) => audit.refusedRenewal(certificate, error),
    });
    opened.push(() => trust.close());
    const { authority } = trust;
    await authority.prune();
    opened.push(everyHour(() => authority.prune(), log));
    warnOfEnd(trust.caNotAfter, log);
    const { revocations } = authority;
    const logRefusal = refusalLog(log);
    const placement = new Placement(config.processes ?? 1);
    const edgeSites = () => siteNames(registry).filter((name) => name !== CLOUD);
    const access: Access = {
      isRevoked: (certificate) => authority.isRevoked(certificate),
      isRetired: (certificate) => isIssuedByOne(trust.retired, certificate),
      holderOf: (site) =>
        registry.site(site) === undefined ? undefined : placement.holderOf(site),
      portOf: (member) => members.portOf(member),
    };
    const enrolment = new EnrolmentServer({
      authority,
      onError: (error) => log(`enrolment: ${(error as Error).message}`),
      onOutcome: (outcome) => audit.enrolment(outcome),
    });
    const isShared = config.enrolment.listen === 'shared';
    // A new site knows but the hash of the root, so it has to be shown the root.
    const shown = (credentials: TunnelCredentials): TunnelCredentials =>
      isShared ? { ...credentials, cert: `${credentials.cert}${credentials.ca}` } : credentials;
    const members: Members = new Members(
      {
        config,
        credentials: () => shown(trust.credentials),
        otherProtocols: isShared
          ? { [EnrolmentServer.alpn]: (socket) => enrolment.handle(socket) }
          : undefined,
        placement,
        openDevice: options.openDevice,
        access: () => access,
        accessTable: () => ({
          holders: new Map(edgeSites().map((site) => [site, placement.holderOf(site)])),
          ports: members.ports,
          revocations: revocations.table,
          retired: trust.retired.map(String),
        }),
      },
      {
        admit: (...client) => controller.admit(...client),
        onTunnel: (tunnel) => attach(tunnel),
        onRefused: (refusal) => {
          logRefusal(refusal);
          audit.refusedHandshake(refusal);
        },
        log,
      }
    );
    trust.onCredentials = (credentials) => members.setCredentials(shown(credentials));
    const controller = await PresenceController.start({
      registry,
      store,
      translator: members,
      transit: members.transit,
      ttlSeconds: config.ttlSeconds,
      presenceUses: () => members.presenceUses(),
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
      cutRevoked: (reason) => members.cutRevoked(CloseCode.Revoked, reason),
      onError: (error) => log(`revocation: ${error.message}`),
    });
    opened.push(() => revoker.close());
    revocations.on('reinstated', () => members.refreshAccess());

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
      tunnel.onRenewed = () => log(`${site}: shows a renewed certificate`);
      tunnel.onDown = (code, reason) => {
        tunnels.delete(tunnel);
        detach();
        log(`${site}: down, ${code} ${reason}`.trimEnd());
      };
    };
    // Before they are open: one that opens is told what is so then.
    opened.push(() => members.close());
    await members.open();

    let known = new Set(siteNames(registry));
    registry.on('change', () => {
      const names = new Set(siteNames(registry));
      members.refreshAccess();
      for (const name of known) {
        if (names.has(name)) continue;
        placement.forget(name);
        void members.cut(name, CloseCode.UnknownSite, `there is no site "${name}" here any more`);
      }
      known = names;
    });
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
    const changeCa: CloudGateway['changeCa'] = async (step, { ca, force = false } = {}) => {
      if (step === 'retire' && !force) {
        const stale = [...tunnels].filter(({ certificate }) => !authority.isCurrent(certificate));
        const sites = stale.map(({ site }) => site).join(', ');
        if (stale.length > 0) {
          throw new ConfigError('step', `not renewed yet: ${sites}; "force" cuts them off`);
        }
      }
      if (step === 'prepare') await trust.prepare(ca);
      else trust[step]();
      audit.ca(step);
      log(`change of CA: ${step}`);
      if (step !== 'retire') return;
      await members.cutRevoked(CloseCode.Untrusted, 'the CA of the certificate is retired');
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
        ? members.addresses[0]!.tunnel
        : { host: listen.host, port: (await enrolment.listen(listen)).port };
    const listening: CloudListening = {
      // One that is started again may have another port then.
      get tunnels() {
        return members.addresses.map(({ tunnel }) => tunnel);
      },
      enrolment: enrolmentListening,
      dns: { host: dns.host, port: dns.port },
      ...(members.addresses[0]?.device && { device: members.addresses[0].device }),
    };

    const gateway: CloudGateway = {
      registry,
      controller,
      authority,
      control,
      members,
      placement,
      dnsCounters: () => ({ ...resolver.counters, ...dns.counters }),
      config,
      listening,
      enrolmentEndpoints: config.enrolment.endpoints.map((text) =>
        text.replace(/:0+$/, `:${enrolmentListening.port}`)
      ),
      reload,
      enrolment,
      audit,
      trust,
      revoke,
      reinstate,
      changeCa,
      close,
    };
    const admin = await AdminServer.listen({
      socketPath: config.adminSocket,
      routes: adminRoutes(gateway),
    });
    opened.push(() => admin.close());
    members.start();
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

/** All certificates end with their CA's: there must be time to change it. */
function warnOfEnd(notAfter: Date, log: (line: string) => void): void {
  if (notAfter.getTime() - Date.now() > WARNING_MS) return;
  log(
    `the CA runs out on ${notAfter.toISOString()}, and every certificate with it: change it before`
  );
}

const HOUR_MS = 3_600_000;
const WARNING_MS: number = 60 * 24 * HOUR_MS;
