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
  Registry,
  SiteResolver,
  type Snapshot,
  Zone,
  zoneDataOf,
} from 'virtual-presence';
import { within } from '../program/config-file.ts';
import { StateDirectory } from '../program/files.ts';
import { adminRoutes } from './admin-routes.ts';
import { type CloudConfig, checkProcesses } from './config.ts';
import type { SiteTunnel } from './member.ts';
import { Members } from './members.ts';
import type { CloudGateway, RevocationReceipt } from './parts.ts';
import { Placement } from './placement.ts';
import { cloudCredentials, openAuthority, revokedSerials } from './trust.ts';

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
    const serials = await revokedSerials(store);
    const placement = new Placement(config.processes ?? 1);
    const edgeSites = () => siteNames(registry).filter((name) => name !== CLOUD);
    const members = new Members(
      {
        config,
        credentials: () => cloudCredentials(authority),
        placement,
        openDevice: options.openDevice,
        access: {
          isRevoked: (site, certificate) =>
            authority.isSiteRevoked(site) || authority.isRevoked(certificate),
          holderOf: (site) =>
            registry.site(site) === undefined ? undefined : placement.holderOf(site),
        },
        accessTable: () => ({
          holders: new Map(edgeSites().map((site) => [site, placement.holderOf(site)])),
          revokedSites: new Set(edgeSites().filter((site) => authority.isSiteRevoked(site))),
          revokedSerials: serials,
        }),
      },
      {
        admit: (...client) => controller.admit(...client),
        onTunnel: (tunnel) => attach(tunnel),
        log,
      }
    );
    authority.on('revoked', (scope) => {
      if ('serial' in scope) serials.add(scope.serial);
      members.refreshAccess();
    });
    const controller = await PresenceController.start({
      registry,
      store,
      translator: members,
      transit: members.transit,
      ttlSeconds: config.ttlSeconds,
      blocked: siteNames(registry).filter((name) => authority.isSiteRevoked(name)),
    });
    opened.push(() => controller.close());
    controller.on('problem', (error) => log(`presence: ${error.message}`));

    const serve = (snapshot: Snapshot) =>
      resolver.setZone(Zone.compile(zoneDataOf(snapshot, [config.dns.listen.host])));
    controller.on('snapshot', (snapshot) => {
      if (snapshot.site === CLOUD) serve(snapshot);
    });
    serve(controller.snapshot(CLOUD)!);
    const dns = await DnsListener.listen({ resolver, ...config.dns.listen });
    opened.push(() => dns.close());

    const control = new ControlServer(controller);
    opened.push(() => control.close());
    control.on('problem', (site, error) => log(`${site}: ${error.message}`));
    const attach = (tunnel: SiteTunnel): void => {
      const { site, remoteAddress, cipher } = tunnel;
      const detach = control.attach(site, tunnel, (error) => {
        log(`${site}: ${error.message}`);
        tunnel.close(CloseCode.ProtocolError, error.message);
      });
      log(`${site}: up from ${remoteAddress}, ${cipher}`);
      tunnel.onDown = (code, reason) => {
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
      for (const name of names) {
        // One that comes back is as revoked as when it went; the controller derives after this call.
        if (!known.has(name) && authority.isSiteRevoked(name)) controller.setBlocked(name, true);
      }
      members.refreshAccess();
      for (const name of known) {
        if (names.has(name)) continue;
        placement.forget(name);
        void members.cut(name, CloseCode.UnknownSite, `there is no site "${name}" here any more`);
      }
      known = names;
    });
    const revoke = async (site: string): Promise<RevocationReceipt> => {
      const start = performance.now();
      // In this call: no packet passes any more. Then what outlives this process, then the tunnels.
      controller.setBlocked(site, true);
      const records = await authority.revoke({ site });
      const reason = `the certificate of ${site} is revoked`;
      const tunnelsClosed = await members.cut(site, CloseCode.Revoked, reason);
      const elapsedMs = performance.now() - start;
      await members.gone();
      log(`${site}: revoked, ${tunnelsClosed} tunnels closed in ${elapsedMs.toFixed(1)} ms`);
      return { site, certificates: records.length, tunnelsClosed, elapsedMs };
    };
    const reinstate = async (site: string): Promise<void> => {
      await authority.reinstate(site);
      controller.setBlocked(site, false);
      members.refreshAccess();
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
      members,
      placement,
      config,
      reload,
      revoke,
      reinstate,
      close,
    };
    const admin = await AdminServer.listen({
      socketPath: config.adminSocket,
      routes: adminRoutes(gateway),
    });
    opened.push(() => admin.close());
    members.start();
    log(`cloud gateway ready, tunnels on ${config.tunnel.host}:${config.tunnel.port}`);
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
