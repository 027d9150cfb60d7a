/**
 * For how long connections through the gateways stand still after an outage of the wan, or of a gateway, is over:
 *
 *     node --import tsx bench/outage/main.ts [--json] [--rounds N] [--cell a,b] [--only a,b] [--quick]
 *
 * The method is in README.md.
 * @module
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { whatIsMissing } from '../../test/support/network.ts';
import type { Contender } from '../gateway/contender.ts';
import { contenders } from '../gateway/contenders/index.ts';
import { buildGateways } from '../gateway/gateway-build.ts';
import { compileForwarder } from '../wan/wan.ts';
import { type Cell, cells } from './cells.ts';
import { machineMs } from './clock.ts';
import { Contest, type Gaps } from './contest.ts';
import { type Result, resultOf, tableOf, targetsOf } from './report.ts';

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      json: { type: 'boolean', default: false },
      quick: { type: 'boolean', default: false },
      rounds: { type: 'string' },
      cell: { type: 'string' },
      only: { type: 'string', default: 'ours,openvpn,plain' },
    },
  });
  const missing = whatIsMissing({ cc: 'gcc' });
  if (missing !== undefined) throw new Error(missing);
  const home = mkdtempSync(join(tmpdir(), 'vp-bench-outage-'));
  process.on('exit', () => rmSync(home, { recursive: true, force: true }));
  const forwarder = compileForwarder(home);
  const rounds = values.rounds ?? (values.quick ? '3' : undefined);
  const chosen = choose(
    cells(rounds === undefined ? undefined : Number(rounds)),
    values.cell ?? (values.quick ? 'dropped-2s-20ms' : undefined)
  );
  const asked = values.only.split(',');
  const contending = contenders(await buildGateways()).filter(({ name }) => asked.includes(name));
  const absent = contending.filter((each) => each.missing() !== undefined);
  for (const each of absent) console.log(`${each.name} is left out: ${each.missing()}`);

  const results: Result[] = [];
  const failures: string[] = [];
  for (const cell of chosen) {
    const present = contending.filter((each) => !absent.includes(each));
    results.push(...(await measure(cell, present, { home, forwarder, failures })));
  }
  const targets = targetsOf(results);
  console.log(`\n${tableOf(results)}\n`);
  for (const { what, value, limit, isMet } of targets) {
    console.log(`${isMet ? 'met' : 'MISSED'}: ${what}: ${value} of ${limit} ms`);
  }
  if (failures.length > 0) process.exitCode = 1;
  if (values.json) console.log(JSON.stringify({ results, targets, failures }));
}

interface Tools {
  readonly home: string;
  readonly forwarder: string;
  /** What has failed is added to these. */
  readonly failures: string[];
}

async function measure(
  cell: Cell,
  contending: readonly Contender[],
  { home, forwarder, failures }: Tools
): Promise<Result[]> {
  const isKill = cell.outage === 'cloud-killed' || cell.outage === 'edge-killed';
  const taking = isKill ? contending.filter(({ name }) => name === 'ours') : contending;
  const contests: Contest[] = [];
  const taken = new Map<Contest, Gaps[]>();
  try {
    for (const wan of cell.wans) {
      for (const contender of taking) {
        const contest = await Contest.open(contender, wan, home, forwarder, 'cubic');
        contests.push(contest);
        taken.set(contest, []);
      }
    }
    for (let round = 1; round <= cell.rounds; round++) {
      const all = <T>(step: (contest: Contest) => Promise<T>) => Promise.all(contests.map(step));
      await all((contest) => contest.start());
      // So that no round has the outage at the same moment of the flows' timers.
      await delay(SETTLE_MS + Math.random() * SETTLE_MS);
      await all((contest) => contest.begin(cell.outage));
      if (isKill) {
        await all((contest) => contest.restart(cell.outage === 'cloud-killed' ? 'cloud' : 'edge'));
      }
      await delay(cell.lastsMs);
      const sinceMs = machineMs();
      await all((contest) => contest.end(cell.outage));
      await all((contest) => contest.whenBack(sinceMs, WATCH_MS));
      await delay(Math.max(0, sinceMs + SETTLE_MS - machineMs()));
      for (const contest of contests) {
        const what = `${cell.name}, ${contest.wanName}, ${contest.name}, round ${round}`;
        try {
          const gaps = await contest.stop(sinceMs);
          taken.get(contest)!.push(gaps);
          console.log(`${what}: ${text(gaps.pongMs)} and ${text(gaps.bulkMs)} ms`);
        } catch (error) {
          failures.push(`${what}: ${(error as Error).message}`);
          console.log(failures.at(-1));
        }
      }
    }
  } finally {
    await Promise.all(contests.map((contest) => contest.close()));
  }
  return [...taken].map(([contest, gaps]) => resultOf(cell, contest, gaps, WATCH_MS));
}

function text(ms: number | undefined): string {
  return ms === undefined ? `more than ${WATCH_MS}` : ms.toFixed(0);
}

function choose(all: Cell[], names: string | undefined): Cell[] {
  if (names === undefined) return all;
  return names.split(',').map((name) => {
    const found = all.find((each) => each.name === name);
    if (found !== undefined) return found;
    throw new Error(`"${name}" is none of ${all.map((each) => each.name).join(', ')}`);
  });
}

/** For how long the flows run before an outage, at least, and after it. */
const SETTLE_MS = 500;
/** For how long it is watched after the repair, at most. */
const WATCH_MS = 8_000;

await main().catch((error: Error) => {
  console.error(`bench:outage: ${error.message}`);
  process.exitCode = 1;
});
