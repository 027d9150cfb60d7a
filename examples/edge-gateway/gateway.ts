/**
 * The reference edge gateway: how the parts of the library are wired together.
 * @module
 */
import { join } from 'node:path';
import {
  CertificateError,
  ControlClient,
  CredentialKeeper,
  DnsListener,
  deviceAddress,
  EdgeDataPlane,
  enrol,
  type FailureKind,
  FileSecrets,
  FileStore,
  failureOf,
  loadUnsentLimit,
  MENDABLE,
  MtlsTunnel,
  type PacketDevice,
  SiteCredentials,
  SiteResolver,
  type Snapshot,
  type Tunnel,
  Zone,
  zoneDataOf,
} from 'virtual-presence';
import { within } from '../program/config-file.ts';
import { readText } from '../program/files.ts';
import { type Listening, readyLine } from '../program/listening.ts';
import type { EdgeConfig } from './config.ts';

export interface EdgeGatewayOptions {
  readonly config: EdgeConfig;
  readonly openDevice: () => Promise<PacketDevice>;
  readonly log: (line: string) => void;
}

export interface EdgeGateway {
  readonly site: string;
  readonly control: ControlClient;
  readonly dataPlane: EdgeDataPlane;
  readonly tunnel: Tunnel;
  readonly listening: Listening;
  /** Rejects when the cloud refuses this edge before it was ever up: the set-up is wrong. */
  readonly failed: Promise<never>;
  close(): Promise<void>;
}

export async function startEdgeGateway(options: EdgeGatewayOptions): Promise<EdgeGateway> {
  const { config, log } = options;
  // Whatever was opened is closed again, last first, when the start fails half-way.
  const opened: (() => unknown)[] = [];
  const close = async () => {
    for (const end of opened.splice(0).reverse()) await end();
  };

  try {
    const { listen: dnsListen, ...resolverOptions } = config.dns;
    const resolver = within('dns', () => new SiteResolver(resolverOptions));
    opened.push(() => resolver.close());

    const { stateDirectory, tokenFile, proxy } = config;
    const secrets = await FileSecrets.open(stateDirectory);
    // Before the token is spent: what would come of it could not be kept elsewhere.
    const store = await FileStore.open({ path: join(stateDirectory, 'store.journal') });
    opened.push(() => store.close());
    const credentials = await SiteCredentials.open({
      secrets,
      token: () => readText('the token file', tokenFile),
      enrol: (token) => enrol(token, { proxy }),
      remedy: `put a new token into ${tokenFile}`,
    });
    const { site, trustDomain } = credentials.identity;
    const device = await options.openDevice();
    opened.push(() => device.close());

    const limitUnsent = await loadUnsentLimit();
    const tunnel = MtlsTunnel.dial({
      endpoints: config.cloud,
      proxy,
      ...credentials.credentials,
      ...(limitUnsent === undefined ? {} : { limitUnsent }),
      expectedPeer: { trustDomain, role: 'cloud' },
    });
    opened.push(() => tunnel.close());
    const dataPlane = new EdgeDataPlane({ device, tunnel });
    const dns = await DnsListener.listen({ resolver, listen: dnsListen });
    opened.push(() => dns.close());

    const control = await ControlClient.open({
      site,
      store,
      counters: () => countersOf(dataPlane, tunnel, { ...resolver.counters, ...dns.counters }),
    });
    opened.push(() => control.close());
    const apply = (snapshot: Snapshot) => {
      dataPlane.gate.setAddresses(snapshot);
      resolver.setSources(snapshot.sources);
      resolver.setZone(Zone.compile(zoneDataOf(snapshot, [dnsListen.host])));
      log(`${site}: revision ${snapshot.revision}, ${snapshot.hosts.length} names`);
    };
    control.on('snapshot', apply);
    control.on('problem', ({ error }) => log(`control: ${error.message}`));
    if (control.snapshot !== undefined) apply(control.snapshot);
    const keeper = new CredentialKeeper({ credentials, control, tunnel, log });
    opened.push(() => keeper.close());
    control.attach(tunnel);

    const failed = follow(tunnel, keeper, site, config.cloud.length, log);
    failed.catch(() => {});

    dataPlane.start();
    const listening: Listening = {
      dns: dns.address,
      ...deviceAddress(device),
    };
    log(readyLine(`edge gateway of ${site}`, listening));
    return { site, control, dataPlane, tunnel, listening, failed, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/**
 * Logs what becomes of the tunnel. Rejects when it was never up, that is not a matter of time (the cloud
 * refuses this edge, or at all of its endpoints in turn a certificate is not accepted), and no new token
 * is there that would mend it.
 */
function follow(
  tunnel: Tunnel,
  keeper: CredentialKeeper,
  site: string,
  endpoints: number,
  log: (line: string) => void
): Promise<never> {
  return new Promise((_, reject) => {
    let wasUp = false;
    let distrusted = 0;
    tunnel.on('up', ({ remoteAddress, proxiedEndpoint, cipher, keyExchange }) => {
      wasUp = true;
      const exchange = keyExchange === undefined ? '' : `, ${keyExchange}`;
      const far =
        proxiedEndpoint === undefined
          ? remoteAddress
          : `${proxiedEndpoint.host} through the proxy ${remoteAddress}`;
      log(`${site}: up to ${far}, ${cipher}${exchange}`);
    });
    tunnel.on('lanes', (count) => log(`${site}: ${count} ${count === 1 ? 'lane' : 'lanes'}`));
    tunnel.on('down', ({ code, reason }) => log(`${site}: down, ${code} ${reason}`.trimEnd()));
    const giveUp = async (error: Error): Promise<void> => {
      if (!(await keeper.enrolAnew())) reject(error);
    };
    tunnel.on('refused', (error, code) => {
      if (wasUp) log(`${site}: refused, ${error.message}`);
      else if (MENDABLE.has(code)) void giveUp(error);
      else reject(error);
    });
    tunnel.on('waiting', (delayMs, cause) => {
      const { by, reason } = cause;
      log(`${site}: trying again in ${Math.round(delayMs)} ms, ${reason}`);
      const isDistrust = by === 'network' && DISTRUST.has(failureOf(cause).kind);
      distrusted = isDistrust ? distrusted + 1 : 0;
      if (distrusted < endpoints) return;
      distrusted = 0;
      if (wasUp) void keeper.enrolAnew();
      else
        void giveUp(
          new CertificateError(`no tunnel as ${site}, certificates do not fit: ${reason}`)
        );
    });
  });
}

/** What the cloud is told: every counter of this gateway; verdicts and those of DNS, if they are not zero. */
function countersOf(
  { gate, counters }: EdgeDataPlane,
  tunnel: Tunnel,
  dns: Readonly<Record<string, number>>
): Record<string, number> {
  const named: Record<string, number> = { ...counters };
  for (const [name, count] of Object.entries(tunnel.counters)) named[`tunnel.${name}`] = count;
  for (const [name, count] of Object.entries(dns)) if (count > 0) named[`dns.${name}`] = count;
  for (const direction of ['outbound', 'inbound'] as const) {
    for (const [verdict, count] of Object.entries(gate.counters(direction))) {
      if (count > 0) named[`${direction}${verdict}`] = count;
    }
  }
  return named;
}

/** A certificate of one side is not accepted by the other one. */
const DISTRUST: ReadonlySet<FailureKind> = new Set([
  'peer-untrusted',
  'peer-identity',
  'certificate-untrusted',
  'certificate-expired',
  'revoked',
]);
