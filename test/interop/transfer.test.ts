/**
 * The matrix: bytes both ways between the stack and Linux, over good and bad links. `VP_FULL=1` sends 64 MiB in each
 * cell, by default only those of good links do.
 * @module
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { titled, useNamespace } from '../support/namespace.ts';
import { type Cell, expectAbout, expectAtMost, expectNoRecovery, named, runCell } from './cell.ts';
import { prepareNamespace } from './link.ts';
import { LinuxPeer } from './linux-peer.ts';

const skipReason = await useNamespace();
const isFull = process.env.VP_FULL === '1';
const MIB = 1_048_576;
const LARGE = 64 * MIB;
const SMALL = isFull ? LARGE : 2 * MIB;
const TIMEOUT_MS = isFull ? 1_800_000 : 180_000;

const ways: readonly Cell[] = (['stack', 'linux'] as const).flatMap((opener) =>
  ([4, 6] as const).flatMap((family) =>
    [true, false].map((offload) => ({ opener, family, offload }))
  )
);

/** Half of them have a delay: in each direction, so that the round trip takes 10 ms. */
const lossy: readonly Cell[] = ways.flatMap((way, i) =>
  [0.01, 0.05].map((loss, j) => ({
    ...way,
    faults: {
      loss,
      duplicate: 0.01,
      reorder: 0.02,
      seed: 2 * i + j,
      ...((way.opener === 'stack') === way.offload ? { delayMs: 5 } : {}),
    },
  }))
);

describe.skipIf(skipReason !== undefined)(titled('the stack and Linux', skipReason), () => {
  let peer: LinuxPeer;
  beforeAll(async () => {
    prepareNamespace();
    peer = await LinuxPeer.start();
  });
  afterAll(() => peer?.close());

  describe('exchange 64 MiB over a good link', () => {
    test.each(named(ways))('%s', async (_, cell) => {
      const link = await runCell(peer, cell, LARGE);
      expectNoRecovery(link);
      await link.close();
    });
  });

  // Their time is waiting for the most part.
  describe.concurrent(`exchange ${SMALL / MIB} MiB over a bad link`, () => {
    test.each(named(lossy))('%s', { timeout: TIMEOUT_MS }, async (_, cell) => {
      const link = await runCell(peer, cell, SMALL);
      const { loss = 0, duplicate = 0, reorder = 0, delayMs } = cell.faults!;
      for (const end of ['stack', 'linux'] as const) {
        const { sent, dropped } = await link.settled(end);
        const { lost, duplicated, reordered, delayed } = link.faultsOf(end);
        expectAbout(lost, sent * loss);
        expectAbout(duplicated, sent * (1 - loss) * duplicate);
        // A packet that waits alone has no other to change places with.
        expect(reordered).toBeGreaterThan(0);
        expectAtMost(reordered, sent * reorder);
        expect(delayed).toBe(delayMs === undefined ? 0 : sent - lost + duplicated);
        expect(dropped).toBe(0);
      }
      // What was lost is sent again, and not much else.
      expect(link.stack.tcp.counters.retransmitted).toBeLessThan(
        2 * link.faultsOf('stack').lost + RETRANSMISSION_SLACK
      );
      await link.close();
    });
  });
});

/** A timeout sends a window again. */
const RETRANSMISSION_SLACK = 60;
