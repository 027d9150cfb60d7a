/**
 * The steps of the scene in network namespaces.
 * @module
 */
import { spawnSync } from 'node:child_process';
import { CloudProcess, type GatewayProcess, startEdge } from './gateways.ts';
import type { Host } from './host.ts';
import { startRabbitMq } from './rabbitmq.ts';
import { eventually, expect, LATEST_MS, LeftOut, type Report } from './report.ts';
import { buildTopology, LAN_GATEWAY } from './topology.ts';

const TRANSFER_MIB = 200;
const ZONE = 'openstack.test';

interface Whois {
  readonly site: string;
  readonly address: string;
}

interface Download {
  readonly isWhole: boolean;
  readonly length: number;
  readonly elapsedMs: number;
  readonly lastMs: number;
  readonly error?: string;
}

export async function runScene(report: Report, directory: string): Promise<void> {
  const say = (line: string) => report.say(`   ${line}`);
  report.say('Three networks, all of them 10.0.0.0/24, and a host 10.0.0.5 in each.');
  const topology = await buildTopology(directory);
  const { broker, control, sites } = topology;
  const a = sites.a.compute;
  const b = sites.b.compute;
  const rabbit = startRabbitMq(broker, directory);
  rabbit.catch(() => {});
  await started(broker, 'rest-service', '9696', '9292', '5000');
  await started(broker, 'data-service', '9697');
  await started(a, 'console', 'compute host of site A', '6080', '6081');
  await started(b, 'console', 'compute host of site B', '6080', '6081');

  const cloud = new CloudProcess(topology, directory);
  const edges: Partial<Record<'a' | 'b', GatewayProcess>> = {};

  await report.step('enrol', 'Both edges enrol with one-time tokens', async () => {
    await cloud.logged(/cloud gateway ready/);
    const tokens: Record<string, string> = {};
    for (const site of ['a', 'b'] as const) {
      const body = { site: `site-${site}` };
      const { token } = await cloud.admin<{ token: string }>('POST', '/v1/tokens', body);
      tokens[site] = token;
      edges[site] = startEdge(topology, site, token, directory);
    }
    for (const site of ['a', 'b'] as const) {
      say(await edges[site]!.logged(/ up to /));
      await edges[site]!.logged(/revision \d+, [1-9]/);
    }
    const again = startEdgeElsewhere(tokens.a!);
    const refusal = await again.logged(/edge-gateway: /);
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
        const address = await resolve(host, `${name}.${ZONE}`);
        say(`site ${site}: ${name}.${ZONE} is ${address}`);
        expect(address.startsWith('10.0.0.'), `${address} is not an address of the site`);
        found.push(address);
      }
    }
    if (!isInstalled('dig')) say('(dig is not installed; asked through libc alone)');
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
        const { client } = JSON.parse(await httpGet(host, `http://neutron.${ZONE}:9696/whoami`));
        const whois = await cloud.admin<Whois>('GET', `/v1/whois?site=cloud&address=${client}`);
        const pointer = await reverse(control, client);
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
    await rabbit;
    await started(a, 'compute-agent', `amqp://rabbitmq.${ZONE}`, 'compute.site-a');
    await started(b, 'compute-agent', `amqp://rabbitmq.${ZONE}`, 'compute.site-b');
    const { code, stdout, stderr } = await control.run(
      control.script('controller', 'amqp://10.0.0.5', 'compute.site-a', 'compute.site-b')
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
      const answer = await talk(control, `${name}.${ZONE}`, 6080);
      say(`${name}.${ZONE}: ${answer}`);
      expect(answer.includes(`site ${site}`), `${name} led to ${answer}`);
    }
    return 'two names, two hosts, one real address';
  });

  await report.step('site-to-site', 'Site A reaches a service of site B', async () => {
    const answer = await talk(a, `migration-b.${ZONE}`, 6081);
    say(`from site A, migration-b.${ZONE}: ${answer}`);
    expect(answer.includes('site B'), `it led to ${answer}`);
    return 'migration-b answers at site A';
  });

  await report.step('refused-port', 'A port that is not exposed is refused', async () => {
    const before = (await cloud.status('site-a')).verdicts.DropNotPermitted!;
    await httpGet(control, 'http://10.0.0.5:5000/'); // it is there, for the cloud
    const { stdout } = await a.run(a.script('connect', `neutron.${ZONE}`, '5000'));
    expect(stdout.trim() === 'timeout', `port 5000 answered ${stdout}`);
    const after = (await cloud.status('site-a')).verdicts.DropNotPermitted!;
    expect(after > before, 'the counter did not move');
    return `keystone's port 5000: no answer; DropNotPermitted of site-a ${before} -> ${after}`;
  });

  await report.step(
    'refused-service',
    'A service not exposed to this site is refused',
    async () => {
      const presence = await resolve(b, `neutron.${ZONE}`);
      const name = await b.run(['getent', 'ahostsv4', `glance.${ZONE}`]);
      expect(name.code !== 0, `glance has an address at site B: ${name.stdout}`);
      await resolve(a, `glance.${ZONE}`);
      const before = (await cloud.status('site-b')).verdicts.DropNotPermitted!;
      const { stdout } = await b.run(b.script('connect', presence, '9292'));
      expect(stdout.trim() === 'timeout', `glance answered site B: ${stdout}`);
      const after = (await cloud.status('site-b')).verdicts.DropNotPermitted!;
      expect(after > before, 'the counter did not move');
      return `glance is for site A only: no name at B, no answer; DropNotPermitted of site-b ${before} -> ${after}`;
    }
  );

  await report.step('refused-source', 'A spoofed source is refused', async () => {
    const presence = await resolve(a, `neutron.${ZONE}`);
    await a.ip('address', 'add', '192.0.2.66/32', 'dev', 'lo');
    const spoofed = async () => {
      const { edge } = await cloud.status('site-a');
      return edge?.counters.outboundDropSpoofed ?? 0;
    };
    const before = await spoofed();
    const { stdout } = await a.run(a.script('connect', presence, '9696', '192.0.2.66'));
    expect(stdout.trim() === 'timeout', `192.0.2.66 was answered: ${stdout}`);
    // The edge reports its counters at intervals.
    const after = await eventually('a rise of the counter of spoofed packets', async () => {
      const count = await spoofed();
      return count > before ? count : undefined;
    });
    return `192.0.2.66 is no address of site A; outboundDropSpoofed of its edge ${before} -> ${after}`;
  });

  await report.step('ping', 'Ping', async () => {
    if (!isInstalled('ping'))
      throw new LeftOut('ping is not installed (Debian package iputils-ping)');
    const { code, stdout } = await a.run(['ping', '-c', '5', '-i', '0.2', `rabbitmq.${ZONE}`]);
    expect(code === 0 && / 0% packet loss/.test(stdout), `ping: ${stdout.trim()}`);
    return stdout.trim().split('\n').slice(-2).join('; ');
  });

  await report.step('transfer', `A transfer of ${TRANSFER_MIB} MiB, its hash checked`, async () => {
    const { isWhole, length, elapsedMs, error } = await flowing(a, TRANSFER_MIB).result;
    expect(isWhole, `not whole: ${length} bytes, ${error}`);
    const gigabits = (length * 8) / elapsedMs / 1e6;
    const remark = gigabits < 1 ? ' (under 1 Gbit/s: this machine is slow, or busy)' : '';
    return `${gigabits.toFixed(2)} Gbit/s from the cloud to site A${remark}, SHA-256 right`;
  });

  await report.step('expose', 'An exposure at run time reaches the edge', async () => {
    const start = performance.now();
    await cloud.admin('POST', '/v1/exposures', { service: 'keystone', site: 'site-b' });
    await eventually('the new name at site B', () => resolve(b, `keystone.${ZONE}`));
    const elapsedMs = performance.now() - start;
    await httpGet(b, `http://keystone.${ZONE}:5000/`);
    return `keystone answers at site B; its name was there after ${elapsedMs.toFixed(0)} ms`;
  });

  await report.step(
    'revoke',
    'Site A is revoked in mid-transfer, site B never notices',
    async () => {
      const atA = flowing(a, 1024);
      const atB = flowing(b, 512);
      await Promise.all([atA.flows, atB.flows]);
      const revokedMs = performance.timeOrigin + performance.now();
      const receipt = await cloud.admin<{ elapsedMs: number; tunnelsClosed: number }>(
        'POST',
        '/v1/revocations',
        { site: 'site-a' }
      );
      expect(receipt.tunnelsClosed === 1, `${receipt.tunnelsClosed} tunnels were closed`);
      const stopped = await atA.result;
      expect(!stopped.isWhole, 'the transfer at site A ran through');
      const lateMs = stopped.lastMs - revokedMs;
      expect(lateMs < LATEST_MS, `data reached site A for ${lateMs.toFixed(0)} ms more`);
      const refusal = await edges.a!.logged(/refused.*revoked/);
      say(refusal);
      const whole = await atB.result;
      expect(whole.isWhole, `the transfer at site B broke: ${whole.error}`);
      return `site A's traffic ended ${lateMs.toFixed(0)} ms after the call, the receipt came after ${receipt.elapsedMs.toFixed(0)} ms, its certificate is refused; site B got its 512 MiB`;
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

  /** Starts an impostor with a used token, on the machine of site B's gateway. */
  function startEdgeElsewhere(token: string): GatewayProcess {
    // The TUN and the DNS port of this machine are in use by the gateway of site B.
    const device = { type: 'udp', local: '127.0.0.1:0', peer: '127.0.0.1:9' };
    return startEdge(topology, 'b', token, `${directory}/impostor`, { device });
  }
}

/** Starts one of the programs in `hosts/` and waits until it is ready. */
async function started(host: Host, program: string, ...args: string[]): Promise<void> {
  const child = host.spawn(host.script(program, ...args));
  let output = '';
  for (const stream of [child.stdout!, child.stderr!]) {
    stream.on('data', (chunk: Buffer) => {
      output += chunk;
    });
  }
  await eventually(`${program} on ${host.name}`, () => {
    if (child.exitCode !== null) throw new Error(output.trim());
    return output.includes('ready') ? true : undefined;
  });
}

/** Resolves a name by libc, as most programs do, and checks it by dig. */
async function resolve(host: Host, name: string): Promise<string> {
  const { stdout } = await host.run(['getent', 'ahostsv4', name]);
  const address = stdout.split(/\s+/)[0] ?? '';
  expect(address !== '', `${name} has no address`);
  if (isInstalled('dig')) {
    const dig = await host.run(['dig', '+short', `@${LAN_GATEWAY}`, name, 'A']);
    expect(dig.stdout.trim() === address, `dig says ${dig.stdout.trim()} instead of ${address}`);
    const empty = await host.run(['dig', `@${LAN_GATEWAY}`, name, 'AAAA']);
    expect(/NOERROR/.test(empty.stdout) && /ANSWER: 0/.test(empty.stdout), 'AAAA is not empty');
  }
  return address;
}

async function reverse(host: Host, address: string): Promise<string> {
  const { stdout } = await host.run(['getent', 'hosts', address]);
  const name = stdout.trim().split(/\s+/)[1];
  expect(name !== undefined, `${address} has no name`);
  return name;
}

async function httpGet(host: Host, url: string): Promise<string> {
  const command = isInstalled('curl')
    ? ['curl', '-sS', '--max-time', '5', url]
    : [
        process.execPath,
        '-e',
        `fetch(${JSON.stringify(url)}).then((r) => r.text()).then(console.log)`,
      ];
  const { code, stdout, stderr } = await host.run(command);
  expect(code === 0, `${url}: ${stderr.trim()}`);
  return stdout;
}

async function talk(host: Host, name: string, port: number): Promise<string> {
  const { code, stdout, stderr } = await host.run(host.script('connect', name, String(port)));
  expect(code === 0 || stderr.includes('connected'), `${name}:${port}: ${stdout.trim()}`);
  return stdout.trim();
}

/** Starts a download that runs in the background. */
function flowing(
  host: Host,
  mebibytes: number
): { flows: Promise<void>; result: Promise<Download> } {
  const command = host.script('download', `neutron.${ZONE}`, '9697', String(mebibytes));
  const child = host.spawn(command);
  let output = '';
  child.stdout!.on('data', (chunk: Buffer) => {
    output += chunk;
  });
  const ended = new Promise<void>((resolve) => child.once('close', resolve));
  return {
    flows: eventually('data', () => (output.includes('flowing') ? true : undefined)).then(() => {}),
    result: ended.then(() => JSON.parse(output.trim().split('\n').at(-1)!) as Download),
  };
}

function isInstalled(program: string): boolean {
  return spawnSync('sh', ['-c', `command -v ${program}`]).status === 0;
}
