/**
 * The translator against its oracle: random plans, random packets and mutations of them.
 *
 * `VP_PACKETS` sets how many packets, `VP_SEED` where the random numbers begin. A failure prints
 * both, and the packet.
 */
import { expect, test } from 'vitest';
import type { Presence, TranslationPlan } from '../../src/translator/index.ts';
import { PacketTranslator, VERDICT_NAMES, type VerdictName } from '../../src/translator/index.ts';
import { bytesOf } from '../oracle/address.ts';
import { VNET } from '../oracle/packets.ts';
import { randomWorld, type World, worldOf } from '../oracle/plans.ts';
import { Random } from '../oracle/random.ts';
import { MUTATED_KINDS, PACKET_KINDS, type Packet, randomPacket } from '../oracle/traffic.ts';
import { type NaiveResult, naiveTranslate } from '../oracle/translate.ts';
import { verifyChecksums } from '../oracle/verify.ts';

const SEED = Number(process.env.VP_SEED ?? 1);
const PACKETS = Number(process.env.VP_PACKETS ?? (process.env.CI ? 1_000_000 : 100_000));
const PACKETS_PER_PLAN = 2_500;
/** How many of the packets that need a presence get one, and are translated again. */
const BOUND_SHARE = 0.3;
const TIMEOUT_MS = 300_000;
const CANARY = 0xa5;

test(`agrees with the naive oracle on ${PACKETS} random packets (VP_SEED=${SEED})`, {
  timeout: TIMEOUT_MS,
}, () => {
  const random = new Random(SEED);
  const translator = new PacketTranslator();
  const verdicts = new Tally(VERDICT_NAMES);
  const kinds = new Tally(PACKET_KINDS);
  for (let packets = 0; packets < PACKETS; packets += PACKETS_PER_PLAN) {
    checkPlan(random, translator, verdicts, kinds);
  }
  if (PACKETS < 100_000) return;
  // Only a table of paths made small on purpose can be full.
  const rare = [...verdicts.below(100), ...kinds.below(100)];
  expect(rare.filter((name) => name !== 'DropTableFull')).toEqual([]);
  expect(verdicts.share('Forward')).toBeGreaterThan(0.3);
});

/** One plan, loaded over the one before it, its packets, and what was counted of them. */
function checkPlan(
  random: Random,
  translator: PacketTranslator,
  verdicts: Tally,
  kinds: Tally
): void {
  let world = randomWorld(random);
  translator.load(world.plan);
  const realms = world.plan.realms.map(({ name }) => name);
  const before = realms.map((name) => ({ ...translator.counters(translator.realm(name)) }));
  const counted = realms.map(() => new Tally(VERDICT_NAMES));
  const check = (packet: Packet): NaiveResult => {
    const result = checkPacket(random, translator, world.plan, packet);
    counted[realms.indexOf(packet.realm)]!.add(result.verdict);
    verdicts.add(result.verdict);
    return result;
  };
  for (let i = 0; i < PACKETS_PER_PLAN; i++) {
    const packet = randomPacket(random, world);
    kinds.add(packet.kind);
    const result = check(packet);
    if (result.verdict !== 'NeedsPresence' || !random.chance(BOUND_SHARE)) continue;
    const presence = newPresence(world, packet.realm, result);
    world = worldOf({ ...world.plan, presences: [...world.plan.presences, presence] });
    translator.bind(presence);
    expect(check(packet).verdict).toBe('Forward');
  }
  for (const [i, name] of realms.entries()) {
    const after = translator.counters(translator.realm(name));
    for (const verdict of VERDICT_NAMES) {
      const difference = after[verdict] - before[i]![verdict];
      expect(difference, `${verdict} of ${name}`).toBe(counted[i]!.of(verdict));
    }
  }
}

/** Translates one packet by both, in a buffer with canaries around it, and compares. */
function checkPacket(
  random: Random,
  translator: PacketTranslator,
  plan: TranslationPlan,
  packet: Packet
): NaiveResult {
  const { realm, frame } = packet;
  let expected = naiveTranslate(plan, realm, frame);

  const hasHeader = frame.subarray(0, VNET).some((byte) => byte !== 0) || random.chance(0.8);
  const header = random.between(0, 40);
  const start = header + VNET + random.pick([0, 0, 0, 1, 22]);
  const end = start + frame.length - VNET;
  const inBuffer = (content: Uint8Array): Uint8Array => {
    const buffer = new Uint8Array(end + 40).fill(CANARY);
    if (hasHeader) buffer.set(content.subarray(0, VNET), header);
    buffer.set(content.subarray(VNET), start);
    return buffer;
  };
  const buffer = inBuffer(frame);
  const wanted = inBuffer(expected.frame ?? frame);

  let verdict: VerdictName | string;
  let egress: string | undefined;
  try {
    const index = translator.realm(realm);
    const number = translator.translate(index, buffer, start, end, hasHeader ? header : -1);
    verdict = VERDICT_NAMES[number] ?? `no verdict: ${number}`;
    if (expected.egress !== undefined) egress = translator.realmName(translator.egress);
  } catch (error) {
    verdict = `thrown: ${(error as Error).stack}`;
  }

  const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
  const fail = (what: string): never => {
    throw new Error(
      [
        `${what} (VP_SEED=${SEED} VP_PACKETS=${PACKETS})`,
        `kind: ${packet.kind}, from ${realm}, ${hasHeader ? 'with' : 'without'} virtio-net header`,
        `frame:    ${hex(frame.subarray(0, VNET))} ${hex(frame.subarray(VNET))}`,
        `oracle:   ${expected.verdict} to ${expected.egress}`,
        `          ${hex(wanted)}`,
        `actual:   ${verdict} to ${egress}`,
        `          ${hex(buffer)}`,
        `plan: ${JSON.stringify(plan)}`,
      ].join('\n')
    );
  };
  if (verdict !== expected.verdict) {
    // A mutation may have several faults of headers, and the rule does not say which one decides.
    const alike = isHeaderFault(verdict) && isHeaderFault(expected.verdict);
    if (!alike || !MUTATED_KINDS.has(packet.kind)) fail('another verdict');
    expected = { verdict: verdict as VerdictName };
  }
  if (egress !== expected.egress) fail('another egress realm');
  if (Buffer.compare(buffer, wanted) !== 0) fail('other bytes');
  if (expected.frame !== undefined) {
    const result = new Uint8Array(frame.length);
    result.set(frame.subarray(0, VNET));
    result.set(buffer.subarray(start, end), VNET);
    // Right checksums stay right, and damaged ones stay damaged: the same ones as before.
    const wrong = verifyChecksums(frame).join();
    if (verifyChecksums(result).join() !== wrong) fail(`other checksums wrong than "${wrong}"`);
  }
  return expected;
}

function isHeaderFault(verdict: string): boolean {
  return ['DropMalformed', 'DropFragment', 'DropUnsupported'].includes(verdict);
}

/** An address that nothing in the egress realm has yet. */
function newPresence(world: World, realm: string, result: NaiveResult): Presence {
  const number = world.plan.presences.length;
  const isIpv4 = bytesOf(result.source!).length === 4;
  return {
    realm: result.egress!,
    address: isIpv4 ? `198.18.${number >> 8}.${number & 255}` : `2001:db8::${number.toString(16)}`,
    of: { realm, address: result.source! },
  };
}

/** Counts by name. */
class Tally {
  readonly #counts: Map<string, number>;
  #total = 0;

  constructor(names: readonly string[]) {
    this.#counts = new Map(names.map((name) => [name, 0]));
  }

  add(name: string): void {
    this.#counts.set(name, this.of(name) + 1);
    this.#total++;
  }

  of(name: string): number {
    return this.#counts.get(name) ?? 0;
  }

  share(name: string): number {
    return this.of(name) / this.#total;
  }

  /** The names that were counted fewer times. */
  below(least: number): string[] {
    return [...this.#counts].filter(([, count]) => count < least).map(([name]) => name);
  }
}
