/**
 * The scene of two machines (`npm run demo -- --machines 2`): both serve the cloud, with etcd as their store. The machine
 * that holds site A is lost under an AMQP connection and a transfer, which go on at the other one.
 * @module
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CloudProcess, startEdge } from './gateways.ts';
import type { Host } from './host.ts';
import { outputOf, ZONE } from './place.ts';
import { listConnections, startRabbitMq } from './rabbitmq.ts';
import { eventually, expect, type Report } from './report.ts';
import { buildMachinesTopology, cutOff, ETCD, LAN_GATEWAY, MACHINES_WAN } from './topology.ts';

const TRANSFER_MIB = 512;
/** Longer than any takeover. */
const PATIENCE_SECONDS = 30;

interface MachineList {
  readonly machines: readonly {
    readonly name: string;
    readonly isLive: boolean;
    readonly sites: number;
    readonly isController: boolean;
  }[];
}

interface Numbers {
  readonly published: number;
  readonly confirmed: number;
  readonly received: number;
  readonly isInOrder: boolean;
  readonly longestGapMs: number;
}

export async function runMachinesScene(report: Report, directory: string): Promise<void> {
  const say = (line: string) => report.say(`   ${line}`);
  report.say(
    'A cloud of two machines, and a site. All networks are 10.0.0.0/24, and the broker and its client'
  );
  report.say(
    'are both 10.0.0.5. Edges of the site see the machines as 198.51.100.1 (one) and 198.51.100.2 (two).'
  );
  const { machines, broker, site } = await buildMachinesTopology(directory);
  const { compute } = site;
  const rabbitMq = startRabbitMq(broker, directory);
  rabbitMq.catch(() => {});
  await startEtcd(directory);
  await broker.start('data-service', ['9697']);
  const clouds = machines.map((host, index) => startMachine(host, index as 0 | 1, directory));

  /** Prints the machines as one of them sees them. */
  const showMachines = async (cloud: CloudProcess): Promise<MachineList['machines']> => {
    const list = (await cloud.read<MachineList>('machine', 'list')).machines;
    for (const { name, isLive, sites, isController } of list) {
      const role = isController ? ', and allocates addresses' : '';
      say(
        `machine ${name}: ${isLive ? `alive, holds ${sites === 1 ? 'site A' : 'no site'}${role}` : 'gone'}`
      );
    }
    return list;
  };
  /** Returns the number of the machine to which the edge has connected last. */
  const holder = (): number => {
    const [, digit] = [...edge.log.matchAll(/: up to 198\.51\.100\.(\d)/g)].at(-1)!;
    return Number(digit) - 1;
  };
  const [first, second] = clouds as [CloudProcess, CloudProcess];
  for (const cloud of clouds) await cloud.logged(/cloud gateway ready/);
  const edge = startEdge(
    site.gateway,
    `${directory}/site-a`,
    await first.run('token', 'create', 'site-a'),
    {
      device: {
        type: 'tun',
        name: 'vp0',
        mtu: 1500,
        routes: ['10.0.0.128/25'],
        proxyArp: ['lan0'],
      },
      dns: { listen: `${LAN_GATEWAY}:53` },
    }
  );
  await edge.logged(/revision \d+, [1-9]/);
  const lost = holder();
  const survivor = 1 - lost;
  const [lostName, survivorName] = [machines[lost]!.name, machines[survivor]!.name];
  let connection = '';
  let numbers: Awaited<ReturnType<Host['start']>>;
  let lostMs = 0;

  await report.step('machines', 'Two machines serve one cloud', async () => {
    const list = await showMachines(second);
    expect(list.length === 2 && list.every(({ isLive }) => isLive), 'not both are alive');
    return `both are alive; ${lostName} holds site A, because its edge is connected there`;
  });

  /** Returns what the broker says of the client's connection. */
  const seenByBroker = async (): Promise<string> => {
    const connections = await listConnections(broker, directory);
    expect(connections.length === 1, `the broker has ${connections.length} connections`);
    const { name, connectedAt } = connections[0]!;
    return `${name}, since ${connectedAt.toISOString().slice(11, -1)}`;
  };
  await report.step('connection', 'A client at site A publishes and consumes numbers', async () => {
    await rabbitMq;
    numbers = await compute.start('numbers', [`amqp://rabbitmq.${ZONE}?heartbeat=60`]);
    connection = await seenByBroker();
    say(`rabbitmqctl list_connections: ${connection}`);
    return '100 numbers a second over one AMQP connection, each confirmed by the broker';
  });

  await report.step('loss', `Machine ${lostName} is lost, in mid-transfer`, async () => {
    const transfer = await compute.download(TRANSFER_MIB, PATIENCE_SECONDS);
    await transfer.flows;
    await cutOff(machines[lost]!);
    clouds[lost]!.child.kill('SIGKILL');
    lostMs = performance.timeOrigin + performance.now();
    say('its cables are dead, and its gateway is killed (kill -9)');
    await eventually('the other machine', () => holder() === survivor || undefined);
    const tookMs = performance.timeOrigin + performance.now() - lostMs;
    say(
      `the edge has noticed it, has dialled ${MACHINES_WAN[survivor]}, and is up there after ${seconds(tookMs)}`
    );
    const { isWhole, length, lastMs, longestGapMs, error } = await transfer.result;
    expect(isWhole, `not whole: ${length} bytes, ${error}`);
    expect(lastMs > lostMs, 'the transfer had ended before the machine was lost');
    return `the transfer stood still for ${seconds(longestGapMs)} and went on: ${TRANSFER_MIB} MiB, SHA-256 right`;
  });

  await report.step('messages', 'No number is lost, doubled or out of order', async () => {
    const ended = once(numbers.child, 'close');
    const after = await seenByBroker();
    numbers.child.kill('SIGTERM');
    await ended;
    const last = numbers.output().trim().split('\n').at(-1)!;
    expect(last.startsWith('{'), `the client failed: ${last}`);
    const { published, confirmed, received, isInOrder, longestGapMs } = JSON.parse(last) as Numbers;
    say(`the longest time between two confirmations was ${seconds(longestGapMs)}`);
    say(`rabbitmqctl list_connections: ${after}`);
    expect(confirmed === published && received === published && isInOrder, last);
    expect(after === connection, `it is another connection: before, ${connection}`);
    return `${published} numbers were confirmed and consumed once, in order, over the same connection`;
  });

  await report.step('after', 'The other machine goes on alone', async () => {
    const list = await showMachines(clouds[survivor]!);
    const controller = list.find(({ isController }) => isController);
    expect(controller?.name === survivorName, `${controller?.name} allocates addresses`);
    return `${survivorName} holds the site and allocates addresses; ${lostName} takes part again when it is started`;
  });

  await report.step('shutdown', 'The gateways end by SIGTERM', async () => {
    const codes = await Promise.all([edge.end(), clouds[survivor]!.end()]);
    expect(codes.join() === '0,0', `exit codes ${codes.join(', ')}`);
    return 'exit code 0 from both';
  });
}

/** Starts a machine's gateway. Machines differ in their names and addresses. */
function startMachine(host: Host, index: 0 | 1, directory: string): CloudProcess {
  const home = join(directory, host.name);
  mkdirSync(home);
  writeFileSync(join(home, 'passphrase'), 'the same on all machines\n', { mode: 0o600 });
  const address = MACHINES_WAN[index];
  return new CloudProcess(host, home, {
    device: { type: 'tun', name: 'vp0', mtu: 1500, proxyArp: ['lan0'] },
    tunnel: `${address}:7443`,
    enrolment: {
      listen: `${address}:7440`,
      endpoints: MACHINES_WAN.map((each) => `https://${each}:7440`),
      tunnels: MACHINES_WAN.map((each) => `${each}:7443`),
    },
    trust: { passphraseFile: './passphrase' },
    cluster: { machine: host.name, etcd: { endpoints: [`${ETCD}:2379`] }, ttlSeconds: 1 },
  });
}

/** Starts etcd without TLS, with the timing that leases of a second need. A cloud has three members, with TLS. */
async function startEtcd(directory: string): Promise<void> {
  const etcd = spawn(
    'etcd',
    [
      ...['--data-dir', join(directory, 'etcd')],
      ...['--listen-client-urls', `http://${ETCD}:2379`],
      ...['--advertise-client-urls', `http://${ETCD}:2379`],
      ...['--listen-peer-urls', `http://${ETCD}:2380`],
      ...['--heartbeat-interval', '50', '--election-timeout', '500'],
    ],
    { stdio: ['ignore', 'pipe', 'pipe'] }
  );
  const output = outputOf(etcd);
  await eventually('etcd', () => {
    if (etcd.exitCode !== null) throw new Error(output().trim().split('\n').at(-1));
    return /ready to serve client requests/.test(output()) || undefined;
  });
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}
