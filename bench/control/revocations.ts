/**
 * A program that starts a cloud gateway from a store, revokes sites while their edges are connected and packets flow,
 * and prints one line of JSON:
 *
 *     node revocations.js STORE SITES REVOCATIONS
 *
 * Meanwhile another site sends a storm of packets, and exposures change.
 * @module
 */
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { CloudGateway } from '../../src/gateway/index.ts';
import { FileStore, MemorySecrets } from '../../src/store/index.ts';
import { Random } from '../../test/support/random.ts';
import { median } from '../gateway/median.ts';
import { rounded } from '../gateway/report.ts';
import type { EdgeOptions, EdgeReport } from './revocation-edge.ts';
import { EXTRA, hostAddress, OWNER, PORT, SEED, serviceAddress, siteName, TRUST } from './scene.ts';
import { Network, Pace } from './traffic.ts';

/** How sites were revoked under load. */
export interface RevocationsUnderLoad {
  readonly revocations: number;
  /** From the call until the receipt; the median and the longest. */
  readonly ms: number;
  readonly mostMs: number;
  /** Packets of revoked sites that were delivered after the receipt, or sent to them after it. */
  readonly packetsAfter: number;
  /** Packets of these sites before it, both ways. */
  readonly packetsBefore: number;
  /** Packets that the revoked edges went on sending. */
  readonly packetsRefused: number;
  readonly stormPackets: number;
  readonly exposures: number;
}

const PACKETS_PER_SECOND = 1000;
const STORM_PACKETS_PER_SECOND = 10_000;
/** How long packets flow before a revocation, and are tried after it. */
const FLOW_MS = 150;
const PATIENCE_MS = 60_000;
/** The pause between two changes of exposures. */
const CHANGE_MS = 10;

const [path, sitesText, countText] = process.argv.slice(2);
const [sites, count] = [Number(sitesText), Number(countText)];
const random = new Random(SEED);
const store = await FileStore.open({ path: path! });

/** Called with each packet that arrives at the service. */
let onService: (source: string, number: number) => void = () => {};
let stormPackets = 0;
/** The presence of the host of the storm. */
let stormSource: string | undefined;
const network = new Network(({ source }, number) => {
  if (`${source}` === stormSource) stormPackets++;
  else onService(`${source}`, number);
});
const gateway = await CloudGateway.start({
  trustDomain: TRUST,
  tunnel: '127.0.0.1:0',
  device: network.device,
  store,
  secrets: new MemorySecrets(),
  // All edges have one address here.
  limits: { maxConnectionRate: 1000, maxTunnelRate: 1000 },
});

async function connect(site: string, packetsPerSecond: number): Promise<Worker> {
  const workerData: EdgeOptions = {
    token: await gateway.createToken({ site }),
    address: hostAddress(0),
    port: PORT,
    packetsPerSecond,
  };
  const program = fileURLToPath(new URL('revocation-edge.js', import.meta.url));
  const edge = new Worker(program, { workerData });
  edge.on('error', (error) => {
    throw error;
  });
  return edge;
}

/** Resolves with the source of the first packet that comes to the service. */
function firstSource(): Promise<string> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('no packet came from the edge')), PATIENCE_MS);
    onService = (source) => {
      clearTimeout(timer);
      resolve(source);
    };
  });
}

async function stop(edge: Worker): Promise<EdgeReport> {
  edge.postMessage('stop');
  const [report] = (await once(edge, 'message')) as [EdgeReport];
  await edge.terminate();
  return report;
}

interface Revoked {
  readonly ms: number;
  readonly before: number;
  readonly after: number;
  readonly refused: number;
}

/** Connects the edge of a site, lets packets flow both ways, and revokes the site. */
async function revoke(site: string): Promise<Revoked> {
  const first = firstSource();
  const edge = await connect(site, PACKETS_PER_SECOND);
  const destination = await first;
  let before = 0;
  let after = 0;
  let isRevoked = false;
  let sentUp = 0;
  onService = (source, number) => {
    if (source !== destination) throw new Error(`a packet came from ${source}`);
    if (isRevoked) after++;
    else before++;
    sentUp = number + 1;
  };
  const ends = { source: serviceAddress(0), sourcePort: PORT, destination, destinationPort: PORT };
  const down = new Pace(PACKETS_PER_SECOND, (number) => network.send(ends, number));
  await delay(FLOW_MS);
  const startMs = performance.now();
  const receipt = await gateway.revoke({ site });
  const ms = performance.now() - startMs;
  // What the gateway delivered before the receipt waits to be read.
  network.drain();
  isRevoked = true;
  const revokedAt = down.next;
  if (receipt.tunnelsClosed !== 1) throw new Error(`${receipt.tunnelsClosed} tunnels were closed`);
  await delay(FLOW_MS);
  down.stop();
  const report = await stop(edge);
  if (report.refusals === 0) throw new Error(`the edge of ${site} was not refused`);
  if (report.last >= revokedAt) after += report.last - revokedAt + 1;
  await gateway.reinstate(site);
  return { ms, before: before + report.received, after, refused: report.sent - sentUp };
}

const storming = firstSource();
const storm = await connect(siteName(0), STORM_PACKETS_PER_SECOND);
stormSource = await storming;

const revoked: Revoked[] = [];
let exposures = 0;
let isOver = false;
const changing = (async () => {
  while (!isOver) {
    const exposure = { service: EXTRA, site: siteName(random.below(sites)) };
    await gateway.registry.expose(exposure, OWNER);
    await gateway.registry.unexpose(exposure, OWNER);
    exposures += 2;
    await delay(CHANGE_MS);
  }
})();
for (let i = 0; i < count; i++) revoked.push(await revoke(siteName(random.between(1, sites - 1))));
isOver = true;
await changing;
await stop(storm);
await gateway.close();
await store.close();

const sum = (of: (each: Revoked) => number) => revoked.reduce((total, each) => total + of(each), 0);
const times = revoked.map(({ ms }) => ms);
const figures: RevocationsUnderLoad = {
  revocations: count,
  ms: rounded(median(times)),
  mostMs: rounded(Math.max(...times)),
  packetsAfter: sum(({ after }) => after),
  packetsBefore: sum(({ before }) => before),
  packetsRefused: sum(({ refused }) => refused),
  stormPackets,
  exposures,
};
console.log(JSON.stringify(figures));
