/**
 * Measures the memory of the cloud gateway with none, some and many idle sites.
 * @module
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Program } from '../../test/support/network.ts';
import { rssMiBOf } from '../gateway/processes.ts';
import type { MemoryLine } from './memory-probe.ts';
import { type SitesOptions, SitesScene } from './scene.ts';

export interface MemoryStep {
  readonly connected: number;
  readonly rssKiB: number;
  /** The same after garbage was collected. */
  readonly collectedRssKiB: number;
  /** `heapUsed` and `external` then; what OpenSSL and the kernel hold is not in it. */
  readonly heapKiB: number;
  readonly externalKiB: number;
}

export interface Memory {
  readonly steps: readonly MemoryStep[];
  /** The growth from no site to all, as an operator sees it: garbage may be collected or not. */
  readonly rssKiBPerSite: number;
  /** From the first that has any to all, so without what only the first site costs. */
  readonly collectedRssKiBPerSite: number;
  readonly heapKiBPerSite: number;
}

export interface MemoryOptions extends Omit<SitesOptions, 'sites' | 'nodeOptions'> {
  readonly memoryProbe: string;
  /** How many sites are connected at each step: none, some, all. */
  readonly steps: readonly [number, number, number];
}

/** The cloud gateway knows all sites from the start: what is measured is that they connect. */
export async function measureMemory(options: MemoryOptions): Promise<Memory> {
  const { steps: counts, memoryProbe } = options;
  const nodeOptions = ['--expose-gc', '--import', memoryProbe];
  const scene = await SitesScene.create({ ...options, sites: counts[2], nodeOptions });
  try {
    const steps: MemoryStep[] = [];
    let connected = 0;
    for (const count of counts) {
      if (count > connected) await scene.startSites(count - connected, false);
      connected = count;
      await delay(IDLE_MS);
      steps.push(await takeStep(scene, connected));
    }
    const last = steps.at(-1)!;
    const perSite = (since: MemoryStep, of: (step: MemoryStep) => number) =>
      (of(last) - of(since)) / (last.connected - since.connected);
    const [none, some] = steps as [MemoryStep, MemoryStep];
    return {
      steps,
      rssKiBPerSite: perSite(none, ({ rssKiB }) => rssKiB),
      collectedRssKiBPerSite: perSite(some, ({ collectedRssKiB }) => collectedRssKiB),
      heapKiBPerSite: perSite(some, ({ heapKiB }) => heapKiB),
    };
  } finally {
    await scene.close();
  }
}

async function takeStep(scene: SitesScene, connected: number): Promise<MemoryStep> {
  const rssKiB = rssMiBOf([scene.cloudPid]) * 1024;
  const { heapUsed, external, rss } = await collected(scene.cloudProgram, scene.cloudPid);
  return {
    connected,
    rssKiB,
    collectedRssKiB: rss / 1024,
    heapKiB: heapUsed / 1024,
    externalKiB: external / 1024,
  };
}

async function collected(program: Program, pid: number): Promise<NodeJS.MemoryUsage> {
  const isLine = /^\{"afterGarbageCollection".*\}$/gm;
  const before = [...program.stderr.matchAll(isLine)].length;
  process.kill(pid, 'SIGUSR2');
  await program.printed(new RegExp(`(\\{"afterGarbageCollection"[^]*){${before + 1}}\\n`));
  const line = [...program.stderr.matchAll(isLine)].at(-1)![0];
  return (JSON.parse(line) as MemoryLine).afterGarbageCollection;
}

/** Handshakes, snapshots and the first keepalives are over. */
const IDLE_MS = 12_000;
