/**
 * Fills a pool, releases random leases until it is as full as it should be, and measures pairs of one bind and one
 * release.
 * @module
 */
import { parseArgs } from 'node:util';
import { AddressAllocator } from '../../src/allocator/index.ts';
import { IpPrefix } from '../../src/base/prefix.ts';
import { PlainAllocator } from '../../test/allocator/plain-allocator.ts';
import { Random } from '../../test/support/random.ts';
import { surveyMachine } from '../gateway/machine.ts';
import { median } from '../gateway/median.ts';
import { aligned, rounded, targetOf, targetTableOf } from '../gateway/report.ts';
import { wholeNumber } from '../gateway/whole-number.ts';

interface Case {
  /** The part of the pool's addresses that is in use. */
  readonly fill: number;
  readonly leases: number;
  /** Binds and releases in a second of CPU time; a pair of both counts as two. */
  readonly perSecond: number;
  readonly pairsPerSecond: number;
  /** The same of the plain allocator, in a small pool that is as full. */
  readonly naivePerSecond: number;
  /** Memory of a lease of this pool with the text of its key, released ones that are remembered included. */
  readonly bytesPerLease: number;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      json: { type: 'boolean', default: false },
      quick: { type: 'boolean', default: false },
      rounds: { type: 'string', default: '5' },
      seconds: { type: 'string', default: '2' },
    },
  });
  const machine = await surveyMachine('no packets');
  const pool = values.quick ? '10.64.0.0/16' : '100.64.0.0/10';
  const rounds = wholeNumber('rounds', values.rounds);
  const roundMs = values.quick ? 50 : 1000 * wholeNumber('seconds', values.seconds);
  console.log(`pool ${pool}, seed ${SEED}`);
  const cases: Case[] = [];
  for (const fill of FILLS) {
    const measured = measure(pool, fill, rounds, roundMs);
    cases.push(measured);
    console.log(
      `${fill * 100} % in use: ${measured.perSecond} binds and releases/s (${measured.pairsPerSecond} pairs)`
    );
  }
  const speeds = cases.map(({ perSecond }) => perSecond);
  const flatness = rounded(Math.max(...speeds) / Math.min(...speeds));
  const targets = [
    ...cases.map(({ fill, perSecond }) =>
      targetOf(`binds and releases/s, ${fill * 100} % in use`, perSecond, 1e6, undefined)
    ),
    targetOf('fastest / slowest', flatness, undefined, 1.5),
  ];
  console.log(`\n${tableOf(cases)}\n\n${targetTableOf(targets, '')}\n`);
  if (values.json) {
    console.log(
      JSON.stringify({ machine, pool, naivePool: NAIVE_POOL, seed: SEED, cases, flatness, targets })
    );
  }
}

function measure(pool: string, fill: number, rounds: number, roundMs: number): Case {
  const { size } = IpPrefix.parse(pool);
  const keys = new Keys(size - 2 + BATCH);
  const before = memoryBytes();
  const allocator = new AddressAllocator({ pools: [pool], quarantineMs: 0 });
  while (keys.held < size - 2) allocator.allocate(keys.make());
  const bytesPerLease = rounded((memoryBytes() - before) / keys.held);
  const leases = Math.max(LEAST_LEASES, Math.round(fill * keys.held));
  while (keys.held > leases) allocator.release(keys.takeRandom());

  const speeds: number[] = [];
  // The first round does not count.
  for (let round = 0; round <= rounds; round++) {
    let pairs = 0;
    let cpuMs = 0;
    while (cpuMs < roundMs) {
      const { born, gone } = keys.next();
      const start = process.cpuUsage();
      for (let i = 0; i < BATCH; i++) {
        allocator.allocate(born[i]!);
        allocator.release(gone[i]!);
      }
      const { user, system } = process.cpuUsage(start);
      cpuMs += (user + system) / 1000;
      pairs += BATCH;
    }
    if (round > 0) speeds.push((2 * pairs) / (cpuMs / 1000));
  }
  const { leased, capacity } = allocator.stats;
  if (leased !== leases || capacity !== size - 2) throw new Error(`${leased} addresses are leased`);
  const perSecond = rounded(median(speeds));
  const pairsPerSecond = perSecond / 2;
  return {
    fill,
    leases,
    perSecond,
    pairsPerSecond,
    naivePerSecond: measureNaive(fill),
    bytesPerLease,
  };
}

/** The same work of the plain allocator, in CPU time. */
function measureNaive(fill: number): number {
  const pool = IpPrefix.parse(NAIVE_POOL);
  let nowMs = 0;
  const allocator = new PlainAllocator(0, () => nowMs);
  allocator.setPools([pool], []);
  const keys = new Keys(pool.size - 2 + BATCH);
  while (keys.held < pool.size - 2) allocator.allocate(keys.make());
  const leases = Math.round(fill * keys.held);
  while (keys.held > leases) allocator.release(allocator.lookup(keys.takeRandom()));
  const { born, gone } = keys.next();
  const start = process.cpuUsage();
  for (let i = 0; i < NAIVE_PAIRS; i++) {
    nowMs++;
    allocator.allocate(born[i]!);
    allocator.release(allocator.lookup(gone[i]!));
  }
  const { user, system } = process.cpuUsage(start);
  return rounded((2 * NAIVE_PAIRS) / ((user + system) / 1e6));
}

/**
 * The keys of leases, which look like those of a cloud with thousands of sites. Each has a number, and its text is made
 * anew each time, as by a host that gets it in a message.
 */
class Keys {
  /** How many keys have leases. */
  held = 0;
  readonly #held: Uint32Array;
  readonly #random = new Random(SEED);
  #made = 0;

  /** @param most how many may have leases at a time */
  constructor(most: number) {
    this.#held = new Uint32Array(most);
  }

  /** Returns a new one. */
  make(): string {
    this.#held[this.held++] = this.#made;
    return textOf(this.#made++);
  }

  /** Removes a random one. */
  takeRandom(): string {
    const at = this.#random.below(this.held);
    const number = this.#held[at]!;
    this.#held[at] = this.#held[--this.held]!;
    return textOf(number);
  }

  /** Returns new keys, and those that go: after each new one, a random one of all. */
  next(): { readonly born: readonly string[]; readonly gone: readonly string[] } {
    const born: string[] = [];
    const gone: string[] = [];
    for (let i = 0; i < BATCH; i++) {
      born.push(this.make());
      gone.push(this.takeRandom());
    }
    return { born, gone };
  }
}

function textOf(number: number): string {
  const host = Math.floor(number / SITES);
  const key = `site-${number % SITES}/10.${host >>> 16}.${(host >>> 8) & 255}.${host & 255}`;
  // A text that was put together from parts is a tree of these in memory; a copy is not.
  return Buffer.from(key, 'latin1').toString('latin1');
}

function memoryBytes(): number {
  // What is garbage only after the first one goes with the second.
  for (let i = 0; i < 2; i++) globalThis.gc!();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

function tableOf(cases: readonly Case[]): string {
  const rows = cases.map(({ fill, leases, perSecond, naivePerSecond, bytesPerLease }) =>
    [`${fill * 100} %`, leases, perSecond, naivePerSecond, bytesPerLease].map(String)
  );
  return aligned([['in use', 'leases', 'per second', 'naive', 'bytes/lease'], ...rows]);
}

const FILLS: readonly number[] = [0, 0.5, 0.9, 0.999];
const SITES = 10_000;
const BATCH = 10_000;
/** With none at all, each release would be that of the lease just bound, which is in the cache. */
const LEAST_LEASES = 1000;
/** A /10 would take the plain allocator days. */
const NAIVE_POOL = '10.0.0.0/22';
const NAIVE_PAIRS = 100;
const SEED = 16;

await main();
