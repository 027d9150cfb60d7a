/**
 * Random translation plans: two to four realms that use the very same addresses, services and
 * clients in each of them, hosts that are both, hosts with two services, and permits for some.
 * @module
 */
import type { Permit, Presence, Realm, TranslationPlan } from '../../src/translator/plan.ts';
import { bytesOf, isInside, plainText, prefixOf, textOf } from './address.ts';
import type { Random } from './random.ts';

/** A client and a service that a permit of the plan names. */
export interface Flow {
  readonly permit: Permit;
  /** Realm of the client. */
  readonly realm: string;
  readonly client: string;
  /** The address that stands for the service in the client's realm. */
  readonly servicePresence: string;
  /** The address that stands for the client in the service's realm, unless it has none yet. */
  readonly clientPresence: string | undefined;
}

/** A plan and, sorted by what it lets them do, its clients and services. */
export interface World {
  readonly plan: TranslationPlan;
  /** Allowed, with presences on both sides. */
  readonly open: readonly Flow[];
  /** Allowed, but the client has no presence yet. */
  readonly unbound: readonly Flow[];
  /** The client is not one of the permit's. */
  readonly closed: readonly Flow[];
  /** The client has a presence, but is no source of its realm, or in one of its pools. */
  readonly stray: readonly Flow[];
}

export function randomWorld(random: Random): World {
  for (;;) {
    const world = worldOf(randomPlan(random));
    if (world.open.length > 0) return world;
  }
}

/** Sorts the flows of a plan. */
export function worldOf(plan: TranslationPlan): World {
  const world = { plan, open: [], unbound: [], closed: [], stray: [] } as {
    plan: TranslationPlan;
  } & Record<'open' | 'unbound' | 'closed' | 'stray', Flow[]>;
  const presenceOf = new Map(
    plan.presences.map(({ realm, address, of }) => [
      `${realm} ${of.realm} ${plainText(of.address)}`,
      address,
    ])
  );
  for (const permit of plan.permits) {
    const { realm, service } = permit;
    const servicePresence = presenceOf.get(
      `${realm} ${service.realm} ${plainText(service.address)}`
    );
    if (servicePresence === undefined) continue;
    for (const host of [...HOSTS, STRAY]) {
      const bytes = bytesOf(service.address).slice();
      bytes[bytes.length - 1] = host;
      const client = textOf(bytes);
      const clientPresence = presenceOf.get(`${service.realm} ${realm} ${plainText(client)}`);
      const flow = { permit, realm, client, servicePresence, clientPresence };
      const isAmong = (prefixes: readonly string[] = []): boolean =>
        prefixes.some((text) => isInside(bytes, prefixOf(text)));
      const { sources, pools } = plan.realms.find(({ name }) => name === realm)!;
      const isSource = isAmong(sources) && !isAmong(pools);
      const isNamed = permit.clients === undefined ? isSource : isAmong(permit.clients);
      if (!isSource) {
        if (clientPresence !== undefined) world.stray.push(flow);
      } else if (!isNamed) {
        world.closed.push(flow);
      } else if (clientPresence === undefined) {
        world.unbound.push(flow);
      } else {
        world.open.push(flow);
      }
    }
  }
  return world;
}

function randomPlan(random: Random): TranslationPlan {
  const base4 = `10.${random.below(256)}.${random.below(256)}`;
  const base6 = `fd00:${random.below(0x10000).toString(16)}:ffff:${random.below(2)}`;
  const host = (family: number, number: number): string =>
    family === 4 ? `${base4}.${number}` : `${base6}::${number.toString(16)}`;
  const presences = new PresencePools(random, base4);
  const realms: Realm[] = NAMES.slice(0, random.between(2, NAMES.length)).map((name) => ({
    name,
    ...(random.chance(0.7) ? { pools: presences.prefixes } : {}),
    sources: random.pick([
      [`${base4}.0/24`, `${base6}::/64`],
      [`${base4}.0/24`, `${base6}::/64`],
      [`${base4}.0/29`, `${base4}.8/32`, `192.168.0.0/16`, `${base6}::/124`],
      ['10.0.0.0/8', 'fd00::/8'],
      ['0.0.0.0/0', '::/0'],
    ]),
  }));
  const permits: Permit[] = [];
  for (const { name: home } of realms) {
    for (const { name: realm } of realms) {
      if (realm === home || random.chance(0.25)) continue;
      for (const address of serviceAddresses(random, host)) {
        const service = { realm: home, address };
        if (random.chance(0.97)) presences.give(realm, home, address);
        const count = random.chance(0.3) ? 2 : 1;
        for (let i = 0; i < count; i++) {
          permits.push(randomPermit(random, realm, service, host));
        }
        const family = bytesOf(address).length;
        for (const number of HOSTS) {
          if (random.chance(0.8)) presences.give(home, realm, host(family, number));
        }
        if (random.chance(0.5)) presences.give(home, realm, host(family, STRAY));
      }
    }
  }
  return { realms, presences: presences.given, permits };
}

/** Services live on few hosts, so that one host has several, and is a client elsewhere. */
function serviceAddresses(
  random: Random,
  host: (family: number, number: number) => string
): readonly string[] {
  const addresses = [host(random.pick(FAMILIES), random.pick(HOSTS))];
  if (random.chance(0.7)) addresses.push(host(random.pick(FAMILIES), COMPUTE_HOST));
  return addresses;
}

function randomPermit(
  random: Random,
  realm: string,
  service: Permit['service'],
  host: (family: number, number: number) => string
): Permit {
  const ports = Array.from({ length: random.between(1, 4) }, () => random.pick(PORTS));
  if (random.chance(0.5)) return { realm, service, ports };
  const family = bytesOf(service.address).length;
  const block = family === 4 ? `${host(family, 4)}/30` : `${host(family, 4)}/126`;
  const clients = random.pick([
    [host(family, random.pick(HOSTS))],
    [host(family, 2), `${host(family, 3)}/${family * 8}`, block],
    [block],
    ['0.0.0.0/0', '::/0'],
  ]);
  return { realm, service, ports, clients };
}

/** Hands out presences; every realm's pools are the same prefixes. */
class PresencePools {
  readonly given: Presence[] = [];
  /** One of the pools is a part of the LAN. */
  readonly prefixes: readonly string[];
  readonly #random: Random;
  readonly #known = new Set<string>();
  readonly #taken = new Set<string>();
  readonly #lan: string;
  readonly #pool4: string;
  readonly #pool6: string;

  constructor(random: Random, lan: string) {
    this.#random = random;
    this.#lan = lan;
    this.#pool4 = random.pick(['100.64.0', '100.127.255', `172.${random.between(16, 31)}.255`]);
    this.#pool6 = random.pick(['fd64::', 'fdff:ffff:ffff:ffff:ffff:ffff:0:', 'fd64:0:0:1:ff00::']);
    const base6 = this.#pool6.endsWith('::') ? this.#pool6 : `${this.#pool6}0`;
    this.prefixes = [`${this.#pool4}.0/24`, `${lan}.192/26`, `${base6}/112`];
  }

  /** Gives the endpoint a presence in `realm`, if it has none there. */
  give(realm: string, ofRealm: string, address: string): void {
    const key = `${realm} ${ofRealm} ${plainText(address)}`;
    if (this.#known.has(key)) return;
    this.#known.add(key);
    const family = bytesOf(address).length;
    for (;;) {
      const presence = this.#candidate(family, address);
      const place = `${realm} ${plainText(presence)}`;
      if (this.#taken.has(place)) continue;
      this.#taken.add(place);
      this.given.push({ realm, address: presence, of: { realm: ofRealm, address } });
      return;
    }
  }

  /** Out of the pool; now and then out of the LAN's own prefix, or the very same address. */
  #candidate(family: number, address: string): string {
    if (this.#random.chance(0.03)) return address;
    const number = this.#random.between(1, 250);
    if (family === 16) return `${this.#pool6}${number.toString(16)}`;
    return this.#random.chance(0.1) ? `${this.#lan}.${number}` : `${this.#pool4}.${number}`;
  }
}

const NAMES = ['cloud', 'site-a', 'site-b', 'site-c'];
const FAMILIES = [4, 4, 4, 16, 16];
/** The last byte of the hosts' addresses, the same in every realm. */
const HOSTS = [1, 2, 3, 4, 5, 6, 7, 8, 9];
const COMPUTE_HOST = 5;
/** Outside of the sources of some realms, and in a pool of others. */
const STRAY = 201;
const PORTS = [
  'tcp/5672',
  'tcp/443',
  'tcp/8000-8010',
  'tcp/1',
  'tcp/65535',
  'tcp/1-65535',
  'udp/53',
  'udp/8000-8100',
  'udp/1-65535',
  'icmp',
  'icmp',
];
