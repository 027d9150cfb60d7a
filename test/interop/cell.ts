/**
 * A cell of the matrix: bytes both ways at the same time over one link, hashed at both ends.
 * @module
 */
import { once } from 'node:events';
import { expect, vi } from 'vitest';
import type { Faults } from '../../src/device/index.ts';
import type { PresenceSocket } from '../../src/sockets/index.ts';
import { type ExchangeReport, exchange } from './exchange.ts';
import { type End, Link, type LinkOptions } from './link.ts';
import type { LinuxPeer, PeerReport } from './linux-peer.ts';

export interface Cell {
  readonly opener: End;
  readonly family: 4 | 6;
  readonly offload: boolean;
  readonly faults?: Faults | undefined;
}

export function titleOf({ opener, family, offload, faults }: Cell): string {
  const words = [`${opener} connects`, `IPv${family}`, `offload ${offload ? 'on' : 'off'}`];
  const { loss = 0, delayMs = 0 } = faults ?? {};
  if (faults !== undefined) words.push(`loss ${loss * 100} %`, `delay ${delayMs} ms`);
  return words.join(', ');
}

/** The rows of `test.each`. */
export function named(cells: readonly Cell[]): (readonly [string, Cell])[] {
  return cells.map((cell) => [titleOf(cell), cell]);
}

/**
 * Opens a link, sends this many bytes each way, and checks the hashes and that the stack has kept nothing. Returns the
 * link, which the caller closes. `VP_REPORT=1` prints rates and what they cost.
 */
export async function runCell(
  peer: LinuxPeer,
  cell: Cell,
  bytes: number,
  options: LinkOptions = {}
): Promise<Link> {
  const { opener, family, offload, faults } = cell;
  const link = await Link.open({ offload, faults, ...options });
  const before = process.cpuUsage();
  const { report, peerReport } = await transfer(link, peer, opener, family, bytes);
  const { user, system } = process.cpuUsage(before);
  expect(report.sent.bytes).toBe(bytes);
  expect(peerReport.received).toEqual(report.sent);
  expect(report.received).toEqual(peerReport.sent);
  const { tcp } = link.stack;
  // The other end may not have acknowledged our FIN yet.
  await vi.waitFor(() => expect(tcp.sizes).toMatchObject({ connections: 0, halfOpen: 0 }));
  expect(tcp.memory.used).toBe(0);
  if (process.env.VP_REPORT === '1') {
    const { retransmitted, timeouts, tailProbes, undone } = tcp.counters;
    const lost = faults === undefined ? 0 : link.faultsOf('stack').lost;
    const rates = [peerReport, report].map((end) => (bytes * 8) / end.receivedMs / 1e3);
    console.log(
      [
        titleOf(cell),
        `to Linux ${rates[0]!.toFixed(1)}, to the stack ${rates[1]!.toFixed(1)} Mbit/s`,
        // Both processes hash what they send and receive.
        `CPU here ${((user + system) / 1e6).toFixed(2)} s, there ${(peerReport.cpuMs / 1e3).toFixed(2)} s`,
        `lost ${lost}, ${JSON.stringify({ retransmitted, timeouts, tailProbes, undone })}`,
      ].join('; ')
    );
  }
  return link;
}

async function transfer(
  link: Link,
  peer: LinuxPeer,
  opener: End,
  family: 4 | 6,
  bytes: number
): Promise<{ readonly report: ExchangeReport; readonly peerReport: PeerReport }> {
  const { stack, linux } = link.addresses(family);
  const ours = { bytes, seed: 1 };
  const theirs = { bytes, seed: 2 };
  if (opener === 'stack') {
    const { port, report } = await peer.listen(linux, theirs);
    const socket = link.stack.connect({ host: linux, port, allowHalfOpen: true });
    return bothOf(exchange(socket, ours), report);
  }
  const server = link.stack.createServer({ allowHalfOpen: true }).listen(0);
  await once(server, 'listening');
  const report = peer.connect(stack, server.address()!.port, theirs);
  const [socket] = (await once(server, 'connection')) as [PresenceSocket];
  server.close();
  return bothOf(exchange(socket, ours), report);
}

async function bothOf(ours: Promise<ExchangeReport>, theirs: Promise<PeerReport>) {
  const [report, peerReport] = await Promise.all([ours, theirs]);
  return { report, peerReport };
}

/** Nothing was sent again, unless it was a probe: on a busy machine an acknowledgement may be late. */
export function expectNoRecovery(link: Link): void {
  const { retransmitted, tailProbes, timeouts } = link.stack.tcp.counters;
  expect(timeouts).toBe(0);
  expect(retransmitted).toBeLessThanOrEqual(tailProbes);
}

/** A count of events that happen by chance, as often as expected. */
export function expectAbout(count: number, expected: number): void {
  expect(Math.abs(count - expected)).toBeLessThan(SPREAD * Math.sqrt(expected));
}

/** Fewer than that happen by chance. */
export function expectAtMost(count: number, expected: number): void {
  expect(count).toBeLessThan(expected + SPREAD * Math.sqrt(expected));
}

/** Standard deviations. */
const SPREAD = 5;
