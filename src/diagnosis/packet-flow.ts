/**
 * Reads the ends of a packet.
 * @module
 */
import { IpAddress } from '../base/address.ts';
import { FragmentPart, PacketHeader, PacketKind, Parse } from '../packet/index.ts';
import type { FlowEnds } from './explanation.ts';
import type { Flow } from './permission.ts';
import type { FlowProtocol } from './query.ts';

export type PacketFlow = Omit<Flow, 'site'>;

/**
 * Returns the ends of a packet; undefined if it is not valid, is a later fragment or an ICMP error, which have no ports
 * of their own, or is of a kind that is not supported.
 */
export function readFlow(packet: Uint8Array): PacketFlow | undefined {
  const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
  const header = new PacketHeader();
  if (header.parse(view, 0, packet.length, packet.length) !== Parse.Ok) return undefined;
  const { family, kind, part } = header;
  const protocol = PROTOCOLS.get(kind);
  if (protocol === undefined || part === FragmentPart.Later) return undefined;
  const width = family === 4 ? 4 : 16;
  return {
    source: IpAddress.fromBytes(family, packet, header.source),
    destination: IpAddress.fromBytes(family, packet, header.source + width),
    protocol,
    sourcePort: protocol === 'ip' ? 0 : header.sourcePort,
    role: roleOf(header),
    port: protocol === 'ip' ? header.protocol : protocol === 'icmp' ? 0 : header.destinationPort,
  };
}

/** Returns the ends of a flow as text. */
export function endsOf({
  source,
  sourcePort,
  destination,
  protocol,
  port,
}: Omit<PacketFlow, 'role'>): FlowEnds {
  const hasPorts = protocol !== 'icmp' && protocol !== 'ip';
  return {
    source: `${source}`,
    ...(hasPorts && { sourcePort }),
    destination: `${destination}`,
    ...(hasPorts && { port }),
  };
}

function roleOf({ kind, opensSession }: PacketHeader): Flow['role'] {
  if (kind === PacketKind.EchoReply) return 'answer';
  return opensSession || kind === PacketKind.EchoRequest ? 'request' : 'either';
}

const PROTOCOLS: ReadonlyMap<PacketKind, FlowProtocol> = new Map([
  [PacketKind.Tcp, 'tcp'],
  [PacketKind.Udp, 'udp'],
  [PacketKind.UdpLite, 'udplite'],
  [PacketKind.Sctp, 'sctp'],
  [PacketKind.Other, 'ip'],
  [PacketKind.EchoRequest, 'icmp'],
  [PacketKind.EchoReply, 'icmp'],
] as const);
