/**
 * The reference cloud gateway: how the parts of the library are wired together.
 * @module
 */
import {
  AdminServer,
  CLOUD,
  CloseCode,
  CloudDataPlane,
  ConfigError,
  ControlServer,
  DnsListener,
  EnrolmentServer,
  FileStore,
  MtlsTunnel,
  type PacketDevice,
  PacketTranslator,
  PresenceController,
  Registry,
  SiteResolver,
  type Snapshot,
  type TunnelCandidate,
  type TunnelRefusal,
  Zone,
  zoneDataOf,
} from 'virtual-presence';
import { within } from '../program/config-file.ts';
import { StateDirectory } from '../program/files.ts';
import { adminRoutes } from './admin-routes.ts';
import type { CloudConfig } from './config.ts';
import type { CloudGateway, RevocationReceipt } from './parts.ts';
import { cloudCredentials, openAuthority } from './trust.ts';

export interface CloudGatewayOptions {
  readonly config: CloudConfig;
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
    const resolver = within('dns', () => new SiteResolver({ forward: config.dns.forward }));
    opened.push(() => resolver.close());

    const state = new StateDirectory(config.stateDirectory);
    const store = await FileStore.open({ path: state.pathOf('store.journal') });
    opened.push(() => store.close());
    const registry = await Registry.open(store);
    opened.push(() => registry.close());
    registry.on('problem', (error) => log(`desired state: ${error.message}`));
    const apply = (desired: unknown) =>
      within('desired', () => {
        checkCloud(desired);
        return registry.apply(desired, 'file');
      });
    await apply(config.desired);

    const authority = await openAuthority(config.trustDomain, state, store);
    opened.push(() => authority.close());
    await authority.prune();
    const translator = new PacketTranslator();
    const controller = await PresenceController.start({
      registry,
      store,
      translator,
      ttlSeconds: config.ttlSeconds,
      blocked: siteNames(registry).filter((name) => authority.isSiteRevoked(name)),
    });
    opened.push(() => controller.close());
    // A site that comes back is as revoked as when it went; the controller derives after this call.
    let known = new Set(siteNames(registry));
    registry.on('change', () => {
      const names = siteNames(registry);
      for (const name of names) {
        if (!known.has(name) && authority.isSiteRevoked(name)) controller.setBlocked(name, true);
      }
      known = new Set(names);
    });
    controller.on('problem', (error) => log(`presence: ${error.message}`));

    const device = await options.openDevice();
    opened.push(() => device.close());
    const dataPlane = new CloudDataPlane({
      cloud: CLOUD,
      device,
      translator,
      admit: (ingress, source, egress, family) => controller.admit(ingress, source, egress, family),
    });

    const serve = (snapshot: Snapshot) =>
      resolver.setZone(Zone.compile(zoneDataOf(snapshot, [config.dns.listen.host])));
    controller.on('snapshot', (snapshot) => {
      if (snapshot.site === CLOUD) serve(snapshot);
    });
    serve(controller.snapshot(CLOUD)!);
    const dns = await DnsListener.listen({ resolver, ...config.dns.listen });
    opened.push(() => dns.close());

    const refusalOf = ({ identity, certificate }: TunnelCandidate): TunnelRefusal | undefined => {
      const site = identity.role === 'site' ? identity.site : CLOUD;
      if (authority.isSiteRevoked(site) || authority.isRevoked(certificate)) {
        return { code: CloseCode.Revoked, reason: `the certificate of ${site} is revoked` };
      }
      if (registry.site(site) === undefined || site === CLOUD) {
        return { code: CloseCode.UnknownSite, reason: `there is no site "${site}" here` };
      }
      return undefined;
    };
    const control = new ControlServer(controller);
    opened.push(() => control.close());
    control.on('problem', (site, error) => log(`${site}: ${error.message}`));
    const listener = await MtlsTunnel.listen({
      ...config.tunnel,
      ...(await cloudCredentials(authority)),
      authorize: (candidate) => {
        const refusal = refusalOf(candidate);
        if (refusal !== undefined) {
          log(`refused ${candidate.remoteAddress}: ${refusal.code}, ${refusal.reason}`);
        }
        return refusal;
      },
    });
    opened.push(() => listener.close());

    listener.on('tunnel', (tunnel) => {
      if (tunnel.peer.role !== 'site') return;
      const { site } = tunnel.peer;
      for (const other of listener.tunnels) {
        const isOlder = other !== tunnel && other.peer.role === 'site' && other.peer.site === site;
        if (isOlder) void other.close(CloseCode.Replaced, 'a newer tunnel of this site is up');
      }
      const detach = [
        dataPlane.attach(site, tunnel),
        control.attach(site, tunnel, (error) => {
          log(`${site}: ${error.message}`);
          void tunnel.close(CloseCode.ProtocolError, error.message);
        }),
      ];
      log(`${site}: up from ${tunnel.info.remoteAddress}, ${tunnel.info.cipher}`);
      tunnel.on('down', ({ code, reason }) => {
        for (const end of detach) end();
        log(`${site}: down, ${code} ${reason}`.trimEnd());
      });
    });
    registry.on('change', () => {
      for (const tunnel of listener.tunnels) {
        const site = tunnel.peer.role === 'site' ? tunnel.peer.site : CLOUD;
        if (registry.site(site) !== undefined) continue;
        void tunnel.abort(CloseCode.UnknownSite, `there is no site "${site}" here any more`);
      }
    });
    const revoke = async (site: string): Promise<RevocationReceipt> => {
      const start = performance.now();
      // In this call: no packet passes any more. Then what outlives this process, then the tunnels.
      controller.setBlocked(site, true);
      const records = await authority.revoke({ site });
      const tunnels = [...listener.tunnels]
        .filter(({ peer }) => peer.role === 'site' && peer.site === site)
        .map((tunnel) => tunnel.abort(CloseCode.Revoked, `the certificate of ${site} is revoked`));
      const elapsedMs = performance.now() - start;
      await Promise.all(tunnels);
      log(`${site}: revoked, ${tunnels.length} tunnels closed in ${elapsedMs.toFixed(1)} ms`);
      return { site, certificates: records.length, tunnelsClosed: tunnels.length, elapsedMs };
    };

    const reload = async () => {
      const needRestart = await options.reread(apply);
      if (needRestart.length > 0) log(`changed, and needs a restart: ${needRestart.join(', ')}`);
      return { needRestart };
    };

    const enrolment = new EnrolmentServer({
      authority,
      onError: (error) => log(`enrolment: ${(error as Error).message}`),
    });
    opened.push(() => enrolment.close());
    await enrolment.listen(config.enrolment.listen);

    const gateway: CloudGateway = {
      registry,
      controller,
      authority,
      control,
      translator,
      dataPlane,
      device,
      config,
      reload,
      revoke,
      close,
    };
    const admin = await AdminServer.listen({
      socketPath: config.adminSocket,
      routes: adminRoutes(gateway),
    });
    opened.push(() => admin.close());
    dataPlane.start();
    log(`cloud gateway ready, tunnels on ${config.tunnel.host}:${listener.port}`);
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
