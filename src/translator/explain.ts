/**
 * A verdict in words: which step of the rule decided, and on what grounds.
 * @module
 */
import { IpAddress } from '../base/address.ts';
import { FragmentPart, PacketKind } from '../packet/fields.ts';
import type { PacketHeader } from '../packet/header.ts';
import type { Bindings } from './bindings.ts';
import { VERDICT_NAMES, Verdict, type VerdictName } from './verdict.ts';

/** The steps of the rule, in the order they are taken. */
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
  /** The step that decided. All before it were passed. */
  readonly step: ExplanationStep;
  /** One sentence. */
  readonly reason: string;
  /** Realm that the packet goes to. With Forward and NeedsPresence. */
  readonly egress?: string;
  /** The packet as it would leave. With Forward. */
  readonly packet?: Uint8Array;
  /** With Forward: the size that it has to be cut to, if it is too large. */
  readonly segmentTo?: number;
}

export interface ExplanationContext {
  readonly packet: Uint8Array;
  readonly realm: string;
  readonly realmIndex: number;
  /** Of the packet; its fields are valid unless the step is `headers`. */
  readonly header: PacketHeader;
  /** Of the packet that it quotes, if it is an ICMP error. */
  readonly quote: PacketHeader;
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
  if (context.isRefusedBySiit) return 'the packet cannot change its IP version';
  switch (verdict) {
    case Verdict.DropMalformed:
      return `the ${context.packet.length} bytes are no packet whose lengths and checksums agree`;
    case Verdict.DropUnsupported:
      return 'the packet has a protocol, ICMP type, option or extension header that is not handled';
    case Verdict.DropFragment:
      return 'the fragment is tiny, overlaps another, or cannot be translated';
    case Verdict.DropFragmentOrphan:
      return 'no first fragment of this datagram was forwarded lately';
    case Verdict.DropTooManySegments:
      return 'the super-packet makes more segments than one may: its segments are too short';
    default:
      return reasonOfAddresses(verdict, context);
  }
}

/** The headers were passed, so there are addresses to tell. */
function reasonOfAddresses(verdict: Verdict, context: ExplanationContext): string {
  const { realm, egress } = context;
  const ends = new PacketEnds(context);
  const { source, destination, behind, what } = ends;
  switch (verdict) {
    case Verdict.DropNoPresence:
      return `${destination} stands for nothing in "${realm}"`;
    case Verdict.DropSpoofed:
      return `${source} is not an address that packets of "${realm}" may come from`;
    case Verdict.DropNotPermitted:
      return `nothing lets ${source} of "${realm}" send ${what} to ${destination}${behind}`;
    case Verdict.DropNoSession:
      return `${what} from ${source} to ${destination}${behind} answers no recent request`;
    case Verdict.NeedsPresence:
      return `${source} of "${realm}" has no presence in "${egress}" yet`;
    case Verdict.NeedsHeadroom:
      return 'the packet grows in front by more than the headroom it was given';
    case Verdict.DropTooBig:
      return `the packet to ${destination}${behind} is larger than the realm there takes`;
    case Verdict.DropTableFull:
      return 'the table of paths is full';
    default:
      return `${what} from ${source} to ${destination}${behind} goes to "${egress}"`;
  }
}

/**
 * Source, destination and protocol in words; of an ICMP error, those of the reply whose path it takes. Read
 * from the original: the copy may be rewritten.
 */
class PacketEnds {
  readonly source: IpAddress;
  readonly destination: IpAddress;
  /** `, which stands for ... of ...`, or nothing. */
  readonly behind: string;
  readonly what: string;

  constructor({ packet, header, quote, bindings, realmIndex }: ExplanationContext) {
    const { family } = header;
    const width = family === 4 ? 4 : 16;
    const isError = header.kind === PacketKind.IcmpError;
    const at = (isError ? quote.source : header.source) - header.start;
    this.source = IpAddress.fromBytes(family, packet, isError ? at + width : at);
    this.destination = IpAddress.fromBytes(family, packet, isError ? at : at + width);
    const endpoint = bindings.endpointOf(realmIndex, family, this.destination.words, 0);
    this.behind =
      endpoint === undefined ? '' : `, which stands for ${endpoint.address} of "${endpoint.realm}"`;
    this.what = whatOf(header);
  }
}

function whatOf({ kind, part, protocol, sourcePort, destinationPort }: PacketHeader): string {
  if (part === FragmentPart.Later) return 'a later fragment';
  switch (kind) {
    case PacketKind.Tcp:
      return `TCP ${sourcePort} to ${destinationPort}`;
    case PacketKind.Udp:
      return `UDP ${sourcePort} to ${destinationPort}`;
    case PacketKind.UdpLite:
      return `UDP-Lite ${sourcePort} to ${destinationPort}`;
    case PacketKind.Sctp:
      return `SCTP ${sourcePort} to ${destinationPort}`;
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
