/**
 * The scene without namespaces: the same gateways in this process, over devices in memory. Tunnels, enrolment and
 * DNS are real and use loopback; the hosts behind the gateways support only UDP and ping.
 * @module
 */
import { createHash, randomBytes } from 'node:crypto';
import { Resolver } from 'node:dns/promises';
import { join } from 'node:path';
import { CloudGateway, EdgeGateway, MemoryDevice } from 'virtual-presence';
import { DESIRED } from './desired.ts';
import { MemoryLan } from './memory-lan.ts';
import { eventually, expect, LATEST_MS, LeftOut, type Report } from './report.ts';

const LOOPBACK = '127.0.0.1';
const ANY_PORT = `${LOOPBACK}:0`;
const ZONE = 'openstack.test';
const HOST = '10.0.0.5';
const CONTROL = '10.0.0.9';
const BLOCK_BYTES = 8192;
const TRANSFER_MIB = 200;
const WINDOW = 16;

interface Lan {
  readonly lan: MemoryLan;
  readonly device: MemoryDevice;
  /** The port at which the LAN's gateway answers DNS; 0 until it has started. */
  dnsPort: number;
}

export async function runInMemoryScene(report: Report, directory: string): Promise<void> {
  const say = (line: string) => report.say(`   ${line}`);
  const log: string[] = [];
  const logged = (pattern: RegExp, timeoutMs?: number) =>
    eventually(
      `"${pattern.source}" in the log`,
      () => log.find((line) => pattern.test(line)),
      timeoutMs
    );
  report.say('Three networks in memory, all of them 10.0.0.0/24, and a host 10.0.0.5 in each.');

  const cloudLan = newLan();
  const lans = { a: newLan(), b: newLan() };
  const block = randomBytes(BLOCK_BYTES);
  cloudLan.lan.serve(HOST, 9696, (payload, client) =>
    payload.toString() === 'whoami' ? Buffer.from(client) : block
  );
  cloudLan.lan.serve(HOST, 9292, () => Buffer.from('glance'));
  cloudLan.lan.serve(HOST, 5000, () => Buffer.from('keystone'));
  for (const site of ['a', 'b'] as const) {
    const answer = Buffer.from(`compute host of site ${site.toUpperCase()}`);
    lans[site].lan.serve(HOST, 6080, () => answer);
    lans[site].lan.serve(HOST, 6081, () => answer);
  }

  const line = (_fields: object, message: string): void => void log.push(message);
  const logger = { debug: () => {}, info: line, warn: line, error: line };
  const cloud = await CloudGateway.start({
    trustDomain: ZONE,
    stateDirectory: join(directory, 'cloud'),
    device: cloudLan.device,
    tunnel: ANY_PORT,
    dns: { listen: ANY_PORT },
    desired: DESIRED,
    logger,
  });
  cloudLan.dnsPort = cloud.addresses.dns!.port;
  const edges: Partial<Record<'a' | 'b', EdgeGateway>> = {};
  const startEdge = async (site: 'a' | 'b', token: string, home: string) => {
    const stateDirectory = join(directory, home);
    const { device } = lans[site];
    const edge = await EdgeGateway.start({
      stateDirectory,
      token,
      device,
      dns: { listen: ANY_PORT },
      logger,
    });
    lans[site].dnsPort = edge.addresses.dns!.port;
    return edge;
  };
  const refused = async (site: string) => {
    const { sites } = await cloud.status();
    return sites.find(({ name }) => name === site)!.verdicts!.DropNotPermitted!;
  };

  await report.step('enrol', 'Both edges enrol with one-time tokens', async () => {
    let used = '';
    for (const site of ['a', 'b'] as const) {
      const token = await cloud.createToken({ site: `site-${site}` });
      edges[site] = await startEdge(site, token, `site-${site}`);
      used = token;
      say(await logged(new RegExp(`site-${site}: up to`)));
      await logged(new RegExp(`site-${site}: revision \\d+, [1-9]`));
    }
    const [impostorDevice] = MemoryDevice.pair();
    const stateDirectory = join(directory, 'impostor');
    const impostor = await EdgeGateway.start({
      stateDirectory,
      token: used,
      device: impostorDevice,
    });
    const refusal = await impostor.ready().then(
      () => '',
      (error: Error) => error.message
    );
    await impostor.close();
    say(`a used token: ${refusal}`);
    expect(/used/.test(refusal), 'a used token was not refused');
    return 'two certificates, two tunnels; a used token is refused';
  });

  await report.step('names', 'At each site, names have addresses of that site', async () => {
    for (const site of ['a', 'b'] as const) {
      for (const name of ['rabbitmq', 'neutron']) {
        const address = await resolve(lans[site], `${name}.${ZONE}`);
        say(`site ${site.toUpperCase()}: ${name}.${ZONE} is ${address}`);
        expect(address.startsWith('10.0.0.'), `${address} is not an address of the site`);
      }
    }
    return 'the gateways answer with addresses of their own sites';
  });

  await report.step(
    'rest',
    'The service sees two clients, and whois tells them apart',
    async () => {
      const seen = new Set<string>();
      for (const site of ['a', 'b'] as const) {
        const client = await ask(lans[site], HOST, `neutron.${ZONE}`, 9696, 'whoami');
        const whois = cloud.whois('cloud', client);
        say(
          `the client at site ${site.toUpperCase()} is ${client}: ${whois?.address} of ${whois?.site}`
        );
        expect(
          whois?.site === `site-${site}` && `${whois.address}` === HOST,
          'whois does not know it'
        );
        seen.add(client);
      }
      expect(seen.size === 2, 'both clients have the same address');
      return `${[...seen].join(' and ')} (over UDP: there is no TCP in memory)`;
    }
  );

  await report.step('rabbitmq', 'RPC through RabbitMQ', () => {
    throw new LeftOut('RabbitMQ needs TCP, and so a kernel with namespaces and TUN');
  });

  await report.step('console', 'The cloud reaches the console of each compute host', async () => {
    for (const site of ['a', 'b'] as const) {
      const answer = await ask(cloudLan, CONTROL, `console-${site}.${ZONE}`, 6080, 'hello');
      say(`console-${site}.${ZONE}: ${answer}`);
      expect(answer.endsWith(site.toUpperCase()), `console-${site} led to ${answer}`);
    }
    return 'two names, two hosts, one real address';
  });

  await report.step('site-to-site', 'Site A reaches a service of site B', async () => {
    const answer = await ask(lans.a, HOST, `migration-b.${ZONE}`, 6081, 'hello');
    expect(answer.endsWith('B'), `it led to ${answer}`);
    return `migration-b answers at site A: ${answer}`;
  });

  await report.step('refused-port', 'A port that is not exposed is refused', async () => {
    const host = await resolve(lans.a, `neutron.${ZONE}`);
    const before = await refused('site-a');
    const answer = await lans.a.lan.request(HOST, { host, port: 5000 }, 'hello', 300);
    expect(answer === undefined, `port 5000 answered ${answer}`);
    const after = await refused('site-a');
    expect(after > before, 'the counter did not move');
    return `keystone's port 5000: no answer; DropNotPermitted of site-a ${before} -> ${after}`;
  });

  await report.step(
    'refused-service',
    'A service not exposed to this site is refused',
    async () => {
      const absent = await resolve(lans.b, `glance.${ZONE}`).catch((error) => error.code);
      expect(absent === 'ENOTFOUND', `glance has a name at site B: ${absent}`);
      const host = await resolve(lans.b, `neutron.${ZONE}`);
      const before = await refused('site-b');
      const answer = await lans.b.lan.request(HOST, { host, port: 9292 }, 'hello', 300);
      expect(answer === undefined, `glance answered site B: ${answer}`);
      const after = await refused('site-b');
      expect(after > before, 'the counter did not move');
      return `glance is for site A only; DropNotPermitted of site-b ${before} -> ${after}`;
    }
  );

  await report.step('refused-source', 'A spoofed source is refused', async () => {
    const host = await resolve(lans.a, `neutron.${ZONE}`);
    const spoofed = () => edges.a!.status().counters.outboundDropSpoofed ?? 0;
    const before = spoofed();
    const answer = await lans.a.lan.request('192.0.2.66', { host, port: 9696 }, 'hello', 300);
    expect(answer === undefined, `192.0.2.66 was answered: ${answer}`);
    const after = spoofed();
    expect(after > before, 'the counter did not move');
    return `192.0.2.66 is no address of site A; DropSpoofed of its edge ${before} -> ${after}`;
  });

  await report.step('ping', 'Ping', async () => {
    const elapsedMs = await lans.a.lan.ping(HOST, await resolve(lans.a, `rabbitmq.${ZONE}`));
    expect(elapsedMs !== undefined, 'no answer');
    return `the broker answers site A after ${elapsedMs.toFixed(2)} ms`;
  });

  await report.step('transfer', `A transfer of ${TRANSFER_MIB} MiB, its hash checked`, async () => {
    const count = (TRANSFER_MIB << 20) / BLOCK_BYTES;
    const start = performance.now();
    const { hash, received } = await transfer(lans.a, count);
    const seconds = (performance.now() - start) / 1000;
    expect(received === count, `${received} of ${count} blocks`);
    const expected = createHash('sha256');
    for (let i = 0; i < count; i++) expected.update(block);
    expect(hash === expected.digest('hex'), 'the hash is wrong');
    const gigabits = (TRANSFER_MIB * 8.388608) / 1000 / seconds;
    return `${gigabits.toFixed(2)} Gbit/s from the cloud to site A, SHA-256 right (UDP, all in one process)`;
  });

  await report.step('expose', 'An exposure at run time reaches the edge', async () => {
    const start = performance.now();
    await cloud.expose({ service: 'keystone', site: 'site-b' });
    const name = `keystone.${ZONE}`;
    await eventually('the new name at site B', () => resolve(lans.b, name));
    const elapsedMs = performance.now() - start;
    await ask(lans.b, HOST, name, 5000, 'hello');
    return `keystone answers at site B; its name was there after ${elapsedMs.toFixed(0)} ms`;
  });

  await report.step(
    'revoke',
    'Site A is revoked in mid-transfer, site B never notices',
    async () => {
      const count = (16 << 20) / BLOCK_BYTES;
      const atA = transfer(lans.a, 100 * count, 1000);
      const atB = transfer(lans.b, count);
      await eventually(
        'data',
        () => (atA.progress() > WINDOW && atB.progress() > WINDOW) || undefined
      );
      const revokedMs = performance.now();
      const receipt = await cloud.revoke({ site: 'site-a' });
      const stopped = await atA;
      expect(stopped.received < 100 * count, 'the transfer at site A ran through');
      const lateMs = Math.max(0, stopped.lastMs - revokedMs);
      expect(lateMs < LATEST_MS, `data reached site A for ${lateMs.toFixed(0)} ms more`);
      say(await logged(/refused.*revoked/));
      expect((await atB).received === count, 'the transfer at site B broke');
      return `site A's traffic ended ${lateMs.toFixed(0)} ms after the call, the receipt came after ${receipt.elapsedMs.toFixed(0)} ms, its certificate is refused; site B got all`;
    }
  );

  await report.step('shutdown', 'The gateways end', async () => {
    await Promise.all([edges.a!.close(), edges.b!.close()]);
    await cloud.close();
    return 'all three closed';
  });
}

function newLan(): Lan {
  const [device, far] = MemoryDevice.pair({ mtu: 9000 });
  return { device, lan: new MemoryLan(far), dnsPort: 0 };
}

async function resolve({ dnsPort }: Lan, name: string): Promise<string> {
  const resolver = new Resolver({ timeout: 5000, tries: 2 });
  resolver.setServers([`${LOOPBACK}:${dnsPort}`]);
  return (await resolver.resolve4(name))[0]!;
}

/** Sends a request to a name, and fails if there is no answer. */
async function ask(
  lan: Lan,
  from: string,
  name: string,
  port: number,
  what: string
): Promise<string> {
  const answer = await lan.lan.request(from, { host: await resolve(lan, name), port }, what);
  expect(answer !== undefined, `${name}:${port} does not answer`);
  return answer.toString();
}

interface Transfer {
  readonly hash: string;
  readonly received: number;
  readonly lastMs: number;
}

/** Fetches blocks, `WINDOW` at a time, until one is missing. */
function transfer(
  lan: Lan,
  count: number,
  timeoutMs = 10_000
): Promise<Transfer> & { progress(): number } {
  let received = 0;
  let lastMs = 0;
  const run = async (): Promise<Transfer> => {
    const to = { host: await resolve(lan, `neutron.${ZONE}`), port: 9696 };
    const hash = createHash('sha256');
    for (let next = 0; next < count; next += WINDOW) {
      const size = Math.min(WINDOW, count - next);
      const blocks = await Promise.all(
        Array.from({ length: size }, (_, i) =>
          lan.lan.request(HOST, to, `block ${next + i}`, timeoutMs)
        )
      );
      for (const each of blocks) {
        if (each === undefined) return { hash: hash.digest('hex'), received, lastMs };
        hash.update(each);
        received++;
      }
      lastMs = performance.now();
    }
    return { hash: hash.digest('hex'), received, lastMs };
  };
  return Object.assign(run(), { progress: () => received });
}
