/**
 * Packets of the flows that a plan allows: on which side they enter, between which addresses, and what
 * chance makes of the rest.
 * @module
 */
import { textOf } from '../../support/address.ts';
import {
  ACK,
  type ChecksumFill,
  type Ends,
  type Extension,
  echoPacket,
  FIN,
  type IpOptions,
  ipPacket,
  SYN,
  sctpPacket,
  TCP,
  tcpPacket,
  transportOf,
  UDP,
  udpLitePacket,
  udpPacket,
} from '../../support/packets.ts';
import type { Random } from '../../support/random.ts';
import { framed, type VnetHeader } from '../../support/vnet.ts';
import { versionOf } from '../headers.ts';
import type { Flow, World } from '../plans.ts';
import { destinationOptions, hopByHop, routing } from './extension.ts';

/** A frame (virtio-net header and packet) and the realm that it enters from. */
export interface Draft {
  readonly realm: string;
  readonly frame: Uint8Array;
  /** How much time passes before it comes; by default some. */
  readonly afterMs?: number;
}

/** Draws what comes one after another; nothing if the plan has no flow for it. */
export type Draw = (random: Random, world: World) => Draft | readonly Draft[] | undefined;

/** Kinds of packets by name: how often each is drawn, and how. */
export type Kinds = Readonly<Record<string, readonly [weight: number, draw: Draw]>>;

export type Side = 'request' | 'reply';
export type Protocol = 'tcp' | 'udp' | 'udplite' | 'sctp' | 'icmp' | 'ip';

/** What a permit allows one of; `number` is that of the protocol for `ip`. */
export interface Port {
  readonly protocol: Protocol;
  readonly number: number;
}

export interface Entrance {
  readonly realm: string;
  readonly ends: Ends;
}

/** What is chosen of a packet and its virtio-net header; the rest is left to chance. */
export interface Style extends IpOptions {
  readonly flags?: number;
  readonly offload?: 'partial' | 'super';
  /** The segment size of a super-packet. */
  readonly gsoSize?: number;
  readonly checksum?: ChecksumFill;
  readonly tcpOptions?: Uint8Array;
  /** Type of the first SCTP chunk. */
  readonly chunk?: number;
  readonly payloadLength?: number;
  /** Instead of random bytes. */
  readonly payload?: Uint8Array;
  /** The client's port, or the identifier of the echo. */
  readonly peer?: number;
}

/** Where a packet of the flow enters, and between which addresses, in the realm that it enters. */
export function entrance(flow: Flow, side: Side): Entrance {
  const { service } = flow.permit;
  if (side === 'request') {
    return { realm: flow.realm, ends: { source: flow.client, destination: flow.servicePresence } };
  }
  const nobody = versionOf(service.address) === 4 ? '192.0.2.9' : '2001:db8::9';
  return {
    realm: service.realm,
    ends: { source: service.address, destination: flow.clientPresence ?? nobody },
  };
}

export function pickPort(random: Random, flow: Flow, wanted?: Protocol): Port | undefined {
  const ports = flow.permit.ports
    .map((text) => text.split('/') as [Protocol, string | undefined])
    .filter(([protocol]) => wanted === undefined || protocol === wanted);
  if (ports.length === 0) return undefined;
  const [protocol, range] = random.pick(ports);
  const [first, last = first] = (range ?? '0').split('-').map(Number);
  const number = random.pick([first!, last!, random.between(first!, last!)]);
  return { protocol, number };
}

/** One packet of a session, with its virtio-net header. */
export function segment(
  random: Random,
  ends: Ends,
  port: Port,
  side: Side,
  style: Style = {}
): Uint8Array {
  const packet = sessionPacket(random, ends, port, side, style);
  if (style.offload === undefined) {
    const headerLength = random.chance(0.1) ? transportOf(packet).start : 0;
    return framed(packet, { flags: random.chance(0.05) ? 2 : 0, headerLength });
  }
  const header = offloadHeader(random, packet, style.offload === 'super');
  return framed(
    packet,
    style.gsoSize === undefined ? header : { ...header, gsoSize: style.gsoSize }
  );
}

/** One packet of a session. */
export function sessionPacket(
  random: Random,
  ends: Ends,
  port: Port,
  side: Side,
  style: Style
): Uint8Array {
  const length = style.offload === 'super' ? random.between(600, 3000) : random.below(80);
  const options = {
    payload: style.payload ?? random.bytes(style.payloadLength ?? length),
    ...style,
  };
  if (style.offload !== undefined) Object.assign(options, { checksum: 'partial' });
  const peer = style.peer ?? random.between(1, 65_535);
  const ports =
    side === 'request'
      ? { sourcePort: peer, destinationPort: port.number }
      : { sourcePort: port.number, destinationPort: peer };
  switch (port.protocol) {
    case 'icmp':
      return echoPacket(ends, { ...options, reply: side === 'reply', id: peer });
    case 'ip':
      return ipPacket(ends, port.number, options.payload, options);
    case 'udp':
      return udpPacket(ends, { ...options, ...ports });
    case 'udplite': {
      const whole = 8 + options.payload.length;
      const coverage = random.pick([0, 0, 8, whole, random.between(8, whole)]);
      return udpLitePacket(ends, { coverage, ...options, ...ports });
    }
    case 'sctp': {
      const chunks = random.bytes(style.payloadLength ?? random.pick([0, 16, 40]));
      if (chunks.length > 0) {
        chunks[0] = style.chunk ?? random.pick(side === 'request' ? [1, 0, 10, 6] : [2, 0, 11, 6]);
      }
      return sctpPacket(ends, { ...options, ...ports, payload: chunks });
    }
    default: {
      const flags = style.flags ?? random.pick(side === 'request' ? REQUEST_FLAGS : REPLY_FLAGS);
      const tcpOptions = style.tcpOptions ?? random.bytes(random.pick([0, 0, 12, 40]));
      return tcpPacket(ends, { ...options, ...ports, flags, tcpOptions });
    }
  }
}

export function offloadHeader(random: Random, packet: Uint8Array, isSuper: boolean): VnetHeader {
  const isIpv4 = packet[0]! >> 4 === 4;
  const { protocol, start } = transportOf(packet);
  const header = {
    flags: random.pick([1, 1, 3]),
    checksumStart: start,
    checksumOffset: protocol === TCP ? 16 : protocol === UDP ? 6 : 2,
    headerLength: random.pick([0, start + 20, 65_535 - random.below(40)]),
  };
  if (!isSuper) return header;
  const gsoType = protocol === UDP ? 5 : isIpv4 ? 1 : 4;
  return {
    ...header,
    gsoType: protocol === TCP && random.chance(0.2) ? gsoType | 0x80 : gsoType,
    gsoSize: random.pick([random.between(1, 1448), random.between(400, 1448), 1240]),
  };
}

/** What is left to chance in packets that are as they should be. */
export function dress(random: Random, ends: Ends): Style {
  const style = {
    identification: random.below(0x10000),
    hopLimit: random.between(1, 255),
    trafficClass: random.pick([0, 0, 0xb8]),
    fragment: random.pick([0, 0x4000]),
  };
  if (random.chance(0.94)) return style;
  return versionOf(ends.destination) === 6
    ? { ...style, extensions: harmlessExtensions(random) }
    : { ...style, options: random.pick(HARMLESS_OPTIONS) };
}

/** Hop-by-hop options first, if there are any. */
export function harmlessExtensions(random: Random): Extension[] {
  const others = Array.from({ length: random.below(3) }, () =>
    random.pick([destinationOptions, routing])(random)
  );
  return random.chance(0.5) || others.length === 0 ? [hopByHop(random), ...others] : others;
}

export function ofFlow(
  random: Random,
  flow: Flow | undefined,
  side: Side,
  protocol?: Protocol,
  style: Style = {}
): Draft | undefined {
  const port = flow && pickPort(random, flow, protocol);
  if (flow === undefined || port === undefined) return undefined;
  const { realm, ends } = entrance(flow, side);
  const whole = { ...dress(random, ends), ...style };
  const isIpv6 = versionOf(ends.source) === 6;
  const hasOffload = ['tcp', 'udp'].includes(port.protocol) || (port.protocol === 'icmp' && isIpv6);
  if (whole.offload && !hasOffload) return undefined;
  if (whole.offload === 'super' && port.protocol === 'icmp') return undefined;
  return { realm, frame: segment(random, ends, port, side, whole) };
}

/** A request and, later, what answers it. */
export function exchange(
  random: Random,
  flow: Flow | undefined,
  protocol: Protocol | undefined,
  style: { readonly request?: Style; readonly reply?: Style; readonly afterMs?: number } = {}
): readonly Draft[] | undefined {
  const port = flow && pickPort(random, flow, protocol);
  if (flow === undefined || port === undefined) return undefined;
  const peer = random.between(1, 65_535);
  const { afterMs, ...styles } = style;
  return SIDES.map((side) => {
    const { realm, ends } = entrance(flow, side);
    const whole = { ...dress(random, ends), peer, ...styles[side] };
    const draft = { realm, frame: segment(random, ends, port, side, whole) };
    return side === 'reply' && afterMs !== undefined ? { ...draft, afterMs } : draft;
  });
}

export function anyAddress(random: Random, version: number): string {
  return textOf(random.bytes(version === 4 ? 4 : 16));
}

/** The bytes with some of them overwritten. */
export function patched(bytes: Uint8Array, at: number, ...values: number[]): Uint8Array {
  const copy = bytes.slice();
  copy.set(values, at);
  return copy;
}

export const SIDES: readonly Side[] = ['request', 'reply'];
const REQUEST_FLAGS = [SYN, SYN | 0xc0, ACK, ACK | 0x08, FIN | ACK, 0x04, 0];
const REPLY_FLAGS = [SYN | ACK, ACK, ACK | 0x08, FIN | ACK, 0x04, 0];
/** No-operations, router alert, stream identifier, and an end before bytes that mean nothing. */
const HARMLESS_OPTIONS = [
  [1, 1, 1, 1],
  [0x94, 4, 0, 0],
  [1, 0x88, 4, 1, 2],
  [0, 131, 3, 9],
].map((bytes) => Uint8Array.from(bytes));
