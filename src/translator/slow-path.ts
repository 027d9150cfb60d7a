/**
 * The slow path: judges any packet, step by step, in the order of the module's README.
 *
 * 1. Check the headers, and the virtio-net header against them (`packet/header.ts`, `offload.ts`).
 * 2. Look up the path of (realm, source, destination) (`path-table.ts`).
 * 3. If there is none, derive it from the plan and keep it (`paths.ts`). A later fragment takes the path of
 *    its first one (`fragments.ts`).
 * 4. Ask the path's policy whether this protocol and these ports pass (`policy.ts`), and for a reply,
 *    except of TCP and SCTP, whether there was a recent request (`sessions.ts`).
 * 5. Check the size against the egress realm's MTU.
 * 6. Remember what later packets need: the session and the fragment.
 * 7. Write the addresses and update the checksums (`rewrite.ts`), or translate the packet to the other IP
 *    version (`siit.ts`). While a realm is renumbered, the packet's flow decides the source (`flows.ts`).
 *
 * An ICMP error takes the path of a reply to the packet it quotes.
 * @module
 */
import { foldDelta, longDelta } from '../packet/checksum.ts';
import {
  FragmentPart,
  ICMP_HEADER,
  PacketKind,
  Parse,
  TCP_FLAG_SYN,
  TCP_FLAGS,
} from '../packet/fields.ts';
import { PacketHeader } from '../packet/header.ts';
import { MAX_PACKET_LENGTH, VNET_HEADER_LENGTH } from '../packet/virtio.ts';
import type { CapturePoint } from './capture.ts';
import type { Flows } from './flows.ts';
import { Admission, type Fragments } from './fragments.ts';
import {
  MAX_MSS,
  PATH_ADDRESSES,
  PATH_DELTA,
  PATH_PAIR,
  PATH_ROUTE,
  REPLY,
  REQUEST,
  ROUTE_EGRESS,
  ROUTE_FAMILY,
  ROUTE_FRAGMENT_MTU,
  ROUTE_LARGEST,
  ROUTE_MSS,
} from './layout.ts';
import { checkOffload, needsChecksum, segmentPayload } from './offload.ts';
import type { PathTable } from './path-table.ts';
import type { Paths } from './paths.ts';
import { needsSession, sidesOf } from './policy.ts';
import {
  rewriteAddresses,
  rewriteHeaderChecksum,
  rewriteQuote,
  rewriteTransportChecksum,
} from './rewrite.ts';
import { MIN_IPV6_MTU } from './route-table.ts';
import { type Sessions, sessionPorts } from './sessions.ts';
import { type Siit, setsDontFragment, VERSION_GROWTH } from './siit.ts';
import { clampMss, headersLength } from './size.ts';
import { Verdict, verdictOfParse } from './verdict.ts';

export class SlowPath {
  // The result for the last packet; see the fields of the same names in `PacketTranslator`.
  egress = 0;
  start = 0;
  end = 0;
  vnet = -1;
  segmentTo = 0;
  lackingFamily: 4 | 6 = 4;
  /** The address that last had no presence, in `lackingWords` words. */
  readonly lacking: Int32Array = new Int32Array(4);
  lackingWords = 1;
  /** The header of the last packet. Valid unless its headers were refused. */
  readonly header: PacketHeader = new PacketHeader();
  /** The MTU to report to the sender of the packet. Valid iff DropTooBig. */
  reportedMtu = 0;

  /** The time in ms, modulo 2^32. */
  now = 0;
  capture: CapturePoint | undefined;
  /** Whether to change only the packet: no path, session, fragment or counter. */
  isDryRun = false;

  /** The header of the packet that the ICMP error quotes. */
  readonly quote: PacketHeader = new PacketHeader();
  /** Whether the packet was refused because it cannot be translated between IPv4 and IPv6. */
  isRefusedBySiit = false;

  readonly #paths: Paths;
  readonly #sessions: Sessions;
  readonly #fragments: Fragments;
  readonly #siit: Siit;
  readonly #flows: Flows;
  #isPartial = false;
  /** The payload of each segment of a super-packet in bytes; 0 for other packets. */
  #segment = 0;

  constructor(paths: Paths, sessions: Sessions, fragments: Fragments, siit: Siit, flows: Flows) {
    this.#paths = paths;
    this.#sessions = sessions;
    this.#fragments = fragments;
    this.#siit = siit;
    this.#flows = flows;
  }

  /** Judges the packet and, with the verdict Forward, rewrites it. The parameters are those of `translate`. */
  run(
    realm: number,
    view: DataView,
    start: number,
    end: number,
    vnet: number,
    headroom: number
  ): Verdict {
    try {
      return this.#judge(realm, view, start, end, vnet, headroom);
    } finally {
      // A capture may throw.
      this.#paths.releaseTemporary();
    }
  }

  #judge(
    realm: number,
    view: DataView,
    start: number,
    end: number,
    vnet: number,
    headroom: number
  ): Verdict {
    const header = this.header;
    const outcome = header.parse(view, start, end);
    if (outcome !== Parse.Ok) return verdictOfParse(outcome);
    this.#isPartial = false;
    this.#segment = 0;
    if (vnet >= 0) {
      if (vnet + VNET_HEADER_LENGTH > start) return Verdict.DropMalformed;
      // `flags` and `gso_type` are zero for a plain packet.
      if (view.getUint16(vnet) !== 0) {
        const verdict = checkOffload(view, vnet, header);
        if (verdict !== Verdict.Forward) return verdict;
        this.#isPartial = needsChecksum(view, vnet);
        this.#segment = segmentPayload(view, vnet);
      }
    }
    const { kind, source, part } = header;
    if (kind === PacketKind.IcmpError) return this.#runError(realm, view, vnet, headroom);

    let table: PathTable;
    let path: number;
    if (header.family === 4) {
      table = this.#paths.v4;
      path = table.find3(realm, view.getInt32(source), view.getInt32(source + 4));
    } else {
      table = this.#paths.v6;
      // RFC 8200 section 8.1: UDP over IPv6 has a checksum.
      if (kind === PacketKind.Udp && !this.#isPartial && view.getUint16(header.checksum) === 0) {
        return Verdict.DropMalformed;
      }
      path = table.find9(realm, view, source);
    }

    let side = 0;
    if (part !== FragmentPart.Whole) {
      const admission = this.#fragments.admit(realm, view, header, this.now, this.isDryRun);
      if (admission === Admission.Refused) return Verdict.DropFragment;
      if (admission === Admission.Orphan) return Verdict.DropFragmentOrphan;
    }
    if (part === FragmentPart.Later) {
      if (path < 0) return Verdict.DropFragmentOrphan;
    } else {
      const sides = sidesOf(kind, header.opensSession);
      const { sourcePort, destinationPort } = header;
      if (path < 0) {
        setKey(table, realm, view, source);
        path = this.#open(table, kind, sides, sourcePort, destinationPort, false);
        if (path < 0) return ~path as Verdict;
      }
      const policy = this.#paths.policyOf(table, path);
      side = this.#paths.bindings.policies.sideOf(policy, kind, sides, sourcePort, destinationPort);
      if (side === 0) return Verdict.DropNotPermitted;
      if (side === REPLY && needsSession(kind) && !this.#hasSession(table, path, view)) {
        return Verdict.DropNoSession;
      }
    }
    return this.#forward(realm, table, path, side, view, vnet, headroom);
  }

  /** Takes the steps 5 to 7 for a permitted packet. */
  #forward(
    realm: number,
    table: PathTable,
    path: number,
    side: number,
    view: DataView,
    vnet: number,
    headroom: number
  ): Verdict {
    const header = this.header;
    const { words } = table;
    const value = path * table.stride + table.keyWords;
    const route = words[value + PATH_ROUTE]!;
    const routes = this.#paths.routes.words;
    const family = routes[route + ROUTE_FAMILY]! as 4 | 6;
    const siit = this.#siit;
    const growth = family === header.family ? 0 : siit.growthOf(header);
    if (family !== header.family) {
      const fault = siit.faultOf(view, header, this.#isPartial);
      this.isRefusedBySiit = fault !== Verdict.Forward;
      if (fault !== Verdict.Forward) return fault;
      if (growth > headroom) return Verdict.NeedsHeadroom;
    }
    this.segmentTo = 0;
    const mayFragment = !header.dontFragment && this.#segment === 0;
    const mtu = routes[route + (mayFragment ? ROUTE_FRAGMENT_MTU : ROUTE_LARGEST)]!;
    const { start, end } = header;
    if (end - start + growth > mtu && !this.#fits(view, mtu, family, growth)) {
      this.reportedMtu = mtu;
      if (family === 6 && header.family === 4) this.reportedMtu = mtu - VERSION_GROWTH;
      if (family === 4 && header.family === 6) {
        this.reportedMtu = Math.max(mtu + VERSION_GROWTH, MIN_IPV6_MTU);
      }
      return Verdict.DropTooBig;
    }

    this.egress = routes[route + ROUTE_EGRESS]!;
    if (!this.isDryRun) {
      if (side === REQUEST && needsSession(header.kind)) {
        const ports = sessionPorts(view, header, REQUEST);
        this.#sessions.touch(realm, words[value + PATH_PAIR]!, header.kind, ports, this.now);
      }
      if (header.part !== FragmentPart.Whole && !this.#paths.isTemporary) {
        this.#fragments.note(realm, view, header, this.now);
      }
      if (this.capture !== undefined)
        this.capture.show('inbound', table, path, realm, view, start, end);
    }

    const mss = routes[route + ROUTE_MSS]!;
    if (mss !== MAX_MSS && isSyn(view, header)) clampMss(view, header, mss, this.#isPartial);
    const flows = this.#flows;
    const isDiverted =
      this.#paths.routes.isOverlapping(route) &&
      flows.divert(
        { realm, view, header, table, path, routes, family },
        side,
        this.isDryRun ? undefined : this.now
      );
    const delta = isDiverted ? flows.delta : words[value + PATH_DELTA]!;
    this.start = start - growth;
    this.end = end;
    this.vnet = vnet;
    if (family !== header.family) {
      const wide = isDiverted ? flows.addresses : table.wide;
      const at = isDiverted ? 0 : words[value + PATH_ADDRESSES]!;
      siit.rewrite(view, header, wide, at, delta, this.#isPartial, vnet);
      if (vnet >= 0) this.vnet = vnet - growth;
    } else {
      const after = isDiverted ? flows.addresses : words;
      rewriteAddresses(view, header, after, isDiverted ? 0 : value + PATH_ADDRESSES);
      rewriteHeaderChecksum(view, header, delta);
      if (header.part !== FragmentPart.Later) {
        rewriteTransportChecksum(view, header, delta, this.#isPartial);
      }
    }
    if (!this.isDryRun) {
      this.capture?.show('outbound', table, path, this.egress, view, this.start, this.end);
      table.count(path, 1, end - start);
    }
    return Verdict.Forward;
  }

  /** Judges an ICMP error. From (r, d), quoting (d, q), it takes the path of (q, d), as if q had sent it. */
  #runError(realm: number, view: DataView, vnet: number, headroom: number): Verdict {
    const header = this.header;
    const quote = this.quote;
    const quoteEnd = header.findQuoteEnd(view);
    if (quoteEnd < 0) return Verdict.DropMalformed;
    const outcome = quote.parseQuote(view, header.transport + ICMP_HEADER, quoteEnd);
    if (outcome !== Parse.Ok) return verdictOfParse(outcome);
    if (quote.family !== header.family) return Verdict.DropMalformed;
    if (quote.kind === PacketKind.IcmpError) return Verdict.DropUnsupported;

    const table = this.#paths.table(header.family);
    const { width } = table;
    for (let i = 0; i < width; i++) {
      const quoted = view.getInt32(quote.source + 4 * i);
      if (quoted !== view.getInt32(header.source + 4 * (width + i))) return Verdict.DropMalformed;
    }
    const { source, sourcePort, destinationPort, kind } = quote;
    let path =
      width === 1 ? table.find3(realm, view.getInt32(source + 4), view.getInt32(source)) : -1;
    if (path < 0) {
      const { key } = table;
      key[0] = realm;
      for (let i = 0; i < width; i++) {
        key[1 + i] = view.getInt32(source + 4 * (width + i));
        key[1 + width + i] = view.getInt32(source + 4 * i);
      }
      path = table.find();
    }
    if (path < 0) {
      path = this.#open(table, kind, REQUEST | REPLY, destinationPort, sourcePort, true);
      if (path < 0) return ~path as Verdict;
    }
    const policy = this.#paths.policyOf(table, path);
    const sides = REQUEST | REPLY;
    const { policies } = this.#paths.bindings;
    if (policies.sideOf(policy, kind, sides, destinationPort, sourcePort) === 0) {
      return Verdict.DropNotPermitted;
    }
    return this.#forwardError(realm, table, path, view, vnet, headroom);
  }

  #forwardError(
    realm: number,
    table: PathTable,
    path: number,
    view: DataView,
    vnet: number,
    headroom: number
  ): Verdict {
    const header = this.header;
    const quote = this.quote;
    const { words, width } = table;
    const value = path * table.stride + table.keyWords;
    const route = words[value + PATH_ROUTE]!;
    const family = this.#paths.routes.words[route + ROUTE_FAMILY]! as 4 | 6;
    const mtu = this.#paths.routes.words[route + ROUTE_LARGEST]!;
    const siit = this.#siit;
    const { start, end } = header;
    const isSiit = family !== header.family;
    this.segmentTo = 0;
    if (isSiit) {
      // A translated error never exceeds the least MTU of its version, so it fits every realm.
      const fault = siit.prepareError(view, header, quote);
      this.isRefusedBySiit = fault !== Verdict.Forward;
      if (fault !== Verdict.Forward) return fault;
      if (siit.errorGrowth > headroom) return Verdict.NeedsHeadroom;
    } else if (end - start > mtu && !this.#fits(view, mtu, family, 0)) {
      return Verdict.DropTooBig;
    }

    this.egress = this.#paths.routes.words[route + ROUTE_EGRESS]!;
    const capture = this.isDryRun ? undefined : this.capture;
    capture?.show('inbound', table, path, realm, view, start, end);
    const flows = this.#flows;
    const routes = this.#paths.routes.words;
    const isDiverted =
      this.#paths.routes.isOverlapping(route) &&
      flows.divertError({ realm, view, header: quote, table, path, routes, family });
    const delta = isDiverted ? flows.delta : words[value + PATH_DELTA]!;
    this.start = start;
    this.end = end;
    this.vnet = vnet;
    if (isSiit) {
      const wide = isDiverted ? flows.addresses : table.wide;
      const at = isDiverted ? 0 : words[value + PATH_ADDRESSES]!;
      siit.rewriteError(view, header, quote, wide, at, delta, vnet);
      this.start = start - siit.errorGrowth;
      this.end = siit.errorEnd;
      if (vnet >= 0) this.vnet = vnet - siit.errorGrowth;
    } else {
      const after = isDiverted ? flows.addresses : words;
      const addresses = isDiverted ? 0 : value + PATH_ADDRESSES;
      let outerDelta = 0;
      for (let i = 0; i < 2 * width; i++) {
        const before = view.getInt32(header.source + 4 * i);
        outerDelta += longDelta(before, after[addresses + i]!);
      }
      outerDelta = foldDelta(outerDelta);
      rewriteQuote(view, header, quote, after, addresses, delta, outerDelta);
      rewriteAddresses(view, header, after, addresses);
      rewriteHeaderChecksum(view, header, outerDelta);
    }
    capture?.show('outbound', table, path, this.egress, view, this.start, this.end);
    if (!this.isDryRun) table.count(path, 1, end - start);
    return Verdict.Forward;
  }

  /**
   * Returns whether a packet larger than `mtu` may leave, because it is a super-packet with segments that
   * fit, or may be fragmented (then sets `segmentTo`).
   */
  #fits(view: DataView, mtu: number, family: number, growth: number): boolean {
    const header = this.header;
    const length = header.end - header.start + growth;
    if (this.#segment > 0) {
      const headers = headersLength(view, header, header.kind === PacketKind.Tcp) + growth;
      return this.#segment + headers <= mtu && (family === 6 || length <= MAX_PACKET_LENGTH);
    }
    const mayFragment =
      header.family === 4
        ? !header.dontFragment
        : family === 4 && !setsDontFragment(header, length);
    if (mayFragment) this.segmentTo = mtu;
    return mayFragment;
  }

  /** Calls `Paths.open`, and copies the result for a source without a presence. */
  #open(
    table: PathTable,
    kind: PacketKind,
    sides: number,
    sourcePort: number,
    destinationPort: number,
    isQuoted: boolean
  ): number {
    const paths = this.#paths;
    const path = paths.open(
      table,
      kind,
      sides,
      sourcePort,
      destinationPort,
      isQuoted,
      this.isDryRun
    );
    if (path !== ~Verdict.NeedsPresence) return path;
    this.egress = paths.lackingIn;
    this.lackingFamily = paths.lackingFamily;
    this.lackingWords = table.width;
    for (let i = 0; i < table.width; i++) this.lacking[i] = table.key[1 + i]!;
    return path;
  }

  #hasSession(table: PathTable, path: number, view: DataView): boolean {
    const value = path * table.stride + table.keyWords;
    const client = this.#paths.routes.words[table.words[value + PATH_ROUTE]! + ROUTE_EGRESS]!;
    const pair = table.words[value + PATH_PAIR]!;
    const header = this.header;
    const ports = sessionPorts(view, header, REPLY);
    return this.#sessions.isOpen(client, pair ^ 1, header.kind, ports, this.now);
  }
}

/** Sets the table's key to (realm, source, destination). */
function setKey(table: PathTable, realm: number, view: DataView, source: number): void {
  const { key, keyWords } = table;
  key[0] = realm;
  for (let i = 1; i < keyWords; i++) key[i] = view.getInt32(source + 4 * i - 4);
}

function isSyn(view: DataView, header: PacketHeader): boolean {
  if (header.kind !== PacketKind.Tcp) return false;
  return (view.getUint8(header.transport + TCP_FLAGS) & TCP_FLAG_SYN) !== 0;
}
