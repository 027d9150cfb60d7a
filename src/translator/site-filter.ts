/**
 * `SiteFilter`, the ingress and egress filter of an edge ([BCP 38](https://www.rfc-editor.org/info/bcp38)):
 * checks that source and destination are addresses of the site. The cloud checks every packet again, in more
 * detail; the filter keeps invalid packets out of the tunnel.
 * @module
 */
import type { Family, IpAddress } from '../base/address.ts';
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

/** Checks the packets of one site. Without addresses it lets no packet pass. */
export class SiteFilter {
  readonly #header = new PacketHeader();
  readonly #views = new PacketView();
  readonly #words = new Int32Array(8);
  readonly #verdicts = new Float64Array(2 * VERDICT_NAMES.length);
  #sources: readonly IpPrefix[] = [];
  #pools: readonly IpPrefix[] = [];
  /** The barred presences by the last word of their addresses. */
  #barred: ReadonlyMap<number, readonly IpPrefix[]> = new Map();
  #barredPackets = 0;

  /** @throws {ApiMisuseError} if a text is not a prefix. */
  setAddresses({ sources, pools }: SiteAddresses): void {
    const parsed = sources.map(IpPrefix.from);
    this.#pools = pools.map(IpPrefix.from);
    this.#sources = parsed;
  }

  /** Lets no packet pass to these presences, as if they were none, until the next call. */
  setBarred(addresses: readonly IpAddress[]): void {
    const barred = new Map<number, IpPrefix[]>();
    for (const address of addresses) {
      const last = address.words.at(-1)!;
      const others = barred.get(last) ?? [];
      barred.set(last, [...others, IpPrefix.around(address)]);
    }
    this.#barred = barred;
  }

  /** How many packets to barred presences were dropped; they are counted as `DropNoPresence` too. */
  get barredPackets(): number {
    return this.#barredPackets;
  }

  /**
   * Checks the packet `buffer[start .. end)` on its way to the tunnel: it must come from a real host of the
   * site and go to a presence. The source of an ICMP error is not checked, because any router may send one.
   *
   * @param vnet offset of the packet's virtio-net header, which is somewhere in front of it; -1 if it has
   *   none
   */
  checkOutbound(buffer: Uint8Array, start: number, end: number, vnet: number = -1): Verdict {
    const view = this.#views.of(buffer);
    let verdict = this.#checkHeaders(view, start, end, buffer.length, vnet);
    if (verdict === Verdict.Forward) verdict = this.#checkOutbound(view);
    this.#verdicts[OUTBOUND + verdict]!++;
    return verdict;
  }

  /**
   * Checks the packet `buffer[start .. end)` from the tunnel: it must come from a presence and go to a real
   * host of the site. The offload fields are checked too, so that no packet overloads the site's kernel.
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

  /** Returns the number of packets by verdict, to the tunnel (`outbound`) or from it (`inbound`). */
  counters(direction: 'outbound' | 'inbound'): VerdictCounters {
    return nameCounters(this.#verdicts, direction === 'outbound' ? OUTBOUND : INBOUND);
  }

  #checkHeaders(view: DataView, start: number, end: number, length: number, vnet: number): Verdict {
    const outcome = this.#header.parse(view, start, end, length);
    if (outcome !== Parse.Ok) return verdictOfParse(outcome);
    if (vnet < 0) return Verdict.Forward;
    if (vnet + VNET_HEADER_LENGTH > start) return Verdict.DropMalformed;
    // `flags` and `gso_type` are zero for a plain packet.
    return view.getUint16(vnet) === 0 ? Verdict.Forward : checkOffload(view, vnet, this.#header);
  }

  #checkOutbound(view: DataView): Verdict {
    const { family, kind } = this.#header;
    const destinationAt = this.#readAddresses(view);
    if (!containsWords(this.#pools, family, this.#words, destinationAt))
      return Verdict.DropNoPresence;
    if (this.#barred.size > 0 && this.#isBarred(family, destinationAt))
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

  #isBarred(family: Family, at: number): boolean {
    const last = this.#words[family === 4 ? at : at + 3]!;
    const barred = this.#barred.get(last);
    if (barred === undefined || !containsWords(barred, family, this.#words, at)) return false;
    this.#barredPackets++;
    return true;
  }

  /** Copies both addresses to `#words`. Returns the index of the destination. */
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

/** The index of the first counter of each direction. */
const OUTBOUND = 0;
const INBOUND: number = VERDICT_NAMES.length;
