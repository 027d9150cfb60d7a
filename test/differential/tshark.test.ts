/**
 * Checks the output of the translator with tshark, which also reassembles fragments.
 * `VP_SEED` sets where the random numbers begin.
 */
import { describe, expect, test } from 'vitest';
import { ICMP, ICMPV6, UDP } from '../support/packets.ts';
import { Random } from '../support/random.ts';
import { VNET } from '../support/vnet.ts';
import { badChecksums, JUDGED, tsharkSkipReason } from './pcap.ts';
import { randomScene } from './scene.ts';
import { KINDS, type Kind, Traffic } from './traffic.ts';
import { Translated } from './translated.ts';

const SEED = Number(process.env.VP_SEED ?? 1);
const EXCHANGES = 150;
const skipReason = tsharkSkipReason();
/** All of which the packets have complete checksums. */
const CHECKED = KINDS.filter(
  (kind) => !['partial checksums', 'super-packets', 'mutated'].includes(kind)
);
/** The kinds whose transport header stands right behind the IP header. */
const PLAIN: readonly Kind[] = [
  'TCP',
  'UDP',
  'echo',
  'UDP-Lite',
  'SCTP',
  'IPv4 errors',
  'IPv6 errors',
];
/** Tshark checks the transport checksum of a quote even if the quote is truncated. */
const OUTER = ['ip', 'icmp', 'icmpv6'] as const;
const title = skipReason === undefined ? '' : ` (skipped: ${skipReason})`;

describe.skipIf(skipReason !== undefined)(`tshark${title}`, () => {
  const scene = randomScene(new Random(SEED));
  const traffic = new Traffic(new Random(SEED), scene);
  const translated = new Translated(scene);

  /** Packets as they leave, of those that came with right and complete checksums. */
  function forwarded(kind: Kind, exchanges: number): Uint8Array[] {
    const packets: Uint8Array[] = [];
    for (let i = 0; i < exchanges; i++) {
      for (const item of traffic.items(kind)) {
        const frame = translated.pass(item);
        if (item.isRight && typeof frame !== 'string') packets.push(frame.subarray(VNET));
      }
    }
    return packets;
  }

  test.each(CHECKED)(
    `finds no bad checksum in what was forwarded: %s (VP_SEED=${SEED})`,
    (kind) => {
      const packets = forwarded(kind, EXCHANGES);
      expect(packets.length).toBeGreaterThanOrEqual(EXCHANGES);
      expect(badChecksums(packets, isAboutOthers(kind) ? OUTER : JUDGED)).toEqual([]);
    }
  );

  test.each(PLAIN)('finds the bad checksums of damaged packets: %s', (kind) => {
    const packets = forwarded(kind, 20).filter((packet) => hasChecksum(packet, kind));
    const damaged = packets.map((packet) => {
      const copy = packet.slice();
      copy[transportOf(packet) + 1]! ^= 1; // part of a port, or the code
      return copy;
    });
    expect(badChecksums([...packets, ...damaged], isAboutOthers(kind) ? OUTER : JUDGED)).toEqual(
      damaged.map((_, i) => packets.length + i)
    );
  });

  test('finds the bad checksums of damaged IPv4 headers', () => {
    const packets = forwarded('IPv4 options', 20);
    for (const packet of packets) packet[1]! ^= 1;
    expect(badChecksums(packets)).toEqual(packets.map((_, i) => i));
  });
});

/** Returns where the transport header of a packet without extension headers and options begins. */
function transportOf(packet: Uint8Array): number {
  return packet[0]! >> 4 === 4 ? 20 : 40;
}

/** Whether packets of the kind quote others. */
function isAboutOthers(kind: Kind): boolean {
  return kind.endsWith('errors') || kind.startsWith('quotes');
}

/** Whether the packet has one, and of an error kind, is an error itself. */
function hasChecksum(packet: Uint8Array, kind: Kind): boolean {
  const isIpv4 = packet[0]! >> 4 === 4;
  const protocol = packet[isIpv4 ? 9 : 6];
  if (isAboutOthers(kind)) return protocol === (isIpv4 ? ICMP : ICMPV6);
  const at = transportOf(packet) + 6;
  return protocol !== UDP || packet[at] !== 0 || packet[at + 1] !== 0;
}
