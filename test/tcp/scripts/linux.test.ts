/** The scripts on the kernel, which checks their expectations. */
import { setTimeout } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Family } from '../../../src/base/address.ts';
import { titled, useNamespace } from '../../support/namespace.ts';
import { durationOf, readCases } from './cases.ts';
import { LinuxHost } from './linux.ts';
import { runScript, ScriptFailure } from './runner.ts';
import type { Script } from './script.ts';

/** Scripts that wait longer run in the long form only. */
const LONGEST_MS = 5_000;
/** By how many ms the machine may be late without a script being repeated. */
const LATE_MS = 2;
const ATTEMPTS = 10;
const PAUSE_MS = 50;

const skipReason = await useNamespace();
const wanted = new RegExp(process.env.VP_SCRIPT ?? '');
const scripts = readCases()
  .filter(({ subjects }) => subjects.includes('linux'))
  .filter(({ place, title }) => wanted.test(`${place} ${title}`));
const isFull = process.env.VP_FULL !== undefined;
const short = scripts.filter((script) => isFull || durationOf(script, 'linux') <= LONGEST_MS);

describe.skipIf(skipReason !== undefined)(titled('scripts on Linux', skipReason), () => {
  let host: LinuxHost;
  let runs: Map<string, Promise<unknown>>;

  beforeAll(async () => {
    host = await LinuxHost.open();
    // All at the same time, because most of the time is waiting. `allSettled` takes note of early failures.
    const each = short.flatMap((script) =>
      script.families.map(
        (family) => [keyOf(script, family), runPatiently(host, script, family)] as const
      )
    );
    runs = new Map(each);
    await Promise.allSettled(runs.values());
  }, 300_000);

  afterAll(() => host.close());

  for (const script of short) {
    test(`${script.place} ${script.title}`, async () => {
      const outcomes = await Promise.allSettled(
        script.families.map((family) => runs.get(keyOf(script, family)))
      );
      const failures = outcomes.flatMap((each) =>
        each.status === 'rejected' ? [(each.reason as Error).message] : []
      );
      expect(failures.join('\n')).toBe('');
    });
  }
});

/** Runs a script again if it failed while this machine was late: an ACK in time may have come too late then. */
async function runPatiently(host: LinuxHost, script: Script, family: Family): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await runScript(script, host.subject(family));
    } catch (error) {
      const isLate = error instanceof ScriptFailure && error.lagMs > LATE_MS;
      if (!isLate || attempt === ATTEMPTS) throw error;
      // Fewer scripts run later, so that the machine is less busy.
      await setTimeout(attempt * PAUSE_MS);
    }
  }
}

function keyOf({ place }: Script, family: Family): string {
  return `${place} IPv${family}`;
}
