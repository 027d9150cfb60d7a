/**
 * Checks that the memory of the reference gateways stays constant under load:
 *
 *     node --import tsx bench/sites/soak.ts [--json] [--seconds N] [--cc NAME]
 *
 * Bulk in both directions, small packets and new connections, all at once, over one pair of gateways; the
 * resident memory of both is read every five seconds. The run has five parts, of a minute each by
 * default; it fails if the last part's median is more than a tenth above that of the second.
 * @module
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { type Host, type Program, whatIsMissing } from '../../test/support/network.ts';
import { PORTS } from '../gateway/contender.ts';
import { ours } from '../gateway/contenders/ours.ts';
import { buildGateways } from '../gateway/gateway-build.ts';
import { compileLoad, Load } from '../gateway/load.ts';
import { median } from '../gateway/median.ts';
import { pidsOf, rssMiBOf } from '../gateway/processes.ts';
import { Scene } from '../gateway/scene.ts';

const PARTS = 5;
const SAMPLE_MS = 5_000;
/** What is left of a program's lifetime, as `contender.ts` bounds it, for what is around the load. */
const MOST_SECONDS = 540;
/** The ratio of the last part to the second. */
const MOST_GROWTH = 1.1;
const BURST_MS = 5_000;
/** The size of a burst: the client must always have a free port, and each one is in TIME_WAIT for a minute. */
const CONNECTIONS = 1_500;
const DATAGRAMS_PER_SECOND = 5_000;

interface Memory {
  readonly cloudMiB: number;
  readonly edgeMiB: number;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      json: { type: 'boolean', default: false },
      seconds: { type: 'string', default: '300' },
      cc: { type: 'string', default: 'cubic' },
    },
  });
  const missing = whatIsMissing({ iperf3: 'iperf3', cc: 'gcc' });
  if (missing !== undefined) throw new Error(missing);
  const seconds = Number(values.seconds);
  if (!(seconds >= 25 && seconds <= MOST_SECONDS)) {
    throw new Error(`--seconds is "${values.seconds}", not 25 to ${MOST_SECONDS}`);
  }
  const directory = mkdtempSync(join(tmpdir(), 'vp-bench-soak-'));
  process.on('exit', () => rmSync(directory, { recursive: true, force: true }));
  const contender = ours(await buildGateways());
  const loadProgram = compileLoad(directory);
  const scene = await Scene.create({ directory, plan: contender.plan, congestion: values.cc });
  try {
    const { address, programs } = await contender.start(scene);
    await scene.settle();
    const load = await Load.start(loadProgram, scene.client, scene.service, address);
    const samples = await soak(load, scene.client, address, programs, seconds);
    report(samples, seconds, values.json);
  } finally {
    await scene.close();
  }
}

async function soak(
  load: Load,
  client: Host,
  address: string,
  [cloud, edge]: readonly Program[],
  seconds: number
): Promise<Memory[]> {
  const pids = { cloud: pidsOf([cloud!]), edge: pidsOf([edge!]) };
  const bulk = client.start(
    [
      ...['iperf3', '-c', address, '-p', String(PORTS.iperf), '--bidir', '-P', '2'],
      ...['-t', String(seconds)],
    ],
    seconds + 20
  );
  const endMs = performance.now() + seconds * 1e3;
  const samples: Memory[] = [];
  const sample = async () => {
    while (performance.now() < endMs) {
      await delay(SAMPLE_MS);
      const memory = { cloudMiB: rssMiBOf(pids.cloud), edgeMiB: rssMiBOf(pids.edge) };
      samples.push(memory);
      console.log(`cloud ${memory.cloudMiB.toFixed(1)} MiB, edge ${memory.edgeMiB.toFixed(1)}`);
    }
  };
  const small = async () => {
    while (performance.now() + 2 * BURST_MS < endMs) {
      await load.pingPong(1_000_000, BURST_MS);
      await load.datagrams(DATAGRAMS_PER_SECOND, BURST_MS);
    }
  };
  const connections = async () => {
    while (performance.now() + BURST_MS < endMs) {
      await Promise.all([load.connections(CONNECTIONS, BURST_MS), delay(BURST_MS)]);
    }
  };
  await Promise.all([sample(), small(), connections()]);
  const { code, stdout, text } = await bulk.ended;
  if (code !== 0) throw new Error(`the bulk streams failed: ${text}`);
  console.log(stdout.match(/^\[SUM\].*receiver$/gm)?.join('\n'));
  return samples;
}

function report(samples: readonly Memory[], seconds: number, isJson: boolean): void {
  const part = (index: number): readonly Memory[] => {
    const length = Math.floor(samples.length / PARTS);
    return samples.slice(index * length, (index + 1) * length);
  };
  const results = (['cloudMiB', 'edgeMiB'] as const).map((of) => {
    const medians = Array.from({ length: PARTS }, (_, i) =>
      median(part(i).map((each) => each[of]))
    );
    const growth = medians.at(-1)! / medians[1]!;
    return { gateway: of.slice(0, -3), medians, growth, isMet: growth <= MOST_GROWTH };
  });
  for (const { gateway, medians, growth, isMet } of results) {
    const [first, second] = medians;
    console.log(
      `${gateway}: ${first!.toFixed(1)} MiB in the first ${seconds / PARTS} s, ` +
        `${second!.toFixed(1)} in the second, ${medians.at(-1)!.toFixed(1)} in the last: ` +
        `${growth.toFixed(3)}, target ${MOST_GROWTH}: ${isMet ? 'met' : 'NOT MET'}`
    );
  }
  if (!results.every(({ isMet }) => isMet)) process.exitCode = 1;
  if (isJson) console.log(JSON.stringify({ seconds, samples, results }));
}

await main().catch((error: Error) => {
  console.error(`bench:soak: ${error.message}`);
  process.exitCode = 1;
});
