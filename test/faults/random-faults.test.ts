/**
 * A cloud of three machines, three members of etcd and three sites, to which random things happen. `VP_SEED` chooses the run,
 * `VP_FAULT_MINUTES` its length; `npm run test:faults` has 20 minutes. The README says what is checked.
 */
import { expect, test } from 'vitest';
import { whatIsMissing } from '../support/network.ts';
import { MUTATIONS } from './mutations.ts';
import { runFaults } from './run.ts';

const SEED = Number(process.env.VP_SEED ?? Date.now() % 2 ** 31);
const MINUTES = Number(process.env.VP_FAULT_MINUTES ?? 0.3);
const isLong = MINUTES > 1;
/** `npm run test:faults:broken`: only the runs that have to find what is broken on purpose. */
const isBroken = process.env.VP_FAULT_BROKEN !== undefined;

const skipReason = whatIsMissing({
  bash: 'bash',
  etcd: 'etcd-server',
  etcdctl: 'etcd-client',
  nft: 'nftables',
});
const isSkipped = skipReason !== undefined && process.env.CI === undefined;
const reason = isSkipped ? ` (skipped: ${skipReason})` : '';
const TIMEOUT_MS = 60_000 * (2 * MINUTES + 10);

if (isBroken) {
  test.skipIf(isSkipped).each(Object.entries(MUTATIONS))(
    `a random fault run finds: %s${reason}`,
    async (_, { edits, finds }) => {
      if (skipReason !== undefined) throw new Error(skipReason);
      console.info(`VP_SEED=${SEED}`);
      const result = await runFaults({ seed: SEED, minutes: MINUTES, phaseMs: 25_000, edits });
      console.info(result.summary, result.violations[0]);
      expect(
        result.violations.find((text) => finds.test(text)),
        result.report
      ).toBeDefined();
    },
    TIMEOUT_MS
  );
} else {
  test.skipIf(isSkipped)(
    `a random fault run finds nothing, seed ${SEED}${reason}`,
    async () => {
      if (skipReason !== undefined) throw new Error(skipReason);
      console.info(`VP_SEED=${SEED}`);
      const phaseMs = isLong ? 25_000 : 20_000;
      const result = await runFaults({ seed: SEED, minutes: MINUTES, phaseMs });
      console.info(result.summary);
      expect(result.report).toBeUndefined();
    },
    TIMEOUT_MS
  );
}
