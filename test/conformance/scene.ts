/**
 * The scene that most cases play in, and the steps they are made of.
 *
 * Two realms use the very same prefixes. In `site` are the clients 10.0.0.5 and fd00::5, in `cloud` the
 * services 10.0.0.9 and fd00::9. Each client has a presence of both IP versions in `cloud`, each service
 * in `site`; so there are four ways through, two of which change the IP version.
 * @module
 */
import type {
  PermitInput,
  PresenceInput,
  RealmInput,
  TranslationPlanInput,
} from '../../src/translator/plan.ts';
import type { VerdictName } from '../../src/translator/verdict.ts';
import type { Case, Expectation, Step } from './corpus.ts';
import {
  bytes,
  type Ends,
  type Ip,
  icmp,
  isIpv6,
  NOTHING,
  packet,
  type Transport,
  u32,
  type Vnet,
  vnetHeader,
} from './packets.ts';

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
export const STRANGER4 = '10.0.0.6';
export const STRANGER6 = 'fd00::6';
/** In the pools of both realms, and given to nobody. */
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
export interface Way {
  readonly from: string;
  readonly to: string;
  readonly before: Ends;
  readonly after: Ends;
}

/** From IP version to IP version, as a client's requests go. */
export type WayName = '4 to 4' | '6 to 6' | '4 to 6' | '6 to 4';

export const WAYS: readonly WayName[] = ['4 to 4', '6 to 6', '4 to 6', '6 to 4'];
export const SAME: readonly WayName[] = ['4 to 4', '6 to 6'];

const REQUESTS: Readonly<Record<WayName, Way>> = {
  '4 to 4': wayOf(CLIENT4, '100.64.0.1', '100.64.0.11', SERVICE4),
  '6 to 6': wayOf(CLIENT6, 'fd64::1', 'fd64::11', SERVICE6),
  '4 to 6': wayOf(CLIENT4, '100.64.0.6', 'fd64::46', SERVICE6),
  '6 to 4': wayOf(CLIENT6, 'fd64::4', '100.64.0.64', SERVICE4),
};

/** The way of a client's packets to its service. */
export function request(name: WayName): Way {
  return REQUESTS[name];
}

/** The way of the packets of this name that are answers: its requests go the other way round. */
export function reply(name: WayName): Way {
  return back(REQUESTS[name === '4 to 6' ? '6 to 4' : name === '6 to 4' ? '4 to 6' : name]);
}

/** The way of the answers to what goes this way. */
export function back(way: Way): Way {
  return {
    from: way.to,
    to: way.from,
    before: { source: way.after.destination, destination: way.after.source },
    after: { source: way.before.destination, destination: way.before.source },
  };
}

export function hex(data: Uint8Array): string {
  return Buffer.from(data).toString('hex');
}

export interface Extras {
  readonly at?: number;
  readonly load?: string;
  readonly headroom?: number;
  readonly vnet?: Vnet;
  readonly vnetAfter?: Vnet;
  readonly segmentTo?: number;
}

/** A packet that is forwarded, given as it enters and as it leaves. */
export function forward(
  way: Way,
  before: Uint8Array,
  after: Uint8Array,
  extras: Extras = {}
): Step {
  return stepOf(way.from, before, extras, {
    verdict: 'Forward',
    egress: way.to,
    ...(extras.vnet === undefined
      ? {}
      : { vnet: hex(vnetHeader(extras.vnetAfter ?? extras.vnet)) }),
    packet: hex(after),
    ...(extras.segmentTo === undefined ? {} : { segmentTo: extras.segmentTo }),
  });
}

/** What leaves is described as what enters; `after` says where its IP header differs. */
export function pass(
  way: Way,
  transport: Transport,
  ip: Ip = {},
  after: Ip = {},
  extras: Extras = {}
): Step {
  const leaving = { ...ipAfter(way, ip), ...after };
  return forward(
    way,
    packet(way.before, transport, ip),
    packet(way.after, transport, leaving),
    extras
  );
}

/** The IP fields of a packet that leaves, if it is the first to become a small IPv4 packet. */
export function ipAfter(way: Way, ip: Ip): Ip {
  const { tos = 0, ttl = 64 } = ip;
  if (isIpv6(way.before) === isIpv6(way.after)) return ip;
  return isIpv6(way.after) ? { tos, ttl } : { tos, ttl, id: 0, df: false };
}

/** IPv4 packets of 1260 bytes or fewer that were IPv6 are numbered from 0 on; this is number `n`. */
export function small(name: WayName, n: number): Ip {
  return name === '6 to 4' ? { id: n } : {};
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

export function needsPresence(way: Way, data: Uint8Array, family: 4 | 6): Step {
  const expect: Expectation = { verdict: 'NeedsPresence', egress: way.to, lackingFamily: family };
  return stepOf(way.from, data, {}, expect);
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
  /** Bytes 4 to 7, zero unless told. */
  readonly rest?: Uint8Array;
  readonly ip?: Ip;
  /** The IP header of the quoted packet. */
  readonly quoteIp?: Ip;
  /** Instead of the transport that both sides quote. */
  readonly quoted?: Transport;
  /** Bytes quoted of what stands behind the quoted IP header and its extension headers. */
  readonly quotedBytes?: number;
  /** Behind the quote: zeros and extensions. */
  readonly behind?: Uint8Array;
  readonly checksum?: number | { readonly receiver: number };
}

/**
 * An ICMP error of a router in the realm that a packet of this way left into, about this packet; it goes
 * back to the sender. `before` is the error as it enters, `after` says where it leaves differently.
 */
export function error(
  way: Way,
  quoted: Transport,
  before: ErrorSide,
  after: Partial<ErrorSide> = {},
  extras: Extras = {}
): Step {
  return forward(
    back(way),
    errorPacket(way, quoted, before),
    errorAfter(way, quoted, before, after),
    extras
  );
}

/** The error as its router sent it. */
export function errorPacket(way: Way, quoted: Transport, side: ErrorSide): Uint8Array {
  const source = isIpv6(way.after) ? ROUTER6 : ROUTER4;
  return errorOf({ source, destination: way.after.source }, way.after, quoted, side);
}

function errorAfter(
  way: Way,
  quoted: Transport,
  before: ErrorSide,
  after: Partial<ErrorSide>
): Uint8Array {
  const { source, destination } = back(way).after;
  const side: ErrorSide = {
    ...before,
    ip: ipAfter(back(way), before.ip ?? {}),
    quoteIp: quoteIpAfter(way, before.quoteIp ?? {}),
    ...after,
  };
  return errorOf({ source, destination }, way.before, quoted, side);
}

/** A quote becomes as a larger packet does: IPv4 has DF, and identification 0. */
function quoteIpAfter(way: Way, ip: Ip): Ip {
  const { tos = 0, ttl = 64 } = ip;
  if (isIpv6(way.before) === isIpv6(way.after)) return ip;
  return isIpv6(way.before) ? { tos, ttl } : { tos, ttl, id: 0, df: true };
}

function errorOf(outer: Ends, inner: Ends, both: Transport, side: ErrorSide): Uint8Array {
  const quote = quoteOf(inner, side.quoted ?? both, side.quoteIp ?? {}, side.quotedBytes);
  const message = icmp({
    type: side.type,
    code: side.code ?? 0,
    rest: side.rest ?? u32(0),
    body: bytes(quote, side.behind ?? NOTHING),
    ...(side.checksum === undefined ? {} : { checksum: side.checksum }),
  });
  return packet(outer, message, side.ip ?? {});
}

function quoteOf(ends: Ends, transport: Transport, ip: Ip, quotedBytes?: number): Uint8Array {
  const whole = packet(ends, transport, ip);
  if (quotedBytes === undefined) return whole;
  return whole.slice(0, whole.length - transport(ends).bytes.length + quotedBytes);
}

/** A reply of the translator itself: from the packet's destination to its source. */
export function answer(to: Ends, transport: Transport): Uint8Array {
  const ends = { source: to.destination, destination: to.source };
  return packet(ends, transport, { tos: 0, ttl: 64, id: 0, df: true });
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
  return answer(to, icmp({ type, code, rest: u32(rest), body: data.slice(0, room) }));
}

/** One case, of the plan `base` unless told. */
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

function wayOf(client: string, service: string, newClient: string, newService: string): Way {
  return {
    from: 'site',
    to: 'cloud',
    before: { source: client, destination: service },
    after: { source: newClient, destination: newService },
  };
}
