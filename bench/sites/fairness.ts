/**
 * Measures the share of each of many sites when all send as much as they can, and the rate of the others when one
 * stops reading.
 * @module
 */
import { setTimeout as delay } from 'node:timers/promises';
import { median } from '../gateway/median.ts';
import { type Direction, Flows } from './flows.ts';
import { type SitesOptions, SitesScene } from './scene.ts';

export interface Shares {
  readonly direction: Direction;
  readonly sites: number;
  readonly totalMbps: number;
  readonly leastMbps: number;
  readonly mostMbps: number;
  /** The smallest share divided by the largest. */
  readonly leastOfMost: number;
  /** (sum of x)^2 / (n * sum of x^2): 1 if all are the same, 1/n if one has all. */
  readonly jain: number;
}

export interface Stopped {
  readonly sites: number;
  /** What the others get in sum, while all read and while one does not; medians. */
  readonly othersMbps: number;
  readonly othersWhileStoppedMbps: number;
  readonly ratio: number;
  readonly jainWhileStopped: number;
  /** Tunnels of the others that have gone down. */
  readonly outages: readonly string[];
}

export interface FairnessOptions extends SitesOptions {
  readonly flows: string;
  /** How long shares are counted. */
  readonly windowMs: number;
  readonly rounds: number;
}

/** All sites except one are in one process; the last has its own, so that it can be stopped. */
export async function measureFairness(
  options: FairnessOptions
): Promise<{ shares: Shares[]; stopped: Stopped }> {
  const { flows: program, windowMs } = options;
  const scene = await SitesScene.create(options);
  try {
    const farm = await scene.startSites(options.sites - 1, true);
    const lonely = await scene.startSites(1, true);
    const address = scene.addressOfService(farm);
    const hosts = [...farm.hosts, ...lonely.hosts];
    const shares: Shares[] = [];
    for (const direction of ['up', 'down'] as const) {
      const flows = await Flows.start(program, scene, farm.hosts, address, direction);
      await delay(SETTLE_MS);
      shares.push(sharesOf(direction, await flows.rates(windowMs)));
      await flows.close();
    }

    const flows = await Flows.start(program, scene, hosts, address, 'down');
    await delay(SETTLE_MS);
    const reading: number[] = [];
    const stopped: number[] = [];
    const jain: number[] = [];
    for (let round = 0; round < options.rounds; round++) {
      const before = (await flows.rates(STOPPED_MS)).slice(0, -1);
      process.kill(lonely.pid, 'SIGSTOP');
      // Wait until its queues are full.
      await delay(STOPPING_MS);
      const during = (await flows.rates(STOPPED_MS)).slice(0, -1);
      process.kill(lonely.pid, 'SIGCONT');
      await delay(STOPPING_MS);
      reading.push(sum(before));
      stopped.push(sum(during));
      jain.push(jainOf(during));
    }
    await flows.close();
    const [othersMbps, othersWhileStoppedMbps] = [median(reading), median(stopped)];
    return {
      shares,
      stopped: {
        sites: hosts.length,
        othersMbps,
        othersWhileStoppedMbps,
        ratio: othersWhileStoppedMbps / othersMbps,
        jainWhileStopped: median(jain),
        outages: scene.outages(farm),
      },
    };
  } finally {
    await scene.close();
  }
}

function sharesOf(direction: Direction, rates: readonly number[]): Shares {
  const leastMbps = Math.min(...rates);
  const mostMbps = Math.max(...rates);
  return {
    direction,
    sites: rates.length,
    totalMbps: sum(rates),
    leastMbps,
    mostMbps,
    leastOfMost: leastMbps / mostMbps,
    jain: jainOf(rates),
  };
}

function jainOf(rates: readonly number[]): number {
  return sum(rates) ** 2 / (rates.length * sum(rates.map((rate) => rate ** 2)));
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

const SETTLE_MS = 4_000;
const STOPPED_MS = 4_000;
const STOPPING_MS = 1_500;
