/**
 * Random packets that both the translator and the kernel should forward, by kind. Each call gives a
 * short exchange, in order: a request and its reply, the fragments of a datagram, an opening packet
 * and the error about it.
 * @module
 */
import {
  ACK,
  icmpError,
  repairIpv4Checksum,
  SCTP,
  TCP,
  tcpPacket,
  UDP,
  UDPLITE,
  udpPacket,
} from '../support/packets.ts';
import type { Random } from '../support/random.ts';
import { framed, VNET } from '../support/vnet.ts';
import { edgeCases } from './edge-cases.ts';
import {
  clearBehindOptions,
  fragments,
  ipv4Options,
  transportOffset,
  unfinished,
  withAuthentication,
  withExtensions,
} from './headers.ts';
import type { NatKind } from './kernel-nat.ts';
import {
  PROTOCOLS,
  type Protocol,
  type Recipe,
  type RecipeOptions,
  randomIp,
  randomRecipe,
  randomSession,
} from './recipes.ts';
import { FAMILIES, type PacketPath, randomPath, reversed, type Scene } from './scene.ts';

export const KINDS = [
  'edge cases',
  'TCP',
  'UDP',
  'echo',
  'UDP-Lite',
  'SCTP',
  'other protocols',
  'TCP by conntrack',
  'UDP by conntrack',
  'echo by conntrack',
  'UDP-Lite by conntrack',
  'IPv4 options',
  'IPv6 extension headers',
  'authentication headers by conntrack',
  'IPv4 fragments',
  'IPv6 fragments',
  'IPv4 errors',
  'IPv6 errors',
  'quotes of every length',
  'partial checksums',
  'super-packets',
  'mutated',
] as const;
export type Kind = (typeof KINDS)[number];

export interface Item {
  readonly kind: Kind;
  readonly from: 'near' | 'far';
  /** The packet with a virtio-net header. */
  readonly frame: Uint8Array;
  /** How the kernel is to translate it. */
  readonly nat: NatKind;
  /** Whether all its checksums are complete, and right. */
  readonly isRight: boolean;
  /** Where in the packet the checksum of TCP or ICMPv6 is, for which 0 and 0xffff are the same. */
  readonly zeroAt?: number;
  /** Where in the packet there are two bytes that the kernel leaves as they are (README). */
  readonly stale?: readonly number[];
}

type Unnamed = Omit<Item, 'kind'>;

export class Traffic {
  readonly #random: Random;
  readonly #scene: Scene;
  #identification = 0;

  constructor(random: Random, scene: Scene) {
    this.#random = random;
    this.#scene = scene;
  }

  items(kind: Kind): Item[] {
    return this.#unnamed(kind).map((item) => ({ ...item, kind }));
  }

  #unnamed(kind: Kind): Unnamed[] {
    switch (kind) {
      case 'edge cases': {
        const path = this.#path();
        return edgeCases(path).map((packet) => ({ ...plain(path, packet), isRight: true }));
      }
      case 'TCP':
        return this.#exchange('tcp');
      case 'UDP':
        return this.#exchange('udp');
      case 'echo':
        return this.#exchange('echo');
      case 'UDP-Lite':
        return this.#exchange('udplite');
      case 'SCTP':
        return this.#exchange('sctp');
      case 'other protocols':
        return this.#exchange('other');
      case 'TCP by conntrack':
        return this.#exchange('tcp', 'conntrack');
      case 'UDP by conntrack':
        return this.#exchange('udp', 'conntrack');
      case 'echo by conntrack':
        return this.#exchange('echo', 'conntrack');
      case 'UDP-Lite by conntrack':
        return this.#exchange('udplite', 'conntrack');
      case 'IPv4 options':
        return this.#withOptions();
      case 'IPv6 extension headers':
        return this.#withExtensions();
      case 'authentication headers by conntrack':
        return this.#withAuthentication();
      case 'IPv4 fragments':
        return this.#fragments(this.#path('ip'));
      case 'IPv6 fragments':
        return this.#fragments(this.#path('ip6'));
      case 'IPv4 errors':
        return this.#errors(this.#path('ip'));
      case 'IPv6 errors':
        return this.#errors(this.#path('ip6'));
      case 'quotes of every length':
        return this.#quotes(this.#path());
      case 'partial checksums':
        return this.#partial();
      case 'super-packets':
        return this.#superPackets();
      case 'mutated':
        return this.#mutated();
    }
  }

  #path(family = this.#random.pick(FAMILIES)): PacketPath {
    return randomPath(this.#random, this.#scene, family);
  }

  /** A request and mostly a reply, as paths and recipes. */
  #session(
    protocol: Protocol,
    path: PacketPath,
    options?: RecipeOptions
  ): { readonly path: PacketPath; readonly recipe: Recipe }[] {
    const random = this.#random;
    const session = randomSession(random, protocol);
    const paths = random.chance(0.7) ? [path, reversed(path)] : [path];
    return paths.map((path) => ({ path, recipe: randomRecipe(random, session, path, options) }));
  }

  #exchange(protocol: Protocol, nat: NatKind = 'stateless'): Unnamed[] {
    return this.#session(protocol, this.#path(), { isStrict: nat === 'conntrack' }).map(
      ({ path, recipe }) =>
        item(path, recipe, recipe.make(path.before, randomIp(this.#random)), nat)
    );
  }

  #withOptions(): Unnamed[] {
    const random = this.#random;
    return this.#session(random.pick(PROTOCOLS), this.#path('ip')).map(({ path, recipe }) => {
      const options = ipv4Options(random);
      return item(path, recipe, recipe.make(path.before, { ...randomIp(random), options }));
    });
  }

  #withExtensions(): Unnamed[] {
    const random = this.#random;
    return this.#session(random.pick(PROTOCOLS), this.#path('ip6')).map(({ path, recipe }) => {
      const packet = recipe.make(path.before, randomIp(random));
      return item(path, recipe, withExtensions(random, packet, recipe.number));
    });
  }

  /** For conntrack: `stateless` changes no checksum behind an authentication header (README). */
  #withAuthentication(): Unnamed[] {
    const random = this.#random;
    const protocol = random.pick(TRACKED);
    return this.#session(protocol, this.#path('ip6'), { isStrict: true }).map(
      ({ path, recipe }) => {
        const packet = recipe.make(path.before, randomIp(random));
        return item(path, recipe, withAuthentication(random, packet, recipe.number), 'conntrack');
      }
    );
  }

  /** The first fragment first, the others in any order. */
  #fragments(path: PacketPath): Unnamed[] {
    const random = this.#random;
    const protocol = random.pick(PROTOCOLS);
    const options = { shortest: 64, longest: random.pick([200, 1400, 4000]) };
    return this.#session(protocol, path, options).flatMap(({ path, recipe }) => {
      const packet = recipe.make(path.before, { ...randomIp(random), fragment: 0 });
      this.#identification = (this.#identification + 1) & 0xffff;
      const [first, ...later] = fragments(random, packet, recipe, this.#identification);
      return [
        item(path, recipe, first!),
        ...shuffled(random, later).map((packet) => ({
          ...plain(path, packet),
          isRight: recipe.isRight,
        })),
      ];
    });
  }

  /** An opening packet, perhaps a reply, and errors about the last of them, sent back. */
  #errors(path: PacketPath): Unnamed[] {
    const { items, quotable, errorPath } = this.#opening(path, { longest: 700 });
    for (let i = 0; i < 3; i++) {
      const quoted = this.#quotedPacket(errorPath, quotable);
      items.push(this.#error(errorPath, quotable, quoted, this.#quoteLength(quoted, quotable)));
    }
    return items;
  }

  /** The same with an error for each length that a quote may have. */
  #quotes(path: PacketPath): Unnamed[] {
    const { items, quotable, errorPath } = this.#opening(path, { longest: 40 });
    const quoted = this.#quotedPacket(errorPath, quotable);
    const transport = transportOffset(quoted, quotable);
    for (let length = transport + 8; length <= quoted.length; length++) {
      if (isComparable(quotable, transport, length, quoted.length)) {
        items.push(this.#error(errorPath, quotable, quoted, length));
      }
    }
    return items;
  }

  /** Packets that conntrack must see first, the recipe of the last one, and the path of its reply. */
  #opening(
    path: PacketPath,
    options: RecipeOptions
  ): { readonly items: Unnamed[]; readonly quotable: Recipe; readonly errorPath: PacketPath } {
    const random = this.#random;
    const protocol = random.pick(PROTOCOLS);
    const session = this.#session(protocol, path, { isStrict: true, ...options });
    // of SCTP, conntrack lets only the opening packet pass by itself
    const sent = protocol === 'sctp' ? session.slice(0, 1) : session;
    const items = sent.map(({ path, recipe }) =>
      item(path, recipe, recipe.make(path.before, randomIp(random)), 'conntrack')
    );
    const last = sent.at(-1)!;
    return { items, quotable: last.recipe, errorPath: reversed(last.path) };
  }

  /** The recipe's packet as the sender of an error about it has seen it. */
  #quotedPacket({ family, before }: PacketPath, recipe: Recipe): Uint8Array {
    const random = this.#random;
    const ends = { source: before.destination, destination: before.source };
    const hasMore = random.chance(0.2);
    const options = hasMore && family === 'ip' ? ipv4Options(random) : new Uint8Array(0);
    const packet = recipe.make(ends, { ...randomIp(random), options });
    return hasMore && family === 'ip6' ? withExtensions(random, packet, recipe.number) : packet;
  }

  #quoteLength(quoted: Uint8Array, recipe: Recipe): number {
    const random = this.#random;
    const transport = transportOffset(quoted, recipe);
    const shortest = transport + 8;
    const longest = random.chance(0.5) ? quoted.length : Math.min(quoted.length, shortest + 20);
    const length = random.between(shortest, longest);
    return isComparable(recipe, transport, length, quoted.length) ? length : quoted.length;
  }

  /** An error about a packet, on the path of the reply. */
  #error(path: PacketPath, recipe: Recipe, quoted: Uint8Array, quoteLength: number): Unnamed {
    const random = this.#random;
    const isIpv6 = path.family === 'ip6';
    const { type, code, rest } = randomErrorHead(random, isIpv6);
    let payload = quoted.subarray(0, quoteLength);
    let word = rest;
    // RFC 4884: a padded quote, its length in the header, and an extension object behind it
    if (canHaveExtensions(isIpv6, type) && recipe.number !== SCTP && random.chance(0.2)) {
      // the kernel does not know extensions: a truncated TCP header would continue in them (README)
      const shortest = Math.max(128, payload.length, transportOffset(quoted, recipe) + 20);
      const length = Math.ceil(shortest / 8) * 8;
      const extended = new Uint8Array(length + 12);
      extended.set(payload);
      extended.set([0x20, 0, 0, 0, 0, 8, 1, 1, ...random.bytes(4)], length);
      payload = extended;
      word = isIpv6 ? (length / 8) * 0x1000000 : (length / 4) * 0x10000;
    }
    // a host that has the same address on both sides is none to the kernel's NAT (README)
    const isSame = path.before.source === path.after.source;
    const router = isSame || random.chance(0.5) ? path.before.source : this.#router(path);
    const packet = icmpError(
      { source: router, destination: path.before.destination },
      { ...randomIp(random), type, code, rest: word, quoted: payload }
    );
    const error = { ...plain(path, packet), nat: 'conntrack', isRight: recipe.isRight } as const;
    const header = packet.length - payload.length;
    const transport = transportOffset(quoted, recipe);
    const inTcp = payload.length - transport;
    if (recipe.number !== TCP || inTcp < 18 || inTcp >= 20) return error;
    return { ...error, stale: [header - 6, header + transport + 16] };
  }

  /** Somebody else of the realm. */
  #router({ family, from }: PacketPath): string {
    const hosts = this.#scene[from === 'near' ? 'clients' : 'services'][family];
    return this.#random.pick(hosts).real;
  }

  #partial(): Unnamed[] {
    const random = this.#random;
    const path = this.#path();
    const protocol = random.pick(path.family === 'ip' ? ['tcp', 'udp'] : ['tcp', 'udp', 'echo']);
    return this.#session(protocol as Protocol, path).map(({ path, recipe }) => {
      const packet = recipe.make(path.before, randomIp(random));
      return {
        ...plain(path, packet),
        frame: unfinished(packet, recipe.number, recipe.checksumAt!),
      };
    });
  }

  #superPackets(): Unnamed[] {
    const random = this.#random;
    const path = random.chance(0.5) ? this.#path() : reversed(this.#path());
    const gsoSize = random.between(500, 1400);
    const payload = random.bytes(gsoSize + random.between(1, random.chance(0.1) ? 60_000 : 8000));
    const ports = { sourcePort: random.between(1, 0xffff), destinationPort: 4789 };
    const ip = randomIp(random);
    const isEcn = random.chance(0.3);
    if (path.from === 'far' || random.chance(0.6)) {
      const flags = isEcn ? 0x80 | ACK : ACK;
      const packet = tcpPacket(path.before, { ...ip, ...ports, flags, payload });
      const gsoType = (path.family === 'ip' ? 1 : 4) | (isEcn ? 0x80 : 0);
      const headerLength = packet.length - payload.length;
      const frame = unfinished(packet, TCP, 16, { gsoType, gsoSize, headerLength });
      return [{ ...plain(path, packet), frame }];
    }
    const packet = udpPacket(path.before, { ...ip, ...ports, payload });
    const headerLength = packet.length - payload.length;
    const frame = unfinished(packet, UDP, 6, { gsoType: 5, gsoSize, headerLength });
    return [{ ...plain(path, packet), frame }];
  }

  /** Up to three bytes changed, in the headers mostly. */
  #mutated(): Unnamed[] {
    const random = this.#random;
    return this.#unnamed(random.pick(MUTABLE)).map((item) => {
      const frame = item.frame.slice();
      const packet = frame.subarray(VNET);
      const limit = random.chance(0.8) ? Math.min(packet.length, 80) : packet.length;
      for (let i = random.between(1, 3); i > 0; i--) {
        packet[random.below(limit)] = random.pick([0, 1, 0xff, random.below(256)]);
      }
      const hopLimitAt = packet[0]! >> 4 === 4 ? 8 : 7;
      packet[hopLimitAt] = Math.min(Math.max(packet[hopLimitAt]!, 1), 254);
      clearBehindOptions(packet);
      repairIpv4Checksum(packet);
      return { ...item, frame, isRight: false };
    });
  }
}

function item(
  path: PacketPath,
  recipe: Recipe,
  packet: Uint8Array,
  nat: NatKind = 'stateless'
): Unnamed {
  const { isRight, number, checksumAt } = recipe;
  const common = { from: path.from, frame: framed(packet), nat, isRight };
  if (checksumAt === undefined || number === UDP || number === UDPLITE) return common;
  return { ...common, zeroAt: transportOffset(packet, recipe) + checksumAt };
}

/** A packet of which nothing special is to be known. */
function plain(path: PacketPath, packet: Uint8Array): Unnamed {
  return { from: path.from, frame: framed(packet), nat: 'stateless', isRight: false };
}

function randomErrorHead(
  random: Random,
  isIpv6: boolean
): { readonly type: number; readonly code: number; readonly rest: number } {
  if (isIpv6) {
    const type = random.between(1, 4);
    const rest = type === 2 ? random.between(1280, 9000) : type === 4 ? random.below(80) : 0;
    return { type, code: type === 2 ? 0 : random.below(type === 1 ? 7 : 3), rest };
  }
  const type = random.pick([3, 3, 11, 12]);
  const code = type === 3 ? random.below(16) : random.below(2);
  const rest = type === 12 ? random.below(60) * 0x1000000 : 0;
  return { type, code, rest: type === 3 && code === 4 ? random.between(68, 9000) : rest };
}

/** A quoted SCTP checksum is computed again over what there is of the packet (README). */
function isComparable(
  { number }: Recipe,
  transport: number,
  quoteLength: number,
  wholeLength: number
): boolean {
  return number !== SCTP || quoteLength < transport + 12 || quoteLength === wholeLength;
}

function canHaveExtensions(isIpv6: boolean, type: number): boolean {
  return isIpv6 ? type === 1 || type === 3 : true;
}

function shuffled<T>(random: Random, list: readonly T[]): T[] {
  const left = [...list];
  const order: T[] = [];
  while (left.length > 0) order.push(...left.splice(random.below(left.length), 1));
  return order;
}

/** Protocols of which conntrack lets requests and replies of any kind pass. */
const TRACKED: readonly Protocol[] = ['tcp', 'udp', 'echo', 'udplite', 'other'];

/** Kinds whose packets the kernel translates one by one. */
const MUTABLE: readonly Kind[] = [
  'TCP',
  'UDP',
  'echo',
  'UDP-Lite',
  'SCTP',
  'other protocols',
  'IPv4 options',
  'IPv6 extension headers',
  'IPv4 fragments',
  'IPv6 fragments',
  'partial checksums',
  'super-packets',
];
