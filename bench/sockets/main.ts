/**
 * Measures the sockets of an edge gateway beside a pair of gateways with TUNs, and their TCP beside Linux's over a lossy
 * link:
 *
 *     node --import tsx bench/sockets/main.ts [--json] [--only a,b] [--rounds N] [--seconds N] [--streams N]
 *     node --import tsx bench/sockets/main.ts --quick [--json]
 *
 * The method is in README.md.
 * @module
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { whatIsMissing } from '../../test/support/network.ts';
import { buildGateways } from '../gateway/gateway-build.ts';
import { compileLoad } from '../gateway/load.ts';
import { surveyMachine } from '../gateway/machine.ts';
import { rounded } from '../gateway/report.ts';
import { Scene } from '../gateway/scene.ts';
import { wholeNumber } from '../gateway/whole-number.ts';
import { compileForwarder } from '../wan/wan.ts';
import { buildSocketPrograms, compileService } from './build.ts';
import { CONTENDER_NAMES, type Contender, contenders } from './contenders.ts';
import { LOCAL_PARTS, measureLocal } from './local-measures.ts';
import { type Effort, measure, type Programs } from './measures.ts';
import { Report } from './report.ts';
import { measureRootless, ROOTLESS_PARTS } from './rootless.ts';
import { measureStraight, STRAIGHT_LINKS } from './straight.ts';

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      json: { type: 'boolean', default: false },
      quick: { type: 'boolean', default: false },
      only: { type: 'string' },
      rounds: { type: 'string', default: '3' },
      seconds: { type: 'string', default: '4' },
      streams: { type: 'string', default: '1000' },
    },
  });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));
  const effort: Effort = {
    seconds: wholeNumber('seconds', values.seconds),
    streams: wholeNumber('streams', values.streams),
  };
  const rounds = values.quick ? 1 : wholeNumber('rounds', values.rounds);
  const parts = partsOf(values.only?.split(','), values.quick);
  const sockets = await buildSocketPrograms();
  const machine = await surveyMachine(CONGESTION);

  const home = mkdtempSync(join(tmpdir(), 'vp-bench-sockets-'));
  process.on('exit', () => rmSync(home, { recursive: true, force: true }));
  const turns: Turn[] = [];
  for (const part of parts.filter((name) => LOCAL_PARTS.includes(name))) {
    turns.push({ name: part, take: () => measureLocal(sockets.local, part, values.quick) });
  }
  for (const part of ROOTLESS_PARTS.filter((name) => parts.includes(name))) {
    turns.push({ name: part, take: () => measureRootless(sockets, part, home, values.quick) });
  }
  if (turns.length < parts.length) {
    const cannot = whatIsMissing({ iperf3: 'iperf3', cc: 'gcc', ss: 'iproute2' });
    if (cannot !== undefined) throw new Error(`${cannot}; --quick needs none of it`);
    const programs = { service: compileService(home), load: compileLoad(home) };
    const chosen = contenders(await buildGateways(), sockets).filter(({ name }) =>
      parts.includes(name)
    );
    for (const contender of chosen) {
      const take = () => inScene(home, contender, programs, effort);
      turns.push({ name: contender.name, take });
    }
    const forwarder = compileForwarder(home);
    for (const link of STRAIGHT_LINKS.filter(({ name }) => parts.includes(name))) {
      const tools = { home, client: sockets.client, service: programs.service, forwarder };
      const take = (round: number) => measureStraight(link, { ...tools, seed: round });
      turns.push({ name: link.name, take });
    }
  }
  const report = await runRounds(turns, rounds);
  console.log(`\n${report.text}\n`);
  if (report.failures.length > 0) process.exitCode = 1;
  if (values.json) {
    const { figures, targets, failures } = report;
    console.log(JSON.stringify({ machine, rounds, ...effort, figures, targets, failures }));
  }
}

interface Turn {
  readonly name: string;
  readonly take: (round: number) => Promise<Readonly<Record<string, number | null>>>;
}

/** All in turn in each round, so that what disturbs the machine for a while disturbs all. */
async function runRounds(turns: readonly Turn[], rounds: number): Promise<Report> {
  const report = new Report();
  for (let round = 1; round <= rounds; round++) {
    for (const { name, take } of turns) {
      const startMs = performance.now();
      try {
        const figures = await take(round);
        report.add(name, figures);
        const elapsed = ((performance.now() - startMs) / 1000).toFixed(0);
        const some = Object.entries(figures).filter(([, value]) => value !== null);
        const text = some.map(([field, value]) => `${field} ${rounded(value!)}`).join(', ');
        console.log(`round ${round} of ${rounds}: ${name} (${elapsed} s): ${text}`);
      } catch (error) {
        const { message } = error as Error;
        report.fail({ name, round, message });
        console.log(`round ${round} of ${rounds}: ${name} failed: ${message}`);
      }
    }
  }
  return report;
}

async function inScene(
  home: string,
  contender: Contender,
  programs: Programs,
  effort: Effort
): Promise<Readonly<Record<string, number | null>>> {
  const directory = mkdtempSync(join(home, `${contender.name}-`));
  let scene: Scene | undefined;
  try {
    scene = await Scene.create({ directory, plan: 'same', congestion: CONGESTION });
    return { ...(await measure(contender, scene, programs, effort)) };
  } finally {
    await scene?.close();
    rmSync(directory, { recursive: true, force: true });
  }
}

function partsOf(only: readonly string[] | undefined, isQuick: boolean): readonly string[] {
  const names = [
    ...LOCAL_PARTS,
    ...ROOTLESS_PARTS,
    ...(isQuick ? [] : [...CONTENDER_NAMES, ...STRAIGHT_LINKS.map(({ name }) => name)]),
  ];
  const unknown = only?.find((name) => !names.includes(name));
  if (unknown !== undefined) throw new Error(`"${unknown}" is none of ${names.join(', ')}`);
  return names.filter((name) => only?.includes(name) ?? true);
}

/** The congestion control of TCP on all hosts; ours is the same. */
const CONGESTION = 'cubic';

await main().catch((error: Error) => {
  console.error(`bench:sockets: ${error.message}`);
  process.exitCode = 1;
});
