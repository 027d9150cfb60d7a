/**
 * A program that starts a cloud gateway from a store, revokes random sites, and prints one line of JSON:
 *
 *     node --expose-gc receipts.js STORE SITES SECONDS
 *
 * No edge is connected; the receipt is about certificates, handshakes and paths.
 * @module
 */
import { MemoryDevice } from '../../src/device/index.ts';
import { CloudGateway } from '../../src/gateway/index.ts';
import { FileStore, MemorySecrets } from '../../src/store/index.ts';
import { Random } from '../../test/support/random.ts';
import { type Cost, repeat } from './cost.ts';
import { LoopWatch } from './loop-watch.ts';
import { SEED, siteName, TRUST } from './scene.ts';

const [path, sites, seconds] = process.argv.slice(2);
const store = await FileStore.open({ path: path! });
const gateway = await CloudGateway.start({
  trustDomain: TRUST,
  tunnel: '127.0.0.1:0',
  device: MemoryDevice.pair()[0],
  dns: { listen: '127.0.0.1:0' },
  store,
  secrets: new MemorySecrets(),
});
const random = new Random(SEED);
const watch = new LoopWatch();
const receipt: Cost = await repeat(watch, Number(seconds), async () => {
  const site = siteName(random.below(Number(sites)));
  const startMs = performance.now();
  await gateway.revoke({ site });
  const tookMs = performance.now() - startMs;
  await gateway.reinstate(site);
  await watch.quiet();
  return tookMs;
});
watch[Symbol.dispose]();
await gateway.close();
await store.close();
console.log(JSON.stringify(receipt));
