/**
 * The machine that a benchmark runs on.
 * @module
 */
import { cpus } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { rounded } from './report.ts';

export interface Machine {
  readonly node: string;
  readonly cpu: string;
  readonly cores: number;
  /** The share of the machine that other programs used before the first turn. */
  readonly busyBefore: number;
  /** The congestion control of the kernels. */
  readonly congestion: string;
}

/** Looks at the machine for a second, and prints what it is. */
export async function surveyMachine(congestion: string): Promise<Machine> {
  const cpu = cpus()[0]?.model ?? 'unknown';
  const cores = cpus().length;
  const busyBefore = await busyShare(1_000);
  console.log(`Node ${process.version}, ${cores} cores (${cpu}), ${congestion}`);
  if (busyBefore > 0.1) {
    console.log(`others take ${Math.round(busyBefore * 100)} % of it: expect odd figures`);
  }
  return { node: process.version, cpu, cores, busyBefore, congestion };
}

/** Returns how much of the time of all cores is in use, over so many ms. */
async function busyShare(ms: number): Promise<number> {
  const total = () => {
    const times = cpus().map((core) => core.times);
    const idle = times.reduce((sum, each) => sum + each.idle, 0);
    const all = times.flatMap((each) => Object.values(each)).reduce((sum, each) => sum + each, 0);
    return { idle, all };
  };
  const before = total();
  await delay(ms);
  const after = total();
  return rounded(1 - (after.idle - before.idle) / (after.all - before.all));
}
