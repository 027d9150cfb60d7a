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
import { Flows } from './flows.ts';
import { FRAGMENT_DEFAULTS, type FragmentOptions, Fragments, setPathKey } from './fragments.ts';
import { type PathPage, type PathQuery, pathPageOf } from './path-page.ts';
import type { PathStatus, PathTable } from './path-table.ts';
import { PATH_DEFAULTS, type PathOptions, Paths } from './paths.ts';
import type {
  PlanChangesInput,
  PlannedRealm,
  PresenceInput,
  TranslationPlanInput,
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
 * `load`, `apply`, `bind` and the counters may be used between any two packets.
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
  readonly #sessions: Sessions;
  readonly #fragments: Fragments;
  readonly #siit = new Siit();
  readonly #flows: Flows;
  readonly #fastPath: FastPath;
  readonly #slowPath: SlowPath;
  readonly #replies: Replies;
  readonly #views = new PacketView();
  /** The address that last had no presence, in `#lackingWords` words. */
  readonly #lacking = new Int32Array(4);
  #lackingWords = 1;
  /** The counters, by realm and verdict. */
  #verdicts = new Float64Array(0);
  /** The bytes of forwarded packets before translation, by ingress realm. */
  #bytes = new Float64Array(0);

  /** @throws {ApiMisuseError} naming the option that is wrong. */
  constructor(options: PacketTranslatorOptions = {}) {
    checkObject('options', options);
    const sessions = new Sessions(options);
    const fragments = new Fragments(options);
    const paths = new Paths(this.#indexOf, options);
    this.#paths = paths;
    this.#sessions = sessions;
    this.#fragments = fragments;
    this.#flows = new Flows(options.maxSessions ?? SESSION_DEFAULTS.maxSessions);
    this.#fastPath = new FastPath(paths, sessions, this.#siit);
    this.#slowPath = new SlowPath(paths, sessions, fragments, this.#siit, this.#flows);
    this.#replies = new Replies(options, (realm) => paths.bindings.realm(realm)?.reject ?? 'drop');
  }

  /**
   * Replaces the whole plan. Paths that the new plan still allows keep their counters and sessions. Everything is
   * derived anew, which takes time for each presence, permit and path; `apply` takes time only for what changes.
   *
   * @returns how many paths ended because the new plan has no longer one of their realms
   * @throws {ConfigError} if the plan is invalid; it names the place. The old plan stays in force.
   */
  load(plan: TranslationPlanInput): number {
    const gone = this.#paths.load(plan);
    const { bindings } = this.#paths;
    for (let realm = 0; realm < this.#realmCount; realm++) {
      if (bindings.realm(realm) === undefined) this.#forget(realm);
    }
    if (!this.#paths.bindings.isOverlapping) this.#flows.clear();
    this.#fragments.keep(this.#hasPath);
    this.#slowPath.capture?.forget();
    return gone;
  }

  /**
   * Changes the plan. Afterwards all is as if the changed plan had been loaded: paths that it still allows keep their
   * counters and sessions, the others have ended. The time that it takes grows with the number of changes, and with
   * the number of paths between the two realms of each presence or permit that is not the same as before, or from and to
   * a realm that is gone, or whose sources or pools change for a host.
   *
   * @returns how many paths ended because one of their realms is gone
   * @throws {ConfigError} if a change is invalid, names a realm that the plan does not have, or would give a host two
   *   addresses of one IP version in a realm of which none is a former one; it names the place in `changes`. The plan
   *   stays as it was.
   */
  apply(changes: PlanChangesInput): number {
    const ingress = new Set<number>();
    const gone = this.#paths.apply(changes, ingress);
    for (const { name, realm } of changes.realms ?? []) {
      if (realm === undefined) this.#forget(this.#indexOf(name));
    }
    if (!this.#paths.bindings.isOverlapping) this.#flows.clear();
    this.#fragments.keep(this.#hasPath, ingress);
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

  /** Returns how many bytes the forwarded packets from the realm had before translation. */
  forwardedBytes(realm: number): number {
    this.realmName(realm);
    return this.#bytes[realm]!;
  }

  /** Lists the paths of the current plan that packets have taken. */
  *paths(): Generator<PathStatus> {
    for (const table of [this.#paths.v4, this.#paths.v6]) {
      for (let path = 0; path < table.size; path++) {
        if (table.packets(path) > 0) yield this.#statusOf(table, path);
      }
    }
  }

  /** Returns one page of `paths`, in another order; see `pathPageOf`. */
  pathPage(query: PathQuery): PathPage {
    const realm = query.realm === undefined ? undefined : this.#realmIndexes.get(query.realm);
    if (realm === undefined && query.realm !== undefined) return { paths: [] };
    return pathPageOf(this.#paths, query, realm, (index) => this.realmName(index));
  }

  /** Returns what there is of a realm now; undefined if the plan does not have it. It is for one look, not to be kept. */
  planned(realm: string): PlannedRealm | undefined {
    return this.#paths.bindings.planned(realm);
  }

  /** Returns how many paths lead from or to a realm. */
  pathsOf(realm: string): number {
    return this.#paths.countOf(this.realm(realm));
  }

  /**
   * How many flows were forgotten while hosts have several addresses in a realm (`Presence.formerUntil`), because newer
   * ones needed their room: `maxSessions` for each realm of clients. It is 0 again when no host has.
   */
  get forgottenFlows(): number {
    return this.#flows.replaced;
  }

  /** The memory in bytes that the paths take, and that the plan takes. */
  get memory(): { readonly paths: number; readonly plan: number } {
    const { v4, v6, routes, bindings } = this.#paths;
    const tables = [v4, v6, routes, bindings.policies];
    const paths = tables.reduce((sum, { byteLength }) => sum + byteLength, 0);
    return { paths, plan: bindings.byteLength };
  }

  /**
   * Shows the packets of chosen paths to `capture`, or to each of several. They replace earlier ones; `undefined` ends
   * all.
   */
  capture(capture: PacketCapture | readonly PacketCapture[] | undefined): void {
    const captures = capture === undefined ? [] : [capture].flat();
    this.#slowPath.capture =
      captures.length === 0
        ? undefined
        : new CapturePoint(
            captures,
            (table, path) => this.#statusOf(table, path),
            this.#realmNames
          );
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
      this.#bytes[realm]! += end - start;
      return Verdict.Forward;
    }
    const verdict = slowPath.run(realm, view, start, end, vnet, headroom);
    this.#verdicts[realm * VERDICT_COUNT + verdict]!++;
    this.egress = slowPath.egress;
    if (verdict === Verdict.Forward) {
      this.#bytes[realm]! += end - start;
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

  /** Returns whether there is a path from the realm with the addresses at `words[at]`. */
  readonly #hasPath = (family: 4 | 6, realm: number, words: Int32Array, at: number): boolean => {
    const table = this.#paths.table(family);
    setPathKey(table, realm, words, at);
    return table.find() >= 0;
  };

  /** Forgets what packets of a realm have left that is gone. */
  #forget(realm: number): void {
    this.#sessions.forget(realm);
    this.#fragments.forget(realm);
  }

  readonly #indexOf = (name: string): number => {
    let index = this.#realmIndexes.get(name);
    if (index === undefined) {
      index = this.#realmNames.push(name) - 1;
      this.#realmIndexes.set(name, index);
      this.#realmCount = this.#realmNames.length;
      if (this.#realmCount * VERDICT_COUNT > this.#verdicts.length) {
        const counters = new Float64Array(2 * this.#realmCount * VERDICT_COUNT);
        counters.set(this.#verdicts);
        this.#verdicts = counters;
        const bytes = new Float64Array(2 * this.#realmCount);
        bytes.set(this.#bytes);
        this.#bytes = bytes;
      }
    }
    return index;
  };
}

/**
 * The headroom in bytes that is enough for every packet. A plain packet needs 20, a fragment 28, an ICMP
 * error with extensions whose quote has to be padded up to 120.
 */
export const TRANSLATION_HEADROOM = 128;

const VERDICT_COUNT: number = VERDICT_NAMES.length;
