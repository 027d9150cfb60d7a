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
import { digestOf, type ExchangeReport, exchange } from './exchange.ts';
import { type End, Link, type LinkOptions, prepareNamespace } from './link.ts';
import { LinuxPeer, type PeerReport } from './linux-peer.ts';

const skipReason = await useNamespace();
const isFull = process.env['VP_FULL'] === '1';
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
    if (process.env['VP_REPORT'] !== undefined) {
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
    expect(report.sent).toEqual(digestOf(ours));
    expect(peerReport.received).toEqual(report.sent);
    expect(report.received).toEqual(peerReport.sent);
    return link;
  }

  describe('exchange 64 MiB over a good link', () => {
    test.each(ways.map((cell) => [title(cell), cell] as const))('%s', async (_, cell) => {
      const link = await run(cell, LARGE);
      expect(link.stack.tcp.counters.retransmitted).toBe(0);
      await link.close();
    });
  });
});
