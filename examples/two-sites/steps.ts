/**
 * The steps of the scene. They are the same in namespaces and without root, apart from those that a scene shows in its
 * own way.
 * @module
 */
import type { CloudProcess, GatewayProcess } from './gateways.ts';
import { isInstalled, type Place, ZONE } from './place.ts';
import { eventually, expect, LATEST_MS, type Report } from './report.ts';

const TRANSFER_MIB = 200;

interface Whois {
  readonly site: string;
  readonly address: string;
}

type SiteLetter = 'a' | 'b';
type Say = (line: string) => void;

/** What the steps are shown on. */
export interface Scene {
  /** The compute hosts of the sites. */
  readonly a: Place;
  readonly b: Place;
  /** A host of the cloud that is a client of the sites. */
  readonly control: Place;
  /** The address of the broker for the cloud's own hosts. */
  readonly broker: string;
  /** Resolves when RabbitMQ listens. */
  readonly rabbitMq: Promise<void>;
  readonly cloud: CloudProcess;
  readonly edges: Readonly<Partial<Record<SiteLetter, GatewayProcess>>>;
  /** Starts the edge gateway of a site, and waits until it has names. Returns the line of its log about the tunnel. */
  startEdge(site: SiteLetter, token: string): Promise<string>;
  /** Starts another edge gateway with a used token. */
  startImpostor(token: string): GatewayProcess;
  // Steps that each scene shows in its own way. They return the detail.
  refusedPort(): Promise<string>;
  refusedService(): Promise<string>;
  refusedSource(say: Say): Promise<string>;
  ping(): Promise<string>;
}

export async function runSteps(report: Report, scene: Scene): Promise<void> {
  const say = (line: string) => report.say(`   ${line}`);
  const { a, b, control, cloud, edges } = scene;

  await report.step('enrol', 'Both edges enrol with one-time tokens', async () => {
    await cloud.logged(/cloud gateway ready/);
    const tokens: Record<string, string> = {};
    const start = async (site: SiteLetter): Promise<string> => {
      const token = await cloud.run('token', 'create', `site-${site}`);
      tokens[site] = token;
      return scene.startEdge(site, token);
    };
    for (const line of await Promise.all([start('a'), start('b')])) say(line);
    const again = scene.startImpostor(tokens.a!);
    const refusal = await again.logged(/virtual-presence: /);
    say(`the token of site A once more: ${refusal}`);
    expect(/used/.test(refusal), 'a used token was not refused');
    return 'two certificates, two tunnels; the used token is refused';
  });

  await report.step('names', 'At each site, names have addresses of that site', async () => {
    const found: string[] = [];
    for (const [site, host] of [
      ['A', a],
      ['B', b],
    ] as const) {
      for (const name of ['rabbitmq', 'neutron']) {
        const address = await host.resolve(`${name}.${ZONE}`);
        say(`site ${site}: ${name}.${ZONE} is ${address}`);
        expect(address.startsWith('10.0.0.'), `${address} is not an address of the site`);
        found.push(address);
      }
    }
    if (!isInstalled('dig')) say('(dig is not installed, and was not asked)');
    return `rabbitmq at A ${found[0]}, at B ${found[2]}: the gateways' DNS answers`;
  });

  await report.step(
    'rest',
    'The REST service sees two clients, and whois tells them apart',
    async () => {
      const seen = new Map<string, Whois>();
      for (const [site, host] of [
        ['A', a],
        ['B', b],
      ] as const) {
        const { client } = JSON.parse(await host.get(`http://neutron.${ZONE}:9696/whoami`));
        const whois = await cloud.read<Whois>('whois', 'cloud', client);
        const pointer = await control.reverse(client);
        say(
          `the client at site ${site} is ${client}: ${whois.address} of ${whois.site} (${pointer})`
        );
        expect(whois.address === '10.0.0.5', `whois says ${whois.address}`);
        expect(whois.site === `site-${site.toLowerCase()}`, `whois says ${whois.site}`);
        seen.set(client, whois);
      }
      expect(seen.size === 2, 'both clients have the same address');
      return [...seen].map(([client, { site }]) => `${client} is 10.0.0.5 of ${site}`).join(', ');
    }
  );

  await report.step('rabbitmq', 'RPC through RabbitMQ to both compute hosts', async () => {
    await scene.rabbitMq;
    for (const [site, host] of [
      ['a', a],
      ['b', b],
    ] as const) {
      const url = `amqp://${await host.reach(`rabbitmq.${ZONE}`)}`;
      await host.start('compute-agent', [url, `compute.site-${site}`]);
    }
    const { code, stdout, stderr } = await control.run(
      control.script('controller', `amqp://${scene.broker}`, 'compute.site-a', 'compute.site-b')
    );
    expect(code === 0, `the controller failed: ${stderr.trim()}`);
    const replies = stdout.trim().split('\n');
    for (const reply of replies) say(reply);
    expect(replies.length === 2, `${replies.length} replies instead of 2`);
    return 'request and reply with compute.site-a and compute.site-b, both 10.0.0.5';
  });

  await report.step('console', 'The cloud reaches the console of each compute host', async () => {
    for (const [site, name] of [
      ['A', 'console-a'],
      ['B', 'console-b'],
    ] as const) {
      const answer = await control.talk(`${name}.${ZONE}`, 6080);
      say(`${name}.${ZONE}: ${answer}`);
      expect(answer.includes(`site ${site}`), `${name} led to ${answer}`);
    }
    return 'two names, two hosts, one real address';
  });

  await report.step('site-to-site', 'Site A reaches a service of site B', async () => {
    const answer = await a.talk(`migration-b.${ZONE}`, 6081);
    say(`from site A, migration-b.${ZONE}: ${answer}`);
    expect(answer.includes('site B'), `it led to ${answer}`);
    return 'migration-b answers at site A';
  });

  await report.step('refused-port', 'A port that is not exposed is refused', () =>
    scene.refusedPort()
  );

  await report.step('refused-service', 'A service not exposed to this site is refused', () =>
    scene.refusedService()
  );

  await report.step('refused-source', 'A spoofed source is refused', () =>
    scene.refusedSource(say)
  );

  await report.step('ping', 'Ping', () => scene.ping());

  await report.step('transfer', `A transfer of ${TRANSFER_MIB} MiB, its hash checked`, async () => {
    const { isWhole, length, elapsedMs, error } = await (await a.download(TRANSFER_MIB)).result;
    expect(isWhole, `not whole: ${length} bytes, ${error}`);
    const gigabits = (length * 8) / elapsedMs / 1e6;
    const remark = gigabits < 1 ? ' (under 1 Gbit/s: this machine is slow, or busy)' : '';
    return `${gigabits.toFixed(2)} Gbit/s from the cloud to site A${remark}, SHA-256 right`;
  });

  await report.step('expose', 'An exposure at run time reaches the edge', async () => {
    const start = performance.now();
    await cloud.run('expose', 'keystone', 'site-b');
    await eventually('the new name at site B', () => b.resolve(`keystone.${ZONE}`));
    const elapsedMs = performance.now() - start;
    await b.get(`http://keystone.${ZONE}:5000/`);
    return `keystone answers at site B; its name was there after ${elapsedMs.toFixed(0)} ms`;
  });

  await report.step(
    'revoke',
    'Site A is revoked in mid-transfer, site B never notices',
    async () => {
      const [atA, atB] = await Promise.all([a.download(1024), b.download(512)]);
      await Promise.all([atA.flows, atB.flows]);
      const receipt = await cloud.read<{ elapsedMs: number; tunnelsClosed: number }>(
        'revoke',
        'site-a'
      );
      const revokedMs = performance.timeOrigin + performance.now();
      expect(receipt.tunnelsClosed === 1, `${receipt.tunnelsClosed} tunnels were closed`);
      const stopped = await atA.result;
      expect(!stopped.isWhole, 'the transfer at site A ran through');
      const lateMs = stopped.lastMs - revokedMs;
      expect(lateMs < LATEST_MS, `data reached site A for ${lateMs.toFixed(0)} ms more`);
      const refusal = await edges.a!.logged(/refused.*revoked/);
      say(refusal);
      const whole = await atB.result;
      expect(whole.isWhole, `the transfer at site B broke: ${whole.error}`);
      return `site A's traffic ended with the receipt, ${receipt.elapsedMs.toFixed(0)} ms after the call; its certificate is refused; site B got its 512 MiB`;
    }
  );

  await report.step('shutdown', 'The gateways end by SIGTERM', async () => {
    const codes = await Promise.all([edges.a!.end(), edges.b!.end(), cloud.end()]);
    expect(
      codes.every((code) => code === 0),
      `exit codes ${codes.join(', ')}`
    );
    return 'exit code 0 from all three';
  });
}
