/**
 * Transfers between the stack and Linux over links with one property each, and with a Linux that lacks an option of TCP.
 * @module
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { titled, useNamespace } from '../support/namespace.ts';
import { type Cell, expectNoRecovery, runCell } from './cell.ts';
import { Link, prepareNamespace, sysctl } from './link.ts';
import { LinuxPeer } from './linux-peer.ts';

const skipReason = await useNamespace();
const MIB = 1_048_576;
const CELL: Cell = { opener: 'stack', family: 4, offload: true };
const both = [true, false];
const families = [4, 6] as const;

describe.skipIf(skipReason !== undefined)(titled('the stack and Linux', skipReason), () => {
  let peer: LinuxPeer;
  beforeAll(async () => {
    prepareNamespace();
    peer = await LinuxPeer.start();
  });
  afterAll(() => peer?.close());

  test('have the round trip that the delay and its jitter make', async () => {
    const link = await Link.open({ faults: { delayMs: 20, jitterMs: 10 } });
    const { stack, linux } = link.addresses(4);
    const ping = promisify(execFile)('ping', ['-c', '20', '-i', '0.01', stack]);
    const ours: number[] = [];
    for (let i = 0; i < 10; i++) ours.push((await link.stack.ping(linux)).rttMs);
    const { stdout } = await ping;
    const theirs = [...stdout.matchAll(/time=([\d.]+)/g)].map(([, ms]) => Number(ms));
    expect(theirs).toHaveLength(20);
    for (const times of [ours, theirs]) {
      expect(Math.min(...times)).toBeGreaterThanOrEqual(40);
      // A busy machine makes it longer.
      expect(Math.min(...times)).toBeLessThan(90);
    }
    await link.close();
  });

  describe.concurrent('exchange bytes', () => {
    test.each([5, 6])('though whole super-segments are lost, seed %i', async (seed) => {
      const faults = { loss: 0.05, delayMs: 1, seed };
      const link = await runCell(peer, { ...CELL, faults }, MIB, { splits: false });
      expect(link.faultsOf('stack').lost).toBeGreaterThan(0);
      await link.close();
    });

    test.each(families)('though bits of packets are inverted, over IPv%i', async (family) => {
      const faults = { corrupt: 0.01 };
      const link = await runCell(peer, { ...CELL, family, offload: false, faults }, 2 * MIB);
      expect(link.faultsOf('linux').corrupted).toBeGreaterThan(5);
      const { 'tcp.dropChecksum': summed, dropMalformed } = link.stack.allCounters;
      expect(summed! + dropMalformed!).toBeGreaterThan(0);
      await link.close();
    });

    test.each(both)('though the link often refuses packets, offload %s', async (offload) => {
      const link = await runCell(peer, { ...CELL, offload }, 2 * MIB, { queueLength: 8 });
      const { refused } = link.stack.counters;
      expect(refused).toBe(link.packetsOf('stack').dropped);
      expect(refused).toBeGreaterThan(0);
      await link.close();
    });

    test('though a packet may take from 1 to 21 ms', async () => {
      const faults = { delayMs: 1, jitterMs: 20 };
      const link = await runCell(peer, { ...CELL, faults }, 4 * MIB);
      await link.close();
    });

    test.each([
      ['an MTU of 1280', { mtu: 1280 }],
      ['an MTU of 1400 of the kernel, of 9000 of the stack', { mtu: 1400, stackMtu: 9000 }],
      ['an MTU of 1500 of the kernel, of 1280 of the stack', { stackMtu: 1280 }],
      ['an MTU of 65,515 of both', { mtu: 65_515 }],
    ])('with %s', async (_, options) => {
      for (const family of families) {
        for (const offload of both) {
          const link = await runCell(peer, { ...CELL, family, offload }, MIB, options);
          expectNoRecovery(link);
          await link.close();
        }
      }
    });
  });

  describe('exchange bytes, and lose 2 % of the packets', () => {
    const settings: [string, string][] = [];
    afterEach(() => {
      for (const setting of settings.splice(0)) sysctl(setting.join('='));
    });
    async function set(name: string, value: number): Promise<void> {
      const { stdout } = await promisify(execFile)('sysctl', ['-n', name]);
      settings.push([name, stdout.trim()]);
      sysctl(`${name}=${value}`);
    }

    test.each([
      ['without SACK', { tcp_sack: 0 }],
      ['without timestamps', { tcp_timestamps: 0 }],
      ['without window scaling', { tcp_window_scaling: 0 }],
      ['with no option but the MSS', { tcp_sack: 0, tcp_timestamps: 0, tcp_window_scaling: 0 }],
      ['with DSACK off', { tcp_dsack: 0 }],
      ['that offers ECN', { tcp_ecn: 1 }],
    ])('with a Linux %s', async (_, values) => {
      for (const [name, value] of Object.entries(values)) await set(`net.ipv4.${name}`, value);
      const faults = { loss: 0.02, duplicate: 0.01, reorder: 0.02, delayMs: 1, seed: 21 };
      const cells = both.flatMap((offload) =>
        (['stack', 'linux'] as const).map((opener) => ({ ...CELL, opener, offload, faults }))
      );
      const links = await Promise.all(cells.map((cell) => runCell(peer, cell, MIB)));
      for (const link of links) {
        expect(link.stack.tcp.counters.retransmitted).toBeGreaterThan(0);
        await link.close();
      }
    });
  });
});
