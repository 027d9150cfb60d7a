/**
 * A program of somebody else that first has a pool of two workers, then a cloud gateway of two workers, and an edge of
 * its own to see that they carry something. One worker of each is killed. `package.test.ts` bundles it under another
 * name. It prints one line of JSON for each thing that happens, and ends by itself.
 */
import { execFileSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import {
  CertificateAuthority,
  CloudGateway,
  type Credentials,
  EdgeGateway,
  type GatewayIdentity,
  MemoryDevice,
  MemorySecrets,
  MemoryStore,
  MtlsTunnel,
} from 'virtual-presence';
import {
  MAX_PACKET_LENGTH,
  readUdpFrame,
  udpFrame,
  VNET_HEADER_LENGTH,
} from 'virtual-presence/packet';
import { createSigningRequest, generateCa, generateGatewayKey } from 'virtual-presence/pki';
import { type SiteTunnel, WorkerPool } from 'virtual-presence/worker';

const TRUST_DOMAIN = 'example.test';
const SITE = 'site-a';
const LAN = { sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'] };

function print(what: Readonly<Record<string, unknown>>): void {
  process.stdout.write(`${JSON.stringify(what)}\n`);
}

function printCommand(pid: number): void {
  const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
  print({ worker: pid, command });
}

/** The program of the workers, which a bundle that has the library in it must name. */
function workerMainOption(): { readonly workerMain?: string } {
  const flag = '--worker-main=';
  const workerMain = process.argv.find((each) => each.startsWith(flag))?.slice(flag.length);
  return workerMain === undefined ? {} : { workerMain };
}

async function embedPool(): Promise<void> {
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
    ...workerMainOption(),
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
  for (const { pid } of await workers()) printCommand(pid);

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
  await authority.close();
}

const SERVICE = { address: '10.0.0.5', port: 9000 };
const CLIENT = { address: '10.0.0.7', port: 9001 };

async function embedGateway(): Promise<void> {
  // The service is this host itself, behind the TUNs of the gateway.
  execFileSync('ip', ['address', 'add', `${SERVICE.address}/32`, 'dev', 'lo']);
  const service = createSocket('udp4');
  service.on('message', (said, { address, port }) => service.send(`heard ${said}`, port, address));
  service.bind(SERVICE.port, SERVICE.address);
  await once(service, 'listening');

  const zone = TRUST_DOMAIN;
  const cloud = await CloudGateway.start({
    trustDomain: TRUST_DOMAIN,
    store: new MemoryStore(),
    secrets: new MemorySecrets(),
    tunnel: '127.0.0.1:0',
    workers: 2,
    device: { type: 'tun', name: 'vp0', lan: [] },
    desired: {
      sites: ['cloud', SITE].map((name) => ({ name, ...LAN, zone })),
      services: [
        { name: 'echo', site: 'cloud', address: SERVICE.address, ports: [`udp/${SERVICE.port}`] },
      ],
      exposures: [{ service: 'echo', site: SITE }],
    },
    ...workerMainOption(),
  });
  cloud.on('state', ({ state, previous }) => print({ state: [previous, state] }));
  const processes = async () => (await cloud.status()).workers;
  for (const { pid } of await processes()) printCommand(pid);

  const [device, lan] = MemoryDevice.pair();
  const edge = await EdgeGateway.start({
    store: new MemoryStore(),
    secrets: new MemorySecrets(),
    token: await cloud.createToken({ site: SITE }),
    device,
  });
  await edge.ready();
  const ask = clientOn(lan, edge.lookup('echo')[0]!.addresses[0]!.toString());
  print({ heard: await ask('before') });

  const isDegraded = new Promise<void>((resolve) =>
    cloud.on('state', ({ state }) => state === 'degraded' && resolve())
  );
  const { sites } = await cloud.status();
  const holder = sites.find(({ name }) => name === SITE)!.worker!;
  const before = await processes();
  process.kill(before[holder]!.pid, 'SIGKILL');
  await isDegraded;
  await cloud.ready();
  print({ heard: await ask('after') });
  const after = await processes();
  print({ areNew: after.map(({ pid }, i) => pid !== before[i]!.pid), holder });
  await edge.close();
  await cloud.close();
  service.close();
}

/** A host at the site: asks until it is answered, because a datagram may be lost while a worker is away. */
function clientOn(lan: MemoryDevice, address: string): (say: string) => Promise<string> {
  const frame = Buffer.alloc(VNET_HEADER_LENGTH + MAX_PACKET_LENGTH);
  let onAnswer: (text: string) => void = () => {};
  lan.start(() => {
    for (let end = lan.read(frame, 0); end > 0; end = lan.read(frame, 0)) {
      const datagram = readUdpFrame(frame.subarray(0, end));
      if (datagram?.source === address) onAnswer(Buffer.from(datagram.payload).toString());
    }
  });
  return (say) =>
    new Promise((resolve) => {
      const question = udpFrame({
        source: CLIENT.address,
        sourcePort: CLIENT.port,
        destination: address,
        destinationPort: SERVICE.port,
        payload: Buffer.from(say),
      });
      const send = (): void => void lan.write(question, 0, question.length);
      const timer = setInterval(send, 200);
      onAnswer = (text) => {
        if (text !== `heard ${say}`) return;
        clearInterval(timer);
        resolve(text);
      };
      send();
    });
}

async function main(): Promise<void> {
  print({ argv: process.argv.slice(2) });
  await embedPool();
  await embedGateway();
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
