/**
 * Measures the reference gateways and plain TCP over wans with delay, loss and a rate:
 *
 *     node --import tsx bench/wan/main.ts [--json] [--check] [--only a,b] [--wan a,b] [--rounds N]
 *         [--seconds N] [--cc NAME] [--link MBPS] [--no-offload]
 *
 * The method is in README.md.
 * @module
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { whatIsMissing } from '../../test/support/network.ts';
import type { Contender } from '../gateway/contender.ts';
import { contenders } from '../gateway/contenders/index.ts';
import { buildGateways } from '../gateway/gateway-build.ts';
import { compileLoad } from '../gateway/load.ts';
import { checkForwarder } from './check.ts';
import { type Figures, measure } from './measures.ts';
import { type Rounds, resultsOf, tableOf, targetsOf, targetTableOf } from './report.ts';
import { compileForwarder } from './wan.ts';
import { type NamedWan, wans } from './wans.ts';

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      json: { type: 'boolean', default: false },
      check: { type: 'boolean', default: false },
      only: { type: 'string', default: 'plain,ours' },
      wan: { type: 'string' },
      rounds: { type: 'string', default: '3' },
      seconds: { type: 'string', default: '8' },
      cc: { type: 'string', default: 'cubic' },
      link: { type: 'string', default: '2000' },
      'no-offload': { type: 'boolean', default: false },
    },
  });
  const missing = whatIsMissing({ iperf3: 'iperf3', cc: 'gcc', ping: 'iputils-ping' });
  if (missing !== undefined) throw new Error(missing);
  const home = mkdtempSync(join(tmpdir(), 'vp-bench-wan-'));
  process.on('exit', () => rmSync(home, { recursive: true, force: true }));
  const forwarder = compileForwarder(home);
  const offload = !values['no-offload'];
  const checks = await checkForwarder(home, forwarder, offload);
  for (const { what, is, expected, isMet } of checks) {
    console.log(`wan: ${what} ${is}, expected ${expected}${isMet ? '' : ': OFF'}`);
  }
  if (checks.some(({ isMet }) => !isMet)) throw new Error('the wan is not what it ought to be');
  if (values.check) return;

  const congestion = values.cc;
  const linkMbps = Number(values.link);
  const rounds = Number(values.rounds);
  const seconds = Number(values.seconds);
  const tools = { load: compileLoad(home), forwarder, congestion, seconds };
  const chosen = choose(wans(linkMbps === 0 ? undefined : linkMbps, offload), values.wan);
  const contending = choose(contenders(await buildGateways()), values.only);
  for (const { name, missing: ask } of contending) {
    const reason = ask();
    if (reason !== undefined) throw new Error(`${name}: ${reason}`);
  }
  const machine = { node: process.version, cpu: cpus()[0]?.model, cores: cpus().length };
  console.log(`Node ${machine.node}, ${machine.cores} cores (${machine.cpu}), ${congestion}`);

  const { taken, failures } = await runRounds(contending, chosen, rounds, (contender, wan) =>
    measure(contender, wan, { ...tools, directory: mkdtempSync(join(home, 'scene-')) })
  );
  const results = resultsOf(taken);
  const targets = targetsOf(results);
  console.log(`\n${congestion}\n${tableOf(results)}\n\n${targetTableOf(targets)}\n`);
  if (failures.length > 0) process.exitCode = 1;
  if (!values.json) return;
  const settings = { congestion, linkMbps, offload, rounds, seconds };
  console.log(JSON.stringify({ machine, settings, wans: chosen, results, targets, failures }));
}

interface Failure {
  readonly wan: string;
  readonly contender: string;
  readonly round: number;
  readonly message: string;
}

/** All take their turn in each round, so that a disturbance of the machine affects all. */
async function runRounds(
  contending: readonly Contender[],
  chosen: readonly NamedWan[],
  rounds: number,
  take: (contender: Contender, wan: NamedWan) => Promise<Figures>
): Promise<{ taken: Rounds[]; failures: Failure[] }> {
  const taken = chosen.flatMap((wan) =>
    contending.map((contender) => ({ wan, contender, figures: [] as Figures[] }))
  );
  const failures: Failure[] = [];
  for (let round = 1; round <= rounds; round++) {
    for (const { wan, contender, figures } of taken) {
      const what = `round ${round} of ${rounds}: ${wan.name}, ${contender.name}`;
      try {
        const one = await take(contender, { ...wan, seed: round });
        figures.push(one);
        console.log(`${what}: ${one.oneMbps.toFixed(0)} / ${one.eightMbps.toFixed(0)} Mbit/s`);
      } catch (error) {
        const { message } = error as Error;
        failures.push({ wan: wan.name, contender: contender.name, round, message });
        console.log(`${what}: ${message}`);
      }
    }
  }
  const named = taken.map(({ wan, contender, figures }) => ({
    wan: wan.name,
    contender: contender.name,
    figures,
  }));
  return { taken: named, failures };
}

function choose<T extends { name: string }>(all: readonly T[], names: string | undefined): T[] {
  if (names === undefined) return [...all];
  return names.split(',').map((name) => {
    const found = all.find((each) => each.name === name);
    if (found !== undefined) return found;
    throw new Error(`"${name}" is none of ${all.map((each) => each.name).join(', ')}`);
  });
}

await main().catch((error: Error) => {
  console.error(`bench:wan: ${error.message}`);
  process.exitCode = 1;
});
