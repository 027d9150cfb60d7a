/**
 * CPU time and memory of programs with all their children, from /proc.
 * @module
 */
import { readdirSync, readFileSync } from 'node:fs';
import type { Program } from '../../test/support/network.ts';

/** The processes of programs, without those that only started them. */
export function pidsOf(programs: readonly Program[]): number[] {
  const children = new Map<number, number[]>();
  const names = new Map<number, string>();
  for (const entry of readdirSync('/proc')) {
    const stat = /^\d+$/.test(entry) ? readStat(Number(entry)) : undefined;
    if (stat === undefined) continue;
    const pid = Number(entry);
    names.set(pid, stat.name);
    children.set(stat.parent, [...(children.get(stat.parent) ?? []), pid]);
  }
  const below = (pid: number): number[] =>
    (children.get(pid) ?? []).flatMap((child) => [child, ...below(child)]);
  return programs
    .flatMap(({ child }) => below(child.pid!))
    .filter((pid) => !WRAPPERS.has(names.get(pid)!));
}

/** User and system time since their start, in seconds, with that of children that have ended. */
export function cpuSecondsOf(pids: readonly number[]): number {
  const ticks = pids.map((pid) => readStat(pid)?.ticks ?? 0);
  return ticks.reduce((sum, each) => sum + each, 0) / TICKS_PER_SECOND;
}

/** Resident memory, in MiB. Pages that processes share count for each. */
export function rssMiBOf(pids: readonly number[]): number {
  const kibibytes = pids.map((pid) => {
    const status = readFileSync(`/proc/${pid}/status`, 'latin1');
    return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0);
  });
  return kibibytes.reduce((sum, each) => sum + each, 0) / 1024;
}

interface Stat {
  readonly name: string;
  readonly parent: number;
  readonly ticks: number;
}

/** Undefined for a process that has ended. */
function readStat(pid: number): Stat | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch {
    return undefined;
  }
  // pid (name) state ppid ..., of which the name may hold anything
  const end = text.lastIndexOf(')');
  const fields = text.slice(end + 2).split(' ');
  const ticks = fields.slice(11, 15).reduce((sum, each) => sum + Number(each), 0);
  return { name: text.slice(text.indexOf('(') + 1, end), parent: Number(fields[1]), ticks };
}

/** What `Host.start` puts in front of a program. */
const WRAPPERS: ReadonlySet<string> = new Set(['nsenter', 'env', 'timeout']);
/** USER_HZ, the same on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100;
