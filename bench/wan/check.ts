/**
 * Checks from outside that the forwarder behaves as configured: with ping, by counting datagrams, and by filling
 * its link.
 * @module
 */
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { type Host, Network, type Program } from '../../test/support/network.ts';
import { CLOUD_WAN } from '../gateway/scene.ts';
import { delayProduct, faultOf, Wan, type WanShape } from './wan.ts';

export interface Check {
  readonly what: string;
  readonly is: string;
  readonly expected: string;
  readonly isMet: boolean;
}

export async function checkForwarder(
  home: string,
  forwarder: string,
  offload: boolean
): Promise<Check[]> {
  return [
    ...(await overWan(home, forwarder, { ...LOSSY, offload }, checkDelayAndLoss)),
    ...(await overWan(home, forwarder, { ...LIMITED, offload }, checkRate)),
    ...(await overWan(home, forwarder, { ...FAST, offload }, checkSpeed)),
  ];
}

interface Ends {
  readonly edge: Host;
  readonly wan: Wan;
  readonly iperf: Program;
}

async function overWan(
  home: string,
  forwarder: string,
  shape: WanShape,
  check: (ends: Ends) => Promise<Check[]>
): Promise<Check[]> {
  const network = await Network.create(mkdtempSync(join(home, 'check-')));
  try {
    const edge = await network.newHost('edge', undefined);
    const cloud = await network.newHost('cloud', undefined);
    const wan = await Wan.open(network, edge, cloud, shape, forwarder, 60);
    const iperf = cloud.start(['iperf3', '-s', '--forceflush'], 60);
    await iperf.printed(/Server listening/);
    const checks = await check({ edge, wan, iperf });
    const fault = faultOf(await wan.report());
    const is = fault ?? 'sound';
    return [...checks, { what: 'itself', is, expected: 'sound', isMet: fault === undefined }];
  } finally {
    await network.close();
  }
}

async function checkDelayAndLoss({ edge, wan }: Ends): Promise<Check[]> {
  const { roundTripMs, loss } = LOSSY;
  const ping = await edge.run(['ping', '-c', '60', '-i', '0.03', CLOUD_WAN]);
  const times = [...ping.stdout.matchAll(/time=([\d.]+)/g)].map(([, ms]) => Number(ms));
  const median = times.sort((a, b) => a - b)[times.length >> 1] ?? 0;
  const before = await wan.report();
  const { packets, lost_packets: missing } = await datagrams(edge, 20, 200);
  const { toCloud } = await wan.report();
  const counted = toCloud.lost - before.toCloud.lost;
  const likely = packets * loss;
  const spread = 4 * Math.sqrt(likely);
  return [
    {
      what: 'round trip, median ms',
      is: String(median),
      expected: `${roundTripMs} to ${roundTripMs + MOST_EXTRA_MS}`,
      isMet: median >= roundTripMs && median <= roundTripMs + MOST_EXTRA_MS,
    },
    {
      what: `lost of ${packets} datagrams`,
      is: String(missing),
      expected: `${likely.toFixed(0)} +- ${spread.toFixed(0)}`,
      isMet: Math.abs(missing - likely) <= spread,
    },
    {
      what: 'lost by its own count',
      is: String(counted),
      // The control connection of iperf3 loses some too.
      expected: `${missing} to ${missing + 5}`,
      isMet: counted >= missing && counted <= missing + 5,
    },
  ];
}

async function checkRate({ edge, wan }: Ends): Promise<Check[]> {
  const rateMbps = LIMITED.rateMbps!;
  let mbps = 0;
  // A busy machine makes it slower, nothing makes it faster.
  for (let i = 0; i < RATE_TRIES && mbps < rateMbps * (1 - RATE_TOLERANCE); i++) {
    mbps = Math.max(mbps, await receivedMbps(edge, rateMbps * 1.3));
  }
  const { toCloud } = await wan.report();
  const fullMs = (toCloud.greatestQueue * 8) / rateMbps / 1e3;
  const expectedMs = (delayProduct(LIMITED) * 8) / rateMbps / 1e3;
  return [
    {
      what: 'rate, Mbit/s',
      is: mbps.toFixed(1),
      expected: `${rateMbps} +- ${RATE_TOLERANCE * 100} %`,
      isMet: Math.abs(mbps / rateMbps - 1) <= RATE_TOLERANCE,
    },
    {
      what: 'buffer when full, ms',
      is: fullMs.toFixed(1),
      expected: `${expectedMs} +- 1`,
      isMet: Math.abs(fullMs - expectedMs) <= 1,
    },
  ];
}

async function checkSpeed({ edge }: Ends): Promise<Check[]> {
  const output = await edge.get(['iperf3', '-c', CLOUD_WAN, '-J', '-P', '8', '-t', '3', '-O', '2']);
  const { end } = JSON.parse(output) as { end: { sum_received: { bits_per_second: number } } };
  const gbps = end.sum_received.bits_per_second / 1e9;
  return [
    {
      what: 'without a limit, eight TCP streams, Gbit/s',
      is: gbps.toFixed(2),
      expected: `at least ${LEAST_GBPS}`,
      isMet: gbps >= LEAST_GBPS,
    },
  ];
}

async function receivedMbps(edge: Host, offeredMbps: number): Promise<number> {
  const { packets, lost_packets: missing, seconds } = await datagrams(edge, offeredMbps, 1400);
  return ((packets - missing) * (1400 + UDP_HEADERS) * 8) / seconds / 1e6;
}

interface Datagrams {
  readonly packets: number;
  readonly lost_packets: number;
  readonly seconds: number;
}

/** Sends datagrams at a rate for three seconds. */
async function datagrams(edge: Host, mbps: number, bytes: number): Promise<Datagrams> {
  const output = await edge.get([
    ...['iperf3', '-c', CLOUD_WAN, '-u', '-J', '-t', '3', '-w', '2M'],
    ...['-b', `${mbps}M`, '-l', String(bytes)],
  ]);
  return (JSON.parse(output) as { end: { sum: Datagrams } }).end.sum;
}

const LOSSY: WanShape = { roundTripMs: 20, loss: 0.01 };
const LIMITED: WanShape = { roundTripMs: 20, loss: 0, rateMbps: 200 };
const FAST: WanShape = { roundTripMs: 20, loss: 0 };
const MOST_EXTRA_MS = 1;
const RATE_TOLERANCE = 0.03;
const RATE_TRIES = 5;
const UDP_HEADERS = 28;
const LEAST_GBPS = 2;
