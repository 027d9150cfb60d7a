/**
 * The plan of a replay: two realms, a presence in each for the hosts of the other, and permits for the services. It is
 * inferred from the conversations of a capture, or follows prefixes or a desired state that the user gives.
 *
 * Realms may have the same addresses. So without prefixes every client is in one realm and every service in the other,
 * and a host that is both is in both.
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import { PortRange } from '../base/port-range.ts';
import type { IpPrefix } from '../base/prefix.ts';
import { ConfigError } from '../errors.ts';
import type { DesiredSource } from '../registry/index.ts';
import type { PermitInput, PresenceInput, TranslationPlanInput } from '../translator/index.ts';
import type { Conversations } from './conversations.ts';
import { addressOf, freePools, textOf, UsedPrefixes } from './presence-pool.ts';

/** Where the plan comes from. */
export type PlanSource =
  /** Clients are in one realm, services in the other. */
  | { readonly kind: 'inferred' }
  /** Hosts in one of the prefixes are in one realm, all others in the other. */
  | { readonly kind: 'prefixes'; readonly prefixes: readonly IpPrefix[] }
  /** Clients are in a site, and may use the services that are exposed to it. */
  | { readonly kind: 'desired'; readonly desired: DesiredSource; readonly site: string };

/** The realms by index: where the clients are, or what the prefixes name; and the other one. */
export type RealmIndex = 0 | 1;

/** A host whose services may be used. */
export interface PlannedService {
  readonly realm: string;
  readonly address: string;
  /** For example `tcp/5672` or `udp/8000-8100`. */
  readonly ports: readonly string[];
}

export class ReplayPlan {
  readonly realmNames: readonly [string, string];
  readonly translation: TranslationPlanInput;
  readonly services: readonly PlannedService[];
  /** How many hosts have a presence as clients or services. */
  readonly hosts: number;
  /** How many hosts got no presence, because the pools had no more addresses. */
  readonly hostsWithoutPresence: number;
  readonly #source: PlanSource;
  /** By realm: the presence there of a host of the other realm, by the bytes of its address. */
  readonly #presences: readonly [ReadonlyMap<string, IpAddress>, ReadonlyMap<string, IpAddress>];

  /**
   * @throws {ConfigError} if the desired state has not the site, or no exposure in it.
   * @throws {CaptureError} if there are no prefixes for the presences.
   */
  constructor(source: PlanSource, conversations: Conversations) {
    this.#source = source;
    this.realmNames = source.kind === 'desired' ? [source.site, 'other sites'] : ['site', 'cloud'];
    const draft = new PlanDraft(source, this.realmNames, conversations);
    this.#presences = draft.presences;
    this.services = draft.services();
    this.hosts = draft.bindings.length;
    this.hostsWithoutPresence = draft.withoutPresence;
    this.translation = draft.plan(this.services);
  }

  /** Returns the realm that a packet comes from. */
  realmOf(source: IpAddress, way: 'request' | 'reply'): RealmIndex {
    return realmIn(this.#source, source, way === 'request');
  }

  /** Returns what stands in a realm for a host of the other realm; undefined if there is nothing. */
  presence(realm: RealmIndex, host: string): IpAddress | undefined {
    return this.#presences[realm].get(host);
  }
}

/** The plan while it is put together. */
class PlanDraft {
  readonly presences: readonly [Map<string, IpAddress>, Map<string, IpAddress>] = [
    new Map(),
    new Map(),
  ];
  readonly bindings: PresenceInput[] = [];
  withoutPresence = 0;
  readonly #source: PlanSource;
  readonly #names: readonly [string, string];
  readonly #pools: ReturnType<typeof freePools>;
  /** The services by realm and address: ports by protocol, each with the prefixes of its clients. */
  readonly #offers = new Map<string, Offer>();

  constructor(source: PlanSource, names: readonly [string, string], conversations: Conversations) {
    this.#source = source;
    this.#names = names;
    const used = new UsedPrefixes();
    for (const { client, server } of conversations.all()) {
      used.add(hostOf(client));
      used.add(hostOf(server));
    }
    const exposed = source.kind === 'desired' ? exposedTo(source.desired, source.site) : [];
    for (const { address } of exposed) used.add(textOf(address));
    this.#pools = freePools(used);
    for (const { address, ports, clients } of exposed) {
      const offer = this.#offer(SERVICES, textOf(address));
      offer.given.push({ ports, clients });
    }
    for (const { protocol, client, server, isAnswered } of conversations.all()) {
      const [from, to] = [hostOf(client), hostOf(server)];
      const realm = realmIn(source, addressOf(from), true);
      if (source.kind === 'prefixes' && realm === realmIn(source, addressOf(to), false)) continue;
      if (source.kind !== 'desired' && isAnswered) this.#addPort(1 - realm, to, protocol, server);
      this.#bind(realm, from);
    }
  }

  services(): PlannedService[] {
    return [...this.#offers].map(([key, { seen, given }]) => ({
      realm: this.#names[Number(key[0])]!,
      address: addressOf(key.slice(1)).toString(),
      ports: [...given.flatMap(({ ports }) => ports.map(String)), ...rangesOf(seen)],
    }));
  }

  plan(services: readonly PlannedService[]): TranslationPlanInput {
    const { desired, site } = this.#source.kind === 'desired' ? this.#source : {};
    const sources = desired?.site(site!)?.sources;
    const realms = this.#names.map((name, realm) => ({
      name,
      sources: (realm === 0 && sources) || ['0.0.0.0/0', '::/0'],
      pools: Object.values(this.#pools[realm]!.prefixes),
    }));
    const given = [...this.#offers.values()].map((offer) => offer.given);
    const permits = services.flatMap(({ realm, address, ports }, i): PermitInput[] => {
      const service = { realm, address };
      const from = this.#names[realm === this.#names[0] ? 1 : 0]!;
      if (given[i]!.length === 0) return [{ realm: from, service, ports }];
      return given[i]!.map((each) => ({
        realm: from,
        service,
        ports: each.ports,
        ...(each.clients && { clients: each.clients }),
      }));
    });
    return { realms, presences: this.bindings, permits };
  }

  #addPort(realm: number, host: string, protocol: number, end: string): void {
    const port = portOf(protocol, end.slice(host.length));
    if (port === undefined) return;
    this.#offer(realm, host).seen.add(port);
  }

  #offer(realm: number, host: string): Offer {
    const key = realm + host;
    let offer = this.#offers.get(key);
    if (offer === undefined) {
      offer = { seen: new Set(), given: [] };
      this.#offers.set(key, offer);
      this.#bind(realm, host);
    }
    return offer;
  }

  /** Gives a host of a realm its presence in the other one. */
  #bind(home: number, host: string): void {
    const other = 1 - home;
    const presences = this.presences[other]!;
    if (presences.has(host)) return;
    const address = this.#pools[other]!.take(host.length === 4 ? 4 : 6);
    if (address === undefined) {
      this.withoutPresence++;
      return;
    }
    presences.set(host, address);
    const of = { realm: this.#names[home]!, address: addressOf(host) };
    this.bindings.push({ realm: this.#names[other]!, address, of });
  }
}

/** What a host offers. */
interface Offer {
  /** Ports that the capture has shown, such as `tcp/5672`. */
  readonly seen: Set<string>;
  /** Ports that a desired state names. */
  readonly given: { ports: readonly PortRange[]; clients: readonly IpPrefix[] | undefined }[];
}

/** The services that a site may use, at their real addresses. */
function exposedTo(
  desired: DesiredSource,
  site: string
): { address: IpAddress; ports: readonly PortRange[]; clients: readonly IpPrefix[] | undefined }[] {
  if (desired.site(site) === undefined) {
    const names = [...desired.sites()].map(({ name }) => name).join(', ');
    throw new ConfigError('', `the desired state has no site "${site}": it has ${names}`);
  }
  const exposed = [...desired.exposuresTo(site)].map(({ service, clients }) => {
    const { address, ports } = desired.service(service)!;
    return { address, ports, clients };
  });
  if (exposed.length === 0) {
    throw new ConfigError('', `the desired state exposes nothing to the site "${site}"`);
  }
  return exposed;
}

/**
 * Returns what tells whether an end is a service of a desired state, for `Conversations.finish`; undefined for other
 * plans.
 *
 * @throws {ConfigError} if the desired state has not the site, or no exposure in it.
 */
export function serviceCheck(
  source: PlanSource
): ((protocol: number, end: string) => boolean) | undefined {
  if (source.kind !== 'desired') return undefined;
  const hosts = new Map<string, PortRange[]>();
  for (const { address, ports } of exposedTo(source.desired, source.site)) {
    const host = textOf(address);
    hosts.set(host, [...(hosts.get(host) ?? []), ...ports]);
  }
  return (protocol, end) => {
    const host = hostOf(end);
    const port = (end.charCodeAt(host.length) << 8) | end.charCodeAt(host.length + 1);
    const name = PROTOCOL_NAMES.get(protocol);
    return (hosts.get(host) ?? []).some(
      ({ protocol: offered, first, last }) => offered === name && first <= port && port <= last
    );
  };
}

function realmIn(source: PlanSource, address: IpAddress, isClient: boolean): RealmIndex {
  if (source.kind !== 'prefixes') return isClient ? 0 : 1;
  return source.prefixes.some((prefix) => prefix.contains(address)) ? 0 : 1;
}

/** The address of an end: without the two bytes of its port, if it has one. */
function hostOf(end: string): string {
  return end.slice(0, end.length < 16 ? 4 : 16);
}

/** The port of a protocol as a permit names it; undefined if no permit can. */
function portOf(protocol: number, port: string): string | undefined {
  const name = PROTOCOL_NAMES.get(protocol);
  if (name !== undefined) return `${name}/${(port.charCodeAt(0) << 8) | port.charCodeAt(1)}`;
  if (protocol === ICMP || protocol === ICMPV6) return 'icmp';
  try {
    return PortRange.parse(`ip/${protocol}`).toString();
  } catch {
    return undefined;
  }
}

/** Writes consecutive ports as ranges, in order. */
function rangesOf(ports: ReadonlySet<string>): string[] {
  const parsed = [...ports]
    .filter((port) => !port.endsWith('/0'))
    .map((port) => PortRange.parse(port))
    .sort((a, b) =>
      a.protocol < b.protocol ? -1 : a.protocol > b.protocol ? 1 : a.first - b.first
    );
  const ranges: { protocol: string; first: number; last: number }[] = [];
  for (const { protocol, first, last } of parsed) {
    const before = ranges.at(-1);
    const isNext = before?.protocol === protocol && before.last + 1 === first && protocol !== 'ip';
    if (isNext) before.last = last;
    else ranges.push({ protocol, first, last });
  }
  return ranges.map(({ protocol, first, last }) => {
    if (protocol === 'icmp') return protocol;
    return first === last ? `${protocol}/${first}` : `${protocol}/${first}-${last}`;
  });
}

/** The realm of the services, if it is not prefixes that say which realm a host is in. */
const SERVICES = 1;

const ICMP = 1;
const ICMPV6 = 58;
const PROTOCOL_NAMES: ReadonlyMap<number, string> = /* @__PURE__ */ new Map([
  [6, 'tcp'],
  [17, 'udp'],
  [132, 'sctp'],
  [136, 'udplite'],
]);
