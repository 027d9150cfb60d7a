/**
 * A program of somebody else that has a pool of two workers, and an edge of its own to see that they carry
 * something. `workers.test.ts` bundles it under another name. It prints one line of JSON for each thing that
 * happens, and ends by itself.
 */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import {
  CertificateAuthority,
  type Credentials,
  type GatewayIdentity,
  MemoryStore,
  MtlsTunnel,
} from 'virtual-presence';
import { createSigningRequest, generateCa, generateGatewayKey } from 'virtual-presence/pki';
import { type SiteTunnel, WorkerPool } from 'virtual-presence/worker';

const TRUST_DOMAIN = 'example.test';
const SITE = 'site-a';
const LAN = { sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'] };

function print(what: Readonly<Record<string, unknown>>): void {
  process.stdout.write(`${JSON.stringify(what)}\n`);
}

async function main(): Promise<void> {
  const authority = await CertificateAuthority.open({
    ...generateCa({ trustDomain: TRUST_DOMAIN }),
    trustDomain: TRUST_DOMAIN,
    store: new MemoryStore(),
  });
  const credentialsOf = async (identity: GatewayIdentity): Promise<Credentials> => {
    const { privateKeyPem: key } = generateGatewayKey();
    const { certificatePem: cert } = await authority.issue(createSigningRequest(key), identity);
    return { key, cert, ca: authority.trustBundlePem };
  };
  const cloud: GatewayIdentity = { trustDomain: TRUST_DOMAIN, role: 'cloud' };
  const credentials = await credentialsOf(cloud);

  const flag = '--worker-main=';
  const workerMain = process.argv.find((each) => each.startsWith(flag))?.slice(flag.length);

  let onBack = () => {};
  const isBack = new Promise<void>((resolve) => {
    onBack = resolve;
  });
  const log = (_fields: object, message: string): void => {
    print({ log: message });
    if (message === 'process 0 is back') onBack();
  };
  const pool = new WorkerPool({
    workers: 2,
    device: { name: 'vp0', routes: LAN.pools, lan: [] },
    tunnel: { host: '127.0.0.1', port: 0 },
    credentials: () => credentials,
    access: () => ({ sites: [SITE], revocations: authority.revocations.table, retired: [] }),
    admit: async () => {},
    ...(workerMain === undefined ? {} : { workerMain }),
    logger: { debug: log, info: log, warn: log, error: log },
  });
  /** Answers what the edge says. */
  pool.on('tunnel', (tunnel: SiteTunnel) => {
    tunnel.on('control', (message) => tunnel.sendControl({ type: 'answer', to: message }));
    tunnel.on('down', ({ code }) => print({ down: tunnel.site, code }));
  });
  pool.load({
    realms: ['cloud', SITE].map((name) => ({ name, ...LAN })),
    presences: [],
    permits: [],
  });
  await pool.open();
  const workers = async () => (await pool.status([])).workers;
  print({ argv: process.argv.slice(2) });
  for (const { pid } of await workers()) {
    const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
    print({ worker: pid, command });
  }

  const edge = MtlsTunnel.dial({
    endpoints: [{ host: '127.0.0.1', port: pool.portOf(pool.holderOf(SITE))! }],
    expectedPeer: cloud,
    ...(await credentialsOf({ trustDomain: TRUST_DOMAIN, role: 'site', site: SITE })),
  });
  const exchange = async (say: string): Promise<void> => {
    if (edge.state !== 'up') await new Promise((resolve) => edge.once('up', resolve));
    const answer = new Promise((resolve) => edge.once('control', resolve));
    edge.sendControl({ type: 'question', say });
    print({ answer: await answer });
  };
  await exchange('before');
  const down = new Promise((resolve) => edge.once('down', resolve));
  const [before, other] = await workers();
  process.kill(before!.pid, 'SIGKILL');
  await down;
  await isBack;
  await exchange('after');
  const [after, same] = await workers();
  print({ isNew: after!.pid !== before!.pid, isOtherTheSame: other!.pid === same!.pid });
  await edge.close();
  await pool.close();
  authority.close();
  // Whatever keeps this program running now is the library's.
  const timer = setTimeout(() => print({ left: process.getActiveResourcesInfo() }), 20_000);
  timer.unref();
  await once(process, 'beforeExit');
  print({ ended: true });
}

main().catch((error) => {
  print({ fault: String((error as Error).stack) });
  process.exitCode = 1;
});
