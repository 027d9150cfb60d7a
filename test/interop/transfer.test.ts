/**
 * Bytes both ways at the same time between the stack and Linux, over a good link and over bad ones. `VP_FULL=1` sends
 * 64 MiB in each cell.
 * @module
 */
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Faults } from '../../src/device/index.ts';
import type { PresenceSocket } from '../../src/sockets/index.ts';
import { titled, useNamespace } from '../support/namespace.ts';
import { type ExchangeReport, exchange } from './exchange.ts';
import { type End, Link, type LinkOptions, prepareNamespace } from './link.ts';
import { LinuxPeer, type PeerReport } from './linux-peer.ts';

const skipReason = await useNamespace();
const isFull = process.env.VP_FULL === '1';
const LONG = isFull ? 1_800_000 : 180_000;
const MIB = 1_048_576;
const LARGE = 64 * MIB;
const SMALL = isFull ? LARGE : 2 * MIB;

interface Cell {
  readonly opener: End;
  readonly family: 4 | 6;
  readonly offload: boolean;
  readonly faults?: Faults;
}

const both = [true, false];
const ways: readonly Cell[] = (['stack', 'linux'] as const).flatMap((opener) =>
  ([4, 6] as const).flatMap((family) => both.map((offload) => ({ opener, family, offload })))
);

/** Of each way, with less and more loss; half of them have a delay. */
const lossy: readonly Cell[] = ways.flatMap((way) =>
  [0.01, 0.05].map((loss, i) => ({
    ...way,
    faults: {
      loss,
      duplicate: 0.01,
      reorder: 0.02,
      seed: 2 * ways.indexOf(way) + i,
      ...((way.opener === 'stack') === way.offload ? { delayMs: 5 } : {}),
    },
  }))
);

const named = (cells: readonly Cell[]) => cells.map((cell) => [title(cell), cell] as const);

function title({ opener, family, offload, faults }: Cell): string {
  const words = [`${opener} connects`, `IPv${family}`, `offload ${offload ? 'on' : 'off'}`];
  const { loss = 0, delayMs = 0, corrupt = 0 } = faults ?? {};
  if (faults) words.push(`loss ${loss * 100} %`, `delay ${delayMs} ms`);
  if (corrupt > 0) words.push(`corruption ${corrupt * 100} %`);
  return words.join(', ');
}

describe.skipIf(skipReason !== undefined)(titled('the stack and Linux', skipReason), () => {
  let peer: LinuxPeer;
  beforeAll(async () => {
    prepareNamespace();
    peer = await LinuxPeer.start();
  });
  afterAll(() => peer?.close());

  async function run(cell: Cell, bytes: number, options: LinkOptions = {}): Promise<Link> {
    const { opener, family, offload, faults } = cell;
    const link = await Link.open({ offload, faults, ...options });
    const ours = { bytes, seed: 1 };
    const theirs = { bytes, seed: 2 };
    const { stack, linux } = link.addresses(family);
    const before = process.cpuUsage();
    let report: ExchangeReport;
    let peerReport: PeerReport;
    if (opener === 'stack') {
      const { port, report: ending } = await peer.listen(linux, theirs);
      ending.catch(() => {});
      const socket = link.stack.connect({ host: linux, port, allowHalfOpen: true });
      report = await exchange(socket, ours);
      peerReport = await ending;
    } else {
      const server = link.stack.createServer({ allowHalfOpen: true });
      server.listen(0);
      await once(server, 'listening');
      const ending = peer.connect(stack, server.address()!.port, theirs);
      ending.catch(() => {});
      const [socket] = (await once(server, 'connection')) as [PresenceSocket];
      report = await exchange(socket, ours);
      peerReport = await ending;
      server.close();
    }
    const { user, system } = process.cpuUsage(before);
    if (process.env.VP_REPORT === '1') {
      const { retransmitted, timeouts, tailProbes, undone } = link.stack.tcp.counters;
      const { lost = 0 } = faults === undefined ? {} : link.faultsOf('stack');
      console.log(
        [
          title(cell),
          `to Linux ${rate(bytes, peerReport.receivedMs)}, to the stack ${rate(bytes, report.receivedMs)}`,
          // Both hash what they send and receive.
          `CPU here ${((user + system) / 1e6).toFixed(2)} s, there ${(peerReport.cpuMs / 1e3).toFixed(2)} s`,
          `lost ${lost}, ${JSON.stringify({ retransmitted, timeouts, tailProbes, undone })}`,
        ].join('; ')
      );
    }
    expect(report.sent.bytes).toBe(bytes);
    expect(peerReport.received).toEqual(report.sent);
    expect(report.received).toEqual(peerReport.sent);
    return link;
  }

  describe('exchange 64 MiB over a good link', () => {
    test.each(named(ways))('%s', async (_, cell) => {
      const link = await run(cell, LARGE);
      expectNoRecovery(link);
      await link.close();
    });
  });

  describe.concurrent('exchange 4 MiB', () => {
    const cell: Cell = { opener: 'stack', family: 4, offload: true };
    const bytes = 4 * MIB;

    test.each([5, 6])('though whole super-segments are lost, seed %i', async (seed) => {
      const faults = { loss: 0.05, delayMs: 2, seed };
      const link = await run({ ...cell, faults }, bytes, { splits: false });
      expect(link.faultsOf('stack').lost).toBeGreaterThan(0);
      await link.close();
    });

    test.each([4, 6] as const)(
      'though bits of packets are inverted, over IPv%i',
      async (family) => {
        const faults = { corrupt: 0.01 };
        const link = await run({ ...cell, family, offload: false, faults }, bytes);
        expect(link.faultsOf('linux').corrupted).toBeGreaterThan(10);
        const { 'tcp.dropChecksum': summed, dropMalformed } = link.stack.allCounters;
        expect(summed! + dropMalformed!).toBeGreaterThan(0);
        await link.close();
      }
    );

    test.each(both)('though the link often refuses packets, offload %s', async (offload) => {
      const link = await run({ ...cell, offload }, bytes, { queueLength: 8 });
      const { refused } = link.stack.counters;
      expect(refused).toBe(link.packetsOf('stack').dropped);
      expect(refused).toBeGreaterThan(0);
      await link.close();
    });

    test('though every packet takes from 1 to 21 ms', async () => {
      const link = await run({ ...cell, faults: { delayMs: 1, jitterMs: 20 } }, bytes);
      await link.close();
    });

    test.each([
      ['an MTU of 1280', { mtu: 1280 }],
      ['an MTU of 1400 of the kernel alone', { mtu: 1400, stackMtu: 9000 }],
      ['an MTU of 9000 of the stack alone', { stackMtu: 9000 }],
      ['an MTU of 65,515 of both', { mtu: 65_515 }],
    ])('with %s', async (_, options) => {
      for (const family of [4, 6] as const) {
        for (const offload of both) {
          const link = await run({ ...cell, family, offload }, MIB, options);
          expectNoRecovery(link);
          await link.close();
        }
      }
    });
  });

  test('a delay and its jitter are what was asked for', async () => {
    const link = await Link.open({ faults: { delayMs: 20, jitterMs: 10 } });
    const { stack, linux } = link.addresses(4);
    const ping = execFileAsync('ping', ['-c', '20', '-i', '0.01', stack]);
    const ours = [];
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

  // Their time is waiting for the most part.
  describe.concurrent(`exchange ${SMALL / MIB} MiB over a bad link`, () => {
    test.each(named(lossy))('%s', LONG, async (_, cell) => {
      const link = await run(cell, SMALL);
      for (const end of ['stack', 'linux'] as const) {
        const { sent, dropped } = await link.settled(end);
        const { lost, duplicated, reordered, delayed } = link.faultsOf(end);
        const { loss = 0, duplicate = 0, reorder = 0, delayMs } = cell.faults!;
        expectAbout(lost, sent * loss);
        expectAbout(duplicated, sent * (1 - loss) * duplicate);
        // A packet that waits alone has no other to change places with.
        expect(reordered).toBeGreaterThan(0);
        expect(reordered).toBeLessThan(sent * reorder + SPREAD * Math.sqrt(sent * reorder));
        expect(delayed).toBe(delayMs === undefined ? 0 : sent - lost + duplicated);
        expect(dropped).toBe(0);
      }
      await link.close();
    });
  });
});

const execFileAsync = promisify(execFile);

function rate(bytes: number, ms: number): string {
  return `${((bytes * 8) / ms / 1e3).toFixed(1)} Mbit/s`;
}

/** Nothing was sent again, unless it was a probe: on a busy machine an acknowledgement may be late. */
function expectNoRecovery(link: Link): void {
  const { retransmitted, tailProbes, timeouts } = link.stack.tcp.counters;
  expect(timeouts).toBe(0);
  expect(retransmitted).toBeLessThanOrEqual(tailProbes);
}

/** A count of events that happen by chance, as often as expected. */
function expectAbout(count: number, expected: number): void {
  expect(Math.abs(count - expected)).toBeLessThan(SPREAD * Math.sqrt(expected));
}

/** Standard deviations. */
const SPREAD = 5;
