/**
 * Which machine takes a site that is handed over: by rendezvous hashing, so that the sites of one machine are divided
 * among all others.
 * @module
 */
import type { MachineStatus } from './machines.ts';

/** Returns whether a machine takes sites: one that is starting does not say yet where edges reach it. */
export function mayTake({ isLive, isDraining, endpoints }: MachineStatus): boolean {
  return isLive && !isDraining && endpoints.length > 0;
}

/** Returns the machine that takes the site; undefined if none of them is alive and takes sites. */
export function nextMachine(
  site: string,
  machines: readonly MachineStatus[],
  except: string
): MachineStatus | undefined {
  const able = machines.filter((each) => mayTake(each) && each.name !== except);
  let best: { readonly machine: MachineStatus; readonly weight: number } | undefined;
  for (const machine of able) {
    const weight = hashOf(`${site} ${machine.name}`);
    if (best === undefined || weight > best.weight) best = { machine, weight };
  }
  return best?.machine;
}

/** Returns the 32-bit FNV-1a hash, with the last step of MurmurHash3, since names differ in their last characters only. */
function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < text.length; at++) {
    hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
