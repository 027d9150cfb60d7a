/**
 * Measures a reconnect storm: a listener with thousands of tunnels loses all of them at once. It says how long it takes
 * until the last one is back, beside the time that as many handshakes take at the rate of the same run:
 *
 *     node --expose-gc --import tsx bench/control/storm.ts [--quick] [--tunnels 2000] [--dialers 1]
 *
 * The listener is in this process, the edges are in one or more others. The rate is that of tunnels that are dialled with
 * 16 attempts under way at a time, before the storm. In the storm every socket of the listener is cut; it stays open.
 * @module
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import {
  CertificateAuthority,
  createSigningRequest,
  type GatewayIdentity,
  generateCa,
  generateGatewayKey,
} from '../../src/pki/index.ts';
import { MemoryStore } from '../../src/store/index.ts';
import { type Credentials, MtlsTunnel, type TunnelListener } from '../../src/tunnel/index.ts';
import { wholeNumber } from '../gateway/whole-number.ts';

export interface StormOptions {
  /** How many tunnels there are; default 2,000. */
  readonly tunnels?: number;
  /** How many processes have the edges; default 1. */
  readonly dialers?: number;
}

/** The targets of the figures of `measureStorm`: the value must not be larger. */
export const STORM_TARGETS: Readonly<Record<string, number>> = {
  stormRatio: 1.3,
  stormRssRatio: 1.2,
};

/** What a process of edges gets as its first message. */
interface EdgeConfig {
  readonly port: number;
  readonly edges: readonly Credentials[];
}

/**
 * Returns the figures by name: `handshakesPerSecond` before the storm, and the time of a core that each takes from this
 * process, `handshakeCpuMs`; `stormLastBackMs` from the cut to the last tunnel,
 * and the same for the half and for 99 in 100; `stormRatio`, `stormLastBackMs` in relation to the tunnels divided by that
 * rate; `stormPeakRssBytes`, and `stormRssRatio`, the same in relation to the time before; `stormHandshakes`, the
 * connections that the listener saw in the storm, for each tunnel; `stormStallMs`, the longest stall of its event loop.
 *
 * @throws {Error} if the tunnels are not up, or not back, after 180 s
 */
export async function measureStorm(options: StormOptions = {}): Promise<Record<string, number>> {
  const { tunnels = 2_000, dialers = 1 } = options;
  const [cloud, ...edges] = await issueAll(tunnels);
  const listener = await MtlsTunnel.listen({
    ...{ host: '127.0.0.1', port: 0, ...cloud! },
    // All edges have one address here.
    ...{ maxConnectionRate: 1_000_000, maxTunnelBurst: 1_000 },
    expectedTunnels: () => tunnels,
  });
  const children: ChildProcess[] = [];
  try {
    const up = countTo(listener, tunnels);
    const cpuBefore = process.cpuUsage();
    const share = Math.ceil(tunnels / dialers);
    for (let first = 0; first < tunnels; first += share) {
      children.push(dialFrom(listener.port, edges.slice(first, first + share)));
    }
    const times = await up;
    // The first tunnels come while the processes start.
    const skipped = Math.floor(tunnels / 10);
    const handshakesPerSecond =
      (1_000 * (tunnels - 1 - skipped)) / (times.at(-1)! - times[skipped]!);
    const { user, system } = process.cpuUsage(cpuBefore);
    const handshakeCpuMs = (user + system) / 1_000 / tunnels;
    return {
      handshakesPerSecond,
      handshakeCpuMs,
      ...(await storm(listener, tunnels, handshakesPerSecond)),
    };
  } finally {
    for (const child of children) child.kill();
    for (const tunnel of listener.tunnels) tunnel.destroy();
    await listener.close();
  }
}

async function storm(
  listener: TunnelListener,
  tunnels: number,
  handshakesPerSecond: number
): Promise<Record<string, number>> {
  const { counters } = listener;
  const connections = (): number =>
    counters.accepted + [...counters.failed.values()].reduce((sum, count) => sum + count, 0);
  const before = connections();
  globalThis.gc?.();
  const rssBefore = process.memoryUsage.rss();
  let peakRss = rssBefore;
  let stallMs = 0;
  let lastMs = performance.now();
  const watch = setInterval(() => {
    const nowMs = performance.now();
    stallMs = Math.max(stallMs, nowMs - lastMs - WATCH_MS);
    lastMs = nowMs;
    peakRss = Math.max(peakRss, process.memoryUsage.rss());
  }, WATCH_MS);
  const cutMs = performance.now();
  const back = countTo(listener, tunnels);
  for (const tunnel of [...listener.tunnels]) tunnel.destroy();
  const times = (await back.finally(() => clearInterval(watch))).map((ms) => ms - cutMs);
  const stormLastBackMs = times.at(-1)!;
  return {
    stormHalfBackMs: times[Math.floor(tunnels / 2)]!,
    stormMost99BackMs: times[Math.floor(0.99 * tunnels)]!,
    stormLastBackMs,
    stormRatio: stormLastBackMs / ((1_000 * tunnels) / handshakesPerSecond),
    stormPeakRssBytes: peakRss,
    stormRssRatio: peakRss / rssBefore,
    stormHandshakes: (connections() - before) / tunnels,
    stormStallMs: stallMs,
  };
}

/** Resolves to the times at which the next tunnels came up, in their order, when there are `count` of them. */
function countTo(listener: TunnelListener, count: number): Promise<number[]> {
  const times: number[] = [];
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      reject(new Error(`only ${times.length} of ${count} tunnels came within ${GIVE_UP_MS} ms`));
    }, GIVE_UP_MS);
    const onTunnel = (): void => {
      times.push(performance.now());
      if (times.length < count) return;
      clearTimeout(timer);
      listener.off('tunnel', onTunnel);
      resolve(times);
    };
    listener.on('tunnel', onTunnel);
  });
}

/** Returns the credentials of the cloud, then those of the edges. They share one key, which costs nothing in TLS. */
async function issueAll(tunnels: number): Promise<Credentials[]> {
  const ca = generateCa({ trustDomain: TRUST_DOMAIN });
  const store = new MemoryStore();
  const authority = await CertificateAuthority.open({ ...ca, trustDomain: TRUST_DOMAIN, store });
  const { privateKeyPem: key } = generateGatewayKey();
  const request = createSigningRequest(key);
  const issue = async (identity: GatewayIdentity): Promise<Credentials> => {
    const { certificatePem: cert } = await authority.issue(request, identity);
    return { key, cert, ca: authority.certificatePem };
  };
  const all = [await issue(CLOUD)];
  for (let i = 0; i < tunnels; i++) {
    all.push(await issue({ trustDomain: TRUST_DOMAIN, role: 'site', site: `site-${i}` }));
  }
  return all;
}

/** Starts a process with edges. */
function dialFrom(port: number, edges: readonly Credentials[]): ChildProcess {
  const child = fork(FILE, ['--edges']);
  child.send({ port, edges } satisfies EdgeConfig);
  return child;
}

/** The process of edges: dials all of them, a few at a time, and keeps them up until it is ended. */
async function runEdges(): Promise<void> {
  process.once('disconnect', () => process.exit());
  const [{ port, edges }] = (await once(process, 'message')) as [EdgeConfig];
  let next = 0;
  const dialNext = (): void => {
    const credentials = edges[next++];
    if (credentials === undefined) return;
    const tunnel = MtlsTunnel.dial({
      ...credentials,
      endpoints: [{ host: '127.0.0.1', port }],
      expectedPeer: CLOUD,
    });
    tunnel.once('up', dialNext);
  };
  for (let i = 0; i < UNDER_WAY; i++) dialNext();
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      edges: { type: 'boolean', default: false },
      quick: { type: 'boolean', default: false },
      tunnels: { type: 'string' },
      dialers: { type: 'string', default: '1' },
    },
  });
  if (values.edges) return runEdges();
  const figures = await measureStorm({
    tunnels: wholeNumber('tunnels', values.tunnels ?? (values.quick ? '200' : '2000')),
    dialers: wholeNumber('dialers', values.dialers),
  });
  console.log(JSON.stringify({ figures, targets: STORM_TARGETS }));
}

const FILE = import.meta.filename;
const TRUST_DOMAIN = 'example.org';
const CLOUD: GatewayIdentity = { trustDomain: TRUST_DOMAIN, role: 'cloud' };
/** Attempts under way at a time in one process, while the rate is measured. */
const UNDER_WAY = 16;
/** When the tunnels are given up that do not come, in ms. */
const GIVE_UP_MS = 180_000;
/** How often the event loop and the memory are looked at, in ms. */
const WATCH_MS = 20;

if (import.meta.url === pathToFileURL(process.argv[1]!).href) await main();
