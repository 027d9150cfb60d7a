/**
 * The edge's check: may this site send this packet at all, may it get it? The cloud asks again, and
 * more closely; this keeps from the tunnel what has no business there.
 * @module
 */
import type { Family } from '../base/address.ts';
import { IpPrefix, type PrefixInput } from '../base/prefix.ts';
import { PacketKind, Parse } from '../packet/fields.ts';
import { PacketHeader } from '../packet/header.ts';
import { PacketView } from '../packet/view.ts';
import { VNET_HEADER_LENGTH } from '../packet/virtio.ts';
import { checkOffload } from './offload.ts';
import { containsWords } from './plan.ts';
import {
  nameCounters,
  VERDICT_NAMES,
  Verdict,
  type VerdictCounters,
  verdictOfParse,
} from './verdict.ts';

/** The addresses of one site. */
export interface SiteAddresses {
  /** Prefixes of the real hosts that take part. */
  readonly sources: readonly PrefixInput[];
  /** Prefixes of the presences, which may lie inside the sources. */
  readonly pools: readonly PrefixInput[];
}

/** Lets nothing through until it has been given the site's addresses. */
export class SiteFilter {
  readonly #header = new PacketHeader();
  readonly #views = new PacketView();
  readonly #words = new Int32Array(8);
  readonly #verdicts = new Float64Array(2 * VERDICT_NAMES.length);
  #sources: readonly IpPrefix[] = [];
  #pools: readonly IpPrefix[] = [];

  /** @throws {ApiMisuseError} if a text is not a prefix. */
  setAddresses({ sources, pools }: SiteAddresses): void {
    const parsed = sources.map(IpPrefix.from);
    this.#pools = pools.map(IpPrefix.from);
    this.#sources = parsed;
  }

  /**
   * Judges the packet `buffer[start .. end)` on its way to the tunnel: from a real host of the site to
   * a presence. Any router on the way may send an ICMP error.
   *
   * @param vnet offset of the packet's virtio-net header, which stands somewhere in front of it, or -1
   *   if it has none
   */
  checkOutbound(buffer: Uint8Array, start: number, end: number, vnet: number = -1): Verdict {
    const view = this.#views.of(buffer);
    let verdict = this.#checkHeaders(view, start, end, buffer.length, vnet);
    if (verdict === Verdict.Forward) verdict = this.#checkOutbound(view);
    this.#verdicts[OUTBOUND + verdict]!++;
    return verdict;
  }

  /**
   * Judges the packet `buffer[start .. end)` from the tunnel: from a presence to a real host. What it
   * lets through costs the site's kernel no more than a packet may, whoever sent it.
   *
   * @param vnet see `checkOutbound`
   */
  checkInbound(buffer: Uint8Array, start: number, end: number, vnet: number = -1): Verdict {
    const view = this.#views.of(buffer);
    let verdict = this.#checkHeaders(view, start, end, buffer.length, vnet);
    if (verdict === Verdict.Forward) verdict = this.#checkInbound(view);
    this.#verdicts[INBOUND + verdict]!++;
    return verdict;
  }

  /** Packets by verdict, on their way to the tunnel (`outbound`) or from it (`inbound`). */
  counters(direction: 'outbound' | 'inbound'): VerdictCounters {
    return nameCounters(this.#verdicts, direction === 'outbound' ? OUTBOUND : INBOUND);
  }

  #checkHeaders(view: DataView, start: number, end: number, length: number, vnet: number): Verdict {
    const outcome = this.#header.parse(view, start, end, length);
    if (outcome !== Parse.Ok) return verdictOfParse(outcome);
    if (vnet < 0) return Verdict.Forward;
    if (vnet + VNET_HEADER_LENGTH > start) return Verdict.DropMalformed;
    // Its first two bytes say whether anything was left undone.
    return view.getUint16(vnet) === 0 ? Verdict.Forward : checkOffload(view, vnet, this.#header);
  }

  #checkOutbound(view: DataView): Verdict {
    const { family, kind } = this.#header;
    const destinationAt = this.#readAddresses(view);
    if (!containsWords(this.#pools, family, this.#words, destinationAt))
      return Verdict.DropNoPresence;
    if (kind === PacketKind.IcmpError) return Verdict.Forward;
    return this.#isReal(family, 0) ? Verdict.Forward : Verdict.DropSpoofed;
  }

  #checkInbound(view: DataView): Verdict {
    const { family } = this.#header;
    const destinationAt = this.#readAddresses(view);
    if (!containsWords(this.#pools, family, this.#words, 0)) return Verdict.DropSpoofed;
    return this.#isReal(family, destinationAt) ? Verdict.Forward : Verdict.DropNoPresence;
  }

  /** Fills `#words` with both addresses and returns where the destination begins. */
  #readAddresses(view: DataView): number {
    const { family, source } = this.#header;
    const width = family === 4 ? 1 : 4;
    for (let i = 0; i < 2 * width; i++) {
      this.#words[i] = view.getInt32(source + 4 * i);
    }
    return width;
  }

  #isReal(family: Family, at: number): boolean {
    return (
      containsWords(this.#sources, family, this.#words, at) &&
      !containsWords(this.#pools, family, this.#words, at)
    );
  }
}

/** Where the counters of a direction begin. */
const OUTBOUND = 0;
const INBOUND: number = VERDICT_NAMES.length;
