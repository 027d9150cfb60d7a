/**
 * Many sites at one cloud gateway: fairness, one that stops reading, and memory:
 *
 *     node --import tsx bench/sites/main.ts [--json] [--only fairness,memory] [--sites N] [--idle N]
 *         [--rounds N] [--seconds N] [--cc NAME]
 *
 * The method is in README.md.
 * @module
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { whatIsMissing } from '../../test/support/network.ts';
import { buildGateways } from '../gateway/gateway-build.ts';
import { buildSitePrograms } from './build.ts';
import { measureFairness } from './fairness.ts';
import { compileFlows } from './flows.ts';
import { measureMemory } from './memory.ts';
import { fairnessText, memoryText, type Target, targetsOf, targetText } from './report.ts';

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      json: { type: 'boolean', default: false },
      only: { type: 'string', default: 'fairness,memory' },
      sites: { type: 'string', default: '50' },
      idle: { type: 'string', default: '200' },
      rounds: { type: 'string', default: '3' },
      seconds: { type: 'string', default: '10' },
      cc: { type: 'string', default: 'cubic' },
    },
  });
  const missing = whatIsMissing({ cc: 'gcc' });
  if (missing !== undefined) throw new Error(missing);
  const home = mkdtempSync(join(tmpdir(), 'vp-bench-sites-'));
  process.on('exit', () => rmSync(home, { recursive: true, force: true }));
  const { cloud } = await buildGateways();
  const { farm, memoryProbe } = await buildSitePrograms();
  const common = (name: string) => ({
    directory: mkdtempSync(join(home, `${name}-`)),
    congestion: values.cc,
    programs: { cloud, farm },
    seconds: LIFETIME_SECONDS,
  });
  const machine = { node: process.version, cpu: cpus()[0]?.model, cores: cpus().length };
  console.log(`Node ${machine.node}, ${machine.cores} cores (${machine.cpu}), ${values.cc}\n`);

  const wanted = values.only.split(',');
  let fairness: Awaited<ReturnType<typeof measureFairness>> | undefined;
  if (wanted.includes('fairness')) {
    fairness = await measureFairness({
      ...common('fairness'),
      flows: compileFlows(home),
      sites: Number(values.sites),
      windowMs: Number(values.seconds) * 1e3,
      rounds: Number(values.rounds),
    });
    console.log(`${fairnessText(fairness.shares, fairness.stopped)}\n`);
  }
  let memory: Awaited<ReturnType<typeof measureMemory>> | undefined;
  if (wanted.includes('memory')) {
    const most = Number(values.idle);
    const steps = [0, Math.round(most / 4), most] as const;
    memory = await measureMemory({ ...common('memory'), memoryProbe, steps });
    console.log(`${memoryText(memory)}\n`);
  }
  const targets: Target[] = targetsOf(fairness, memory);
  console.log(targetText(targets));
  const settings = { congestion: values.cc, sites: values.sites, seconds: values.seconds };
  if (values.json) console.log(JSON.stringify({ machine, settings, fairness, memory, targets }));
}

/** The longest time of one scene. It stands above the call that needs it. */
const LIFETIME_SECONDS = 400;

await main().catch((error: Error) => {
  console.error(`bench:sites: ${error.message}`);
  process.exitCode = 1;
});
