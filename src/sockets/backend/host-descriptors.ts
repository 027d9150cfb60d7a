/**
 * The descriptors that the sockets of a backend take, for TCP and UDP together. A process has a limit of them, often far
 * below the bounds of connections and flows. So a backend takes at most three quarters of it, which leaves room for the
 * tunnels, and one site a quarter of that, whatever it opens.
 * @module
 */
import { readFileSync } from 'node:fs';
import { GroupCounts, quarterOf } from '../../base/group-counts.ts';

export class HostDescriptors {
  readonly #limit: number;
  readonly #sites: GroupCounts;
  #used = 0;

  /** @param limit how many a backend may have */
  constructor(limit: number) {
    this.#limit = limit;
    this.#sites = new GroupCounts(quarterOf(limit));
  }

  /** How many are taken. */
  get used(): number {
    return this.#used;
  }

  /** Whether a client of the site may have one more; undefined stands for no site, which has no bound of its own. */
  hasRoom(site: string | undefined): boolean {
    return this.#used < this.#limit && this.#sites.hasRoom(site);
  }

  add(site: string | undefined): void {
    this.#used++;
    this.#sites.add(site);
  }

  remove(site: string | undefined): void {
    this.#used--;
    this.#sites.remove(site);
  }
}

/**
 * Returns how many descriptors a backend may have.
 *
 * @param needed what its bounds allow
 * @param limit how many the process may have
 */
export function descriptorsFor(needed: number, limit: number = processLimit()): number {
  return Math.max(1, Math.min(needed, Math.floor((limit * 3) / 4)));
}

/** Returns the limit of this process (`RLIMIT_NOFILE`); 2 ** 31 - 1 where it is not known, as outside Linux. */
function processLimit(): number {
  try {
    return limitIn(readFileSync('/proc/self/limits', 'utf8'));
  } catch {
    return UNKNOWN;
  }
}

/** Returns the soft limit of open files that a text such as `/proc/self/limits` says (proc_pid_limits(5)). */
export function limitIn(limits: string): number {
  const [, soft] = /^Max open files\s+(\d+)/m.exec(limits) ?? [];
  return soft === undefined ? UNKNOWN : Math.min(Number(soft), UNKNOWN);
}

/** Integer arithmetic holds up to it. */
const UNKNOWN = 2 ** 31 - 1;
