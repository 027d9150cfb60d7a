/**
 * The hosts of the translator's benchmark: clients of the realm `near` that use one service of the realm `far`.
 * @module
 */
import { formatIPv4 } from '../src/base/address.ts';
import { PacketTranslator } from '../src/translator/index.ts';
import { Random } from '../test/support/random.ts';
import type { TextPlan } from '../test/support/text-of.ts';
import { MAX_CLASSES } from './layout.ts';
import { TCP_PORT, UDP_PORT } from './shapes.ts';

export class World {
  readonly clientCount: number;
  readonly near: Side;
  readonly far: Side;
  /**
   * Clients are of the class `index % classes`, a power of two. All of a class have addresses with the
   * same sum of 16-bit words, so their packets have the same checksums.
   */
  readonly classes: number;

  /** @param paths each client has one forth and one back. */
  constructor(paths: number, nearFamily: 4 | 6, farFamily: 4 | 6) {
    this.clientCount = paths / 2;
    this.classes = MAX_CLASSES;
    while (this.clientCount % this.classes !== 0) this.classes /= 2;
    const order = shuffled(this.clientCount, this.classes);
    this.near = new Side(nearFamily, 'near', order, this.classes);
    this.far = new Side(farFamily, 'far', order, this.classes);
  }

  /** A translator that has loaded the plan and has not seen a packet. */
  load(): PacketTranslator {
    const translator = new PacketTranslator({
      maxPaths: Math.max(1024, 2 * this.clientCount),
      maxPathsOfRealm: Math.max(1024, 2 * this.clientCount),
      // Enough that the table is never full.
      maxSessions: Math.max(65_536, 4 * this.clientCount),
    });
    translator.load(this.plan());
    return translator;
  }

  /** Builds the plan again with every call. */
  plan(): TextPlan {
    const { near, far } = this;
    const service = { realm: 'far', address: far.service };
    const presences = [{ realm: 'near', address: near.service, of: service }];
    for (let i = 0; i < this.clientCount; i++) {
      const client = { realm: 'near', address: near.client(i) };
      presences.push({ realm: 'far', address: far.client(i), of: client });
    }
    const realm = { sources: ['0.0.0.0/0', '::/0'], mtu: MTU };
    const ports = [`tcp/${TCP_PORT}`, `udp/${UDP_PORT}`];
    return {
      realms: [
        { name: 'near', ...realm },
        { name: 'far', ...realm },
      ],
      presences,
      permits: [{ realm: 'near', service, ports }],
    };
  }
}

/**
 * The addresses of the clients and the service in one realm: as text for the plan, and as words for packets. Four words make an address; of an IPv4 address only the last counts.
 */
export class Side {
  readonly family: 4 | 6;
  /** Address of the service, or of its presence. */
  readonly service: string;
  readonly serviceWords: Int32Array;
  /** The words of every client's address, without the last one. */
  readonly clientWords: Int32Array;
  /** Last words of the clients' addresses, in the order of the plan. */
  readonly clients: Int32Array;
  /** The same in the order in which they take turns. */
  readonly clientsByTurn: Int32Array;
  readonly #prefix: readonly number[];
  readonly #classes: number;
  readonly #sum: number;

  constructor(family: 4 | 6, realm: 'near' | 'far', order: Int32Array, classes: number) {
    this.family = family;
    this.#prefix = [0x20010db8, realm === 'near' ? 1 : 2, 0];
    this.#classes = classes;
    this.#sum = realm === 'near' ? 0 : MAX_CLASSES;
    const service = realm === 'near' ? SERVICE_PRESENCE : SERVICE;
    this.service = this.#text(service);
    this.serviceWords = Int32Array.from([...this.#prefix, service], inPacketOrder);
    this.clientWords = Int32Array.from([...this.#prefix, 0], inPacketOrder);
    this.clients = order.map((_, i) => inPacketOrder(this.#word(i)));
    this.clientsByTurn = order.map((i) => this.clients[i]!);
  }

  client(index: number): string {
    return this.#text(this.#word(index));
  }

  #text(word: number): string {
    if (this.family === 4) return formatIPv4(word);
    const words = [...this.#prefix, word];
    const groups = words.flatMap((w) => [(w >>> 16).toString(16), (w & 0xffff).toString(16)]);
    return groups.join(':');
  }

  /** The sum of both halves is that of the class; it differs between the realms. */
  #word(index: number): number {
    const high = FIRST_CLIENT + Math.floor(index / this.#classes);
    return (high << 16) | ((~high & 0xffff) + (index % this.#classes) + this.#sum);
  }
}

/** A little-endian machine stores this word as the bytes of a packet. */
export function inPacketOrder(word: number): number {
  const ends = (word << 24) | (word >>> 24);
  return ends | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00);
}

/** Indexes in a random order that leaves each client among those of its class. */
function shuffled(count: number, classes: number): Int32Array {
  const random = new Random(count);
  const order = Int32Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = i - classes * random.below(Math.floor(i / classes) + 1);
    const other = order[j]!;
    order[j] = order[i]!;
    order[i] = other;
  }
  return order;
}

/** The MTU of both realms, so that every packet is measured against it. */
export const MTU = 1500;

/** 100.64.0.1 and 192.0.2.5; of IPv6 addresses these are the last 32 bits. */
const SERVICE_PRESENCE = 0x6440_0001;
const SERVICE = 0xc000_0205 | 0;
/** Upper half of the first clients' address: 1.0.x.x. */
const FIRST_CLIENT = 0x0100;
