/**
 * Measures the reference gateways beside their rivals, in their own network namespaces:
 *
 *     node --import tsx bench/gateway/main.ts [--json] [--only a,b] [--rounds N] [--seconds N] [--cc NAME]
 *     node --import tsx bench/gateway/main.ts --quick [--json]
 *
 * The method is in README.md.
 * @module
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { whatIsMissing } from '../../test/support/network.ts';
import type { Contender } from './contender.ts';
import { contenders } from './contenders/index.ts';
import { buildGateways } from './gateway-build.ts';
import { compileLoad } from './load.ts';
import { surveyMachine } from './machine.ts';
import { type Figures, measure } from './measures.ts';
import { resultsOf, tableOf, targetsOf, targetTableOf } from './report.ts';
import { Scene } from './scene.ts';
import { wholeNumber } from './whole-number.ts';

interface Options {
  readonly rounds: number;
  readonly seconds: number;
  readonly congestion: string;
  readonly only: readonly string[] | undefined;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      json: { type: 'boolean', default: false },
      quick: { type: 'boolean', default: false },
      only: { type: 'string' },
      rounds: { type: 'string', default: '3' },
      seconds: { type: 'string', default: '5' },
      cc: { type: 'string', default: 'cubic' },
    },
  });
  // So that files are removed at the end: the networks end with this process.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));
  const programs = await buildGateways();
  if (values.quick) {
    const args = [programs.quick, ...(values.json ? ['--json'] : [])];
    process.exitCode = spawnSync(process.execPath, args, { stdio: 'inherit' }).status ?? 1;
    return;
  }

  const cannot = whatIsMissing({ iperf3: 'iperf3', cc: 'gcc', ss: 'iproute2' });
  if (cannot !== undefined) throw new Error(`${cannot}; --quick needs none of it`);
  const options: Options = {
    rounds: wholeNumber('rounds', values.rounds),
    seconds: wholeNumber('seconds', values.seconds),
    congestion: values.cc,
    only: values.only?.split(','),
  };
  const chosen = choose(contenders(programs), options.only);
  const missing: Record<string, string> = {};
  for (const { name, missing: ask } of chosen) {
    const reason = ask();
    if (reason !== undefined) missing[name] = reason;
  }
  const machine = await surveyMachine(options.congestion);
  for (const [name, reason] of Object.entries(missing)) console.log(`${name}: ${reason}`);

  const installed = chosen.filter(({ name }) => missing[name] === undefined);
  const { figures, failures } = await runRounds(installed, options);
  const results = resultsOf(figures);
  const targets = targetsOf(results);
  console.log(`\n${tableOf(results)}\n`);
  if (targets.length > 0) console.log(`${targetTableOf(targets)}\n`);
  for (const { name, round, message } of failures) {
    console.log(`${name} failed in round ${round}: ${message}`);
  }
  if (failures.length > 0) process.exitCode = 1;
  if (values.json) {
    const { rounds, seconds } = options;
    const output = { machine, rounds, seconds, contenders: results, targets, missing, failures };
    console.log(JSON.stringify(output));
  }
}

interface Failure {
  readonly name: string;
  readonly round: number;
  readonly message: string;
}

/** All in turn in each round, so that what disturbs the machine for a while disturbs all. */
async function runRounds(
  installed: readonly Contender[],
  { rounds, seconds, congestion }: Options
): Promise<{ figures: Map<string, Figures[]>; failures: Failure[] }> {
  const home = mkdtempSync(join(tmpdir(), 'vp-bench-gateway-'));
  const remove = () => rmSync(home, { recursive: true, force: true });
  process.on('exit', remove);
  const loadProgram = compileLoad(home);
  const figures = new Map(installed.map(({ name }) => [name, [] as Figures[]]));
  const failures: Failure[] = [];
  for (let round = 1; round <= rounds; round++) {
    for (const contender of installed) {
      const { name, plan } = contender;
      const directory = mkdtempSync(join(home, `${name}-`));
      const startMs = performance.now();
      let scene: Scene | undefined;
      try {
        scene = await Scene.create({ directory, plan, congestion });
        const taken = await measure(contender, scene, loadProgram, { seconds });
        figures.get(name)!.push(taken);
        const elapsed = ((performance.now() - startMs) / 1000).toFixed(0);
        const rate = taken.tcp1Gbps?.toFixed(2);
        console.log(`round ${round} of ${rounds}: ${name}, ${rate} Gbit/s (${elapsed} s)`);
      } catch (error) {
        const { message } = error as Error;
        failures.push({ name, round, message });
        console.log(`round ${round} of ${rounds}: ${name} failed`);
      } finally {
        await scene?.close();
        rmSync(directory, { recursive: true, force: true });
      }
    }
  }
  return { figures, failures };
}

function choose(all: readonly Contender[], only: readonly string[] | undefined): Contender[] {
  const names = all.map(({ name }) => name);
  const unknown = only?.find((name) => !names.includes(name));
  if (unknown !== undefined) throw new Error(`"${unknown}" is none of ${names.join(', ')}`);
  return all.filter(({ name }) => only?.includes(name) ?? true);
}

await main().catch((error: Error) => {
  console.error(`bench:gateway: ${error.message}`);
  process.exitCode = 1;
});
