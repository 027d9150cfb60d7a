/**
 * Drains a machine: it takes no sites any more, and hands those that it has over to the others, one after the other, so
 * that their edges do not all dial at once.
 * @module
 */
import { ConflictError, StoreError } from '../errors.ts';
import type { Member } from './member.ts';
import { nextMachine } from './next-machine.ts';
import { pause } from './pause.ts';
import type { SiteClaims } from './site-claims.ts';

export interface DrainOptions {
  /** How many sites are handed over in a second; default 50. */
  readonly sitesPerSecond?: number;
  /** Ends the drain early; the machine goes on to take no sites. Without it nothing does. */
  readonly signal?: AbortSignal;
}

/** How a drain has ended. */
export interface DrainReport {
  readonly handedOver: number;
  /** The sites that are still here, because no other machine is alive and takes sites, or the store did not answer. */
  readonly kept: readonly string[];
}

/**
 * Hands all sites of this machine over. `Member.setDraining(false)` ends that it takes no sites.
 *
 * @throws {StoreError} if the store does not answer.
 */
export async function drain(
  member: Member,
  claims: SiteClaims,
  options: DrainOptions = {}
): Promise<DrainReport> {
  const { sitesPerSecond = 50, signal = new AbortController().signal } = options;
  await member.setDraining(true);
  const kept: string[] = [];
  let handedOver = 0;
  for (const site of claims.sitesOf(member.name)) {
    const next = nextMachine(site, member.machines.list(), member.name);
    if (signal.aborted || next === undefined) {
      kept.push(site);
      continue;
    }
    try {
      await claims.handOver(site, next.name);
      handedOver++;
    } catch (error) {
      if (!(error instanceof ConflictError || error instanceof StoreError)) throw error;
      if (claims.holderOf(site)?.isHere === true) kept.push(site);
    }
    await pause(member.clock, 1000 / sitesPerSecond, signal);
  }
  return { handedOver, kept };
}
