/**
 * What is measured of a contender, in the order in which it is measured.
 * @module
 */
import type { Contender } from './contender.ts';
import { type Datagrams, Load, type Times } from './load.ts';
import { median } from './median.ts';
import { cpuSecondsOf, pidsOf, rssMiBOf } from './processes.ts';
import type { Scene } from './scene.ts';

/** Null: it has no such figure. */
export interface Figures {
  readonly tcp1Gbps: number | null;
  readonly tcp8Gbps: number | null;
  readonly reverseGbps: number | null;
  /** Best rate received, of all rates offered. */
  readonly udpPps: number | null;
  /** Highest rate offered of which less than 1 % was lost; 0 if there was none. */
  readonly udpCleanPps: number | null;
  readonly p50Us: number | null;
  readonly p99Us: number | null;
  /** The same for round trips beside a bulk stream. */
  readonly loadedP99Us: number | null;
  readonly connectP50Us: number | null;
  readonly cpuSecondsPerGiB: number | null;
  readonly rssMiB: number | null;
}

export interface Effort {
  /** How long a bulk run takes. */
  readonly seconds: number;
}

/** Starts the contender in the scene and measures it. */
export async function measure(
  contender: Contender,
  scene: Scene,
  loadProgram: string,
  { seconds }: Effort
): Promise<Figures> {
  const { address, programs } = await contender.start(scene);
  await scene.settle();
  const load = await Load.start(loadProgram, scene.client, scene.service, address);
  // Warm up sessions, caches and compilers.
  await load.bulk({ seconds: 1 });

  // Between the others, for which cores wake each other is a matter of minutes, and of luck.
  const trips: Times[] = [];
  const connections: Times[] = [];
  const takeSmall = async () => {
    trips.push(await load.pingPong(PING_PONGS, SMALL_MS));
    connections.push(await load.connections(CONNECTIONS, SMALL_MS));
  };

  await takeSmall();
  const pids = pidsOf(programs);
  const cpuBefore = cpuSecondsOf(pids);
  const one = await load.bulk({ seconds });
  const cpuSeconds = cpuSecondsOf(pids) - cpuBefore;
  await takeSmall();
  const eight = await load.bulk({ seconds, streams: 8 });
  await takeSmall();
  const reverse = await load.bulk({ seconds, isReverse: true });
  await takeSmall();
  const loaded = await load.loadedPingPong(LOADED_PING_PONGS, LOADED_MS);
  await takeSmall();
  const udp = contender.hasUdp ? bestOf(await offerRates(load)) : undefined;
  return {
    tcp1Gbps: one.gbps,
    tcp8Gbps: eight.gbps,
    reverseGbps: reverse.gbps,
    udpPps: udp?.best ?? null,
    udpCleanPps: udp?.clean ?? null,
    p50Us: median(trips.map(({ p50Us }) => p50Us)),
    p99Us: median(trips.map(({ p99Us }) => p99Us)),
    loadedP99Us: loaded.p99Us,
    connectP50Us: median(connections.map(({ p50Us }) => p50Us)),
    cpuSecondsPerGiB: pids.length === 0 ? null : cpuSeconds / (one.receivedBytes / 2 ** 30),
    rssMiB: pids.length === 0 ? null : rssMiBOf(pidsOf(programs)),
  };
}

/** Offers rising rates until far too much is lost, or the client cannot send more, twice in succession. */
export async function offerRates(load: Load): Promise<Datagrams[]> {
  await load.datagrams(LOWEST_RATE, UDP_MS);
  const results: Datagrams[] = [];
  for (let rate = LOWEST_RATE, failures = 0; failures < 2; rate *= RATE_STEP) {
    const result = await load.datagrams(Math.round(rate), UDP_MS);
    results.push(result);
    const isBeyond = result.offered < rate * ENOUGH || result.loss > TOO_MUCH_LOSS;
    failures = isBeyond ? failures + 1 : 0;
  }
  results.push(await load.datagrams(0, UDP_MS));
  return results;
}

export function bestOf(results: readonly Datagrams[]): { best: number; clean: number } {
  const clean = results.filter(({ loss }) => loss < CLEAN_LOSS);
  return {
    best: Math.max(...results.map(({ received }) => received)),
    clean: Math.max(0, ...clean.map(({ offered }) => offered)),
  };
}

/** The round trips in each of the five times. */
const PING_PONGS = 1_000;
const CONNECTIONS = 250;
const SMALL_MS = 2_000;
const LOADED_PING_PONGS = 10_000;
const LOADED_MS = 2_000;

const UDP_MS = 400;
/** Datagrams a second. */
const LOWEST_RATE = 20_000;
const RATE_STEP = 1.2;
/** The client has kept up if it has offered this share of the rate. */
const ENOUGH = 0.97;
const CLEAN_LOSS = 0.01;
const TOO_MUCH_LOSS = 0.4;
