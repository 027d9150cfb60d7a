/**
 * Compares the translator with NAT in the Linux kernel: both must translate the same packets to the same bytes.
 * Packets that only one of them forwards are not compared, so enough must be forwarded by both.
 *
 * `VP_SEED` sets where the random numbers begin, `VP_PACKETS` how many packets.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { repairIpv4Checksum } from '../support/packets.ts';
import { Random } from '../support/random.ts';
import { VNET } from '../support/vnet.ts';
import { KernelNat, kernelSkipReason, type NatKind } from './kernel-nat.ts';
import { randomScene } from './scene.ts';
import { type Item, KINDS, type Kind, Traffic } from './traffic.ts';
import { Translated } from './translated.ts';

const SEED = Number(process.env.VP_SEED ?? 1);
const PACKETS = Number(process.env.VP_PACKETS ?? 15_000);
const TIMEOUT_MS = 60_000;
const skipReason = kernelSkipReason();
const title = skipReason === undefined ? '' : ` (skipped: ${skipReason})`;

/**
 * Least share that both must forward. Mutated packets are mostly refused, by the translator above all;
 * UDP super-packets came with Linux 6.2.
 */
const SHARES: Readonly<Partial<Record<Kind, number>>> = { mutated: 0.2, 'super-packets': 0.7 };
const SHARE = 0.99;

/** The results for the packets of one kind. */
interface Tally {
  readonly sent: number;
  compared: number;
  refusedByKernel: number;
  refusedByTranslator: number;
  /** Compared, and with a TCP or ICMPv6 checksum of 0. */
  zeros: number;
}

describe.skipIf(skipReason !== undefined)(`NAT of the Linux kernel${title}`, () => {
  const scene = randomScene(new Random(SEED));
  const kernels = new Map<NatKind, KernelNat>();
  const tallies: Record<string, Tally> = {};

  beforeAll(async () => {
    for (const nat of ['stateless', 'conntrack'] as const) {
      kernels.set(nat, await KernelNat.open(scene, nat));
    }
  });
  afterAll(() => {
    for (const kernel of kernels.values()) kernel.close();
    console.table(tallies);
  });

  test.each(KINDS)(
    `gives the same bytes: %s (VP_SEED=${SEED})`,
    { timeout: TIMEOUT_MS },
    async (kind) => {
      const traffic = new Traffic(new Random(SEED * 1000 + KINDS.indexOf(kind)), scene);
      const translated = new Translated(scene);
      const tally = { compared: 0, refusedByKernel: 0, refusedByTranslator: 0, zeros: 0 };
      let sent = 0;
      while (sent < PACKETS / KINDS.length) {
        const items = exchanges(traffic, kind, BATCH);
        const passages = await kernels.get(items[0]!.nat)!.pass(items.map(oneHopMore));
        for (const [i, item] of items.entries()) {
          const ours = translated.pass(item);
          const theirs = passages[i]!.out;
          if (theirs.length === 0) tally.refusedByKernel++;
          if (typeof ours === 'string') tally.refusedByTranslator++;
          if (theirs.length === 0 || typeof ours === 'string') continue;
          const where = `${kind}, number ${sent + i}, from ${item.from}: ${hex(item.frame)}`;
          expect(theirs.length, where).toBe(1);
          expectSame(item, ours, theirs[0]!, where);
          tally.compared++;
          if (hasZero(item, ours)) tally.zeros++;
        }
        sent += items.length;
      }
      tallies[kind] = { sent, ...tally };
      expect(tally.compared).toBeGreaterThan((SHARES[kind] ?? SHARE) * sent);
      if (ZERO_KINDS.includes(kind)) expect(tally.zeros).toBeGreaterThan(0.01 * sent);
    }
  );
});

/** Exchanges of at least `count` packets in all. */
function exchanges(traffic: Traffic, kind: Kind, count: number): Item[] {
  const items: Item[] = [];
  while (items.length < count) items.push(...traffic.items(kind));
  return items;
}

/**
 * The frame for the kernel, which is a router: it takes one from TTL or hop limit, and changes the
 * IPv4 header checksum with it. One more beforehand, and all bytes must be the same in the end.
 */
function oneHopMore({ from, frame }: Item): { from: 'near' | 'far'; frame: Uint8Array } {
  const longer = frame.slice();
  const packet = longer.subarray(VNET);
  packet[packet[0]! >> 4 === 4 ? 8 : 7]!++;
  repairIpv4Checksum(packet);
  return { from, frame: longer };
}

function expectSame(item: Item, ours: Uint8Array, theirs: Uint8Array, where: string): void {
  const same = theirs.slice();
  const copyOurs = (at: number): void => same.set(ours.subarray(at, at + 2), at);
  // `hdr_len` of a super-packet is how much of it lies in one piece in the kernel's memory
  if (same[GSO_TYPE] !== 0) copyOurs(HDR_LEN);
  // a quoted TCP checksum follows in the kernel only if all 20 bytes of the header were quoted
  for (const at of item.stale ?? []) copyOurs(VNET + at);
  // nftables writes a computed checksum of 0 as 0xffff, whatever the protocol; conntrack does not
  if (item.nat === 'stateless' && hasZero(item, ours)) {
    const at = VNET + item.zeroAt!;
    if (same[at] === 0xff && same[at + 1] === 0xff) copyOurs(at);
  }
  if (Buffer.compare(ours, same) !== 0) expect(hex(ours), where).toBe(hex(same));
}

function hasZero({ zeroAt }: Item, ours: Uint8Array): boolean {
  return zeroAt !== undefined && ours[VNET + zeroAt] === 0 && ours[VNET + zeroAt + 1] === 0;
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

/** Kinds whose checksum is often 0, to check that conntrack writes 0 too. */
const ZERO_KINDS: readonly Kind[] = ['TCP', 'echo', 'TCP by conntrack', 'echo by conntrack'];
const BATCH = 500;
const GSO_TYPE = 1;
const HDR_LEN = 2;
