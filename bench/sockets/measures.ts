/**
 * What is measured of a contender, in the order in which it is measured.
 * @module
 */
import type { Program } from '../../test/support/network.ts';
import { Load } from '../gateway/load.ts';
import { median } from '../gateway/median.ts';
import { cpuSecondsOf, pidsOf } from '../gateway/processes.ts';
import type { Scene } from '../gateway/scene.ts';
import type { RequestTimes } from './client.ts';
import type { Contender } from './contenders.ts';
import { type Carried, jainsIndex, SocketLoad } from './load.ts';

/** Null: it was not measured of this contender. */
export interface Figures {
  readonly sendGbps: number | null;
  readonly onreadGbps: number | null;
  readonly dataGbps: number | null;
  /** CPU time of client, gateways and service. */
  readonly sendCpu: number | null;
  readonly onreadCpu: number | null;
  readonly dataCpu: number | null;
  readonly requestP50Us: number | null;
  readonly requestP99Us: number | null;
  /** Many streams at once: the sum of all, the same divided by what one carries, and Jain's index. */
  readonly sendManyGbps: number | null;
  readonly onreadManyGbps: number | null;
  readonly sendManyOfOne: number | null;
  readonly sendJain: number | null;
  readonly onreadManyOfOne: number | null;
  readonly onreadJain: number | null;
  /** Programs in C instead of the Node client, measured as docs/performance.md has it. */
  readonly iperfGbps: number | null;
  readonly iperfCpu: number | null;
  readonly connectP50Us: number | null;
}

export interface Effort {
  /** How long a bulk run takes. */
  readonly seconds: number;
  /** How many streams are many. */
  readonly streams: number;
}

export interface Programs {
  /** What `compileService` has made. */
  readonly service: string;
  /** What `compileLoad` has made. */
  readonly load: string;
}

/** Starts the contender in the scene and measures it. */
export async function measure(
  contender: Contender,
  scene: Scene,
  programs: Programs,
  effort: Effort
): Promise<Figures> {
  const running = await contender.start(scene);
  await scene.settle();
  const service = await SocketLoad.startService(programs.service, scene.service);
  const { client, host, gateways } = running;
  const load = SocketLoad.join(client, service, host);
  const pids = pidsOf([client, service, ...gateways]);
  const bulk = (kind: 'send' | 'onread' | 'data', streams: number): Promise<Carried> =>
    load.streams({
      kind,
      streams,
      warmUpMs: streams === 1 ? WARM_UP_MS : MANY_WARM_UP_MS,
      ms: effort.seconds * 1000,
      pids,
    });

  const times: RequestTimes[] = [];
  // Between the others: which cores wake each other changes in the course of minutes.
  const takeRequests = async (): Promise<void> => {
    times.push(await load.requests(REQUESTS, REQUESTS_MS));
  };
  // Until the compilers of all processes have seen it: the first hundreds take twice as long.
  await load.requests(WARM_UP_REQUESTS, WARM_UP_REQUESTS_MS);
  await takeRequests();
  const send = await bulk('send', 1);
  await takeRequests();
  const onread = await bulk('onread', 1);
  await takeRequests();
  const data = await bulk('data', 1);
  await takeRequests();
  const sendMany = await bulk('send', effort.streams);
  const onreadMany = await bulk('onread', effort.streams);
  await takeRequests();
  return {
    sendGbps: send.gbps,
    onreadGbps: onread.gbps,
    dataGbps: data.gbps,
    sendCpu: send.cpuSecondsPerGiB,
    onreadCpu: onread.cpuSecondsPerGiB,
    dataCpu: data.cpuSecondsPerGiB,
    requestP50Us: median(times.map(({ p50Us }) => p50Us)),
    requestP99Us: median(times.map(({ p99Us }) => p99Us)),
    sendManyGbps: sendMany.gbps,
    onreadManyGbps: onreadMany.gbps,
    sendManyOfOne: sendMany.gbps / send.gbps,
    sendJain: jainsIndex(sendMany.shares),
    onreadManyOfOne: onreadMany.gbps / onread.gbps,
    onreadJain: jainsIndex(onreadMany.shares),
    ...(contender.name === 'tunPair'
      ? await reference(running, scene, programs.load, effort.seconds)
      : NO_REFERENCE),
  };
}

type Reference = Pick<Figures, 'iperfGbps' | 'iperfCpu' | 'connectP50Us'>;

async function reference(
  { host, gateways }: { readonly host: string; readonly gateways: readonly Program[] },
  scene: Scene,
  loadProgram: string,
  seconds: number
): Promise<Reference> {
  const load = await Load.start(loadProgram, scene.client, scene.service, host);
  await load.bulk({ seconds: 1 });
  const pids = pidsOf(gateways);
  const before = cpuSecondsOf(pids);
  const one = await load.bulk({ seconds });
  const cpuSeconds = cpuSecondsOf(pids) - before;
  const { p50Us } = await load.connections(REQUESTS, REQUESTS_MS);
  return {
    iperfGbps: one.gbps,
    iperfCpu: cpuSeconds / (one.receivedBytes / 2 ** 30),
    connectP50Us: p50Us,
  };
}

const NO_REFERENCE: Reference = { iperfGbps: null, iperfCpu: null, connectP50Us: null };
const WARM_UP_MS = 1_000;
/** Until many streams have found their share. */
const MANY_WARM_UP_MS = 3_000;
const WARM_UP_REQUESTS = 3_000;
const WARM_UP_REQUESTS_MS = 4_000;
const REQUESTS = 250;
const REQUESTS_MS = 3_000;
