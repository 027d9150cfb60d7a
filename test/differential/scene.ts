/**
 * Clients in the realm `near` and services in the realm `far`, both from the same prefixes, each with a presence
 * on the other side; and permits for all of them.
 * @module
 */
import { textOf } from '../support/address.ts';
import type { Ends } from '../support/packets.ts';
import type { Random } from '../support/random.ts';
import type { TextPlan } from '../support/text-of.ts';

/** Named as nftables does. */
export type Family = 'ip' | 'ip6';
export const FAMILIES: readonly Family[] = ['ip', 'ip6'];

/** A host of one realm and the address that stands for it in the other. */
export interface Address {
  readonly real: string;
  readonly presence: string;
}

export interface Scene {
  readonly clients: Readonly<Record<Family, readonly Address[]>>;
  readonly services: Readonly<Record<Family, readonly Address[]>>;
  readonly plan: TextPlan;
}

/** The path of a packet: its ingress realm, and its addresses before and after translation. */
export interface PacketPath {
  readonly family: Family;
  readonly from: 'near' | 'far';
  readonly before: Ends;
  readonly after: Ends;
}

export function randomScene(random: Random): Scene {
  const clients = { ip: addresses(random, 'ip'), ip6: addresses(random, 'ip6') };
  const services = { ip: addresses(random, 'ip'), ip6: addresses(random, 'ip6') };
  const all = (hosts: Readonly<Record<Family, readonly Address[]>>) => [...hosts.ip, ...hosts.ip6];
  const sources = [...PREFIXES];
  const plan: TextPlan = {
    realms: [
      { name: 'near', sources },
      { name: 'far', sources },
    ],
    presences: [
      ...all(clients).map(({ real, presence }) => ({
        realm: 'far',
        address: presence,
        of: { realm: 'near', address: real },
      })),
      ...all(services).map(({ real, presence }) => ({
        realm: 'near',
        address: presence,
        of: { realm: 'far', address: real },
      })),
    ],
    permits: all(services).map(({ real }) => ({
      realm: 'near',
      service: { realm: 'far', address: real },
      ports: PORTS,
    })),
  };
  return { clients, services, plan };
}

/** A client's path to a service. */
export function randomPath(random: Random, scene: Scene, family: Family): PacketPath {
  const client = random.pick(scene.clients[family]);
  const service = random.pick(scene.services[family]);
  return {
    family,
    from: 'near',
    before: { source: client.real, destination: service.presence },
    after: { source: client.presence, destination: service.real },
  };
}

/** The path of the reply. */
export function reversed({ family, from, before, after }: PacketPath): PacketPath {
  return {
    family,
    from: from === 'near' ? 'far' : 'near',
    before: { source: after.destination, destination: after.source },
    after: { source: before.destination, destination: before.source },
  };
}

/** Random hosts with random presences, and two whose translation leaves every checksum as it is. */
function addresses(random: Random, family: Family): Address[] {
  const taken = new Set<string>();
  const fresh = (make: () => Uint8Array): string => {
    for (;;) {
      const text = textOf(make());
      if (taken.has(text)) continue;
      taken.add(text);
      return text;
    }
  };
  const hosts: Address[] = [];
  for (let i = 0; i < HOSTS; i++) {
    hosts.push({
      real: fresh(() => realAddress(random, family)),
      presence: fresh(() => presenceAddress(random, family)),
    });
  }
  const same = fresh(() => realAddress(random, family));
  hosts.push({ real: same, presence: same });
  const bytes = realAddress(random, family);
  const swapped = bytes.slice();
  const last = bytes.length - 1;
  swapped[last] = bytes[last - 2]!;
  swapped[last - 2] = bytes[last]!;
  hosts.push({ real: fresh(() => bytes), presence: fresh(() => swapped) });
  return hosts;
}

/** Out of the realms' sources. */
function realAddress(random: Random, family: Family): Uint8Array {
  if (family === 'ip') return Uint8Array.of(10, ...random.bytes(2), random.between(1, 254));
  return Uint8Array.of(0xfd, 0, ...tail(random));
}

function presenceAddress(random: Random, family: Family): Uint8Array {
  if (family === 'ip') {
    return Uint8Array.of(100, random.between(64, 127), random.below(256), random.between(1, 254));
  }
  return Uint8Array.of(0x20, 0x01, ...tail(random));
}

/** 14 bytes, often with words that are easy to get wrong in a sum. */
function tail(random: Random): Uint8Array {
  const bytes = random.bytes(14);
  for (let i = 0; i < 12; i += 2) {
    if (random.chance(0.3)) bytes.fill(random.pick([0, 0xff]), i, i + 2);
  }
  return bytes;
}

const PREFIXES = ['10.0.0.0/8', 'fd00::/8'];
const HOSTS = 8;

/** Protocols without a name here, with and without a meaning for the kernel. */
export const OTHER_PROTOCOLS: readonly number[] = [4, 47, 50, 89, 103, 112, 115, 200];

const PORTS: readonly string[] = [
  ...['tcp', 'udp', 'udplite', 'sctp'].map((protocol) => `${protocol}/1-65535`),
  'icmp',
  ...OTHER_PROTOCOLS.map((protocol) => `ip/${protocol}`),
];
