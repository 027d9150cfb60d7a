/**
 * Puts IPv4 options, IPv6 extension headers and fragmentation into packets; and makes checksums partial.
 * @module
 */
import { onesSum, pseudoHeader } from '../support/checksum.ts';
import {
  AUTHENTICATION,
  DESTINATION,
  FRAGMENT,
  HOP_BY_HOP,
  ROUTING,
  repairIpv4Checksum,
} from '../support/packets.ts';
import type { Random } from '../support/random.ts';
import { framed, type VnetHeader } from '../support/vnet.ts';
import type { Recipe } from './recipes.ts';

/** Where the transport header begins. */
export function transportOffset(packet: Uint8Array, { number }: Pick<Recipe, 'number'>): number {
  if (packet[0]! >> 4 === 4) return (packet[0]! & 15) * 4;
  let next = packet[6]!;
  let at = 40;
  while (next !== number) {
    const length = packet[at + 1]!;
    const size = next === FRAGMENT ? 8 : next === AUTHENTICATION ? 4 * length + 8 : 8 * length + 8;
    next = packet[at]!;
    at += size;
  }
  return at;
}

/** Options that routers pass on as they are. */
export function ipv4Options(random: Random): Uint8Array {
  const bytes: number[] = [];
  for (;;) {
    const option = random.pick(IPV4_OPTIONS)(random);
    if (bytes.length + option.length > 40) break;
    bytes.push(...option);
    if (random.chance(0.3)) break;
  }
  if (bytes.length % 4 !== 0 && random.chance(0.5)) bytes.push(0); // end of options; zeros follow
  while (bytes.length % 4 !== 0) bytes.push(bytes.at(-1) === 0 ? 0 : 1);
  return Uint8Array.from(bytes);
}

const IPV4_OPTIONS: readonly ((random: Random) => readonly number[])[] = [
  () => [1], // no operation
  () => [0x94, 4, 0, 0], // router alert
  (random) => [0x82, 11, ...random.bytes(9)], // security
  (random) => [0x88, 4, ...random.bytes(2)], // stream identifier
  (random) => {
    const data = random.bytes(random.between(0, 8));
    return [random.pick([0x1e, 0x5e, 0x9e, 0xde]), 2 + data.length, ...data]; // experiments
  },
];

/** Zeroes what follows the end of the IPv4 options, as Linux does (README). */
export function clearBehindOptions(packet: Uint8Array): void {
  if (packet[0]! >> 4 !== 4) return;
  const end = Math.min((packet[0]! & 15) * 4, packet.length);
  for (let at = 20; at < end; ) {
    if (packet[at] === 0) packet.fill(0, at, end);
    at += packet[at]! <= 1 ? 1 : Math.max(packet[at + 1]!, 2);
  }
}

/** Puts one to five extension headers in front of the transport header. */
export function withExtensions(random: Random, packet: Uint8Array, number: number): Uint8Array {
  const types = [DESTINATION, ROUTING, DESTINATION, FRAGMENT];
  return withChain(random, packet, number, types);
}

/** The same, with an authentication header and without a fragment header. */
export function withAuthentication(random: Random, packet: Uint8Array, number: number): Uint8Array {
  const header = extension(random, AUTHENTICATION);
  header[0] = number;
  const authenticated = inserted(packet, 40, AUTHENTICATION, header);
  const types = [DESTINATION, ROUTING].filter(() => random.chance(0.5));
  return types.length === 0
    ? authenticated
    : withChain(random, authenticated, AUTHENTICATION, types);
}

function withChain(
  random: Random,
  packet: Uint8Array,
  number: number,
  types: readonly number[]
): Uint8Array {
  const chain = types.filter(() => random.chance(0.35));
  if (chain.length === 0 || random.chance(0.4)) chain.unshift(HOP_BY_HOP);
  const bytes: number[] = [];
  for (const [i, type] of chain.entries()) {
    bytes.push(chain[i + 1] ?? number, ...extension(random, type).slice(1));
  }
  return inserted(packet, 40, chain[0]!, bytes);
}

/** One header; its first byte, the type of the next one, is 0. */
function extension(random: Random, type: number): number[] {
  switch (type) {
    case ROUTING: // no segments left
      return random.chance(0.5)
        ? [0, 0, 4, 0, 0, 0, 0, 0]
        : [0, 2, random.pick([0, 2, 4, 253]), 0, 0, 0, 0, 0, ...random.bytes(16)];
    case AUTHENTICATION:
      return [0, 4, 0, 0, ...random.bytes(20)];
    case FRAGMENT: // of a whole packet
      return [0, 0, 0, 0, ...random.bytes(4)];
    default:
      return optionsHeader(random, type);
  }
}

function optionsHeader(random: Random, type: number): number[] {
  const bytes = [0, 0];
  for (let i = random.below(4); i > 0; i--) bytes.push(...ipv6Option(random, type));
  const lacking = -bytes.length & 7;
  if (lacking === 1) bytes.push(0);
  else if (lacking > 1) bytes.push(1, lacking - 2, ...Array<number>(lacking - 2).fill(0));
  bytes[1] = bytes.length / 8 - 1;
  return bytes;
}

/** Never two of the padding options in a row: Linux refuses more than 7 bytes of padding. */
function ipv6Option(random: Random, type: number): readonly number[] {
  if (type === HOP_BY_HOP && random.chance(0.3)) return [5, 2, 0, random.below(3)]; // router alert
  const data = random.bytes(random.between(1, 12));
  return [random.pick([0x1e, 0x3e]), data.length, ...data]; // experiments, to be skipped
}

/** Fragments a packet; the first fragment has the complete transport header of the recipe. */
export function fragments(
  random: Random,
  packet: Uint8Array,
  recipe: Recipe,
  identification: number
): Uint8Array[] {
  const isIpv6 = packet[0]! >> 4 === 6;
  if (isIpv6 && random.chance(0.3)) {
    const options = optionsHeader(random, HOP_BY_HOP);
    options[0] = recipe.number;
    packet = inserted(packet, 40, HOP_BY_HOP, options);
  }
  const start = transportOffset(packet, recipe);
  const payload = packet.subarray(start);
  const pieces: Uint8Array[] = [];
  let shortest = Math.max(1, Math.ceil(recipe.headerLength / 8));
  for (let at = 0; at < payload.length; ) {
    const rest = Math.ceil((payload.length - at) / 8);
    const longest = Math.max(shortest, Math.min(rest - (at === 0 ? 1 : 0), 180));
    const end = Math.min(payload.length, at + 8 * random.between(shortest, longest));
    const isLast = end === payload.length;
    const part = payload.subarray(at, end);
    pieces.push(
      isIpv6
        ? ipv6Fragment(packet.subarray(0, start), part, recipe.number, at, isLast, identification)
        : ipv4Fragment(packet.subarray(0, start), part, at, isLast, identification)
    );
    at = end;
    // few pieces: a translator may know 8 holes at most
    shortest = Math.max(1, Math.ceil(payload.length / 8 / 6));
  }
  return pieces;
}

function ipv4Fragment(
  header: Uint8Array,
  part: Uint8Array,
  offset: number,
  isLast: boolean,
  identification: number
): Uint8Array {
  const fragment = new Uint8Array(header.length + part.length);
  const view = new DataView(fragment.buffer);
  fragment.set(header);
  fragment.set(part, header.length);
  view.setUint16(2, fragment.length);
  view.setUint16(4, identification);
  view.setUint16(6, (isLast ? 0 : 0x2000) | (offset / 8));
  repairIpv4Checksum(fragment);
  return fragment;
}

function ipv6Fragment(
  header: Uint8Array,
  part: Uint8Array,
  number: number,
  offset: number,
  isLast: boolean,
  identification: number
): Uint8Array {
  const whole = new Uint8Array(header.length + part.length);
  whole.set(header);
  whole.set(part, header.length);
  const bytes = new Uint8Array(8);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, number);
  view.setUint16(2, offset | (isLast ? 0 : 1));
  view.setUint32(4, identification);
  return inserted(whole, header.length, FRAGMENT, bytes);
}

/** Puts bytes that begin with a header of the type in front of `at`, and corrects what points there. */
function inserted(
  packet: Uint8Array,
  at: number,
  type: number,
  bytes: ArrayLike<number>
): Uint8Array {
  const longer = new Uint8Array(packet.length + bytes.length);
  longer.set(packet.subarray(0, at));
  longer.set(bytes, at);
  longer.set(packet.subarray(at), at + bytes.length);
  new DataView(longer.buffer).setUint16(4, longer.length - 40);
  // at most hop-by-hop options stand in front, whose first byte is the next type as well
  longer[at === 40 ? 6 : 40] = type;
  return longer;
}

/** A frame whose checksum is left to others: the field holds the sum of the pseudo-header. */
export function unfinished(
  packet: Uint8Array,
  number: number,
  checksumAt: number,
  header: VnetHeader = {}
): Uint8Array {
  const start = transportOffset(packet, { number });
  const [addresses, length] = packet[0]! >> 4 === 4 ? [12, 4] : [8, 16];
  const sum = onesSum(
    pseudoHeader(
      packet.subarray(addresses, addresses + length),
      packet.subarray(addresses + length, addresses + 2 * length),
      number,
      packet.length - start
    )
  );
  const frame = framed(packet, {
    flags: 1,
    checksumStart: start,
    checksumOffset: checksumAt,
    ...header,
  });
  new DataView(frame.buffer, frame.length - packet.length).setUint16(start + checksumAt, sum);
  return frame;
}
