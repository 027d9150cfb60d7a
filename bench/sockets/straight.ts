/**
 * TCP of this library straight over a TUN, without gateways, beside Linux's over the same lossy link at the same time.
 *
 * ```
 *   stack -- TUN -- near host ==== forwarder ==== far host: the service
 *              net client /
 * ```
 * @module
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type Host, Network, type Program } from '../../test/support/network.ts';
import { CLOUD_WAN, EDGE_WAN } from '../gateway/scene.ts';
import { faultOf, Wan, type WanShape } from '../wan/wan.ts';
import type { StraightConfig } from './client.ts';
import { type Carried, SocketLoad, type StreamKind } from './load.ts';

export interface StraightLink extends WanShape {
  readonly name: string;
}

export interface StraightTools {
  readonly home: string;
  readonly client: string;
  readonly service: string;
  readonly forwarder: string;
  readonly seed: number;
}

/** Round trips of 20 ms. The link has room for all streams, so that only the losses limit them. */
export const STRAIGHT_LINKS: readonly StraightLink[] = [
  { name: 'loss1', roundTripMs: 20, loss: 0.01, rateMbps: 2000 },
  { name: 'loss0.1', roundTripMs: 20, loss: 0.001, rateMbps: 2000 },
];

/** Rates in Mbit/s, and ours divided by Linux's. */
export async function measureStraight(
  link: StraightLink,
  { home, client, service: serviceProgram, forwarder, seed }: StraightTools
): Promise<Readonly<Record<string, number>>> {
  const directory = mkdtempSync(join(home, 'straight-'));
  const network = await Network.create(directory);
  try {
    const near = await network.newHost('near', undefined);
    const far = await network.newHost('far', undefined);
    const wan = await Wan.open(network, near, far, { ...link, seed }, forwarder, LIFETIME_SECONDS);
    const path = join(directory, 'straight.json');
    const config: StraightConfig = { address: STACK, service: CLOUD_WAN, tun: 'vp0' };
    writeFileSync(path, JSON.stringify(config));
    const start = (...words: string[]) =>
      near.start([process.execPath, client, ...words], LIFETIME_SECONDS);
    const ours = start('straight', path);
    const linux = start('net');
    await Promise.all([ours, linux].map((each) => each.printed(/^ready$/m)));
    await near.sh(`
      echo 1 >/proc/sys/net/ipv4/ip_forward
      ip route add ${STACK}/32 dev vp0
    `);
    await far.sh(`ip route add ${STACK}/32 via ${EDGE_WAN}`);
    for (const host of [near, far]) await useCubic(host);

    const results: Record<string, number> = {};
    for (const kind of ['send', 'onread'] as const) {
      // A service each, because both count what is theirs.
      const [mine, theirs] = await both(kind, far, serviceProgram, ours, linux);
      results[`${kind}Mbps`] = mine.gbps * 1e3;
      results[`${kind}LinuxMbps`] = theirs.gbps * 1e3;
      results[`${kind}OfLinux`] = mine.gbps / theirs.gbps;
    }
    const report = await wan.report();
    const fault = faultOf(report);
    if (fault !== undefined) throw new Error(fault);
    results.lateMs = Math.max(report.toCloud.greatestLateUs, report.toEdge.greatestLateUs) / 1e3;
    return results;
  } finally {
    await network.close();
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Both at once, so that what disturbs the machine disturbs both. */
async function both(
  kind: StreamKind,
  far: Host,
  serviceProgram: string,
  ours: Program,
  linux: Program
): Promise<[Carried, Carried]> {
  const loads = await Promise.all(
    [ours, linux].map(async (client, i) => {
      const ports = { sink: 7201 + 10 * i, source: 7202 + 10 * i, answer: 7203 + 10 * i };
      const service = await SocketLoad.startService(serviceProgram, far, ports);
      return { service, load: SocketLoad.join(client, service, CLOUD_WAN, ports) };
    })
  );
  await Promise.all(loads.map(({ load }) => load.open(kind, STREAMS)));
  await delay(WARM_UP_MS);
  const carried = await Promise.all(loads.map(({ load }) => load.count(MEASURED_MS)));
  await Promise.all(loads.map(({ load }) => load.close()));
  for (const { service } of loads) {
    service.child.stdin!.end();
    await service.ended;
  }
  return carried as [Carried, Carried];
}

/** For all current routes. */
async function useCubic(host: Host): Promise<void> {
  await host.sh(`
    ip -4 route show | while read -r route; do ip -4 route change $route congctl cubic; done
  `);
}

/** Enough for some hundreds of losses in sum, of which the rate of all together depends. */
const STREAMS = 16;
/** Until slow start is over. */
const WARM_UP_MS = 3_000;
const MEASURED_MS = 12_000;
const LIFETIME_SECONDS = 120;
const STACK = '10.9.0.2';
