/**
 * A real Prometheus scrapes a cloud gateway and two edges: each query of the dashboard has series, and each alert fires
 * when its fault is made, and ends when it is mended.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { Resolver } from 'node:dns/promises';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, test } from 'vitest';
import { parse } from 'yaml';
import { generateCa } from '../../src/pki/index.ts';
import type { DesiredInput } from '../../src/registry/index.ts';
import { MemorySecrets, MemoryStore, type Write } from '../../src/store/index.ts';
import { ANY_PORT, Gateways, Hosts, LAN, SERVICE } from '../gateway/scene.ts';
import { eventually } from '../support/gateway-process.ts';
import { titled } from '../support/namespace.ts';
import { PrometheusServer, prometheusMissing, promtool, RULES } from './prometheus-server.ts';

const HOUR_MS = 3_600_000;
/** A limit for what takes some seconds on an idle machine. */
const DEADLINE_MS = 90_000;
const PATIENCE = { signal: AbortSignal.timeout(600_000) };
const skipReason = prometheusMissing();

/** A store whose commits fail on demand, as those of a full disk do. */
class StoppableStore extends MemoryStore {
  isStopped = false;

  override async commit(writes: readonly Write[]): Promise<void> {
    if (this.isStopped) throw new Error('the disk is full');
    await super.commit(writes);
  }
}

/** An upstream name server that answers every query with one response code. */
class Upstream {
  rcode = 0;
  readonly #socket = createSocket('udp4');

  async open(): Promise<string> {
    this.#socket.on('message', (query, { port, address }) => {
      const answer = Buffer.from(query);
      answer[2]! |= 0x80;
      answer[3] = this.rcode;
      this.#socket.send(answer, port, address);
    });
    this.#socket.bind(0, '127.0.0.1');
    await once(this.#socket, 'listening');
    return `127.0.0.1:${(this.#socket.address() as AddressInfo).port}`;
  }

  close(): void {
    this.#socket.close();
  }
}

/** The site `site-b`, whose edge is a process. */
class EdgeProcess {
  readonly home: string = mkdtempSync(join(tmpdir(), 'vp-metrics-edge-'));
  #child: ChildProcess | undefined;

  /** Returns the port of its metrics. */
  async start(snapshotValidMs: number, token?: string): Promise<number> {
    const program = fileURLToPath(new URL('prometheus-edge-child.ts', import.meta.url));
    const args = [this.home, String(snapshotValidMs), ...(token === undefined ? [] : [token])];
    const child = fork(program, args, { execArgv: ['--import', 'tsx'] });
    this.#child = child;
    const [port] = (await once(child, 'message')) as [number];
    return port;
  }

  signal(signal: NodeJS.Signals): void {
    this.#child!.kill(signal);
  }

  async kill(): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'close');
  }
}

/** Seven services at site-a, whose pool has as many addresses as `prefix` says, and two at site-b. */
function desired(prefix: string, ...more: readonly string[]): DesiredInput {
  const lan = { ...LAN, pools: [prefix] };
  const names = Array.from({ length: 7 }, (_, i) => `service-${i}`);
  const services = names.map((name, i) => ({ ...SERVICE, name, address: `10.0.0.${50 + i}` }));
  return {
    sites: [
      { name: 'cloud', ...lan },
      { name: 'site-a', ...lan },
      { name: 'site-b', ...LAN },
    ],
    services: [SERVICE, ...services],
    exposures: [
      ...['bus', ...names.slice(0, 6)].map((service) => ({ service, site: 'site-a' })),
      ...['bus', ...more].map((service) => ({ service, site: 'site-b' })),
    ],
  };
}

const gateways = new Gateways();
const upstream = new Upstream();
const siteB = new EdgeProcess();
let prometheus: PrometheusServer | undefined;
afterAll(async () => {
  await prometheus?.close();
  await siteB.kill();
  await gateways.close();
  upstream.close();
  rmSync(siteB.home, { recursive: true, force: true });
});

/** Resolves when each of these alerts has fired; `fault` is repeated until then. */
async function fires(names: readonly string[], fault: () => unknown = () => {}): Promise<void> {
  const missing = new Set(names);
  await untilNone('do not fire', missing, async () => {
    await fault();
    const firing = await prometheus!.alerts();
    for (const name of names) {
      if (firing.has(`VirtualPresence${name}`) && missing.delete(name)) seen.add(name);
    }
  });
}

/** Resolves when none of these alerts fires. */
async function end(names: readonly string[]): Promise<void> {
  const left = new Set(names);
  await untilNone('do not end', left, async () => {
    const firing = await prometheus!.alerts();
    left.clear();
    for (const name of names) if (firing.has(`VirtualPresence${name}`)) left.add(name);
  });
}

/** Looks until the set is empty. */
async function untilNone(
  fault: string,
  left: ReadonlySet<string>,
  look: () => Promise<void>
): Promise<void> {
  const endMs = Date.now() + DEADLINE_MS;
  for (;;) {
    await look();
    if (left.size === 0) return;
    if (Date.now() > endMs) throw new Error(`${[...left].join(', ')} ${fault}`);
    await delay(50);
  }
}

/** The alerts that have fired. */
const seen = new Set<string>();

const title = 'each alert fires with its fault and ends without it, and the dashboard has series';
test.skipIf(skipReason !== undefined)(
  titled(title, skipReason),
  async () => {
    prometheus = await PrometheusServer.start();
    const store = new StoppableStore();
    const secrets = new MemorySecrets();
    const expiring = generateCa({ trustDomain: 'example.test', rootLifetimeMs: 30 * HOUR_MS });
    await secrets.commit({
      'ca.pem': Buffer.from(expiring.certificatePem),
      'ca-key.pem': Buffer.from(expiring.privateKeyPem),
    });
    const behindCloud = new Hosts();
    behindCloud.serve(() => 'yes');
    const cloud = await gateways.cloud({
      store,
      secrets,
      device: behindCloud.device,
      metrics: { listen: ANY_PORT },
      dns: { listen: ANY_PORT, forward: [{ suffix: '.', upstreams: [await upstream.open()] }] },
      desired: desired('10.0.0.128/29'),
    });
    const { metrics, dns } = cloud.addresses;
    const hosts = new Hosts();
    const secretsA = new MemorySecrets();
    const edge = await gateways.edge({
      device: hosts.device,
      store: new MemoryStore(),
      secrets: secretsA,
      metrics: { listen: ANY_PORT },
      dns: { listen: ANY_PORT },
      token: await cloud.createToken({ site: 'site-a' }),
    });
    let portB = await siteB.start(12 * HOUR_MS, await cloud.createToken({ site: 'site-b' }));
    await edge.ready(PATIENCE);
    const scrapeAll = (): void => {
      prometheus!.scrape('virtual-presence-cloud', metrics!.port);
      prometheus!.scrape('virtual-presence-edge', edge.addresses.metrics!.port, portB);
    };
    scrapeAll();
    const resolver = new Resolver({ tries: 1 });
    resolver.setServers([`127.0.0.1:${dns!.port}`]);
    const ask = () => resolver.resolve4('elsewhere.test').catch(() => {});
    const presence = edge.lookup('bus')[0]!.addresses[0]!;
    await hosts.request(presence, 'hello?');

    const url = (port: number) => `http://127.0.0.1:${port}`;
    for (const port of [metrics!.port, edge.addresses.metrics!.port, portB]) {
      promtool(['check', 'metrics'], await (await fetch(`${url(port)}/metrics`)).text());
    }

    // A CA and a snapshot that end soon, full pools, clients without an address, refused packets, a dead upstream.
    const first = [
      'CertificateExpires',
      'SnapshotExpires',
      'PoolNearlyFull',
      'ExposureWithoutAddress',
      'ClientsRefused',
      'PacketsRefused',
      'DnsFailing',
    ];
    upstream.rcode = 2;
    let client = 10;
    await fires(first, async () => {
      await ask();
      const ports = { sourcePort: 4000, destinationPort: 7, payload: Buffer.from('x') };
      for (let i = 0; i < 50; i++) {
        behindCloud.send({ source: '10.0.0.5', destination: '10.0.0.99', ...ports });
      }
      client = client === 40 ? 10 : client + 1;
      hosts.send({ source: `10.0.0.${client}`, destination: presence, ...ports });
      await delay(20);
    });
    upstream.rcode = 3;
    await cloud.apply(desired('10.0.0.128/25'));
    await cloud.rotateCa('prepare');
    await cloud.rotateCa('activate');
    await siteB.kill();
    portB = await siteB.start(7 * 24 * HOUR_MS);
    scrapeAll();
    store.isStopped = true;
    await expect(cloud.createToken({ site: 'site-a' })).rejects.toThrow(/the disk is full/);
    await fires(['NotReady']);
    expect((await fetch(`${url(metrics!.port)}/readyz`)).status).toBe(503);
    store.isStopped = false;
    await end([...first, 'NotReady']);
    expect((await fetch(`${url(metrics!.port)}/readyz`)).status).toBe(200);

    // A thief who uses the certificate of a revoked site, and an edge that hangs when it gets a new snapshot.
    await eventually('the tunnel of site-b', async () => {
      const { sites } = await cloud.status();
      return sites.find(({ name, edge: up }) => name === 'site-b' && up !== undefined);
    });
    await cloud.revoke({ site: 'site-a' });
    const thief = await gateways.edge({ store: new MemoryStore(), secrets: secretsA });
    siteB.signal('SIGSTOP');
    await cloud.apply(desired('10.0.0.128/25', 'service-0'));
    const second = ['HandshakesRefused', 'EdgeBehind', 'PacketsDropped', 'GatewayGone'];
    await fires(second, async () => {
      const ports = { sourcePort: 4000, destinationPort: 7, payload: Buffer.from('x') };
      for (let i = 0; i < 50; i++)
        hosts.send({ source: '10.0.0.5', destination: presence, ...ports });
      await delay(20);
    });
    await thief.close();
    siteB.signal('SIGCONT');
    await cloud.reinstate('site-a');
    await edge.enrol(await cloud.createToken({ site: 'site-a' }));
    await end(second);

    // An edge that is gone, and an event loop that is held up.
    await siteB.kill();
    const third = ['TunnelDown', 'EventLoopHeldUp'];
    await fires(third, () => {
      const endMs = performance.now() + 700;
      while (performance.now() < endMs);
    });
    portB = await siteB.start(7 * 24 * HOUR_MS);
    scrapeAll();
    await end([...third, ...second]);

    // A machine that is cut off from the store that it shares with another one.
    const shared = new MemoryStore();
    const listen = { metrics: { listen: ANY_PORT } };
    const rest = await gateways.machine(shared, 'rest', { ...listen, ttlMs: 1000 });
    const cut = await gateways.machine(shared, 'cut', { ...listen, ttlMs: 1000 });
    const ports = [rest, cut].map(({ cloud: machine }) => machine.addresses.metrics!.port);
    prometheus.scrape('virtual-presence-cloud', metrics!.port, ...ports);
    cut.store.disconnect();
    const fourth = ['MachineDetached', 'MachineGone'];
    await fires(fourth);
    // Now none of them allocates addresses.
    rest.store.disconnect();
    await fires(['NoController']);
    rest.store.reconnect();
    cut.store.reconnect();
    await end([...fourth, 'NoController', 'NotReady']);

    const { groups } = parse(readFileSync(RULES, 'utf8')) as {
      groups: { rules: { alert: string }[] }[];
    };
    const all = groups.flatMap(({ rules }) => rules.map(({ alert }) => alert));
    expect([...seen].map((name) => `VirtualPresence${name}`).sort()).toEqual(all.sort());

    await hosts.request(presence, 'still there?');
    await ask();
    const dashboard = JSON.parse(readFileSync('grafana/virtual-presence.json', 'utf8')) as {
      panels: { title: string; targets?: { expr: string }[] }[];
    };
    const queries = dashboard.panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr));
    expect(queries.length).toBeGreaterThan(25);
    for (const query of queries) {
      const concrete = query
        .replaceAll('$__rate_interval', '10s')
        .replace(/\$(cloud|edge)(\|\$edge)?/g, '.*')
        .replaceAll('$site', '.*');
      await eventually(query, async () => (await prometheus!.query(concrete)) > 0 || undefined);
    }
  },
  300_000
);
