/**
 * Measures the time of `PacketTranslator.translate` for a packet, beside the same work in C and the naive oracle of
 * the tests, in the same run; and the cost of paths and plans. The method is in README.md.
 * `translator.ts` runs it; its first argument is this directory.
 * @module
 */
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { PacketTranslator } from '../src/translator/index.ts';
import { NaiveTranslator } from '../test/oracle/translate.ts';
import { measureChanges } from './changes.ts';
import { checkShape } from './check.ts';
import { RivalProgram } from './rival.ts';
import { type Arrival, cpuMs, Scene } from './scene.ts';
import { SHAPES, type Shape, TCP_SHAPE } from './shapes.ts';
import { World } from './world.ts';

interface Result {
  readonly shape: string;
  readonly paths: number;
  /** CPU time; medians, as all the other times. */
  readonly nsPerPacket: number;
  /** Million packets per second. */
  readonly mpps: number;
  readonly naiveNsPerPacket: number;
  /** How many times as fast as the oracle. */
  readonly vsNaive: number;
  /** Null without a C compiler. */
  readonly cNsPerPacket: number | null;
  /** The share of the C rival's speed. */
  readonly vsC: number | null;
}

interface Effort {
  readonly paths: readonly number[];
  readonly rounds: number;
  readonly roundMs: number;
  readonly warmUpMs: number;
  /** How many paths the memory is measured with. */
  readonly memoryPaths: number;
  readonly loads: number;
  /** With how many realms changes of a plan are measured. */
  readonly realms: readonly number[];
}

const FULL: Effort = {
  paths: [100, 100_000, 1_000_000],
  rounds: 9,
  roundMs: 300,
  warmUpMs: 500,
  memoryPaths: 1_000_000,
  loads: 7,
  realms: [100, 1_000, 10_000],
};

const QUICK: Effort = {
  paths: [100, 100_000],
  rounds: 3,
  roundMs: 50,
  warmUpMs: 100,
  memoryPaths: 100_000,
  loads: 3,
  realms: [100, 1_000],
};

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      json: { type: 'boolean' },
      quick: { type: 'boolean' },
      check: { type: 'boolean' },
      shape: { type: 'string', multiple: true },
      paths: { type: 'string', multiple: true },
    },
  });
  const effort = values.quick ? QUICK : FULL;
  const shapes = SHAPES.filter(({ name }) => values.shape?.includes(name) ?? true);
  const paths = values.paths?.map(Number) ?? effort.paths;
  const isWhole = values.shape === undefined && values.paths === undefined;

  const program = RivalProgram.compile(positionals[0]!);
  try {
    const machine = {
      node: process.version,
      cpu: cpus()[0]?.model.trim() || process.arch,
      cc: program?.compiler ?? null,
    };
    console.log(`Node ${machine.node}, ${machine.cpu}, ${machine.cc ?? 'no C compiler'}\n`);
    if (program !== undefined) {
      for (const shape of shapes) check(program, shape, values.check ? 2_000 : 100);
      if (values.check) return;
    }
    const results = await measureAll(program, shapes, { ...effort, paths });
    const costs = isWhole ? { ...measureMemory(effort), ...measureLoads(effort) } : {};
    for (const [name, value] of Object.entries(costs)) console.log(`${name}: ${value}`);
    const changes = isWhole ? { changes: measureChanges(effort.realms) } : {};
    if (values.json) console.log(JSON.stringify({ ...machine, ...costs, ...changes, results }));
  } finally {
    program?.close();
  }
}

function check(program: RivalProgram, shape: Shape, trips: number): void {
  const { packets, forwarded, leftOut } = checkShape(program, shape, trips);
  console.log(
    `${shape.name}: translator, C and oracle agree on ${packets} packets ` +
      `(${forwarded} forwarded; ${leftOut} that C leaves out)`
  );
}

async function measureAll(
  program: RivalProgram | undefined,
  shapes: readonly Shape[],
  effort: Effort
): Promise<Result[]> {
  // The translator is compiled for what it has processed, so process every shape first.
  for (const shape of SHAPES) {
    const world = new World(LEAST_PATHS, shape.near, shape.far);
    new Scene(world, shape, world.load()).run(effort.warmUpMs);
  }
  console.log(
    `\n${'shape'.padEnd(20)}    paths  ns/packet    Mpps    C ns/packet   of C  naive ns/packet  as fast`
  );
  const results: Result[] = [];
  for (const paths of effort.paths) {
    // Shapes of the same IP versions have the same plan, so they share a translator.
    const shared = new Map<string, { world: World; translator: PacketTranslator }>();
    for (const shape of shapes) {
      const versions = `${shape.near} ${shape.far}`;
      if (!shared.has(versions)) {
        shared.clear();
        const world = new World(paths, shape.near, shape.far);
        shared.set(versions, { world, translator: world.load() });
      }
      const { world, translator } = shared.get(versions)!;
      const scene = new Scene(world, shape, translator);
      scene.open();
      const result = await measure(program, scene, effort);
      results.push(result);
      console.log(row(result));
    }
  }
  return results;
}

async function measure(
  program: RivalProgram | undefined,
  scene: Scene,
  { rounds, roundMs }: Effort
): Promise<Result> {
  const rival = program?.start(scene);
  const oracle = new NaiveRival(scene.shape);
  const times: number[] = [];
  const rivalTimes: number[] = [];
  const naiveTimes: number[] = [];
  // The first round is not counted.
  for (let round = 0; round <= rounds; round++) {
    const time = scene.run(roundMs);
    const rivalTime = await rival?.run(roundMs);
    const naiveTime = oracle.run(roundMs / 3);
    if (round === 0) continue;
    times.push(time);
    if (rivalTime !== undefined) rivalTimes.push(rivalTime);
    naiveTimes.push(naiveTime);
  }
  rival?.close();
  const nsPerPacket = median(times);
  const naiveNsPerPacket = median(naiveTimes);
  const cNsPerPacket = rivalTimes.length > 0 ? median(rivalTimes) : null;
  return {
    shape: scene.shape.name,
    paths: 2 * scene.world.clientCount,
    nsPerPacket,
    mpps: 1e3 / nsPerPacket,
    naiveNsPerPacket,
    vsNaive: naiveNsPerPacket / nsPerPacket,
    cNsPerPacket,
    vsC: cNsPerPacket === null ? null : cNsPerPacket / nsPerPacket,
  };
}

/** Measures the oracle on packets of the shape, with few paths, because it gets slower with more. */
class NaiveRival {
  readonly #oracle: NaiveTranslator;
  readonly #arrivals: readonly Arrival[];
  #turn = 0;

  constructor(shape: Shape) {
    const world = new World(LEAST_PATHS, shape.near, shape.far);
    this.#oracle = new NaiveTranslator(world.plan());
    this.#arrivals = new Scene(world, shape, world.load()).arrivals(world.clientCount);
  }

  /** Runs for the time given; returns ns of CPU time per translated packet. */
  run(leastMs: number): number {
    let packets = 0;
    let elapsed = 0;
    const from = process.cpuUsage();
    do {
      const { realm, frame } = this.#arrivals[this.#turn]!;
      const { verdict } = this.#oracle.translate(realm, frame);
      if (verdict !== 'Forward') throw new Error(`the oracle says ${verdict}`);
      this.#turn = (this.#turn + 1) % this.#arrivals.length;
      packets++;
      elapsed = cpuMs(from);
    } while (elapsed < leastMs);
    return (elapsed * 1e6) / packets;
  }
}

/** Measures the memory of a loaded plan, and of its paths when all are open, both per path. */
function measureMemory({ memoryPaths }: Effort): Record<string, number> {
  const world = new World(memoryPaths, 4, 4);
  const before = memory();
  const translator = world.load();
  const loaded = memory();
  const scene = new Scene(world, TCP_SHAPE, translator);
  const ready = memory();
  scene.open();
  const opened = memory();
  return {
    memoryPaths,
    bytesPerPath: (opened - ready) / memoryPaths,
    planBytesPerPath: (loaded - before) / memoryPaths,
  };
}

/** Measures the loading of a plan with 100,000 paths; for the second figure all are open. */
function measureLoads({ loads }: Effort): Record<string, number> {
  const world = new World(100_000, 4, 4);
  const plan = world.plan();
  const first: number[] = [];
  const again: number[] = [];
  for (let n = 0; n < loads; n++) {
    const translator = new PacketTranslator();
    first.push(timed(() => translator.load(plan)));
    new Scene(world, TCP_SHAPE, translator).open();
    const next = world.plan();
    again.push(timed(() => translator.load(next)));
  }
  return { planLoadMs: median(first), planReloadMs: median(again) };
}

function timed(work: () => void): number {
  const from = process.cpuUsage();
  work();
  return cpuMs(from);
}

/** Returns the used memory in bytes, after a garbage collection. */
function memory(): number {
  for (let n = 0; n < 3; n++) globalThis.gc!();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

function row(result: Result): string {
  const { shape, paths, nsPerPacket, mpps, cNsPerPacket, vsC, naiveNsPerPacket, vsNaive } = result;
  return [
    shape.padEnd(20),
    paths.toLocaleString('en').padStart(9),
    nsPerPacket.toFixed(1).padStart(11),
    mpps.toFixed(1).padStart(8),
    (cNsPerPacket?.toFixed(1) ?? '-').padStart(15),
    (vsC?.toFixed(2) ?? '-').padStart(7),
    Math.round(naiveNsPerPacket).toLocaleString('en').padStart(17),
    `${Math.round(vsNaive).toLocaleString('en')} x`.padStart(9),
  ].join('');
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1]!;
}

const LEAST_PATHS = 100;

await main();
