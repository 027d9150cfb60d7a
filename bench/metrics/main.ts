/**
 * Measures a scrape of a cloud gateway with so many sites that there are 16,000 series: how long it takes, and how long
 * it holds up the event loop of the gateway. `--sites N` takes another number of sites, `--scrapes N` another number of
 * scrapes. It ends with exit code 1 if a scrape has held up the event loop for 10 ms or more in the median.
 * @module
 */
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Worker } from 'node:worker_threads';
import { MemoryDevice } from '../../src/device/index.ts';
import { CloudGateway } from '../../src/gateway/index.ts';
import { MemorySecrets, MemoryStore } from '../../src/store/index.ts';
import { LoopWatch, type Stalls } from '../control/loop-watch.ts';
import { median } from '../gateway/median.ts';

const { values } = parseArgs({
  options: {
    sites: { type: 'string', default: '640' },
    scrapes: { type: 'string', default: '25' },
  },
});
const IDLE_MS = 30;
const siteCount = Number(values.sites);
const scrapes = Number(values.scrapes);

const [device] = MemoryDevice.pair();
const lan = { sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'], zone: 'example.test' };
const names = Array.from({ length: siteCount }, (_, i) => `site-${i}`);
const cloud = await CloudGateway.start({
  trustDomain: 'example.test',
  tunnel: '127.0.0.1:0',
  metrics: { listen: '127.0.0.1:0' },
  device,
  store: new MemoryStore(),
  secrets: new MemorySecrets(),
  desired: {
    sites: ['cloud', ...names].map((name) => ({ name, ...lan })),
    services: [{ name: 'bus', site: 'cloud', address: '10.0.0.5', ports: ['tcp/5672'] }],
    exposures: names.map((site) => ({ service: 'bus', site })),
  },
});
const url = `http://127.0.0.1:${cloud.addresses.metrics!.port}/metrics`;

/** Reads the metrics in a thread of its own, as Prometheus does beside the gateway. */
const client = new Worker(
  `const { parentPort } = require('node:worker_threads');
  parentPort.on('message', async (url) => {
    const text = await (await fetch(url)).text();
    parentPort.postMessage({ series: text.match(/^[^#\\n]/gm).length, bytes: text.length });
  });`,
  { eval: true }
);

async function scrape(): Promise<{ series: number; bytes: number }> {
  client.postMessage(url);
  const [size] = (await once(client, 'message')) as [{ series: number; bytes: number }];
  return size;
}

const { series, bytes } = await scrape();
const watch = new LoopWatch();
const stalls: Stalls[] = [];
const took: number[] = [];
/** What the machine does to a process that does nothing. */
const idleMs: number[] = [];
for (let i = 0; i < scrapes; i++) {
  await watch.begin();
  await delay(IDLE_MS);
  idleMs.push((await watch.end()).stallMs);
  await watch.begin();
  const beganMs = performance.now();
  await scrape();
  took.push(performance.now() - beganMs);
  stalls.push(await watch.end());
}
watch[Symbol.dispose]();
await client.terminate();
await cloud.close();
const heldMs = stalls.map(({ stallMs }) => stallMs);
const rounded = (ms: number): number => Number(ms.toFixed(1));
console.log(
  JSON.stringify({
    sites: siteCount,
    series,
    bytes,
    scrapes,
    scrapeMs: rounded(median(took)),
    heldMs: rounded(median(heldMs)),
    heldWithoutGarbageMs: rounded(median(stalls.map(({ sliceMs }) => sliceMs))),
    heldWithoutScrapeMs: rounded(median(idleMs)),
    worstHeldMs: rounded(Math.max(...heldMs)),
  })
);
const limitMs = 10;
process.exitCode = median(heldMs) < limitMs ? 0 : 1;
