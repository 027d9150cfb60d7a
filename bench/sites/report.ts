/**
 * The figures as text, and their targets.
 * @module
 */
import type { Shares, Stopped } from './fairness.ts';
import type { Memory } from './memory.ts';

export interface Target {
  readonly what: string;
  readonly value: number;
  readonly limit: number;
  readonly isMet: boolean;
}

export function fairnessText(shares: readonly Shares[], stopped: Stopped): string {
  const lines = shares.map(
    ({ direction, sites, totalMbps, leastMbps, mostMbps, leastOfMost, jain }) =>
      `${sites} sites, ${direction}: ${totalMbps.toFixed(0)} Mbit/s in sum; a site ` +
      `${leastMbps.toFixed(1)} to ${mostMbps.toFixed(1)}, least/most ${leastOfMost.toFixed(2)}, ` +
      `Jain's index ${jain.toFixed(4)}`
  );
  const { sites, othersMbps, othersWhileStoppedMbps, ratio, jainWhileStopped, outages } = stopped;
  return [
    ...lines,
    `${sites} sites, down: the first ${sites - 1} get ${othersMbps.toFixed(0)} Mbit/s while all read, ` +
      `${othersWhileStoppedMbps.toFixed(0)} while the last does not: ${ratio.toFixed(2)}; ` +
      `Jain's index of them then ${jainWhileStopped.toFixed(4)}`,
    ...outages.map((outage) => `tunnel down: ${outage}`),
  ].join('\n');
}

export function memoryText(memory: Memory): string {
  const steps = memory.steps.map(
    ({ connected, rssKiB, collectedRssKiB, heapKiB, externalKiB }) =>
      `${connected} idle sites: RSS ${mib(rssKiB)} MiB, after garbage collection ` +
      `${mib(collectedRssKiB)}; heap ${mib(heapKiB)}, external ${mib(externalKiB)}`
  );
  const { rssKiBPerSite, collectedRssKiBPerSite, heapKiBPerSite } = memory;
  return [
    ...steps,
    `an idle site costs ${rssKiBPerSite.toFixed(1)} KiB of RSS as it is; one more ` +
      `${collectedRssKiBPerSite.toFixed(1)} after garbage collection, of it ` +
      `${heapKiBPerSite.toFixed(1)} of heap`,
  ].join('\n');
}

export function targetsOf(
  fairness: { shares: readonly Shares[]; stopped: Stopped } | undefined,
  memory: Memory | undefined
): Target[] {
  const targets: Target[] = [];
  const atLeast = (what: string, value: number, limit: number) =>
    targets.push({ what, value, limit, isMet: value >= limit });
  const atMost = (what: string, value: number, limit: number) =>
    targets.push({ what, value, limit, isMet: value <= limit });
  if (fairness !== undefined) {
    for (const { direction, leastOfMost, jain } of fairness.shares) {
      atLeast(`${direction}: Jain's index`, jain, LEAST_JAIN);
      atLeast(`${direction}: least share of largest`, leastOfMost, LEAST_OF_MOST);
    }
    const { ratio, outages } = fairness.stopped;
    atLeast('one stops reading: what the others keep', ratio, LEAST_KEPT);
    atMost('one stops reading: tunnels of others that broke', outages.length, 0);
  }
  if (memory !== undefined) {
    atMost('idle site, KiB of RSS', memory.rssKiBPerSite, MOST_KIB);
    atMost('idle site, KiB of RSS, garbage collected', memory.collectedRssKiBPerSite, MOST_KIB);
  }
  return targets;
}

export function targetText(targets: readonly Target[]): string {
  const lines = targets.map(
    ({ what, value, limit, isMet }) =>
      `${what}: ${value.toFixed(3)}, target ${limit}: ${isMet ? 'met' : 'NOT MET'}`
  );
  return lines.join('\n');
}

function mib(kib: number): string {
  return (kib / 1024).toFixed(1);
}

const LEAST_JAIN = 0.95;
const LEAST_OF_MOST = 0.8;
/** The part of what they get while all read; they should get more. */
const LEAST_KEPT = 0.95;
const MOST_KIB = 100;
