/**
 * A program that measures a reconnect storm: a listener with many tunnels loses all of them at once, and stays open.
 *
 *     node --expose-gc storm.js <tunnels> [PLACE]
 *
 * With the place of a cloud of several machines (`place.ts`), each tunnel first claims its site there, as in a cloud
 * gateway, and gives it up when it ends.
 * The listener is in this process, the edges are in another one. The rate of handshakes is that of tunnels that are
 * dialled with 16 attempts under way at a time, before the storm.
 * @module
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { type Member, SiteClaims } from '../../src/cluster/index.ts';
import {
  CertificateAuthority,
  createSigningRequest,
  type GatewayIdentity,
  generateCa,
  generateGatewayKey,
} from '../../src/pki/index.ts';
import { MemoryStore } from '../../src/store/index.ts';
import {
  type AuthorizeVerdict,
  CloseCode,
  type Credentials,
  MtlsTunnel,
  type TunnelCandidate,
  type TunnelListener,
} from '../../src/tunnel/index.ts';
import { rounded } from '../gateway/report.ts';
import { LoopWatch } from './loop-watch.ts';
import { placeOf } from './place.ts';

export interface StormFigures {
  readonly tunnels: number;
  /** Before the storm. */
  readonly handshakesPerSecond: number;
  /** Processor time of a handshake before the storm, at both ends, in ms. */
  readonly listenerCpuMs: number;
  readonly edgeCpuMs: number;
  /** From the cut until the last tunnel is back, and the outage that 1 in 2 and 1 in 100 tunnels exceed, in ms. */
  readonly lastBackMs: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** `lastBackMs` in relation to the time that as many handshakes take at `handshakesPerSecond`. */
  readonly ratio: number;
  /** Processor time in the storm for each tunnel, at both ends, in ms. */
  readonly stormListenerCpuMs: number;
  readonly stormEdgeCpuMs: number;
  /** Keyed by code: the connections that became part of no tunnel in the storm. */
  readonly failed: Readonly<Record<string, number>>;
  /** The highest RSS of the listener in the storm, in relation to the RSS before it. */
  readonly rssRatio: number;
  /** The longest stall of the listener's event loop, without collections of garbage. */
  readonly sliceMs: number;
}

/** What a process of edges gets as its first message. It answers each further message with its CPU time in ms. */
interface EdgeConfig {
  readonly port: number;
  readonly edges: readonly Credentials[];
}

/** @throws {Error} if the tunnels are not up, or not back, in three minutes */
async function measureStorm(tunnels: number, member: Member | undefined): Promise<StormFigures> {
  const [cloud, ...edges] = await issueAll(tunnels);
  const claims = member && (await openClaims(member, () => listener));
  const listener: TunnelListener = await MtlsTunnel.listen({
    ...{ host: '127.0.0.1', port: 0, ...cloud! },
    // All edges have one address here.
    ...{ maxConnectionRate: 1_000_000, maxTunnelBurst: 1_000 },
    expectedTunnels: () => tunnels,
    ...(claims && { authorize: (candidate) => authorize(claims, candidate) }),
  });
  if (claims !== undefined) releaseWhenDown(claims, listener);
  const child = fork(import.meta.filename, ['edges']);
  try {
    const cpuMs = await cpuMsOf(child);
    child.send({ port: listener.port, edges } satisfies EdgeConfig);
    const times = await backTimes(listener, tunnels);
    const perTunnel = (await cpuMsOf(child)).map((ms, i) => rounded((ms - cpuMs[i]!) / tunnels));
    // The first tunnels come while the processes start.
    const skipped = Math.floor(tunnels / 10);
    const rate = (1_000 * (tunnels - 1 - skipped)) / (times.at(-1)! - times[skipped]!);
    return {
      tunnels,
      handshakesPerSecond: rounded(rate),
      listenerCpuMs: perTunnel[0]!,
      edgeCpuMs: perTunnel[1]!,
      ...(await storm(listener, child, tunnels, rate)),
    };
  } finally {
    child.kill();
    for (const tunnel of listener.tunnels) tunnel.destroy();
    await listener.close();
    await claims?.close();
  }
}

function openClaims(member: Member, listener: () => TunnelListener): Promise<SiteClaims> {
  const isAlive = async (site: string): Promise<boolean> =>
    [...listener().tunnels].some((tunnel) => siteOf(tunnel) === site);
  return SiteClaims.open({ member, liveness: { isAlive } });
}

async function authorize(
  claims: SiteClaims,
  { identity, step, lastEpoch }: TunnelCandidate
): Promise<AuthorizeVerdict> {
  if (step === 'certificate' || identity.role !== 'site') return undefined;
  const claim = await claims.claim(identity.site, lastEpoch);
  if (claim.kind === 'held') return { epoch: claim.epoch };
  if (claim.kind === 'moved') return { moved: claim.endpoints };
  return { code: CloseCode.Busy, reason: 'the claim failed', retryAfterMs: claim.retryAfterMs };
}

function releaseWhenDown(claims: SiteClaims, listener: TunnelListener): void {
  const counts = new Map<string, number>();
  listener.on('tunnel', (tunnel) => {
    const site = siteOf(tunnel);
    counts.set(site, (counts.get(site) ?? 0) + 1);
    tunnel.on('down', () => {
      const left = counts.get(site)! - 1;
      counts.set(site, left);
      if (left === 0) claims.release(site);
    });
  });
}

function siteOf({ peer }: MtlsTunnel): string {
  return peer?.role === 'site' ? peer.site : '';
}

type OfTheStorm = Omit<
  StormFigures,
  'tunnels' | 'handshakesPerSecond' | 'listenerCpuMs' | 'edgeCpuMs'
>;

async function storm(
  listener: TunnelListener,
  child: ChildProcess,
  tunnels: number,
  rate: number
): Promise<OfTheStorm> {
  const failedBefore = new Map(listener.counters.failed);
  const cpuBefore = await cpuMsOf(child);
  globalThis.gc?.();
  using watch = new LoopWatch();
  await watch.begin();
  const rssBefore = process.memoryUsage.rss();
  let rss = rssBefore;
  const timer = setInterval(() => {
    rss = Math.max(rss, process.memoryUsage.rss());
  }, RSS_MS);
  const back = backTimes(listener, tunnels);
  const cutMs = performance.now();
  for (const tunnel of [...listener.tunnels]) tunnel.destroy();
  const outages = (await back.finally(() => clearInterval(timer))).map((ms) => ms - cutMs);
  const { sliceMs } = await watch.end();
  const cpu = (await cpuMsOf(child)).map((ms, i) => rounded((ms - cpuBefore[i]!) / tunnels));
  const failed = [...listener.counters.failed].map(
    ([code, count]) => [code, count - (failedBefore.get(code) ?? 0)] as const
  );
  return {
    lastBackMs: rounded(outages.at(-1)!),
    p50Ms: rounded(outages[Math.floor(tunnels / 2)]!),
    p99Ms: rounded(outages[Math.floor(0.99 * tunnels)]!),
    ratio: rounded(outages.at(-1)! / ((1_000 * tunnels) / rate)),
    stormListenerCpuMs: cpu[0]!,
    stormEdgeCpuMs: cpu[1]!,
    failed: Object.fromEntries(failed.filter(([, count]) => count > 0)),
    rssRatio: rounded(rss / rssBefore),
    sliceMs: rounded(sliceMs),
  };
}

/** Resolves to the times at which the tunnels of `count` sites came up, in their order, when all have. */
function backTimes(listener: TunnelListener, count: number): Promise<number[]> {
  const times = new Map<string, number>();
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      reject(new Error(`only ${times.size} of ${count} tunnels came within ${GIVE_UP_MS} ms`));
    }, GIVE_UP_MS);
    const onTunnel = (tunnel: MtlsTunnel): void => {
      const site = siteOf(tunnel);
      if (!times.has(site)) times.set(site, performance.now());
      if (times.size < count) return;
      clearTimeout(timer);
      listener.off('tunnel', onTunnel);
      resolve([...times.values()]);
    };
    listener.on('tunnel', onTunnel);
  });
}

/** Returns the processor time so far of this process and of the edges, in ms. */
async function cpuMsOf(child: ChildProcess): Promise<readonly [number, number]> {
  child.send('cpu');
  const [edgeMs] = (await once(child, 'message')) as [number];
  return [ownCpuMs(), edgeMs];
}

function ownCpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1_000;
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

/** The process of edges: dials all of them, a few at a time, and keeps them up until it is ended. */
function runEdges(): void {
  process.once('disconnect', () => process.exit());
  process.on('message', (message: 'cpu' | EdgeConfig) => {
    if (message === 'cpu') process.send!(ownCpuMs());
    else dialAll(message);
  });
}

function dialAll({ port, edges }: EdgeConfig): void {
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

async function main(tunnels: number, where: string | undefined): Promise<void> {
  const place = where === undefined ? undefined : await (await placeOf(where))();
  const figures = await measureStorm(tunnels, place?.member);
  await place?.close();
  console.log(JSON.stringify(figures));
}

const TRUST_DOMAIN = 'example.org';
const CLOUD: GatewayIdentity = { trustDomain: TRUST_DOMAIN, role: 'cloud' };
/** Attempts under way at a time while the rate is measured. */
const UNDER_WAY = 16;
const GIVE_UP_MS = 180_000;
const RSS_MS = 20;

if (process.argv[2] === 'edges') runEdges();
else await main(Number(process.argv[2]), process.argv[3]);
