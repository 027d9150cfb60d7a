/**
 * Bytes both ways at the same time between the stack and Linux, over a good link and over bad ones. `VP_FULL=1` sends
 * 64 MiB in each cell.
 * @module
 */
import { once } from 'node:events';
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
    const start = performance.now();
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
    const seconds = (performance.now() - start) / 1_000;
    const { user, system } = process.cpuUsage(before);
    if (process.env.VP_REPORT !== undefined) {
      const { retransmitted, timeouts, tailProbes, undone } = link.stack.tcp.counters;
      const rate = ((2 * bytes * 8) / seconds / 1e9).toFixed(2);
      const cpu = ((user + system) / 1e6 / ((2 * bytes) / 2 ** 30)).toFixed(2);
      console.log(
        `${title(cell)}: ${seconds.toFixed(2)} s, ${rate} Gbit/s in both directions together, ` +
          `${cpu} CPU s/GiB here (${(user / 1e6).toFixed(2)} user, ${(system / 1e6).toFixed(2)} system), ` +
          `${(peerReport.cpuMs / 1_000).toFixed(2)} s there; ` +
          `${JSON.stringify({ retransmitted, timeouts, tailProbes, undone })} ` +
          `${JSON.stringify([link.packetsOf('stack'), link.packetsOf('linux')])}`
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
      expect(link.stack.tcp.counters.retransmitted).toBe(0);
      await link.close();
    });
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

/** A count of events that happen by chance, as often as expected. */
function expectAbout(count: number, expected: number): void {
  expect(Math.abs(count - expected)).toBeLessThan(SPREAD * Math.sqrt(expected));
}

/** Standard deviations. */
const SPREAD = 5;
