/**
 * Compares the translator with its oracle: random plans, random packets and mutations of them, while time
 * passes and plans change.
 *
 * `VP_PACKETS` sets how many packets, `VP_SEED` where the random numbers begin. A failure prints
 * both, and the packet.
 */
import { expect, test } from 'vitest';
import {
  PacketTranslator,
  TRANSLATION_HEADROOM,
  VERDICT_NAMES,
  type VerdictName,
} from '../../src/translator/index.ts';
import { randomWorld, type World, withPresence, worldOf } from '../oracle/plans.ts';
import { Tally } from '../oracle/tally.ts';
import { MUTATED_KINDS, PACKET_KINDS, type Packet, Traffic } from '../oracle/traffic/traffic.ts';
import { type NaiveResult, NaiveTranslator } from '../oracle/translate.ts';
import { verifyChecksums } from '../oracle/verify.ts';
import { plainText } from '../support/address.ts';
import { Random } from '../support/random.ts';
import type { TextPresence } from '../support/text-of.ts';
import { VNET } from '../support/vnet.ts';

const SEED = Number(process.env.VP_SEED ?? 1);
const PACKETS = Number(process.env.VP_PACKETS ?? 100_000);
const PACKETS_PER_PLAN = 2_500;
/** The number of packets after which a plan loses presences and permits, or is loaded again unchanged. */
const PACKETS_PER_CHANGE = 1_000;
/** The share of packets that get the presence that they need, and are translated again. */
const BOUND_SHARE = 0.3;
/** Few enough that new records replace old ones. */
const MAX_FRAGMENTS = 8;
const TIMEOUT_MS = 300_000;
const CANARY = 0xa5;

test(`agrees with the naive oracle on ${PACKETS} random packets (VP_SEED=${SEED})`, {
  timeout: TIMEOUT_MS,
}, () => {
  const pair = new Pair(new Random(SEED));
  for (let packets = 0; packets < PACKETS; packets += PACKETS_PER_PLAN) checkPlan(pair);
  if (PACKETS < 100_000) return;
  // Only a table that is small on purpose can be full.
  const rare = [...pair.verdicts.below(100), ...pair.kinds.below(100)];
  expect(rare.filter((name) => name !== 'DropTableFull')).toEqual([]);
  const few = [...pair.effects.below(100)];
  expect(few).toEqual([]);
  expect(pair.verdicts.share('Forward')).toBeGreaterThan(0.3);
});

/** One plan, loaded over the one before it, its packets, and what was counted of them. */
function checkPlan(pair: Pair): void {
  const { random, translator } = pair;
  pair.load(randomWorld(random));
  const traffic = new Traffic(random);
  const realms = pair.world.plan.realms.map(({ name }) => name);
  const before = realms.map((name) => ({ ...translator.counters(translator.realm(name)) }));
  pair.counted = new Map(realms.map((name) => [name, new Tally(VERDICT_NAMES)]));
  for (let i = 1; i <= PACKETS_PER_PLAN; i++) {
    const packet = traffic.next(pair.world);
    pair.kinds.add(packet.kind);
    const result = pair.check(packet);
    if (result.verdict === 'NeedsPresence' && random.chance(BOUND_SHARE)) {
      pair.bind(packet.realm, result);
      // With its presence a packet that is too large reaches the check of its size.
      expect(['Forward', 'DropTooBig', 'DropUnsupported', 'DropFragment']).toContain(
        pair.check({ ...packet, afterMs: 0 }).verdict
      );
    }
    if (i % PACKETS_PER_CHANGE === 0) pair.load(changed(random, pair.world));
  }
  for (const [i, name] of realms.entries()) {
    const after = translator.counters(translator.realm(name));
    for (const verdict of VERDICT_NAMES) {
      const difference = after[verdict] - before[i]![verdict];
      expect(difference, `${verdict} of ${name}`).toBe(pair.counted.get(name)!.of(verdict));
    }
  }
}

/** The same plan, or one without some of its presences and permits; if nothing is left, the same. */
function changed(random: Random, world: World): World {
  const { plan } = world;
  const share = random.pick([0, 0.02, 0.2]);
  const presences = plan.presences.filter(() => !random.chance(share));
  const permits = plan.permits.filter(() => !random.chance(share));
  const other = worldOf({ ...plan, presences, permits });
  return other.open.length > 0 ? other : worldOf({ ...plan });
}

/** The result of the translator for a packet. */
interface Outcome {
  readonly verdict: VerdictName | string;
  readonly egress?: string;
  readonly source?: string;
  readonly family?: number;
  /** The place of the packet, and of its virtio-net header. */
  readonly start: number;
  readonly end: number;
  readonly vnet: number;
  readonly segmentTo: number;
  readonly reply?: string;
  readonly buffer: Uint8Array;
}

/** How a packet lies in its buffer. */
interface Layout {
  readonly hasHeader: boolean;
  readonly header: number;
  readonly start: number;
  readonly end: number;
  readonly headroom: number;
}

/** The translator and the oracle, in the same state. */
class Pair {
  readonly random: Random;
  readonly translator = new PacketTranslator({
    maxSessions: 100_000,
    maxFragments: MAX_FRAGMENTS,
    maxRepliesPerSecond: 1_000_000,
  });
  readonly verdicts = new Tally(VERDICT_NAMES);
  readonly kinds = new Tally(PACKET_KINDS);
  readonly effects = new Tally(EFFECTS);
  world: World;
  /** Verdicts on the packets of the plan, by realm. */
  counted = new Map<string, Tally>();
  #oracle: NaiveTranslator;
  #now = 1000;
  /** How many presences were bound. */
  #bound = 0;

  constructor(random: Random) {
    this.random = random;
    this.world = randomWorld(random);
    this.#oracle = new NaiveTranslator(this.world.plan, { maxFragments: MAX_FRAGMENTS });
    this.translator.load(this.world.plan);
    this.#pass(0);
  }

  load(world: World): void {
    this.world = world;
    this.translator.load(world.plan);
    this.#oracle.load(world.plan);
  }

  /** Binds an unused address as the presence of a packet that needs one. */
  bind(realm: string, { source, egress, family }: NaiveResult): void {
    const number = this.#bound++;
    const address =
      family === 4 ? `198.18.${number >> 8}.${number & 255}` : `2001:db8::${number.toString(16)}`;
    const presence: TextPresence = { realm: egress!, address, of: { realm, address: source! } };
    this.world = withPresence(this.world, presence);
    this.translator.bind(presence);
    this.#oracle.bind(presence);
  }

  /** Translates one packet by both, in a buffer with canaries around it, and compares. */
  check(packet: Packet): NaiveResult {
    const { random } = this;
    const { realm, frame } = packet;
    this.#pass(packet.afterMs);
    const expected = this.#oracle.translate(realm, frame);
    const hasHeader = frame.subarray(0, VNET).some((byte) => byte !== 0) || random.chance(0.8);
    const headroom = random.chance(0.8) ? TRANSLATION_HEADROOM : random.pick([0, 20, 30]);
    const layout = layoutOf(random, frame, hasHeader, headroom);
    const outcome = this.#translate(packet, layout);
    if (outcome.verdict !== 'NeedsHeadroom')
      return this.#compare(packet, layout, outcome, expected);

    this.#count(realm, 'NeedsHeadroom');
    if (headroom === TRANSLATION_HEADROOM || !mayGrow(frame, expected)) {
      this.#fail('no need of headroom', packet, layout, outcome, expected);
    }
    this.#mustBeUnchanged(packet, layout, outcome, expected);
    const roomy = layoutOf(random, frame, hasHeader, TRANSLATION_HEADROOM);
    return this.#compare(packet, roomy, this.#translate(packet, roomy), expected);
  }

  #pass(ms: number): void {
    this.#now += ms;
    this.translator.advance(this.#now);
    this.#oracle.advance(this.#now);
  }

  #count(realm: string, verdict: string): void {
    this.counted.get(realm)?.add(verdict);
    this.verdicts.add(verdict);
  }

  #translate({ realm, frame }: Packet, layout: Layout): Outcome {
    const { translator } = this;
    const { hasHeader, header, start, end, headroom } = layout;
    const buffer = inBuffer(layout, frame);
    const nowhere = { start, end, vnet: -1, segmentTo: 0, buffer };
    try {
      const number = translator.translate(
        translator.realm(realm),
        buffer,
        start,
        end,
        hasHeader ? header : -1,
        headroom
      );
      const verdict = VERDICT_NAMES[number] ?? `no verdict: ${number}`;
      if (verdict === 'Forward') {
        return {
          verdict,
          egress: translator.realmName(translator.egress),
          start: translator.start,
          end: translator.end,
          vnet: translator.vnet,
          segmentTo: translator.segmentTo,
          buffer,
        };
      }
      if (verdict === 'NeedsPresence') {
        return {
          ...nowhere,
          verdict,
          egress: translator.realmName(translator.egress),
          source: plainText(translator.lackingPresence().toString()),
          family: translator.lackingFamily,
        };
      }
      if (!verdict.startsWith('Drop') || translator.replyLength === 0) {
        return { ...nowhere, verdict };
      }
      const reply = hex(translator.reply.subarray(0, translator.replyLength));
      return { ...nowhere, verdict, reply };
    } catch (error) {
      return { ...nowhere, verdict: `thrown: ${(error as Error).stack}` };
    }
  }

  #compare(packet: Packet, layout: Layout, outcome: Outcome, expected: NaiveResult): NaiveResult {
    const fail = (what: string): never => this.#fail(what, packet, layout, outcome, expected);
    const { verdict } = outcome;
    if (verdict !== expected.verdict) {
      // A mutation may have several faults of headers, and the rule does not say which one decides.
      const alike = isHeaderFault(verdict) && isHeaderFault(expected.verdict);
      if (!alike || !MUTATED_KINDS.has(packet.kind)) fail('another verdict');
      expected = { verdict: verdict as VerdictName };
    }
    this.#count(packet.realm, verdict);
    if (outcome.egress !== expected.egress) fail('another egress realm');
    if (outcome.source !== expected.source) fail('another address that lacks a presence');
    if (outcome.family !== expected.family) fail('another IP version of the presence');
    if (outcome.reply !== (expected.reply && hex(expected.reply))) fail('another reply');
    if (expected.reply !== undefined) {
      // What it quotes may be damaged, or partial.
      const wrong = verifyChecksums(expected.reply).filter((name) => !name.startsWith('quoted'));
      if (wrong.length > 0) fail(`a reply with wrong checksums: ${wrong}`);
      this.effects.add(`${verdict} answered`);
    }
    if (expected.frame === undefined) {
      this.#mustBeUnchanged(packet, layout, outcome, expected);
      return expected;
    }

    if (outcome.segmentTo !== expected.segmentTo) fail('another segmentTo');
    this.#mustHold(packet, layout, outcome, expected);
    const [before, after] = [packet.frame[VNET]! >> 4, expected.frame[VNET]! >> 4];
    this.effects.add(`forwarded from IPv${before} to IPv${after}`);
    if (expected.segmentTo !== 0) this.effects.add('fragmented');
    // Correct checksums stay correct, and damaged ones stay damaged. In another IP
    // version a quote has another header, and may be truncated or padded with zeros.
    const isSure = (name: string): boolean => before === after || !name.startsWith('quoted');
    const wrongBefore = verifyChecksums(packet.frame).filter(isSure).join();
    const wrongAfter = verifyChecksums(expected.frame).filter(isSure).join();
    if (wrongAfter !== wrongBefore) fail(`wrong: ${wrongAfter}, before: ${wrongBefore}`);
    return expected;
  }

  /** The frame of the oracle is where the translator says, and around it nothing has changed. */
  #mustHold(packet: Packet, layout: Layout, outcome: Outcome, expected: NaiveResult): void {
    const fail = (what: string): never => this.#fail(what, packet, layout, outcome, expected);
    const { buffer, start, end, vnet } = outcome;
    const { hasHeader, header } = layout;
    const frame = expected.frame!;
    if (end - start !== frame.length - VNET) fail('another length');
    if (Buffer.compare(buffer.subarray(start, end), frame.subarray(VNET)) !== 0)
      fail('other bytes');
    if (hasHeader) {
      const moved = buffer.subarray(vnet, vnet + VNET);
      if (Buffer.compare(moved, frame.subarray(0, VNET)) !== 0) fail('another virtio-net header');
      if (vnet + VNET > start) fail('a virtio-net header within the packet');
    } else if (vnet !== -1) {
      fail('a virtio-net header from nowhere');
    }
    const original = inBuffer(layout, packet.frame);
    if (frame[VNET]! >> 4 === packet.frame[VNET]! >> 4) {
      if (start !== layout.start || end !== layout.end) fail('another place');
      if (hasHeader && vnet !== header) fail('another place of the virtio-net header');
      const wanted = inBuffer(layout, frame);
      if (Buffer.compare(buffer, wanted) !== 0) fail('bytes changed around the packet');
      return;
    }
    const front = (hasHeader ? header : layout.start) - layout.headroom;
    if (end > layout.end || start < front || (hasHeader && vnet < front)) fail('out of bounds');
    const outside = (bytes: Uint8Array): Buffer =>
      Buffer.concat([bytes.subarray(0, front), bytes.subarray(layout.end)]);
    if (outside(buffer).compare(outside(original)) !== 0) fail('bytes changed out of bounds');
  }

  #mustBeUnchanged(packet: Packet, layout: Layout, outcome: Outcome, expected: NaiveResult): void {
    const original = inBuffer(layout, packet.frame);
    if (Buffer.compare(outcome.buffer, original) === 0) return;
    this.#fail('a packet changed that is not forwarded', packet, layout, outcome, expected);
  }

  #fail(
    what: string,
    { kind, realm, frame }: Packet,
    layout: Layout,
    outcome: Outcome,
    expected: NaiveResult
  ): never {
    const { buffer, reply, ...values } = outcome;
    const { hasHeader, headroom } = layout;
    const actual =
      outcome.verdict === 'Forward'
        ? `${hex(buffer.subarray(Math.max(0, values.vnet), Math.max(0, values.vnet) + VNET))} ${hex(buffer.subarray(values.start, values.end))}`
        : (reply ?? '');
    const parts = (bytes: Uint8Array | undefined): string =>
      bytes === undefined ? '' : `${hex(bytes.subarray(0, VNET))} ${hex(bytes.subarray(VNET))}`;
    throw new Error(
      [
        `${what} (VP_SEED=${SEED} VP_PACKETS=${PACKETS})`,
        `kind: ${kind}, from ${realm} at ${this.#now} ms, ${hasHeader ? 'with' : 'without'} ` +
          `virtio-net header, headroom ${headroom}`,
        `frame:    ${parts(frame)}`,
        `oracle:   ${JSON.stringify({ ...expected, frame: undefined, reply: undefined })}`,
        `          ${parts(expected.frame ?? expected.reply)}`,
        `actual:   ${JSON.stringify(values)}`,
        `          ${actual}`,
        `plan: ${JSON.stringify(this.world.plan)}`,
      ].join('\n')
    );
  }
}

function layoutOf(random: Random, frame: Uint8Array, hasHeader: boolean, headroom: number): Layout {
  const header = random.between(0, 40) + headroom;
  const start = hasHeader ? header + VNET + random.pick([0, 0, 0, 1, 22]) : header;
  return { hasHeader, header, start, end: start + frame.length - VNET, headroom };
}

function inBuffer({ hasHeader, header, start, end }: Layout, frame: Uint8Array): Uint8Array {
  const buffer = new Uint8Array(end + 40).fill(CANARY);
  if (hasHeader) buffer.set(frame.subarray(0, VNET), header);
  buffer.set(frame.subarray(VNET), start);
  return buffer;
}

/** Whether the packet needs headroom. */
function mayGrow(frame: Uint8Array, { verdict, frame: after }: NaiveResult): boolean {
  if (verdict === 'Forward') return after![VNET]! >> 4 !== frame[VNET]! >> 4;
  return verdict === 'DropTooBig';
}

function isHeaderFault(verdict: string): boolean {
  return ['DropMalformed', 'DropFragment', 'DropFragmentOrphan', 'DropUnsupported'].includes(
    verdict
  );
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex');
}

/** Effects that must occur often enough, besides every verdict and every kind of packet. */
const EFFECTS = [
  'forwarded from IPv4 to IPv4',
  'forwarded from IPv4 to IPv6',
  'forwarded from IPv6 to IPv4',
  'forwarded from IPv6 to IPv6',
  'fragmented',
  'DropNoPresence answered',
  'DropNotPermitted answered',
  'DropTooBig answered',
];
