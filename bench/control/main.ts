/**
 * Measures what a change of the desired state costs with more or fewer sites:
 *
 *     node --import tsx bench/control/main.ts [--etcd] [--json] [--quick] [--sites 100,1000] [--clients N] [--seconds N]
 *         [--tunnels N] [--rounds N]
 *
 * With `--etcd`, the same for one machine of a cloud of several, on an etcd and in memory, and its takeovers.
 * The method is in README.md.
 * @module
 */
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { surveyMachine } from '../gateway/machine.ts';
import { targetTableOf } from '../gateway/report.ts';
import { wholeNumber } from '../gateway/whole-number.ts';
import { type EtcdFigures, measureOnEtcd } from './etcd.ts';
import { etcdReportOf } from './etcd-report.ts';
import { buildPrograms, type Programs, run } from './programs.ts';
import { reportOf, type SizeFigures } from './report.ts';
import type { Settings } from './settings.ts';
import type { StormFigures } from './storm.ts';
import { stormReportOf } from './storm-report.ts';

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      etcd: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
      quick: { type: 'boolean', default: false },
      sites: { type: 'string' },
      clients: { type: 'string' },
      seconds: { type: 'string' },
      tunnels: { type: 'string' },
      rounds: { type: 'string' },
    },
  });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));
  const sites = (values.sites ?? (values.quick ? '100,300' : '100,1000,10000'))
    .split(',')
    .map((text) => wholeNumber('sites', text))
    .sort((a, b) => a - b);
  if (sites.length < 2) throw new Error('--sites needs two sizes, to see how a figure grows');
  const given = (
    name: 'clients' | 'seconds' | 'tunnels' | 'rounds',
    usual: number,
    quick: number
  ) => wholeNumber(name, values[name] ?? String(values.quick ? quick : usual));
  const home = mkdtempSync(join(tmpdir(), 'vp-bench-control-'));
  process.on('exit', () => rmSync(home, { recursive: true, force: true }));
  const settings: Settings = {
    ...{ home, sites, isQuick: values.quick },
    clients: given('clients', 200_000, 2000),
    seconds: given('seconds', 10, 1),
    tunnels: given('tunnels', 2000, 200),
    rounds: given('rounds', 50, 1),
  };
  const machine = await surveyMachine('no packets');
  const programs = await buildPrograms();
  const result = await (values.etcd ? onEtcd(programs, settings) : onFile(programs, settings));
  if (values.json) console.log(JSON.stringify({ machine, clients: settings.clients, ...result }));
}

async function onFile(programs: Programs, settings: Settings): Promise<object> {
  const { home, clients, seconds, tunnels } = settings;
  const sizes: SizeFigures[] = [];
  for (const count of settings.sites) {
    const store = join(home, `store-${count}`);
    await run([programs.prepare, store, count, clients]);
    // Revocations under load need sites that may have more clients.
    const fresh = `${store}-fresh`;
    copyFileSync(store, fresh);
    const place = `file:${store}`;
    const figures = JSON.parse(await run([programs.measures, place, count, clients, seconds]));
    const receipt = JSON.parse(await run([programs.receipts, store, count, seconds]));
    const revocations = settings.isQuick ? FEW_REVOCATIONS : REVOCATIONS;
    const underLoad = JSON.parse(await run([programs.revocations, fresh, count, revocations]));
    rmSync(store);
    rmSync(fresh);
    console.log(`${count} sites are measured`);
    sizes.push({ ...figures, receipt, underLoad });
  }
  const storm: StormFigures = JSON.parse(await run([programs.storm, tunnels]));
  const { growth, targets, text } = reportOf(sizes);
  const { targets: stormTargets, table } = stormReportOf(storm);
  console.log(`\n${text}\n\n${table}\n\n${targetTableOf(stormTargets, '')}\n`);
  return { sizes, growth, storm, targets: [...targets, ...stormTargets] };
}

async function onEtcd(programs: Programs, settings: Settings): Promise<object> {
  const figures: EtcdFigures = await measureOnEtcd(programs, settings);
  const { text, ...report } = etcdReportOf(figures);
  console.log(`\n${text}\n`);
  return { ...figures, ...report };
}

const REVOCATIONS = 25;
const FEW_REVOCATIONS = 5;

await main().catch((error: Error) => {
  console.error(`bench:control: ${error.message}`);
  process.exitCode = 1;
});
