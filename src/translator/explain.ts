/**
 * Explains a verdict in words: which step of the rule decided, why, and what to do about it.
 * @module
 */
import { IpAddress } from '../base/address.ts';
import { formatHostPort } from '../base/host-port.ts';
import { FragmentPart, PacketKind } from '../packet/fields.ts';
import type { PacketHeader } from '../packet/header.ts';
import type { Bindings } from './bindings.ts';
import { VERDICT_NAMES, Verdict, type VerdictName } from './verdict.ts';

/**
 * The steps of the rule, in their order. `room`: the table of paths has no room, or the packet cannot be
 * translated between IPv4 and IPv6 (SIIT).
 */
export type ExplanationStep =
  | 'headers'
  | 'destination'
  | 'source'
  | 'permission'
  | 'session'
  | 'presence'
  | 'room'
  | 'size'
  | 'rewrite';

export interface Explanation {
  readonly verdict: VerdictName;
  /** The step that decided. The packet passed all steps before it. */
  readonly step: ExplanationStep;
  /** One sentence for an operator. */
  readonly reason: string;
  /** The realm that the packet goes to. Present with Forward and NeedsPresence. */
  readonly egress?: string;
  /** The translated packet. Present with Forward. */
  readonly packet?: Uint8Array;
  /** The size in bytes that the packet has to be fragmented to. Present with Forward if it is too large. */
  readonly segmentTo?: number;
}

export interface ExplanationContext {
  readonly packet: Uint8Array;
  readonly realm: string;
  readonly realmIndex: number;
  /** The packet's header; its fields are valid unless the step is `headers`. */
  readonly header: PacketHeader;
  /** The header of the quoted packet. Valid iff the packet is an ICMP error. */
  readonly quote: PacketHeader;
  /** Whether the packet cannot be translated between IPv4 and IPv6. */
  readonly isRefusedBySiit: boolean;
  readonly bindings: Bindings;
  readonly egress: string | undefined;
  readonly result: Uint8Array | undefined;
  readonly segmentTo: number;
}

export function explain(verdict: Verdict, context: ExplanationContext): Explanation {
  const step = context.isRefusedBySiit ? 'room' : STEPS[verdict]!;
  const { egress, result, segmentTo } = context;
  return {
    verdict: VERDICT_NAMES[verdict]!,
    step,
    reason: reasonOf(verdict, context),
    ...(egress === undefined ? {} : { egress }),
    ...(result === undefined ? {} : { packet: result }),
    ...(segmentTo === 0 ? {} : { segmentTo }),
  };
}

/** The step that decides, by verdict. */
const STEPS: readonly ExplanationStep[] = [
  'rewrite',
  'presence',
  'room',
  'headers',
  'headers',
  'headers',
  'headers',
  'destination',
  'source',
  'permission',
  'session',
  'size',
  'room',
  'headers',
];

function reasonOf(verdict: Verdict, context: ExplanationContext): string {
  if (context.isRefusedBySiit) {
    return (
      'the packet cannot be translated between IPv4 and IPv6 (RFC 7915): it has an authentication header, ' +
      'is a fragment of ICMP or of UDP without a checksum, or is an ICMP error without a counterpart'
    );
  }
  switch (verdict) {
    case Verdict.DropMalformed:
      return (
        `the ${context.packet.length} bytes are not a valid packet: ` +
        'a length, a checksum or an offload field is wrong'
      );
    case Verdict.DropUnsupported:
      return 'the packet has a protocol, ICMP type, option or extension header that is not supported';
    case Verdict.DropFragment:
      return 'the fragment is too small, overlaps another one of its datagram, or cannot be translated';
    case Verdict.DropFragmentOrphan:
      return 'the first fragment of this datagram was not forwarded, or its record has expired';
    case Verdict.DropTooManySegments:
      return 'the super-packet would make too many segments: its gso_size is too small for its length';
    default:
      return reasonOfAddresses(verdict, context);
  }
}

/** The headers are valid, so the sentence can name the addresses. */
function reasonOfAddresses(verdict: Verdict, context: ExplanationContext): string {
  const { realm, egress } = context;
  const { source, destination, from, to, what } = new PacketEnds(context);
  switch (verdict) {
    case Verdict.DropNoPresence:
      return (
        `no presence in "${realm}" has the address ${destination}: ` +
        'expose the service to this realm, or correct the address'
      );
    case Verdict.DropSpoofed:
      return (
        `packets from "${realm}" may not have the source ${source}: ` +
        "it is outside of the realm's sources, or in its pools"
      );
    case Verdict.DropNotPermitted:
      return (
        `no permit allows ${what} from ${from} of "${realm}" to ${to}: ` +
        'expose the service on this port to this client if it should pass'
      );
    case Verdict.DropNoSession:
      return `${what} from ${from} to ${to} is a reply, and no recent request of the client is known`;
    case Verdict.NeedsPresence:
      return `${source} of "${realm}" has no presence in "${egress}" yet: bind one and try again`;
    case Verdict.NeedsHeadroom:
      return 'the packet needs more headroom than it has: try again in a buffer that has it';
    case Verdict.DropTooBig:
      return (
        `the packet to ${to} is larger than the mtu of that realm and must not be fragmented: ` +
        'its sender has to send smaller packets'
      );
    case Verdict.DropTableFull:
      return (
        'the table of paths, or the share of the client realm in it, is full and has no idle path: ' +
        'raise maxPaths or maxPathsOfRealm'
      );
    default:
      return `${what} from ${from} to ${to} is forwarded to "${egress}"`;
  }
}

/**
 * Describes the source, destination and protocol of a packet. For an ICMP error they are those of the reply
 * whose path it takes. They are read from the original packet, because the copy may be rewritten.
 */
class PacketEnds {
  readonly source: IpAddress;
  readonly destination: IpAddress;
  /** The source, with its port if the protocol has ports. */
  readonly from: string;
  /** The destination, with its port, and the endpoint that it stands for. */
  readonly to: string;
  /** The protocol. */
  readonly what: string;

  constructor({ packet, header, quote, bindings, realmIndex }: ExplanationContext) {
    const { family } = header;
    const width = family === 4 ? 4 : 16;
    const isError = header.kind === PacketKind.IcmpError;
    const at = (isError ? quote.source : header.source) - header.start;
    this.source = IpAddress.fromBytes(family, packet, isError ? at + width : at);
    this.destination = IpAddress.fromBytes(family, packet, isError ? at : at + width);
    const endpoint = bindings.endpointOf(realmIndex, family, this.destination.words, 0);
    const behind = endpoint === undefined ? '' : ` (${endpoint.address} of "${endpoint.realm}")`;
    const hasPorts = header.part !== FragmentPart.Later && header.kind < PacketKind.Other;
    const withPort = (address: IpAddress, port: number): string =>
      hasPorts ? formatHostPort({ host: `${address}`, port }) : `${address}`;
    this.from = withPort(this.source, header.sourcePort);
    this.to = withPort(this.destination, header.destinationPort) + behind;
    this.what = whatOf(header);
  }
}

function whatOf({ kind, part, protocol }: PacketHeader): string {
  if (part === FragmentPart.Later) return 'a later fragment';
  switch (kind) {
    case PacketKind.Tcp:
      return 'TCP';
    case PacketKind.Udp:
      return 'UDP';
    case PacketKind.UdpLite:
      return 'UDP-Lite';
    case PacketKind.Sctp:
      return 'SCTP';
    case PacketKind.EchoRequest:
      return 'an echo request';
    case PacketKind.EchoReply:
      return 'an echo reply';
    case PacketKind.IcmpError:
      return 'an ICMP error';
    default:
      return `IP protocol ${protocol}`;
  }
}
