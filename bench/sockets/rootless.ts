/**
 * The measures of a pair without root: client, cloud gateway and service are processes of this host, and the tunnel goes
 * over loopback. The cloud gateway reaches the service by its own sockets.
 *
 * ```
 *   client.ts: agent  ==== tunnel ====  gateway.ts ---- service.ts
 * ```
 * @module
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Program } from '../../test/support/network.ts';
import type { SocketPrograms } from './build.ts';
import type { AgentConfig } from './client.ts';
import { NODE_OPTIONS, type ServicePorts } from './contenders.ts';
import type { GatewayConfig, GatewayCpu } from './gateway.ts';
import { Answerer, SocketLoad, type StreamKind } from './load.ts';
import type { Memory } from './memory.ts';

/** The parts that need no root, by name. */
export const ROOTLESS_PARTS: readonly string[] = ['rootless', 'backendIdle', 'backendGrowth'];

/** @param home a directory for files, which is the caller's */
export function measureRootless(
  programs: SocketPrograms,
  part: string,
  home: string,
  isQuick: boolean
): Promise<Readonly<Record<string, number>>> {
  const within = <T>(services: number, measure: (pair: RootlessPair) => Promise<T>): Promise<T> =>
    withPair(programs, home, services, measure);
  switch (part) {
    case 'rootless':
      return within(1, (pair) => measureLoad(pair, isQuick));
    case 'backendIdle':
      return within(1, (pair) => measureIdle(pair, isQuick ? 1_000 : 10_000));
    default:
      return measureGrowth(within, isQuick);
  }
}

interface RootlessPair {
  readonly load: SocketLoad;
  readonly gateway: Answerer;
  readonly service: Answerer;
  readonly pids: readonly number[];
}

type Within = <T>(services: number, measure: (pair: RootlessPair) => Promise<T>) => Promise<T>;

async function measureLoad(
  { load, pids }: RootlessPair,
  isQuick: boolean
): Promise<Readonly<Record<string, number>>> {
  const [warmUpMs, ms] = isQuick ? [500, 1_000] : [1_000, 4_000];
  const bulk = (kind: StreamKind) => load.streams({ kind, streams: 1, warmUpMs, ms, pids });
  const send = await bulk('send');
  const onread = await bulk('onread');
  const data = await bulk('data');
  await load.requests(isQuick ? 300 : 3_000, 4_000);
  const { p50Us, p99Us } = await load.requests(250, 3_000);
  return {
    sendGbps: send.gbps,
    onreadGbps: onread.gbps,
    dataGbps: data.gbps,
    sendCpu: send.cpuSecondsPerGiB,
    onreadCpu: onread.cpuSecondsPerGiB,
    dataCpu: data.cpuSecondsPerGiB,
    requestP50Us: p50Us,
    requestP99Us: p99Us,
  };
}

/** For each connection, in bytes. The service has an accepted `net.Socket`, for comparison. */
async function measureIdle(
  { load, gateway, service }: RootlessPair,
  count: number
): Promise<Readonly<Record<string, number>>> {
  // The tables and pools that the first connections bring about are not what one more costs.
  const first = 100;
  const memory = async (): Promise<Memory[]> => {
    await delay(IDLE_MS);
    return Promise.all([gateway, service].map((each) => each.ask<Memory>('memory')));
  };
  await load.openIdle(first);
  const before = await memory();
  await load.openIdle(first + count);
  const after = await memory();
  const added = (index: number, field: keyof Memory): number =>
    (after[index]![field] - before[index]![field]) / count;
  return {
    heapBytes: added(0, 'heap'),
    externalBytes: added(0, 'external'),
    residentBytes: added(0, 'resident'),
    serviceHeapBytes: added(1, 'heap'),
  };
}

/** The CPU time of the cloud gateway for one connection with its request, in µs, and how it grows. */
async function measureGrowth(
  within: Within,
  isQuick: boolean
): Promise<Readonly<Record<string, number>>> {
  const [few, some, many] = isQuick ? QUICK_SIZES : SIZES;
  const requests = isQuick ? 500 : 3_000;
  const cost = (services: number, idle: number): Promise<number> =>
    within(services, async ({ load, gateway }) => {
      await load.openIdle(idle);
      await load.requests(requests, REQUESTS_MS);
      const before = await gateway.ask<GatewayCpu>('cpu');
      const { count } = await load.requests(requests, REQUESTS_MS);
      const after = await gateway.ask<GatewayCpu>('cpu');
      return (after.cpuUs - before.cpuUs) / count;
    });
  const services = [await cost(few, few), await cost(some, few), await cost(many, few)];
  const idle = [services[0]!, await cost(few, some), await cost(few, many)];
  return {
    servicesFewCpuUs: services[0]!,
    servicesSomeCpuUs: services[1]!,
    servicesManyCpuUs: services[2]!,
    servicesGrowth: services[2]! / services[0]!,
    idleFewCpuUs: idle[0]!,
    idleSomeCpuUs: idle[1]!,
    idleManyCpuUs: idle[2]!,
    idleGrowth: idle[2]! / idle[0]!,
  };
}

async function withPair<T>(
  programs: SocketPrograms,
  home: string,
  services: number,
  measure: (pair: RootlessPair) => Promise<T>
): Promise<T> {
  const directory = mkdtempSync(join(home, 'rootless-'));
  const started: Program[] = [];
  const start = async (options: readonly string[], ...words: string[]): Promise<Program> => {
    const program = new Program([process.execPath, ...options, ...words]);
    started.push(program);
    await program.printed(/^ready.*\n/m);
    return program;
  };
  const write = (name: string, content: object): string => {
    const path = join(directory, `${name}.json`);
    writeFileSync(path, JSON.stringify(content));
    return path;
  };
  try {
    const service = await start(GC, programs.service);
    const ports = JSON.parse(wordBehindReady(service)) as ServicePorts;
    const gatewayConfig: GatewayConfig = {
      stateDirectory: join(directory, 'cloud'),
      services,
      ports: Object.values(ports),
    };
    const gateway = await start(
      [...GC, ...NODE_OPTIONS],
      programs.gateway,
      write('gateway', gatewayConfig)
    );
    const clientConfig: AgentConfig = {
      stateDirectory: join(directory, 'agent'),
      token: wordBehindReady(gateway),
    };
    const client = await start(
      NODE_OPTIONS,
      programs.client,
      'agent',
      write('agent', clientConfig)
    );
    return await measure({
      load: SocketLoad.join(client, service, SERVICE, ports),
      gateway: new Answerer(gateway),
      service: new Answerer(service),
      pids: [client, gateway, service].map(({ child }) => child.pid!),
    });
  } catch (error) {
    for (const { child } of started) child.kill('SIGKILL');
    throw error;
  } finally {
    // They end with their standard input.
    for (const { child } of started.reverse()) child.stdin!.end();
    await Promise.all(started.map(({ ended }) => ended));
    rmSync(directory, { recursive: true, force: true });
  }
}

function wordBehindReady({ stdout }: Program): string {
  return /^ready (.*)$/m.exec(stdout)![1]!;
}

/** A name of the zone. */
const SERVICE = 'service.example.test';
const GC: readonly string[] = ['--expose-gc'];
const SIZES = [10, 1_000, 10_000] as const;
const QUICK_SIZES = [10, 100, 1_000] as const;
const REQUESTS_MS = 20_000;
/** Longer than an acknowledgement is delayed, and than the least timer. */
const IDLE_MS = 1_500;
