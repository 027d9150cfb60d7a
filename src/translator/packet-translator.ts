/**
 * `PacketTranslator`, the public class of this module: translates packets between realms, in place.
 *
 * `translate` takes these steps:
 *
 * 1. The fast path forwards nearly all packets (`fast-path.ts`).
 * 2. The slow path judges all other packets (`slow-path.ts`).
 * 3. The verdict is counted. A refused packet may get an answer (`reply.ts`).
 *
 * The order of the checks is part of the contract: see the module's README and `docs/translation.md`.
 * @module
 */
import { IpAddress } from '../base/address.ts';
import { checkObject } from '../base/option-check.ts';
import { ApiMisuseError } from '../errors.ts';
import type { PacketHeader } from '../packet/header.ts';
import { PacketView } from '../packet/view.ts';
import { VNET_HEADER_LENGTH } from '../packet/virtio.ts';
import { CapturePoint, type PacketCapture } from './capture.ts';
import { type Explanation, explain } from './explain.ts';
import { FastPath } from './fast-path.ts';
import { FRAGMENT_DEFAULTS, type FragmentOptions, Fragments, setPathKey } from './fragments.ts';
import type { PathStatus, PathTable } from './path-table.ts';
import { PATH_DEFAULTS, type PathOptions, Paths } from './paths.ts';
import {
  compileChanges,
  compilePlan,
  compilePresence,
  type Permit,
  type PlanChanges,
  type PlanChangesInput,
  type Presence,
  type PresenceInput,
  type Realm,
  type TranslationPlan,
  type TranslationPlanInput,
} from './plan.ts';
import { REPLY_DEFAULTS, Replies, type ReplyOptions } from './reply.ts';
import { SESSION_DEFAULTS, type SessionOptions, Sessions } from './sessions.ts';
import { Siit } from './siit.ts';
import { SlowPath } from './slow-path.ts';
import { nameCounters, VERDICT_NAMES, Verdict, type VerdictCounters } from './verdict.ts';

export interface PacketTranslatorOptions
  extends PathOptions,
    SessionOptions,
    FragmentOptions,
    ReplyOptions {}

/** The defaults of the options. */
export const PACKET_TRANSLATOR_DEFAULTS: Readonly<Required<PacketTranslatorOptions>> =
  Object.freeze({ ...PATH_DEFAULTS, ...SESSION_DEFAULTS, ...FRAGMENT_DEFAULTS, ...REPLY_DEFAULTS });

/**
 * Translates packets between realms that may use the same addresses (twice NAT, RFC 2663 section 4.3).
 * The caller owns every buffer; the translator keeps a reference to the last one until the next call.
 * `load`, `bind` and the counters may be used between any two packets.
 */
export class PacketTranslator {
  /**
   * The index of the egress realm. Valid iff the last verdict was Forward or NeedsPresence.
   */
  egress = 0;
  /** The offset of the translated packet in the buffer. Valid iff Forward. */
  start = 0;
  /** The offset behind the last byte of the translated packet. Valid iff Forward. */
  end = 0;
  /** The offset of the translated packet's virtio-net header; -1 if it has none. Valid iff Forward. */
  vnet = -1;
  /** The size in bytes to fragment the packet to before it leaves; 0 if it fits. Valid iff Forward. */
  segmentTo = 0;
  /** The IP version of the missing presence. Valid iff NeedsPresence. */
  lackingFamily: 4 | 6 = 4;
  /**
   * The length of the frame in `reply` that the host has to send back into the ingress realm; 0 if there
   * is none. Valid iff the last verdict was a drop.
   */
  replyLength = 0;

  readonly #realmNames: string[] = [];
  #realmCount = 0;
  readonly #realmIndexes = new Map<string, number>();
  readonly #paths: Paths;
  readonly #fragments: Fragments;
  readonly #siit = new Siit();
  readonly #fastPath: FastPath;
  readonly #slowPath: SlowPath;
  readonly #replies: Replies;
  readonly #views = new PacketView();
  /** The address that last had no presence, in `#lackingWords` words. */
  readonly #lacking = new Int32Array(4);
  #lackingWords = 1;
  #plan: TranslationPlan = { realms: [], presences: [], permits: [] };
  #bound: Presence[] = [];
  /** The counters, by realm and verdict. */
  #verdicts = new Float64Array(0);

  /** @throws {ApiMisuseError} naming the option that is wrong. */
  constructor(options: PacketTranslatorOptions = {}) {
    checkObject('options', options);
    const sessions = new Sessions(options);
    const fragments = new Fragments(options);
    const paths = new Paths(this.#indexOf, options);
    this.#paths = paths;
    this.#fragments = fragments;
    this.#fastPath = new FastPath(paths, sessions, this.#siit);
    this.#slowPath = new SlowPath(paths, sessions, fragments, this.#siit);
    this.#replies = new Replies(options);
  }

  /**
   * Replaces the whole plan. Paths that the new plan still allows keep their counters and sessions.
   *
   * @returns how many paths ended because the new plan has no longer one of their realms
   * @throws {ConfigError} if the plan is invalid; it names the place. The old plan stays in force.
   */
  load(plan: TranslationPlanInput): number {
    const paths = this.#paths;
    const gone = paths.load(plan);
    this.#plan = compilePlan(plan);
    this.#bound = [];
    this.#fragments.keep((family, realm, words, at) => {
      const table = paths.table(family);
      setPathKey(table, realm, words, at);
      return table.find() >= 0;
    });
    this.#replies.setRealms((realm) => paths.bindings.realm(realm)?.reject ?? 'drop');
    this.#slowPath.capture?.forget();
    return gone;
  }

  /**
   * Adds one presence to the plan, typically that of a client that has sent its first packet. Adding the
   * same presence twice changes nothing.
   *
   * @throws {ConfigError} if the presence is invalid, or names a realm that the plan does not have.
   * @throws {ApiMisuseError} if the address or the endpoint has another binding.
   */
  bind(presence: PresenceInput): void {
    this.#paths.bindings.bind(presence);
    this.#bound.push(compilePresence(presence, () => 'presence'));
  }

  /**
   * Replaces what the changes name in the plan.
   *
   * @returns how many paths ended because the new plan has no longer one of their realms
   * @throws {ConfigError} if a change is invalid; it names the place. The old plan stays in force.
   */
  apply(changes: PlanChangesInput): number {
    const plan = changed(this.#plan, { presences: this.#bound });
    return this.load(changed(plan, compileChanges(changes)));
  }

  /**
   * Sets the time for the timeouts of paths, sessions and fragments and for the rate of replies. Call it
   * once for each batch of packets: the translator has no clock of its own.
   *
   * @param nowMs time of a clock that never goes back, such as `performance.now()`
   */
  advance(nowMs: number): void {
    this.#slowPath.now = nowMs | 0;
    this.#paths.advance(nowMs);
    this.#replies.advance(nowMs);
  }

  /** Returns the index of a realm. It stays the same for the life of the translator. */
  realm(name: string): number {
    return this.#indexOf(name);
  }

  /**
   * Returns the name of a realm.
   *
   * @throws {ApiMisuseError} if no realm has the index.
   */
  realmName(index: number): string {
    const name = this.#realmNames[index];
    if (name === undefined) throw new ApiMisuseError(`there is no realm ${index}`);
    return name;
  }

  /**
   * Returns the address that needs a presence in the realm `egress`. Valid iff the last verdict was
   * NeedsPresence.
   */
  lackingPresence(): IpAddress {
    return IpAddress.fromWords(Array.from(this.#lacking.subarray(0, this.#lackingWords)));
  }

  /** The frame that answers a refused packet: a virtio-net header of zeros, then the packet. See `replyLength`. */
  get reply(): Uint8Array {
    return this.#replies.frame;
  }

  /** Returns how many packets from the realm got each verdict. */
  counters(realm: number): VerdictCounters {
    this.realmName(realm);
    return nameCounters(this.#verdicts, realm * VERDICT_COUNT);
  }

  /** Lists the paths of the current plan that packets have taken. */
  *paths(): Generator<PathStatus> {
    for (const table of [this.#paths.v4, this.#paths.v6]) {
      for (let path = 0; path < table.size; path++) {
        if (table.packets(path) > 0) yield this.#statusOf(table, path);
      }
    }
  }

  /** Returns how many paths lead from or to a realm. */
  pathsOf(realm: string): number {
    const index = this.realm(realm);
    return this.#paths.countOf((each) => each === index);
  }

  /** The memory in bytes that the paths take, and that the plan takes. */
  get memory(): { readonly paths: number; readonly plan: number } {
    const { v4, v6, bindings } = this.#paths;
    return { paths: v4.byteLength + v6.byteLength, plan: bindings.byteLength };
  }

  /** Shows the packets of chosen paths to `capture`. It replaces an earlier capture; `undefined` ends it. */
  capture(capture: PacketCapture | undefined): void {
    this.#slowPath.capture =
      capture &&
      new CapturePoint(capture, (table, path) => this.#statusOf(table, path), this.#realmNames);
  }

  /**
   * Explains what would happen to a packet that enters from the realm, and why. It runs the slow path on
   * a copy, counts nothing, opens no session and remembers no fragment.
   *
   * @param vnet the packet's virtio-net header, ten bytes, if it has one
   * @throws {ApiMisuseError} if no plan has named the realm.
   */
  explain(packet: Uint8Array, realm: string, vnet?: Uint8Array): Explanation {
    const index = this.#realmIndexes.get(realm);
    if (index === undefined) throw new ApiMisuseError(`there is no realm "${realm}"`);
    const start = TRANSLATION_HEADROOM + VNET_HEADER_LENGTH;
    const copy = new Uint8Array(start + packet.length);
    copy.set(packet, start);
    if (vnet !== undefined) copy.set(vnet, TRANSLATION_HEADROOM);
    const view = new DataView(copy.buffer);
    const { identification } = this.#siit;
    const slowPath = this.#slowPath;
    slowPath.isDryRun = true;
    slowPath.isRefusedBySiit = false;
    const at = vnet === undefined ? -1 : TRANSLATION_HEADROOM;
    const verdict = slowPath.run(index, view, start, copy.length, at, TRANSLATION_HEADROOM);
    slowPath.isDryRun = false;
    this.#siit.identification = identification;
    return explain(verdict, {
      realm,
      packet,
      header: slowPath.header,
      quote: slowPath.quote,
      isRefusedBySiit: slowPath.isRefusedBySiit,
      bindings: this.#paths.bindings,
      realmIndex: index,
      egress: verdict <= Verdict.NeedsPresence ? this.realmName(slowPath.egress) : undefined,
      result: verdict === Verdict.Forward ? copy.slice(slowPath.start, slowPath.end) : undefined,
      segmentTo: verdict === Verdict.Forward ? slowPath.segmentTo : 0,
    });
  }

  /**
   * Translates the packet `buffer[start .. end)` that entered from `realm`. If the verdict is Forward,
   * the packet has been rewritten in place: it is `buffer[this.start .. this.end)` now, and `egress` is
   * its realm. With any other verdict the packet is unchanged. A range outside of the buffer gets
   * DropMalformed.
   *
   * @param realm index from `realm()`; with any other the packet gets DropNoPresence and is not counted
   * @param vnet offset of the packet's virtio-net header, which is somewhere in front of the packet; -1
   *   if it has none and its checksums are complete
   * @param headroom bytes in front of the virtio-net header (without one: of the packet) that the
   *   translator may overwrite; `TRANSLATION_HEADROOM` is enough for every packet
   */
  translate(
    realm: number,
    buffer: Uint8Array,
    start: number,
    end: number,
    vnet: number = -1,
    headroom: number = 0
  ): Verdict {
    if (realm >>> 0 !== realm || realm >= this.#realmCount) {
      this.replyLength = 0;
      return Verdict.DropNoPresence;
    }
    const view = this.#views.of(buffer);
    const slowPath = this.#slowPath;
    if (
      slowPath.capture === undefined &&
      end <= buffer.length &&
      this.#fastPath.forward(realm, view, start, end, vnet, headroom, slowPath.now)
    ) {
      const { egress, growth } = this.#fastPath;
      this.egress = egress;
      this.start = start - growth;
      this.end = end;
      this.vnet = vnet < 0 ? vnet : vnet - growth;
      this.segmentTo = 0;
      this.#verdicts[realm * VERDICT_COUNT]!++;
      return Verdict.Forward;
    }
    const verdict = slowPath.run(realm, view, start, end, vnet, headroom);
    this.#verdicts[realm * VERDICT_COUNT + verdict]!++;
    this.egress = slowPath.egress;
    if (verdict === Verdict.Forward) {
      this.start = slowPath.start;
      this.end = slowPath.end;
      this.vnet = slowPath.vnet;
      this.segmentTo = slowPath.segmentTo;
    } else if (verdict === Verdict.NeedsPresence) {
      this.lackingFamily = slowPath.lackingFamily;
      this.#lackingWords = slowPath.lackingWords;
      this.#lacking.set(slowPath.lacking);
    } else if (verdict > Verdict.NeedsHeadroom) {
      this.replyLength = this.#replyTo(realm, verdict, view);
    }
    return verdict;
  }

  /** Builds the answer to a refused packet, if it gets one. Returns its length, or 0. */
  #replyTo(realm: number, verdict: Verdict, view: DataView): number {
    const { header, reportedMtu } = this.#slowPath;
    switch (verdict) {
      case Verdict.DropTooBig:
        return this.#replies.tooBig(realm, view, header, reportedMtu);
      case Verdict.DropNotPermitted:
        return this.#replies.refused(realm, view, header);
      case Verdict.DropNoPresence:
        return this.#mayAnswer(realm, view, header)
          ? this.#replies.refused(realm, view, header)
          : 0;
      default:
        return 0;
    }
  }

  /**
   * Returns whether a packet to an address without an endpoint is answered: it must come from a source
   * of the realm and go to one of the realm's pools.
   */
  #mayAnswer(realm: number, view: DataView, header: PacketHeader): boolean {
    const { bindings } = this.#paths;
    if (bindings.realm(realm) === undefined || !this.#replies.isAnswered(realm)) return false;
    const { key, width, family } = this.#paths.table(header.family);
    for (let i = 0; i < 2 * width; i++) key[1 + i] = view.getInt32(header.source + 4 * i);
    return (
      bindings.isPooled(realm, family, key, 1 + width) && bindings.isSource(realm, family, key, 1)
    );
  }

  #statusOf(table: PathTable, path: number): PathStatus {
    return this.#paths.status(table, path, (index) => this.realmName(index));
  }

  readonly #indexOf = (name: string): number => {
    let index = this.#realmIndexes.get(name);
    if (index === undefined) {
      index = this.#realmNames.push(name) - 1;
      this.#realmIndexes.set(name, index);
      this.#realmCount = this.#realmNames.length;
      const words = this.#realmCount * VERDICT_COUNT;
      if (words > this.#verdicts.length) {
        const counters = new Float64Array(2 * words);
        counters.set(this.#verdicts);
        this.#verdicts = counters;
      }
    }
    return index;
  };
}

/** Returns a plan with the changes. */
function changed(
  plan: TranslationPlan,
  { realms = [], presences = [], permits = [] }: PlanChanges
): TranslationPlan {
  const allRealms = new Map<string, Realm | undefined>(
    plan.realms.map((each) => [each.name, each])
  );
  for (const { name, realm } of realms) allRealms.set(name, realm);
  const allPresences = new Map<string, Presence | undefined>();
  for (const each of plan.presences) allPresences.set(`${each.realm} ${each.address}`, each);
  for (const { realm, address, of } of presences) {
    allPresences.set(`${realm} ${address}`, of && { realm, address, of });
  }
  const allPermits = new Map<string, Permit[]>();
  for (const permit of plan.permits) {
    const key = `${permit.realm} ${permit.service.key}`;
    allPermits.set(key, [...(allPermits.get(key) ?? []), permit]);
  }
  for (const { realm, service, permits: all } of permits) {
    allPermits.set(`${realm} ${service.key}`, [...all]);
  }
  const has = (name: string): boolean => allRealms.get(name) !== undefined;
  return {
    realms: [...allRealms.values()].flatMap((realm) => realm ?? []),
    presences: [...allPresences.values()].flatMap((each) =>
      each !== undefined && has(each.realm) && has(each.of.realm) ? [each] : []
    ),
    permits: [...allPermits.values()]
      .flat()
      .filter(({ realm, service }) => has(realm) && has(service.realm)),
  };
}

/**
 * The headroom in bytes that is enough for every packet. A plain packet needs 20, a fragment 28, an ICMP
 * error with extensions whose quote has to be padded up to 120.
 */
export const TRANSLATION_HEADROOM = 128;

const VERDICT_COUNT: number = VERDICT_NAMES.length;
