/**
 * Random translation plans: two to four realms that use the very same addresses, services and clients
 * in each of them and of both IP versions, hosts that are both, hosts with two services, and permits for
 * some.
 * @module
 */
import { bytesOf, isInside, plainText, prefixOf, textOf } from '../support/address.ts';
import type { Random } from '../support/random.ts';
import type { TextPermit, TextPlan, TextPresence, TextRealm } from '../support/text-of.ts';
import { type IpVersion, versionOf } from './headers.ts';

/** A client and a service that a permit of the plan names. */
export interface Flow {
  readonly permit: TextPermit;
  /** Realm of the client. */
  readonly realm: string;
  readonly client: string;
  /** The address that stands for the service in the client's realm, of the client's IP version. */
  readonly servicePresence: string;
  /** The address that stands for the client in the service's realm, unless it has none yet. */
  readonly clientPresence: string | undefined;
}

/** A plan and, sorted by what it lets them do, its clients and services. */
export interface World {
  readonly plan: TextPlan;
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
export function worldOf(plan: TextPlan): World {
  const world = { plan, open: [], unbound: [], closed: [], stray: [] } as {
    plan: TextPlan;
  } & Record<'open' | 'unbound' | 'closed' | 'stray', Flow[]>;
  const presenceOf = new Map(
    plan.presences.map(({ realm, address, of }) => [
      `${realm} ${of.realm} ${plainText(of.address)} ${versionOf(address)}`,
      address,
    ])
  );
  const realms = new Map(plan.realms.map((realm) => [realm.name, realm]));
  const clients = clientsOf(plan);
  for (const permit of plan.permits) {
    const { realm, service } = permit;
    const version = versionOf(service.address);
    for (const client of clients) {
      const servicePresence = presenceOf.get(
        `${realm} ${service.realm} ${plainText(service.address)} ${versionOf(client)}`
      );
      if (servicePresence === undefined) continue;
      const clientPresence = presenceOf.get(`${service.realm} ${realm} ${client} ${version}`);
      const flow = { permit, realm, client, servicePresence, clientPresence };
      const isAmong = (prefixes: readonly string[] = []): boolean =>
        prefixes.some((text) => isInside(bytesOf(client), prefixOf(text)));
      const { sources, pools } = realms.get(realm)!;
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

/** The world after a client got a presence; the cheap way for one that was `unbound`. */
export function withPresence(world: World, presence: TextPresence): World {
  const { realm, address, of } = presence;
  const isBound = (flow: Flow): boolean =>
    flow.realm === of.realm &&
    flow.client === plainText(of.address) &&
    flow.permit.service.realm === realm &&
    versionOf(flow.permit.service.address) === versionOf(address);
  const bound = world.unbound.filter(isBound).map((flow) => ({ ...flow, clientPresence: address }));
  return {
    ...world,
    plan: { ...world.plan, presences: [...world.plan.presences, presence] },
    open: [...world.open, ...bound],
    unbound: world.unbound.filter((flow) => !isBound(flow)),
  };
}

/** Every realm has the same hosts, each with an address of both IP versions. */
function clientsOf(plan: TextPlan): string[] {
  const networks = new Map(
    plan.permits.map(({ service: { address } }) => [versionOf(address), bytesOf(address)])
  );
  return [...networks.values()].flatMap((network) =>
    [...HOSTS, STRAY].map((host) => {
      const bytes = network.slice();
      bytes[bytes.length - 1] = host;
      return textOf(bytes);
    })
  );
}

function randomPlan(random: Random): TextPlan {
  const base4 = `10.${random.below(256)}.${random.below(256)}`;
  const base6 = `fd00:${random.below(0x10000).toString(16)}:ffff:${random.below(2)}`;
  const host = (version: IpVersion, number: number): string =>
    version === 4 ? `${base4}.${number}` : `${base6}::${number.toString(16)}`;
  const presences = new PresencePools(random, base4);
  const realms: TextRealm[] = NAMES.slice(0, random.between(2, NAMES.length)).map((name) => ({
    name,
    ...(random.chance(0.7) ? { pools: presences.prefixes } : {}),
    ...(random.chance(0.5) ? { mtu: random.pick(MTUS) } : {}),
    ...(random.chance(0.7) ? { reject: random.pick(REJECTS) } : {}),
    sources: random.pick([
      [`${base4}.0/24`, `${base6}::/64`],
      [`${base4}.0/24`, `${base6}::/64`],
      [`${base4}.0/29`, `${base4}.8/32`, '192.168.0.0/16', `${base6}::/124`],
      ['10.0.0.0/8', 'fd00::/8'],
      ['0.0.0.0/0', '::/0'],
    ]),
  }));
  const permits: TextPermit[] = [];
  for (const { name: home } of realms) {
    for (const { name: realm } of realms) {
      if (realm === home || random.chance(0.25)) continue;
      for (const address of serviceAddresses(random, host)) {
        const service = { realm: home, address };
        const version = versionOf(address);
        const otherVersion = version === 4 ? 6 : 4;
        if (random.chance(0.97)) presences.give(realm, service, version);
        if (random.chance(0.6)) presences.give(realm, service, otherVersion);
        const count = random.chance(0.3) ? 2 : 1;
        for (let i = 0; i < count; i++) {
          permits.push(randomPermit(random, realm, service, host));
        }
        for (const number of HOSTS) {
          for (const own of VERSIONS) {
            const client = { realm, address: host(own, number) };
            if (random.chance(0.75)) presences.give(home, client, version);
          }
        }
        const stray = { realm, address: host(version, STRAY) };
        if (random.chance(0.5)) presences.give(home, stray, version);
      }
    }
  }
  return { realms, presences: presences.given, permits };
}

/** Services live on few hosts, so that one host has several, and is a client elsewhere. */
function serviceAddresses(
  random: Random,
  host: (version: IpVersion, number: number) => string
): readonly string[] {
  const addresses = [host(random.pick(VERSIONS), random.pick(HOSTS))];
  if (random.chance(0.7)) addresses.push(host(random.pick(VERSIONS), COMPUTE_HOST));
  return addresses;
}

function randomPermit(
  random: Random,
  realm: string,
  service: TextPermit['service'],
  host: (version: IpVersion, number: number) => string
): TextPermit {
  const ports = Array.from({ length: random.between(2, 5) }, () => random.pick(PORTS));
  if (random.chance(0.5)) return { realm, service, ports };
  const block4 = `${host(4, 4)}/30`;
  const block6 = `${host(6, 4)}/126`;
  const clients = random.pick([
    [host(4, random.pick(HOSTS)), host(6, random.pick(HOSTS))],
    [host(4, 2), `${host(4, 3)}/32`, block4, host(6, 2), block6],
    [block4],
    [block6],
    [block4, block6],
    ['0.0.0.0/0', '::/0'],
  ]);
  return { realm, service, ports, clients };
}

/** Hands out presences; every realm's pools are the same prefixes. */
class PresencePools {
  readonly given: TextPresence[] = [];
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

  /** Gives the endpoint a presence of that version in `realm`, if it has none there. */
  give(realm: string, of: TextPresence['of'], version: IpVersion): void {
    const key = `${realm} ${of.realm} ${plainText(of.address)} ${version}`;
    if (this.#known.has(key)) return;
    this.#known.add(key);
    for (;;) {
      const presence = this.#candidate(version, of.address);
      const place = `${realm} ${plainText(presence)}`;
      if (this.#taken.has(place)) continue;
      this.#taken.add(place);
      this.given.push({ realm, address: presence, of });
      return;
    }
  }

  /** Out of the pool; now and then out of the LAN's own prefix, or the very same address. */
  #candidate(version: IpVersion, address: string): string {
    if (versionOf(address) === version && this.#random.chance(0.03)) return address;
    const number = this.#random.between(1, 250);
    if (version === 6) return `${this.#pool6}${number.toString(16)}`;
    return this.#random.chance(0.1) ? `${this.#lan}.${number}` : `${this.#pool4}.${number}`;
  }
}

const NAMES = ['cloud', 'site-a', 'site-b', 'site-c'];
const VERSIONS: readonly IpVersion[] = [4, 6];
/** The last byte of the hosts' addresses, the same in every realm. */
const HOSTS = [1, 2, 3, 4, 5, 6, 7, 8, 9];
const COMPUTE_HOST = 5;
/** Outside of the sources of some realms, and in a pool of others. */
const STRAY = 201;
const MTUS = [576, 1000, 1280, 1300, 1400, 1420, 1500, 1500, 9000, 65_535];
const REJECTS = ['drop', 'unreachable', 'unreachable', 'reset', 'reset'] as const;
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
  'udplite/1-65535',
  'udplite/5004',
  'sctp/3868',
  'sctp/1-65535',
  'icmp',
  'icmp',
  'icmp',
  'ip/47',
  'ip/50',
  'ip/59',
  'ip/255',
];
