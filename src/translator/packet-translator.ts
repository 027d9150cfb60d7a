/**
 * Translates packets between realms, in place: the public face of the room.
 *
 * A packet's way through `translate`:
 *
 * 1. the fast path, if it is plainly in order (`fast-path.ts`): nearly all are
 * 2. else the slow path, which judges any packet (`slow-path.ts`)
 * 3. the verdict is counted; what is refused may be answered (`reply.ts`)
 *
 * The steps of the rule and their order are a promise; the room's README states them exactly.
 * @module
 */
import { IpAddress } from '../base/address.ts';
import { checkObject } from '../base/option-check.ts';
import { ApiMisuseError } from '../errors.ts';
import type { PacketHeader } from '../packet/header.ts';
import { PacketView } from '../packet/view.ts';
import { VNET_HEADER_LENGTH } from '../packet/virtio.ts';
import { type PacketCapture, TapPoint } from './capture.ts';
import { type Explanation, explain } from './explain.ts';
import { FastPath } from './fast-path.ts';
import { FRAGMENT_DEFAULTS, type FragmentOptions, Fragments, setPathKey } from './fragments.ts';
import type { PathStatus, PathTable } from './path-table.ts';
import { PATH_DEFAULTS, type PathOptions, Paths } from './paths.ts';
import type { PresenceInput, TranslationPlanInput } from './plan.ts';
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

/** What is used where an option is absent. */
export const PACKET_TRANSLATOR_DEFAULTS: Readonly<Required<PacketTranslatorOptions>> =
  Object.freeze({ ...PATH_DEFAULTS, ...SESSION_DEFAULTS, ...FRAGMENT_DEFAULTS, ...REPLY_DEFAULTS });

/**
 * Twice NAT between realms that may use the same addresses (RFC 2663 section 4.3). The caller owns
 * every buffer; a reference to the last one is kept until the next call. `load`, `bind` and the reading
 * of counters may happen between any two packets.
 */
export class PacketTranslator {
  /**
   * Index of the realm that the packet goes to. Valid iff the last verdict was Forward or
   * NeedsPresence.
   */
  egress = 0;
  /** Where the packet begins and ends now, and its virtio-net header (-1: none). Valid iff Forward. */
  start = 0;
  end = 0;
  vnet = -1;
  /** The size to cut the packet to before it leaves; 0: it fits. Valid iff Forward. */
  segmentTo = 0;
  /** IP version of the presence that is lacking. Valid iff NeedsPresence. */
  lackingFamily: 4 | 6 = 4;
  /**
   * Length of the frame in `reply` that is to be sent back to the realm the packet came from; 0: none.
   * Valid iff the last verdict was a drop.
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
  /** The address that lacked a presence last, in `#lackingWords` words. */
  readonly #lacking = new Int32Array(4);
  #lackingWords = 1;
  /** Counters by realm and verdict. */
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
   * Replaces the plan as a whole. Paths that the new plan still has keep their counters and sessions.
   *
   * @returns how many paths are gone with realms that it no longer has.
   * @throws {ConfigError} naming the place in the plan that is wrong; the old plan stays then.
   */
  load(plan: TranslationPlanInput): number {
    const paths = this.#paths;
    const gone = paths.load(plan);
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
   * Adds one presence to the plan, typically of a client that has sent its first packet. The same one
   * again changes nothing.
   *
   * @throws {ConfigError} if it is not one, or names a realm that the plan does not.
   * @throws {ApiMisuseError} if its address or its endpoint is bound otherwise.
   */
  bind(presence: PresenceInput): void {
    this.#paths.bindings.bind(presence);
  }

  /**
   * Tells the time, which paths, sessions, fragments and the rate of replies are measured by; to be
   * called once for each batch of packets. Until it is called, time stands still.
   *
   * @param nowMs of a clock that never goes back, such as `performance.now()`
   */
  advance(nowMs: number): void {
    this.#slowPath.now = nowMs | 0;
    this.#paths.advance(nowMs);
    this.#replies.advance(nowMs);
  }

  /** Returns the index of a realm, which it keeps for the life of the translator. */
  realm(name: string): number {
    return this.#indexOf(name);
  }

  /** @throws {ApiMisuseError} if no realm has the index. */
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

  /** A virtio-net header of zeros, and the packet that answers a refused one; see `replyLength`. */
  get reply(): Uint8Array {
    return this.#replies.frame;
  }

  /** Returns how many packets that entered from the realm got which verdict. */
  counters(realm: number): VerdictCounters {
    this.realmName(realm);
    return nameCounters(this.#verdicts, realm * VERDICT_COUNT);
  }

  /** Lists the paths that packets have taken so far under the present plan. */
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

  /** Bytes of memory: of the paths and of the plan they are derived from. */
  get memory(): { readonly paths: number; readonly plan: number } {
    const { v4, v6, bindings } = this.#paths;
    return { paths: v4.byteLength + v6.byteLength, plan: bindings.byteLength };
  }

  /** Shows the packets of chosen paths to `tap`, in place of any before; `undefined` ends that. */
  capture(capture: PacketCapture | undefined): void {
    this.#slowPath.capture =
      capture &&
      new TapPoint(capture, (table, path) => this.#statusOf(table, path), this.#realmNames);
  }

  /**
   * Says what would become of a packet that enters from the realm, and why. Runs the code that packets
   * run, on a copy; counts nothing, opens no session and remembers no fragment.
   *
   * @param vnet the packet's virtio-net header, ten bytes, if it has one
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
    const way = this.#slowPath;
    way.isDry = true;
    way.isBoundToVersion = false;
    const at = vnet === undefined ? -1 : TRANSLATION_HEADROOM;
    const verdict = way.run(index, view, start, copy.length, at, TRANSLATION_HEADROOM);
    way.isDry = false;
    this.#siit.identification = identification;
    return explain(verdict, {
      realm,
      packet,
      header: way.header,
      quote: way.quote,
      isBoundToVersion: way.isBoundToVersion,
      bindings: this.#paths.bindings,
      realmIndex: index,
      egress: verdict <= Verdict.NeedsPresence ? this.realmName(way.egress) : undefined,
      result: verdict === Verdict.Forward ? copy.slice(way.start, way.end) : undefined,
      segmentTo: verdict === Verdict.Forward ? way.segmentTo : 0,
    });
  }

  /**
   * Translates the packet `buffer[start .. end)` that entered from `realm`. With the verdict Forward
   * the packet has been rewritten in place: it is `buffer[this.start .. this.end)` now, and `egress` is
   * the realm it goes to; with any other it is unchanged. A range outside of the buffer is
   * DropMalformed.
   *
   * @param realm index as `realm` gives it; a packet of any other is DropNoPresence and not counted
   * @param vnet offset of the packet's virtio-net header, which stands somewhere in front of it, or -1
   *   if it has none and its checksums are complete
   * @param headroom bytes in front of the virtio-net header, or else of the packet, that may be
   *   written to; `TRANSLATION_HEADROOM` are always enough
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
    const way = this.#slowPath;
    if (
      way.capture === undefined &&
      end <= buffer.length &&
      this.#fastPath.forward(realm, view, start, end, vnet, headroom, way.now)
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
    const verdict = way.run(realm, view, start, end, vnet, headroom);
    this.#verdicts[realm * VERDICT_COUNT + verdict]!++;
    this.egress = way.egress;
    if (verdict === Verdict.Forward) {
      this.start = way.start;
      this.end = way.end;
      this.vnet = way.vnet;
      this.segmentTo = way.segmentTo;
    } else if (verdict === Verdict.NeedsPresence) {
      this.lackingFamily = way.lackingFamily;
      this.#lackingWords = way.lackingWords;
      this.#lacking.set(way.lacking);
    } else if (verdict > Verdict.NeedsHeadroom) {
      this.replyLength = this.#replyTo(realm, verdict, view);
    }
    return verdict;
  }

  /** Makes the answer to a packet that was refused, if there is to be one; returns its length. */
  #replyTo(realm: number, verdict: Verdict, view: DataView): number {
    const { header, tellMtu } = this.#slowPath;
    switch (verdict) {
      case Verdict.DropTooBig:
        return this.#replies.tooBig(realm, view, header, tellMtu);
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

  /** Whether the packet, which nobody stands for, is from a host of the realm to one of its pools. */
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
      const counters = new Float64Array(this.#realmNames.length * VERDICT_COUNT);
      counters.set(this.#verdicts);
      this.#verdicts = counters;
    }
    return index;
  };
}

/**
 * Bytes of headroom that are enough for every packet. A plain one needs 20, a fragment 28; most needs an
 * ICMP error with extensions whose quote has to be filled up, 120.
 */
export const TRANSLATION_HEADROOM = 128;

const VERDICT_COUNT: number = VERDICT_NAMES.length;
