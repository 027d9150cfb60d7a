/**
 * Sends the packets of a capture through a real `PacketTranslator`. The capture is read twice:
 *
 * 1. `Conversations` finds out who is a client of which service, and the plan follows from that.
 * 2. Each packet is placed into the realm of its sender and translated into the other one. Its verdict is counted, and a
 *    bounded sample is kept.
 *
 * Then the packets of the sample are timed.
 * @module
 */

import { CaptureError } from '../errors.ts';
import { FragmentPart, PacketKind, Parse } from '../packet/fields.ts';
import {
  PacketTranslator,
  TRANSLATION_HEADROOM,
  Verdict,
  type VerdictName,
} from '../translator/index.ts';
import type { CaptureSource } from './capture-source.ts';
import type { CapturedPacket } from './captured-packet.ts';
import { Conversations } from './conversations.ts';
import { LinkLayer } from './link-layer.ts';
import { PacketSample } from './packet-sample.ts';
import { Placement } from './placement.ts';
import { PreparedPacket } from './prepared-packet.ts';
import { describePacket, describeService, type Refusal, Refusals } from './refusals.ts';
import {
  type PlannedService,
  type PlanSource,
  type RealmIndex,
  ReplayPlan,
  serviceCheck,
} from './replay-plan.ts';
import { TIMING_DEFAULTS, type Timing, type TimingEffort, timePackets } from './timing.ts';

export interface ReplayOptions {
  /** Default: it is inferred. */
  readonly plan?: PlanSource;
  /** How long to time packets. Default: 9 rounds of 20 ms for each class. */
  readonly effort?: TimingEffort;
}

/** What a capture has. */
export interface CaptureSummary {
  readonly format: 'pcap' | 'pcapng';
  readonly packets: number;
  /** The bytes of all packets on the wire. */
  readonly wireBytes: number;
  /** From the first packet to the last one; 0 if the capture has no times. */
  readonly durationMs: number;
  readonly ipPackets: number;
  /** Frames without an IP packet, by what they carry. */
  readonly otherFrames: Readonly<Record<string, number>>;
  /** IP packets whose end a snap length has cut; zeros stand for it. */
  readonly paddedPackets: number;
  /** IP packets whose length or header checksum was left to a network card, and was computed. */
  readonly completedPackets: number;
}

export interface ReplayReport {
  readonly capture: CaptureSummary;
  readonly plan: {
    readonly from: PlanSource['kind'];
    /** The realm of the clients, or of the hosts in the prefixes; and the other one. */
    readonly realms: readonly [string, string];
    readonly hosts: number;
    readonly conversations: number;
    readonly services: readonly PlannedService[];
  };
  /** How many packets were translated; the sum of `verdicts`. */
  readonly judged: number;
  /** Verdicts that some packets got. */
  readonly verdicts: Readonly<Partial<Record<VerdictName, number>>>;
  /** IP packets that were not translated. */
  readonly notJudged: {
    /** A snap length has cut their headers. */
    readonly cut: number;
    /** Both hosts are in one realm. */
    readonly local: number;
    /** There are more conversations or hosts than the tables hold. */
    readonly beyond: number;
  };
  /** The packets that would not pass, the most frequent first. */
  readonly refusals: readonly Refusal[];
  readonly timing: Timing;
}

/**
 * @throws {CaptureError} if the capture is damaged, or has no IP packets.
 * @throws {ConfigError} if a desired state does not have the site that the plan names.
 * @throws {EnvironmentError} if the file cannot be read.
 */
export async function replayCapture(
  source: CaptureSource,
  { plan: planSource = { kind: 'inferred' }, effort = TIMING_DEFAULTS }: ReplayOptions = {}
): Promise<ReplayReport> {
  const first = new FirstLook();
  const format = await source.read((packet) => first.take(packet));
  first.finish(planSource);
  const second = new SecondLook(first, planSource);
  await source.read((packet) => second.take(packet));
  const { plan, conversations } = second;
  return {
    capture: first.summary(format),
    plan: {
      from: planSource.kind,
      realms: plan.realmNames,
      hosts: plan.hosts,
      conversations: conversations.count,
      services: plan.services,
    },
    judged: second.judged,
    verdicts: second.verdicts(),
    notJudged: { cut: first.cut, local: second.local, beyond: second.beyond },
    refusals: second.refusals.list(),
    timing: timePackets(second.sample, second.translator, effort),
  };
}

/** Counts, and learns the conversations. */
class FirstLook {
  readonly conversations = new Conversations();
  readonly packet = new PreparedPacket();
  readonly link = new LinkLayer();
  ipPackets = 0;
  ipBytes = 0;
  cut = 0;
  #packets = 0;
  #wireBytes = 0;
  #padded = 0;
  #completed = 0;
  #firstMs = 0;
  #lastMs = 0;
  readonly #others = new Map<string, number>();

  take(captured: CapturedPacket): void {
    this.#packets++;
    this.#wireBytes += captured.wireLength;
    if (captured.timeMs > 0) {
      if (this.#firstMs === 0) this.#firstMs = captured.timeMs;
      this.#lastMs = Math.max(this.#lastMs, captured.timeMs);
    }
    const at = this.link.findIp(captured);
    if (at < 0) {
      const { reason } = this.link;
      const kind = this.#others.size < MAX_OTHERS || this.#others.has(reason) ? reason : 'others';
      this.#others.set(kind, (this.#others.get(kind) ?? 0) + 1);
      return;
    }
    this.ipPackets++;
    const { packet } = this;
    const preparation = packet.prepare(captured, at);
    if (packet.isPadded) this.#padded++;
    if (packet.isCompleted) this.#completed++;
    if (preparation === 'cut') {
      this.cut++;
      return;
    }
    this.ipBytes += packet.end - packet.start;
    if (!isToGroup(this.link, packet)) this.conversations.observe(packet);
  }

  /** @throws {CaptureError} if there was nothing to translate. */
  finish(plan: PlanSource): void {
    if (this.ipPackets > this.cut) {
      this.conversations.finish(serviceCheck(plan));
      return;
    }
    if (this.#packets === 0) {
      throw new CaptureError(0, 'the capture has no packets: capture while there is traffic');
    }
    const others = [...this.#others].map(([kind, count]) => `${kind} (${count})`).join(', ');
    throw new CaptureError(
      0,
      this.ipPackets > 0
        ? `the headers of all ${this.ipPackets} IP packets are cut: capture at least 128 bytes of each packet ` +
            '(tcpdump -s 128)'
        : `none of the ${this.#packets} packets is an IP packet; they are ${others}: capture on an Ethernet, ` +
            'loopback, TUN or "any" interface'
    );
  }

  summary(format: 'pcap' | 'pcapng'): CaptureSummary {
    return {
      format,
      packets: this.#packets,
      wireBytes: this.#wireBytes,
      durationMs: Math.max(0, this.#lastMs - this.#firstMs),
      ipPackets: this.ipPackets,
      otherFrames: Object.fromEntries(this.#others),
      paddedPackets: this.#padded,
      completedPackets: this.#completed,
    };
  }
}

/** Translates every packet. */
class SecondLook {
  readonly conversations: Conversations;
  readonly plan: ReplayPlan;
  readonly translator = new PacketTranslator();
  readonly sample: PacketSample;
  readonly refusals: Refusals;
  judged = 0;
  local = 0;
  beyond = 0;
  readonly #packet: PreparedPacket;
  readonly #link: LinkLayer;
  readonly #placement: Placement;
  readonly #realms: readonly number[];
  /** The time of the translator, in ms since the capture's beginning. */
  #nowMs = 0;
  #lastMs = 0;

  constructor({ conversations, packet, link, ipPackets, ipBytes }: FirstLook, source: PlanSource) {
    this.conversations = conversations;
    this.plan = new ReplayPlan(source, conversations);
    this.translator.load(this.plan.translation);
    this.#realms = this.plan.realmNames.map((name) => this.translator.realm(name));
    this.sample = new PacketSample(ipPackets, ipBytes);
    this.refusals = new Refusals(source.kind);
    this.#packet = packet;
    this.#link = link;
    this.#placement = new Placement(this.plan, conversations);
  }

  take(captured: CapturedPacket): void {
    const at = this.#link.findIp(captured);
    const packet = this.#packet;
    if (at < 0 || packet.prepare(captured, at) === 'cut') return;
    const toGroup = isToGroup(this.#link, packet);
    const place = this.#placement.place(packet, toGroup);
    if (place === 'local') {
      this.local++;
    } else if (place === 'beyond') {
      this.beyond++;
    } else {
      this.#advance(captured.timeMs);
      this.#translate(captured, at, place, toGroup);
    }
  }

  #translate(captured: CapturedPacket, at: number, place: RealmIndex, toGroup: boolean): void {
    const { translator, sample } = this;
    const { bytes, start, end, header, outcome } = this.#packet;
    const realm = this.#realms[place]!;
    const isKept = sample.wants(end - start);
    if (isKept) sample.add(bytes, start, end, headLength(this.#packet), realm);
    this.judged++;
    const verdict = translator.translate(realm, bytes, start, end, -1, TRANSLATION_HEADROOM);
    const isFragment = outcome === Parse.Ok && header.part !== FragmentPart.Whole;
    if (isKept) sample.judged(verdict, isFragment);
    if (verdict === Verdict.Forward) return;
    const placed = bytes.slice(start, end);
    // As it was captured, with the real destination.
    this.#packet.prepare(captured, at);
    const original = describePacket(this.#packet);
    const service = describeService(this.#packet, this.#placement.isReply);
    this.refusals.add(verdict, { number: captured.number, ...original }, toGroup, service, () => {
      return translator.explain(placed, this.plan.realmNames[place]).reason;
    });
  }

  /** Timeouts go by the times of the capture. A step is bounded, so that a wrong time does not end everything. */
  #advance(timeMs: number): void {
    if (timeMs > this.#lastMs) {
      if (this.#lastMs > 0) this.#nowMs += Math.min(timeMs - this.#lastMs, MAX_STEP_MS);
      this.#lastMs = timeMs;
    }
    this.translator.advance(this.#nowMs);
  }

  verdicts(): Partial<Record<VerdictName, number>> {
    const sums: Partial<Record<VerdictName, number>> = {};
    for (const realm of this.#realms) {
      for (const [name, count] of Object.entries(this.translator.counters(realm))) {
        if (count > 0) sums[name as VerdictName] = (sums[name as VerdictName] ?? 0) + count;
      }
    }
    return sums;
  }
}

/** Whether the packet goes to several hosts, by its frame or its destination. */
function isToGroup(link: LinkLayer, packet: PreparedPacket): boolean {
  if (packet.outcome !== Parse.Ok) return false;
  if (link.isToGroup) return true;
  const { header, bytes } = packet;
  const destination = header.source + (header.family === 4 ? 4 : 16);
  // 224.0.0.0/4, 255.255.255.255 or ff00::/8; nothing in 240.0.0.0/4 is a host.
  return bytes[destination]! >= (header.family === 4 ? 224 : 255);
}

/** How many bytes the translator may look at: the headers, or all of an ICMP error and of a packet with wrong headers. */
function headLength({ outcome, header, start, end }: PreparedPacket): number {
  const isPlain = outcome === Parse.Ok && header.kind !== PacketKind.IcmpError;
  const length = header.transport - start + MAX_TRANSPORT_HEADER;
  return isPlain && length <= MAX_PLAIN_HEAD ? MAX_PLAIN_HEAD : end - start;
}

/** The longest TCP header, which is the longest of all. */
const MAX_TRANSPORT_HEADER = 60;
const MAX_PLAIN_HEAD = 256;

/** How many kinds of other frames are told apart. */
const MAX_OTHERS = 64;
/** The largest step of the translator's time from one packet to the next: an hour. */
const MAX_STEP_MS = 3_600_000;
