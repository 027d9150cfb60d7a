/**
 * Measures one machine of a cloud of several, on an etcd and in memory, and the takeovers of its sites.
 * @module
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { EtcdServer, whyNoEtcd } from '../../test/support/etcd.ts';
import { measureTakeovers, type Takeovers, whyNoTakeover } from '../takeover/rounds.ts';
import type { CommitFigures } from './commits.ts';
import type { MeasuredFigures } from './measures.ts';
import { type Programs, run } from './programs.ts';
import type { Settings } from './settings.ts';
import type { StormFigures } from './storm.ts';

export interface EtcdSize {
  /** The rival: the same with a store in memory. */
  readonly memory: MeasuredFigures;
  readonly etcd: MeasuredFigures;
  /** Commits to etcd when it has all of that. */
  readonly commit: CommitFigures;
}

export interface EtcdFigures {
  readonly sizes: readonly EtcdSize[];
  readonly storm: StormFigures;
  /** One for each timing of etcd; none where there are no namespaces. */
  readonly takeovers: readonly Takeovers[];
}

/** @throws {Error} if there is no etcd, or a program fails. */
export async function measureOnEtcd(programs: Programs, settings: Settings): Promise<EtcdFigures> {
  const missing = whyNoEtcd();
  if (missing !== undefined) throw new Error(missing);
  const sizes: EtcdSize[] = [];
  for (const count of settings.sites) {
    sizes.push(await measureSize(programs, settings, count));
    console.log(`${count} sites are measured`);
  }
  const storm: StormFigures = await withEtcd(async (etcd) =>
    JSON.parse(await run([programs.storm, settings.tunnels, `etcd:${etcd.port}`]))
  );
  return { sizes, storm, takeovers: await takeovers(settings) };
}

async function measureSize(
  programs: Programs,
  { home, clients, seconds }: Settings,
  count: number
): Promise<EtcdSize> {
  const file = join(home, `store-${count}`);
  await run([programs.prepare, file, count, clients]);
  const measure = async (place: string): Promise<MeasuredFigures> =>
    JSON.parse(await run([programs.measures, place, count, clients, seconds]));
  const memory = await measure(`memory:${file}`);
  return withEtcd(async ({ port }) => {
    await run([programs.fill, file, port]);
    rmSync(file);
    const etcd = await measure(`etcd:${port}`);
    const commit: CommitFigures = JSON.parse(await run([programs.commits, port, seconds]));
    return { memory, etcd, commit };
  });
}

async function takeovers({ rounds, isQuick }: Settings): Promise<Takeovers[]> {
  const missing = whyNoTakeover();
  if (missing !== undefined) {
    console.log(`no takeovers are measured: ${missing}`);
    return [];
  }
  const results: Takeovers[] = [];
  for (const timing of isQuick ? (['fast'] as const) : (['default', 'fast'] as const)) {
    results.push(await measureTakeovers(timing, rounds));
    console.log(`takeovers at the timing "${timing}" are measured`);
  }
  return results;
}

/** Runs an etcd as Debian starts it, on the disk of temporary files. */
async function withEtcd<T>(use: (etcd: EtcdServer) => Promise<T>): Promise<T> {
  const etcd = await EtcdServer.start({ args: DEFAULT_TIMING });
  const remove = (): void => rmSync(etcd.directory, { recursive: true, force: true });
  process.on('exit', remove);
  try {
    return await use(etcd);
  } finally {
    await etcd.close();
    process.off('exit', remove);
  }
}

/** etcd's own, instead of those of the tests. */
const DEFAULT_TIMING = ['--heartbeat-interval=100', '--election-timeout=1000'];
