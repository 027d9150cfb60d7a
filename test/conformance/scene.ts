/**
 * The scene that most cases play in, and the steps they are made of.
 *
 * Two realms use the very same prefixes. In `site` are the clients 10.0.0.5 and fd00::5, in `cloud` the
 * services 10.0.0.9 and fd00::9. Each client has a presence of both IP versions in `cloud`, each service
 * in `site`; so there are four paths, two of which change the IP version.
 * @module
 */
import type {
  PermitInput,
  PresenceInput,
  RealmInput,
  TranslationPlanInput,
} from '../../src/translator/plan.ts';
import type { VerdictName } from '../../src/translator/verdict.ts';
import { bytes, NOTHING, u32 } from '../support/bytes.ts';
import {
  DONT_FRAGMENT,
  type Ends,
  type IpOptions,
  icmp,
  isIpv6,
  packet,
  type Transport,
} from '../support/packets.ts';
import { type VnetHeader, vnetHeader } from '../support/vnet.ts';
import type { Case, Expectation, Step } from './corpus.ts';

export const PORTS: readonly string[] = [
  'tcp/443',
  'tcp/5672',
  'udp/53',
  'udp/8000-8100',
  'udplite/7',
  'sctp/5060',
  'icmp',
  'ip/47',
  'ip/50',
  'ip/51',
  'ip/59',
];

export const CLIENT4 = '10.0.0.5';
export const CLIENT6 = 'fd00::5';
export const SERVICE4 = '10.0.0.9';
export const SERVICE6 = 'fd00::9';
/** Real hosts without a presence. */
export const NEW_CLIENT4 = '10.0.0.6';
export const NEW_CLIENT6 = 'fd00::6';
/** Addresses in the pools of both realms that are never bound. */
export const UNBOUND4 = '100.64.0.200';
export const UNBOUND6 = 'fd64::c8';
/** In no source prefix. */
export const ROUTER4 = '192.0.2.1';
export const ROUTER6 = '2001:db8::1';

const REALM = {
  sources: ['10.0.0.0/24', 'fd00::/64'],
  pools: ['100.64.0.0/24', 'fd64::/64'],
} as const;

const PRESENCES: readonly PresenceInput[] = [
  { realm: 'site', address: '100.64.0.1', of: { realm: 'cloud', address: SERVICE4 } },
  { realm: 'site', address: 'fd64::4', of: { realm: 'cloud', address: SERVICE4 } },
  { realm: 'site', address: 'fd64::1', of: { realm: 'cloud', address: SERVICE6 } },
  { realm: 'site', address: '100.64.0.6', of: { realm: 'cloud', address: SERVICE6 } },
  { realm: 'cloud', address: '100.64.0.11', of: { realm: 'site', address: CLIENT4 } },
  { realm: 'cloud', address: 'fd64::46', of: { realm: 'site', address: CLIENT4 } },
  { realm: 'cloud', address: 'fd64::11', of: { realm: 'site', address: CLIENT6 } },
  { realm: 'cloud', address: '100.64.0.64', of: { realm: 'site', address: CLIENT6 } },
];

/** The scene's plan, with something said of its realms or its permits. */
export function planOf(
  more: {
    readonly site?: Partial<RealmInput>;
    readonly cloud?: Partial<RealmInput>;
    readonly presences?: readonly PresenceInput[];
    readonly permits?: readonly PermitInput[];
    readonly ports?: readonly string[];
  } = {}
): TranslationPlanInput {
  const ports = more.ports ?? PORTS;
  const permitOf = (address: string): PermitInput => ({
    realm: 'site',
    service: { realm: 'cloud', address },
    ports,
  });
  return {
    realms: [
      { name: 'site', ...REALM, ...more.site },
      { name: 'cloud', ...REALM, ...more.cloud },
    ],
    presences: more.presences ?? PRESENCES,
    permits: more.permits ?? [permitOf(SERVICE4), permitOf(SERVICE6)],
  };
}

/** The scene's presences and more. */
export function presencesWith(more: readonly PresenceInput[]): readonly PresenceInput[] {
  return [...PRESENCES, ...more];
}

/** The scene's presences without that of this address. */
export function presencesWithout(address: string): readonly PresenceInput[] {
  return PRESENCES.filter((presence) => presence.address !== address);
}

/** The addresses of a packet where it enters and where it leaves. */
export interface PacketPath {
  readonly from: string;
  readonly to: string;
  readonly before: Ends;
  readonly after: Ends;
}

/** From IP version to IP version, as a client's requests go. */
export type PathName = '4 to 4' | '6 to 6' | '4 to 6' | '6 to 4';

export const PATHS: readonly PathName[] = ['4 to 4', '6 to 6', '4 to 6', '6 to 4'];
export const SAME: readonly PathName[] = ['4 to 4', '6 to 6'];

const REQUESTS: Readonly<Record<PathName, PacketPath>> = {
  '4 to 4': pathOf(CLIENT4, '100.64.0.1', '100.64.0.11', SERVICE4),
  '6 to 6': pathOf(CLIENT6, 'fd64::1', 'fd64::11', SERVICE6),
  '4 to 6': pathOf(CLIENT4, '100.64.0.6', 'fd64::46', SERVICE6),
  '6 to 4': pathOf(CLIENT6, 'fd64::4', '100.64.0.64', SERVICE4),
};

/** The path of a client's packets to its service. */
export function request(name: PathName): PacketPath {
  return REQUESTS[name];
}

/** The path of replies that has this name; its requests go in the opposite direction. */
export function reply(name: PathName): PacketPath {
  return back(REQUESTS[name === '4 to 6' ? '6 to 4' : name === '6 to 4' ? '4 to 6' : name]);
}

/** The path of the replies to packets of this path. */
export function back(path: PacketPath): PacketPath {
  return {
    from: path.to,
    to: path.from,
    before: { source: path.after.destination, destination: path.after.source },
    after: { source: path.before.destination, destination: path.before.source },
  };
}

export function hex(data: Uint8Array): string {
  return Buffer.from(data).toString('hex');
}

export interface Extras {
  readonly at?: number;
  readonly load?: string;
  readonly headroom?: number;
  readonly vnet?: VnetHeader;
  readonly vnetAfter?: VnetHeader;
  readonly segmentTo?: number;
}

/** A packet that is forwarded, given as it enters and as it leaves. */
export function forward(
  path: PacketPath,
  before: Uint8Array,
  after: Uint8Array,
  extras: Extras = {}
): Step {
  return stepOf(path.from, before, extras, {
    verdict: 'Forward',
    egress: path.to,
    ...(extras.vnet === undefined
      ? {}
      : { vnet: hex(vnetHeader(extras.vnetAfter ?? extras.vnet)) }),
    packet: hex(after),
    ...(extras.segmentTo === undefined ? {} : { segmentTo: extras.segmentTo }),
  });
}

/** What leaves is described as what enters; `after` says where its IP header differs. */
export function pass(
  path: PacketPath,
  transport: Transport,
  ip: IpOptions = {},
  after: IpOptions = {},
  extras: Extras = {}
): Step {
  const leaving = { ...ipAfter(path, ip), ...after };
  return forward(
    path,
    packet(path.before, transport, ip),
    packet(path.after, transport, leaving),
    extras
  );
}

/** The IP fields of a packet that leaves, if it is the first to become a small IPv4 packet. */
export function ipAfter(path: PacketPath, ip: IpOptions): IpOptions {
  const { trafficClass = 0, hopLimit = 64 } = ip;
  if (isIpv6(path.before) === isIpv6(path.after)) return ip;
  return isIpv6(path.after)
    ? { trafficClass, hopLimit }
    : { trafficClass, hopLimit, identification: 0, fragment: 0 };
}

/** IPv4 packets of 1260 bytes or fewer that were IPv6 are numbered from 0 on; this is number `n`. */
export function small(name: PathName, n: number): IpOptions {
  return name === '6 to 4' ? { identification: n } : {};
}

export function drop(
  realm: string,
  data: Uint8Array,
  verdict: VerdictName,
  extras: Extras & { readonly reply?: Uint8Array } = {}
): Step {
  return stepOf(realm, data, extras, {
    verdict,
    ...(extras.reply === undefined ? {} : { reply: hex(extras.reply) }),
  });
}

export function needsPresence(path: PacketPath, data: Uint8Array, family: 4 | 6): Step {
  const expect: Expectation = { verdict: 'NeedsPresence', egress: path.to, lackingFamily: family };
  return stepOf(path.from, data, {}, expect);
}

function stepOf(realm: string, data: Uint8Array, extras: Extras, expect: Expectation): Step {
  return {
    ...(extras.at === undefined ? {} : { at: extras.at }),
    ...(extras.load === undefined ? {} : { load: extras.load }),
    realm,
    ...(extras.headroom === undefined ? {} : { headroom: extras.headroom }),
    ...(extras.vnet === undefined ? {} : { vnet: hex(vnetHeader(extras.vnet)) }),
    packet: hex(data),
    expect,
  };
}

/** One side of an ICMP error: its header, and how it quotes. */
export interface ErrorSide {
  readonly type: number;
  readonly code?: number;
  /** Bytes 4 to 7, zero by default. */
  readonly rest?: Uint8Array;
  readonly ip?: IpOptions;
  /** The IP header of the quoted packet. */
  readonly quoteIp?: IpOptions;
  /** Instead of the transport that both sides quote. */
  readonly quoted?: Transport;
  /** Bytes quoted of what stands behind the quoted IP header and its extension headers. */
  readonly quotedBytes?: number;
  /** Behind the quote: zeros and extensions. */
  readonly behind?: Uint8Array;
  readonly checksum?: number | { readonly receiver: number };
}

/**
 * An ICMP error of a router in the egress realm of this path, about a packet of it; it goes
 * back to the sender. `before` is the error as it enters, `after` says where it leaves differently.
 */
export function error(
  path: PacketPath,
  quoted: Transport,
  before: ErrorSide,
  after: Partial<ErrorSide> = {},
  extras: Extras = {}
): Step {
  return forward(
    back(path),
    errorPacket(path, quoted, before),
    errorAfter(path, quoted, before, after),
    extras
  );
}

/** The error as its router sent it. */
export function errorPacket(path: PacketPath, quoted: Transport, side: ErrorSide): Uint8Array {
  const source = isIpv6(path.after) ? ROUTER6 : ROUTER4;
  return errorOf({ source, destination: path.after.source }, path.after, quoted, side);
}

function errorAfter(
  path: PacketPath,
  quoted: Transport,
  before: ErrorSide,
  after: Partial<ErrorSide>
): Uint8Array {
  const { source, destination } = back(path).after;
  const side: ErrorSide = {
    ...before,
    ip: ipAfter(back(path), before.ip ?? {}),
    quoteIp: quoteIpAfter(path, before.quoteIp ?? {}),
    ...after,
  };
  return errorOf({ source, destination }, path.before, quoted, side);
}

/** A quote becomes as a larger packet does: IPv4 has DF, and identification 0. */
function quoteIpAfter(path: PacketPath, ip: IpOptions): IpOptions {
  const { trafficClass = 0, hopLimit = 64 } = ip;
  if (isIpv6(path.before) === isIpv6(path.after)) return ip;
  return isIpv6(path.before)
    ? { trafficClass, hopLimit }
    : { trafficClass, hopLimit, identification: 0, fragment: DONT_FRAGMENT };
}

function errorOf(outer: Ends, inner: Ends, both: Transport, side: ErrorSide): Uint8Array {
  const quote = quoteOf(inner, side.quoted ?? both, side.quoteIp ?? {}, side.quotedBytes);
  const message = icmp({
    type: side.type,
    code: side.code ?? 0,
    rest: side.rest ?? u32(0),
    payload: bytes(quote, side.behind ?? NOTHING),
    ...(side.checksum === undefined ? {} : { checksum: side.checksum }),
  });
  return packet(outer, message, side.ip ?? {});
}

function quoteOf(
  ends: Ends,
  transport: Transport,
  ip: IpOptions,
  quotedBytes?: number
): Uint8Array {
  const whole = packet(ends, transport, ip);
  if (quotedBytes === undefined) return whole;
  return whole.slice(0, whole.length - transport(ends).bytes.length + quotedBytes);
}

/** A reply of the translator itself: from the packet's destination to its source. */
export function answer(to: Ends, transport: Transport): Uint8Array {
  const ends = { source: to.destination, destination: to.source };
  return packet(ends, transport, {
    trafficClass: 0,
    hopLimit: 64,
    identification: 0,
    fragment: DONT_FRAGMENT,
  });
}

/** An ICMP error as the translator answers with, quoting what fits. */
export function refusal(
  to: Ends,
  data: Uint8Array,
  type: number,
  code: number,
  rest: number = 0
): Uint8Array {
  const room = isIpv6(to) ? 1280 - 40 - 8 : 576 - 20 - 8;
  return answer(to, icmp({ type, code, rest: u32(rest), payload: data.slice(0, room) }));
}

/** One case, of the plan `base` by default. */
export function test(
  name: string,
  cites: readonly string[],
  steps: Step | readonly Step[],
  more: {
    readonly plan?: string;
    readonly comment?: string;
    readonly options?: Case['options'];
  } = {}
): Case {
  return {
    name,
    cites,
    ...(more.comment === undefined ? {} : { comment: more.comment }),
    plan: more.plan ?? 'base',
    ...(more.options === undefined ? {} : { options: more.options }),
    steps: Array.isArray(steps) ? steps : [steps as Step],
  };
}

function pathOf(
  client: string,
  service: string,
  newClient: string,
  newService: string
): PacketPath {
  return {
    from: 'site',
    to: 'cloud',
    before: { source: client, destination: service },
    after: { source: newClient, destination: newService },
  };
}
