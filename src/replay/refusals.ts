/**
 * The packets that would not pass, in groups: by the service that is missing, else by verdict. Each group has its first packets as examples, the translator's explanation of the first one, and what to do. The number
 * of groups is bounded.
 * @module
 */
import { formatHostPort } from '../base/host-port.ts';
import { FragmentPart, PacketKind, Parse } from '../packet/fields.ts';
import type { PacketHeader } from '../packet/header.ts';
import { VERDICT_NAMES, Verdict, type VerdictName } from '../translator/index.ts';
import type { PreparedPacket } from './prepared-packet.ts';
import type { PlanSource } from './replay-plan.ts';

export interface RefusedPacket {
  /** The number of the packet in the capture; the first is 1. */
  readonly number: number;
  /** Source and destination in the capture, with ports; empty if its headers are wrong. */
  readonly from: string;
  readonly to: string;
  /** For example `tcp`, `icmp`, `icmp type 5` or `ip/47`; empty if its headers are wrong. */
  readonly protocol: string;
}

export interface Refusal {
  /** The verdict on the first of them. Where a service is missing, those on its answers are others. */
  readonly verdict: VerdictName;
  readonly packets: number;
  /** What the translator says about the first of them. */
  readonly reason: string;
  /** What to do if they should pass. */
  readonly remedy: string;
  /** The first of them, at most 3. */
  readonly examples: readonly RefusedPacket[];
}

interface Group {
  readonly verdict: Verdict;
  packets: number;
  readonly reason: string;
  readonly remedy: string;
  readonly examples: RefusedPacket[];
}

export class Refusals {
  readonly #groups = new Map<string, Group>();
  readonly #kind: PlanSource['kind'];

  constructor(kind: PlanSource['kind']) {
    this.#kind = kind;
  }

  /**
   * Counts a packet.
   *
   * @param packet the packet as it was captured
   * @param service what `describeService` returns
   * @param explain says why the translator refuses it; called for the first packet of a group
   */
  add(
    verdict: Verdict,
    packet: RefusedPacket,
    isToGroup: boolean,
    service: string,
    explain: () => string
  ): void {
    const isAboutService =
      verdict === Verdict.DropNoPresence || verdict === Verdict.DropNotPermitted;
    // Without a service, requests have no presence to go to, and answers are not permitted.
    let key = isToGroup ? 'group' : isAboutService ? service : `${verdict}`;
    if (!this.#groups.has(key) && this.#groups.size >= MAX_GROUPS) key = `${verdict}, others`;
    let group = this.#groups.get(key);
    if (group === undefined) {
      const remedy = this.#remedyOf(verdict, service, isToGroup);
      group = { verdict, packets: 0, reason: explain(), remedy, examples: [] };
      this.#groups.set(key, group);
    }
    group.packets++;
    if (group.examples.length < MAX_EXAMPLES) group.examples.push(packet);
  }

  /** Returns the groups, those with the most packets first. */
  list(): Refusal[] {
    return [...this.#groups.values()]
      .sort((a, b) => b.packets - a.packets)
      .map((group) => ({ ...group, verdict: VERDICT_NAMES[group.verdict]! }));
  }

  /** @param service the address, port and protocol that the packet needs as a service */
  #remedyOf(verdict: Verdict, service: string, isToGroup: boolean): string {
    if (isToGroup) {
      return 'broadcast and multicast do not pass gateways: give the clients the name of the service';
    }
    switch (verdict) {
      case Verdict.DropNoPresence:
      case Verdict.DropNotPermitted:
        return this.#kind === 'desired'
          ? `if it should pass, expose ${service} to the site`
          : `the capture shows no answer of ${service}, so that the plan has no such service: if there is one, expose it`;
      case Verdict.DropSpoofed:
        return 'if such hosts belong to the site, add their prefix to its sources';
      case Verdict.DropMalformed:
        return 'look at the packet with tshark -V; if its sender is healthy, capture again without damage';
      case Verdict.DropUnsupported:
        return 'docs/translation.md lists what does not pass; the application has to do without it';
      case Verdict.DropNoSession:
        return 'begin the capture earlier, so that it has the requests';
      case Verdict.DropFragment:
      case Verdict.DropFragmentOrphan:
        return 'begin the capture earlier, or let the sender send smaller datagrams';
      case Verdict.DropTableFull:
        return 'a gateway with so many conversations needs larger maxPaths and maxPathsOfRealm';
      default:
        return 'docs/translation.md describes the check';
    }
  }
}

/** Describes a packet as it is now. */
export function describePacket(packet: PreparedPacket): Omit<RefusedPacket, 'number'> {
  const { header, outcome, view } = packet;
  if (outcome === Parse.Malformed) return { from: '', to: '', protocol: '' };
  const width = header.family === 4 ? 4 : 16;
  const end = (offset: number, port: number): string => {
    const host = packet.addressAt(offset).toString();
    return outcome === Parse.Ok && hasPorts(header) ? formatHostPort({ host, port }) : host;
  };
  const protocol = protocolOf(header);
  const isUnknownIcmp = outcome === Parse.Unsupported && protocol === 'icmp';
  return {
    from: end(header.source, header.sourcePort),
    to: end(header.source + width, header.destinationPort),
    protocol: isUnknownIcmp ? `icmp type ${view.getUint8(header.transport)}` : protocol,
  };
}

/**
 * Names the service of the conversation that a packet belongs to, for example `tcp/5672 of 10.0.0.5`. For an ICMP error
 * it is the conversation of the packet that it quotes.
 *
 * @param isReply whether the packet goes to the client
 */
export function describeService(packet: PreparedPacket, isReply: boolean): string {
  const { header, quote, hasQuote, outcome } = packet;
  if (outcome !== Parse.Ok) return '';
  const about = hasQuote ? quote : header;
  const isFromService = hasQuote ? !isReply : isReply;
  const width = header.family === 4 ? 4 : 16;
  const address = packet.addressAt(isFromService ? about.source : about.source + width);
  const port = isFromService ? about.sourcePort : about.destinationPort;
  return `${protocolOf(about)}${hasPorts(about) ? `/${port}` : ''} of ${address}`;
}

function hasPorts({ part, kind }: PacketHeader): boolean {
  return part !== FragmentPart.Later && kind < PacketKind.Other;
}

function protocolOf({ protocol }: PacketHeader): string {
  return PROTOCOL_NAMES.get(protocol) ?? `ip/${protocol}`;
}

const MAX_GROUPS = 1000;
const MAX_EXAMPLES = 3;

const PROTOCOL_NAMES: ReadonlyMap<number, string> = /* @__PURE__ */ new Map([
  [1, 'icmp'],
  [6, 'tcp'],
  [17, 'udp'],
  [58, 'icmp'],
  [132, 'sctp'],
  [136, 'udplite'],
]);
