/**
 * The translator's rule (`src/translator/README.md`) written down a second time, for reading and not
 * for speed: objects, text addresses, lists, and checksums computed from nothing.
 * @module
 */
import type { Permit, TranslationPlan } from '../../src/translator/plan.ts';
import type { VerdictName } from '../../src/translator/verdict.ts';
import { bytesOf, isInside, type Prefix, plainText, prefixOf } from './address.ts';
import { checksumOf, incremented, isRight, onesSum, pseudoHeader, wordsOf } from './checksum.ts';
import { ICMP, UDP, VNET } from './packets.ts';
import { checksumOffset, type IpHeader, isPartial, type Packet, parseFrame } from './parse.ts';

export interface NaiveResult {
  readonly verdict: VerdictName;
  /** With `Forward` and `NeedsPresence`. */
  readonly egress?: string;
  /** With `NeedsPresence`: the address of the ingress realm that needs a presence in `egress`. */
  readonly source?: string;
  /** With `Forward`: the frame as it leaves. */
  readonly frame?: Uint8Array;
}

/** What becomes of a frame (a virtio-net header and one IP packet) that enters from `realm`. */
export function naiveTranslate(
  plan: TranslationPlan,
  realm: string,
  frame: Uint8Array
): NaiveResult {
  const packet = parseFrame(frame);
  if (typeof packet === 'string') return { verdict: packet };

  const tables = tablesOf(plan);
  const session = sessionOf(packet);
  const behind = tables.behind.get(`${realm} ${session.destination}`);
  if (behind === undefined) return { verdict: 'DropNoPresence' };
  if (!isSource(tables, realm, session.source)) return { verdict: 'DropSpoofed' };
  const permitted =
    (session.mayBeRequest &&
      isPermitted(tables, realm, behind, session.source, session, session.destinationPort)) ||
    (session.mayBeReply &&
      isPermitted(
        tables,
        behind.realm,
        { realm, address: session.source },
        behind.address,
        session,
        session.sourcePort
      ));
  if (!permitted) return { verdict: 'DropNotPermitted' };
  const egress = behind.realm;
  const presence = tables.presence.get(`${egress} ${realm} ${session.source}`);
  if (presence === undefined) return { verdict: 'NeedsPresence', egress, source: session.source };
  return { verdict: 'Forward', egress, frame: rewritten(frame, packet, presence, behind.address) };
}

/** What steps 2 to 5 look at: of an ICMP error, the quoted packet turned round. */
interface Session {
  readonly source: string;
  readonly destination: string;
  readonly protocol: 'tcp' | 'udp' | 'icmp';
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly mayBeRequest: boolean;
  readonly mayBeReply: boolean;
}

function sessionOf(packet: Packet): Session {
  if (packet.quote !== undefined) {
    return {
      source: packet.quote.ip.destination,
      destination: packet.quote.ip.source,
      protocol: protocolOf(packet.quote),
      sourcePort: packet.quote.destinationPort,
      destinationPort: packet.quote.sourcePort,
      mayBeRequest: true,
      mayBeReply: true,
    };
  }
  return {
    source: packet.ip.source,
    destination: packet.ip.destination,
    protocol: protocolOf(packet),
    sourcePort: packet.sourcePort,
    destinationPort: packet.destinationPort,
    mayBeRequest: packet.kind !== 'echo-reply',
    mayBeReply: packet.kind !== 'echo-request' && !packet.opensSession,
  };
}

function protocolOf(packet: Packet): 'tcp' | 'udp' | 'icmp' {
  return packet.kind === 'tcp' || packet.kind === 'udp' ? packet.kind : 'icmp';
}

interface Endpoint {
  readonly realm: string;
  readonly address: string;
}

/** Whether a permit of `realm` lets `client` use that port of the service. */
function isPermitted(
  tables: Tables,
  realm: string,
  service: Endpoint,
  client: string,
  session: Session,
  port: number
): boolean {
  const permits = tables.permits.get(`${realm} ${service.realm} ${service.address}`) ?? [];
  return permits.some(
    (permit) =>
      (permit.clients === undefined
        ? isSource(tables, realm, client)
        : permit.clients.some((text) => isInside(bytesOf(client), prefixOf(text)))) &&
      permit.ports.some((text) => matchesPort(text, session.protocol, port))
  );
}

/** `tcp/5672`, `udp/8000-8100` or `icmp`. */
function matchesPort(text: string, protocol: string, port: number): boolean {
  const [name, range] = text.split('/');
  if (name !== protocol) return false;
  if (range === undefined) return true;
  const [first, last = first] = range.split('-').map(Number);
  return port >= first! && port <= last!;
}

/** Whether a packet of the realm may come from the address: it is a source, and in no pool. */
function isSource(tables: Tables, realm: string, address: string): boolean {
  const contains = (prefix: Prefix): boolean => isInside(bytesOf(address), prefix);
  return tables.sources.get(realm)!.some(contains) && !tables.pools.get(realm)!.some(contains);
}

/** Step 6: a copy of the frame with the new addresses, and the checksums that follow from them. */
function rewritten(
  frame: Uint8Array,
  packet: Packet,
  newSource: string,
  newDestination: string
): Uint8Array {
  const result = frame.slice();
  writeAddresses(result.subarray(VNET), packet.ip, newSource, newDestination);
  if (packet.quote !== undefined) {
    const quoteAt = VNET + packet.ip.length + 8;
    writeAddresses(result.subarray(quoteAt), packet.quote.ip, newDestination, newSource);
    followHeaderChecksum(frame.subarray(quoteAt), result.subarray(quoteAt), packet.quote.ip);
    followTransportChecksum(
      frame.subarray(quoteAt),
      result.subarray(quoteAt),
      packet.quote.ip,
      false
    );
  }
  followHeaderChecksum(frame.subarray(VNET), result.subarray(VNET), packet.ip);
  followTransportChecksum(frame.subarray(VNET), result.subarray(VNET), packet.ip, isPartial(frame));
  return result;
}

function writeAddresses(
  packet: Uint8Array,
  ip: IpHeader,
  newSource: string,
  newDestination: string
): void {
  packet.set(bytesOf(newSource), ip.version === 4 ? 12 : 8);
  packet.set(bytesOf(newDestination), ip.version === 4 ? 16 : 24);
}

function followHeaderChecksum(before: Uint8Array, after: Uint8Array, ip: IpHeader): void {
  if (ip.version === 6) return;
  const covered = (packet: Uint8Array): number[] =>
    wordsOf(withZeroAt(packet.subarray(0, ip.length), 10));
  setUint16(after, 10, followed(uint16(before, 10), covered(before), covered(after)));
}

/**
 * Leaves alone what a quote has cut off: half a checksum cannot be changed, and what follows behind
 * the length of the quoted packet is none of it (padding and extensions, RFC 4884).
 */
function followTransportChecksum(
  before: Uint8Array,
  after: Uint8Array,
  ip: IpHeader,
  partial: boolean
): void {
  const at = ip.length + checksumOffset(ip.protocol);
  if (at + 2 > Math.min(before.length, ip.length + ip.payloadLength)) return;
  const field = uint16(before, at);
  if (partial) {
    setUint16(after, at, followedPartial(field, pseudoOf(before, ip), pseudoOf(after, ip)));
    return;
  }
  if (ip.protocol === UDP && field === 0) return;
  const covered = (packet: Uint8Array): number[] => [
    ...pseudoOf(packet, ip),
    ...wordsOf(withZeroAt(packet.subarray(ip.length), at - ip.length)),
  ];
  const checksum = followed(field, covered(before), covered(after));
  setUint16(after, at, checksum === 0 && ip.protocol === UDP ? 0xffff : checksum);
}

/**
 * Right ones are computed anew, wrong ones stay wrong by the same amount. Where the changes cancel
 * out, nothing has to follow: the two forms of zero, 0 and 0xffff, are left as they were.
 */
function followed(field: number, before: readonly number[], after: readonly number[]): number {
  if (onesSum(before) === onesSum(after)) return field;
  return isRight(before, field) ? checksumOf(after) : incremented(field, before, after);
}

/** The same for the bare sum of the pseudo-header, which is not complemented. */
function followedPartial(
  field: number,
  before: readonly number[],
  after: readonly number[]
): number {
  if (onesSum(before) === onesSum(after)) return field;
  if (onesSum(before) === field) return onesSum(after);
  return 0xffff - incremented(0xffff - field, before, after);
}

function pseudoOf(packet: Uint8Array, ip: IpHeader): number[] {
  if (ip.protocol === ICMP) return [];
  const [source, destination] =
    ip.version === 4
      ? [packet.subarray(12, 16), packet.subarray(16, 20)]
      : [packet.subarray(8, 24), packet.subarray(24, 40)];
  return pseudoHeader(source, destination, ip.protocol, Math.max(0, ip.payloadLength));
}

function withZeroAt(bytes: Uint8Array, at: number): Uint8Array {
  const copy = bytes.slice();
  setUint16(copy, at, 0);
  return copy;
}

function uint16(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 8) | bytes[at + 1]!;
}

function setUint16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >> 8;
  bytes[at + 1] = value & 255;
}

/** A plan by what is asked of it. Keys are realm names and plain texts of addresses. */
interface Tables {
  /** Realm and address to the endpoint that it stands for. */
  readonly behind: ReadonlyMap<string, Endpoint>;
  /** Realm, realm of the endpoint and its address, to the address that stands for it. */
  readonly presence: ReadonlyMap<string, string>;
  /** Realm, realm of the service and its address. */
  readonly permits: ReadonlyMap<string, readonly Permit[]>;
  readonly sources: ReadonlyMap<string, readonly Prefix[]>;
  readonly pools: ReadonlyMap<string, readonly Prefix[]>;
}

function tablesOf(plan: TranslationPlan): Tables {
  const known = TABLES.get(plan);
  if (known !== undefined) return known;
  const behind = new Map<string, Endpoint>();
  const presence = new Map<string, string>();
  for (const { realm, address, of } of plan.presences) {
    const real = plainText(of.address);
    behind.set(`${realm} ${plainText(address)}`, { realm: of.realm, address: real });
    presence.set(`${realm} ${of.realm} ${real}`, plainText(address));
  }
  const permits = new Map<string, Permit[]>();
  for (const permit of plan.permits) {
    const { realm, address } = permit.service;
    const key = `${permit.realm} ${realm} ${plainText(address)}`;
    permits.set(key, [...(permits.get(key) ?? []), permit]);
  }
  const sources = new Map(plan.realms.map(({ name, sources }) => [name, sources.map(prefixOf)]));
  const pools = new Map(plan.realms.map(({ name, pools = [] }) => [name, pools.map(prefixOf)]));
  const tables = { behind, presence, permits, sources, pools };
  TABLES.set(plan, tables);
  return tables;
}

const TABLES = new WeakMap<TranslationPlan, Tables>();
