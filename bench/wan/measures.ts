/**
 * The measurements of a contender over a wan.
 * @module
 */
import type { Host } from '../../test/support/network.ts';
import { type Contender, PORTS } from '../gateway/contender.ts';
import { Load } from '../gateway/load.ts';
import { Scene } from '../gateway/scene.ts';
import { faultOf, Wan, type WanReport } from './wan.ts';
import type { NamedWan } from './wans.ts';

/** Null: not measured over this wan. */
export interface Figures {
  readonly oneMbps: number;
  readonly eightMbps: number;
  /** Round trips of 64 bytes in a TCP connection of their own, when nothing else is sent. */
  readonly idleP50Ms: number | null;
  /** The same while eight streams fill the wan. */
  readonly loadedP50Ms: number | null;
  readonly loadedP99Ms: number | null;
  /** Share of packets that the wan has lost towards the service, as it counted itself. */
  readonly lost: number;
  /** The largest delay of a packet by the wan for lack of a processor. */
  readonly lateMs: number;
}

export interface Tools {
  readonly directory: string;
  readonly load: string;
  readonly forwarder: string;
  readonly congestion: string;
  /** How long a bulk run counts. */
  readonly seconds: number;
}

export async function measure(
  contender: Contender,
  shape: NamedWan,
  { directory, load: loadProgram, forwarder, congestion, seconds }: Tools
): Promise<Figures> {
  let wan: Wan | undefined;
  const scene = await Scene.create({
    directory,
    plan: contender.plan,
    congestion,
    wan: async (network, edge, cloud) => {
      wan = await Wan.open(network, edge, cloud, shape, forwarder, LIFETIME_SECONDS);
    },
  });
  try {
    const { address } = await contender.start(scene);
    await scene.settle();
    const load = await Load.start(loadProgram, scene.client, scene.service, address);
    // Warm up compilers and sessions.
    await bulk(scene.client, address, 1, 1);

    const idle = shape.isFull ? await load.pingPong(IDLE_PINGS, IDLE_MS) : undefined;
    const before = await wan!.report();
    const oneMbps = await bulk(scene.client, address, 1, seconds);
    const eightMbps = await bulk(scene.client, address, 8, seconds);
    const after = await wan!.report();
    const loaded = shape.isFull ? await loadedTimes(load, scene.client, address) : undefined;
    const fault = faultOf(await wan!.report());
    if (fault !== undefined) throw new Error(fault);
    return {
      oneMbps,
      eightMbps,
      idleP50Ms: idle === undefined ? null : idle.p50Us / 1e3,
      loadedP50Ms: loaded === undefined ? null : loaded.p50Us / 1e3,
      loadedP99Ms: loaded === undefined ? null : loaded.p99Us / 1e3,
      lost: lostBetween(before, after),
      lateMs: Math.max(after.toCloud.greatestLateUs, after.toEdge.greatestLateUs) / 1e3,
    };
  } finally {
    await scene.close();
  }
}

/** Mbit/s that the service has received, slow start not counted. */
export async function bulk(
  client: Host,
  address: string,
  streams: number,
  seconds: number
): Promise<number> {
  const output = await client.get(
    [...iperf(address, streams), '-J', '-t', String(seconds), '-O', String(SLOW_START_SECONDS)],
    seconds + SLOW_START_SECONDS + 15
  );
  const { end } = JSON.parse(output) as { end: { sum_received: { bits_per_second: number } } };
  return end.sum_received.bits_per_second / 1e6;
}

async function loadedTimes(
  load: Load,
  client: Host,
  address: string
): Promise<{ p50Us: number; p99Us: number }> {
  const seconds = SLOW_START_SECONDS + LOADED_MS / 1e3 + 1;
  const streams = client.start(
    [...iperf(address, 8), '--forceflush', '-i', '1', '-t', String(seconds)],
    seconds + 15
  );
  await streams.printed(AFTER_SLOW_START, 20_000);
  const times = await load.pingPong(LOADED_PINGS, LOADED_MS);
  const { code, text } = await streams.ended;
  if (code !== 0) throw new Error(`the bulk streams failed: ${text}`);
  return times;
}

function iperf(address: string, streams: number): string[] {
  return ['iperf3', '-c', address, '-p', String(PORTS.iperf), '-P', String(streams)];
}

function lostBetween(before: WanReport, after: WanReport): number {
  const lost = after.toCloud.lost - before.toCloud.lost;
  const forwarded = after.toCloud.forwarded - before.toCloud.forwarded;
  return lost / (lost + forwarded);
}

const SLOW_START_SECONDS = 2;
const AFTER_SLOW_START = /\[SUM\] +1\.\d+-2\.\d+ +sec/;
const IDLE_PINGS = 100;
const IDLE_MS = 10_000;
const LOADED_PINGS = 10_000;
const LOADED_MS = 6_000;
/** Longer than a scene is measured. */
const LIFETIME_SECONDS = 300;
