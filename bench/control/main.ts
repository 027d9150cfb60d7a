/**
 * Measures what a change of the desired state costs with more or fewer sites:
 *
 *     node --import tsx bench/control/main.ts [--json] [--quick] [--sites 100,1000] [--clients N] [--seconds N]
 *         [--tunnels N]
 *
 * The method is in README.md.
 * @module
 */
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { build } from 'tsup';
import { options } from '../../tsup.config.ts';
import { surveyMachine } from '../gateway/machine.ts';
import { wholeNumber } from '../gateway/whole-number.ts';
import { reportOf, type SizeFigures } from './report.ts';
import type { StormFigures } from './storm.ts';
import { stormReportOf } from './storm-report.ts';

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      json: { type: 'boolean', default: false },
      quick: { type: 'boolean', default: false },
      sites: { type: 'string' },
      clients: { type: 'string' },
      seconds: { type: 'string' },
      tunnels: { type: 'string' },
    },
  });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));
  const sites = (values.sites ?? (values.quick ? '100,300' : '100,1000,10000'))
    .split(',')
    .map((text) => wholeNumber('sites', text))
    .sort((a, b) => a - b);
  if (sites.length < 2) throw new Error('--sites needs two sizes, to see how a figure grows');
  const clients = wholeNumber('clients', values.clients ?? (values.quick ? '2000' : '200000'));
  const seconds = wholeNumber('seconds', values.seconds ?? (values.quick ? '1' : '10'));
  const tunnels = wholeNumber('tunnels', values.tunnels ?? (values.quick ? '200' : '2000'));
  const home = mkdtempSync(join(tmpdir(), 'vp-bench-control-'));
  process.on('exit', () => rmSync(home, { recursive: true, force: true }));
  const machine = await surveyMachine('no packets');
  const programs = await buildPrograms();
  const sizes = sites.map((count) => {
    const store = join(home, `store-${count}`);
    run([programs.prepare, store, count, clients]);
    // Revocations under load need sites that may have more clients.
    const fresh = `${store}-fresh`;
    copyFileSync(store, fresh);
    const figures = JSON.parse(run([programs.measures, store, count, clients, seconds]));
    const receipt = JSON.parse(run([programs.receipts, store, count, seconds]));
    const revocations = values.quick ? FEW_REVOCATIONS : REVOCATIONS;
    const underLoad = JSON.parse(run([programs.revocations, fresh, count, revocations]));
    rmSync(store);
    rmSync(fresh);
    console.log(`${count} sites are measured`);
    return { ...figures, receipt, underLoad } as SizeFigures;
  });
  const storm: StormFigures = JSON.parse(run([programs.storm, tunnels]));
  const { growth, targets, text } = reportOf(sizes);
  const { targets: stormTargets, text: stormText } = stormReportOf(storm);
  console.log(`\n${text}\n\n${stormText}\n`);
  if (!values.json) return;
  const all = { machine, clients, sizes, growth, storm, targets: [...targets, ...stormTargets] };
  console.log(JSON.stringify(all));
}

type Programs = Readonly<
  Record<'prepare' | 'measures' | 'receipts' | 'revocations' | 'storm', string>
>;

/** Runs a program and returns what it prints. */
function run(argv: readonly (string | number)[]): string {
  const { status, stdout } = spawnSync(process.execPath, ['--expose-gc', ...argv.map(String)], {
    stdio: ['ignore', 'pipe', 'inherit'],
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`${argv.join(' ')} has failed`);
  return stdout;
}

/** Builds the programs for plain Node, like the package. They are removed when this process ends. */
async function buildPrograms(): Promise<Programs> {
  const root = join(import.meta.dirname, '../..');
  // Where Node finds the packages that the built files import.
  const output = join(root, 'node_modules/.cache', `bench-control-${process.pid}`);
  process.on('exit', () => rmSync(output, { recursive: true, force: true }));
  const programs = ['prepare', 'measures', 'receipts', 'revocations', 'storm'] as const;
  const names = [...programs, 'stream-source', 'revocation-edge'];
  await build({
    ...options,
    config: false,
    entry: Object.fromEntries(names.map((name) => [name, join(import.meta.dirname, `${name}.ts`)])),
    outDir: output,
    format: 'esm',
    dts: false,
    sourcemap: false,
    silent: true,
  });
  const paths = programs.map((name) => [name, join(output, `${name}.js`)]);
  return Object.fromEntries(paths) as Programs;
}

const REVOCATIONS = 25;
const FEW_REVOCATIONS = 5;

await main().catch((error: Error) => {
  console.error(`bench:control: ${error.message}`);
  process.exitCode = 1;
});
