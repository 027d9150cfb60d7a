/**
 * The plan of a translator: realms, presences and permits. `docs/translation.md` has the rules for them. A caller gives
 * addresses as values or as text; inside they are values.
 * @module
 */
import { type AddressInput, type Family, IpAddress } from '../base/address.ts';
import { Endpoint, type EndpointInput } from '../base/endpoint.ts';
import { type PortInput, PortRange } from '../base/port-range.ts';
import { IpPrefix, type PrefixInput } from '../base/prefix.ts';
import { ConfigError } from '../errors.ts';

/** An address of `realm`, of either IP version, that stands there for an endpoint of another realm. */
export interface Presence {
  readonly realm: string;
  readonly address: IpAddress;
  readonly of: Endpoint;
  /**
   * Present if the realm was renumbered: the host has a newer address of this IP version there, and this one leads to it
   * too, until it is removed. It is the time of that, of which only the order counts: packets of the host leave under
   * the address that ends first, because live connections may be on it. Answers leave under the address that the
   * request went to. Absent: the host's newest address, or its only one.
   */
  readonly formerUntil?: number | undefined;
}

export interface Realm {
  readonly name: string;
  /** Prefixes of the addresses that packets of this realm may come from. */
  readonly sources: readonly IpPrefix[];
  /**
   * Prefixes that the realm's presences are taken from. No packet of the realm may come from there, unless
   * `poolsMaySend` is set.
   */
  readonly pools?: readonly IpPrefix[];
  /**
   * Whether packets may come from addresses that are in `sources` and in `pools`, except for presences of this plan:
   * other translators have presences in the same pools. Default false.
   */
  readonly poolsMaySend?: boolean;
  /** The largest packet into the realm in bytes, 576 to 65535. Default: no limit. */
  readonly mtu?: number;
  /** How a packet from the realm that is not permitted is answered. Default: `drop`, no answer. */
  readonly reject?: Reject;
}

/** `unreachable`: an ICMP error. `reset`: a RST for TCP, an ICMP error for other protocols. */
export type Reject = 'drop' | 'unreachable' | 'reset';

/** Allows clients of `realm` to open sessions to `ports` of `service`, a real host of another realm. */
export interface Permit {
  readonly realm: string;
  readonly service: Endpoint;
  /** `tcp/5672`, `udp/8000-8100` (likewise `udplite`, `sctp`), `icmp` (echo) or `ip/47`. */
  readonly ports: readonly PortRange[];
  /** Prefixes of the clients' real addresses. Default: every source of the realm. */
  readonly clients?: readonly IpPrefix[];
}

/** What a translator needs to know. */
export interface TranslationPlan {
  readonly realms: readonly Realm[];
  readonly presences: readonly Presence[];
  readonly permits: readonly Permit[];
}

/** What a translator has of one realm, for comparisons with the plan that it has to have. */
export interface PlannedRealm {
  /** The prefixes of the presences in the realm. */
  readonly pools: readonly IpPrefix[];
  /** How many presences there are in the realm. */
  readonly presences: number;
  /** How many hosts some of its clients may use. */
  readonly services: number;
  /** Returns the presence at an address of the realm. */
  at(address: IpAddress): Pick<Presence, 'of' | 'formerUntil'> | undefined;
}

/**
 * Changes of a plan. Each entry replaces one keyed thing by what it is now, so that applying it twice is applying it
 * once. Realms that come are applied first and realms that go are applied last, whatever their order here. If a key is
 * there twice, the later entry counts.
 */
export interface PlanChanges {
  /** Undefined: the realm is gone, with all its presences and permits. */
  readonly realms?: readonly { readonly name: string; readonly realm: Realm | undefined }[];
  /** Undefined: the address stands for nothing any more. */
  readonly presences?: readonly {
    readonly realm: string;
    readonly address: IpAddress;
    readonly of: Endpoint | undefined;
    /** As in `Presence`. */
    readonly formerUntil?: number | undefined;
  }[];
  /** All permits of one pair of clients' realm and service; an empty list: there are none any more. */
  readonly permits?: readonly {
    readonly realm: string;
    readonly service: Endpoint;
    readonly permits: readonly Permit[];
  }[];
}

/** A presence as a caller gives it: addresses are values or text. */
export interface PresenceInput {
  readonly realm: string;
  readonly address: AddressInput;
  readonly of: EndpointInput;
  readonly formerUntil?: number | undefined;
}

/** A realm as a caller gives it: prefixes are values or text. */
export interface RealmInput extends Omit<Realm, 'sources' | 'pools'> {
  readonly sources: readonly PrefixInput[];
  readonly pools?: readonly PrefixInput[];
}

/** A permit as a caller gives it: addresses, ports and prefixes are values or text. */
export interface PermitInput extends Omit<Permit, 'service' | 'ports' | 'clients'> {
  readonly service: EndpointInput;
  readonly ports: readonly PortInput[];
  readonly clients?: readonly PrefixInput[];
}

/** A plan as a caller gives it. What is already a value in it is not copied, so it must not change any more. */
export interface TranslationPlanInput {
  readonly realms: readonly RealmInput[];
  readonly presences: readonly PresenceInput[];
  readonly permits: readonly PermitInput[];
}

/** Changes of a plan as a caller gives them: addresses, ports and prefixes are values or text. */
export interface PlanChangesInput {
  readonly realms?: readonly { readonly name: string; readonly realm?: RealmInput | undefined }[];
  readonly presences?: readonly {
    readonly realm: string;
    readonly address: AddressInput;
    readonly of?: EndpointInput | undefined;
    readonly formerUntil?: number | undefined;
  }[];
  readonly permits?: readonly {
    readonly realm: string;
    readonly service: EndpointInput;
    readonly permits: readonly PermitInput[];
  }[];
}

/**
 * Checks a presence and parses what is text in it.
 *
 * @param path says where it stands, for the message of an error
 * @throws {ConfigError} with that in front.
 */
export function compilePresence(presence: PresenceInput, path: () => string): Presence {
  const { realm, address, of, formerUntil } = presence;
  if (of.realm === realm) {
    throw new ConfigError(`${path()}.of.realm`, `"${realm}" is the presence's own realm`);
  }
  if (formerUntil !== undefined && !Number.isFinite(formerUntil)) {
    throw new ConfigError(`${path()}.formerUntil`, `${formerUntil} is not a time`);
  }
  if (address instanceof IpAddress && of instanceof Endpoint) return presence as Presence;
  return {
    realm,
    address: parsedAt(() => `${path()}.address`, address, IpAddress.from),
    of: parsedAt(() => `${path()}.of.address`, of, Endpoint.from),
    ...(formerUntil === undefined ? {} : { formerUntil }),
  };
}

/**
 * Checks a permit and parses what is text in it.
 *
 * @param path says where it stands, for the message of an error
 * @throws {ConfigError} with that in front.
 */
export function compilePermit(permit: PermitInput, path: () => string): Permit {
  const { realm, service, ports, clients } = permit;
  if (service.realm === realm) {
    throw new ConfigError(`${path()}.service.realm`, `"${realm}" is the permit's own realm`);
  }
  const hasValues = service instanceof Endpoint && ports.every(isRange);
  if (hasValues && (clients === undefined || clients.every(isPrefix))) return permit as Permit;
  return {
    realm,
    service: parsedAt(() => `${path()}.service.address`, service, Endpoint.from),
    ports: ports.map((port, i) => PortRange.from(port, `${path()}.ports[${i}]`)),
    ...(clients && { clients: prefixesOf(clients, `${path()}.clients`) }),
  };
}

function isRange(port: PortInput): port is PortRange {
  return port instanceof PortRange;
}

function isPrefix(prefix: PrefixInput): prefix is IpPrefix {
  return prefix instanceof IpPrefix;
}

/**
 * Checks a realm and parses what is text in it.
 *
 * @throws {ConfigError} with `path` in front.
 */
export function compileRealm(realm: RealmInput, path: string): Realm {
  const { sources, pools, ...rest } = realm;
  const { mtu, reject } = rest;
  if (mtu !== undefined && !(Number.isInteger(mtu) && mtu >= MIN_MTU && mtu <= MAX_MTU)) {
    const range = `a whole number from ${MIN_MTU} to ${MAX_MTU}`;
    throw new ConfigError(`${path}.mtu`, `${mtu} is not ${range}`);
  }
  if (reject !== undefined && !REJECTS.includes(reject)) {
    const words = REJECTS.map((word) => `"${word}"`).join(', ');
    throw new ConfigError(`${path}.reject`, `"${reject}" is none of ${words}`);
  }
  return {
    ...rest,
    sources: prefixesOf(sources, `${path}.sources`),
    ...(pools && { pools: prefixesOf(pools, `${path}.pools`) }),
  };
}

/**
 * Checks a plan and parses what is text in it.
 *
 * @throws {ConfigError} naming the place in the plan that is wrong.
 */
export function compilePlan({ realms, presences, permits }: TranslationPlanInput): TranslationPlan {
  return {
    realms: realms.map((realm, i) => compileRealm(realm, `realms[${i}]`)),
    presences: presences.map((presence, i) => compilePresence(presence, () => `presences[${i}]`)),
    permits: permits.map((permit, i) => compilePermit(permit, () => `permits[${i}]`)),
  };
}

/**
 * Checks each change by itself and parses what is text in it.
 *
 * @throws {ConfigError} naming the place in the changes that is wrong.
 */
export function compileChanges(changes: PlanChangesInput): Required<PlanChanges> {
  const { realms = [], presences = [], permits = [] } = changes;
  return {
    realms: realms.map(({ name, realm }, i) => {
      if (realm === undefined) return { name, realm };
      if (realm.name !== name) {
        throw new ConfigError(`realms[${i}].realm.name`, `"${realm.name}" is not "${name}"`);
      }
      return { name, realm: compileRealm(realm, `realms[${i}].realm`) };
    }),
    presences: presences.map(({ realm, address, of, formerUntil }, i) => {
      if (of !== undefined) {
        return compilePresence({ realm, address, of, formerUntil }, () => `presences[${i}]`);
      }
      const path = () => `presences[${i}].address`;
      return { realm, address: parsedAt(path, address, IpAddress.from), of };
    }),
    permits: permits.map(({ realm, service: input, permits: list }, i) => {
      const path = `permits[${i}]`;
      const service = parsedAt(() => `${path}.service.address`, input, Endpoint.from);
      const compiled = list.map((permit, j) => {
        const each = compilePermit(permit, () => `${path}.permits[${j}]`);
        if (each.realm !== realm || each.service.key !== service.key) {
          const is = `it lets "${each.realm}" use ${each.service}`;
          throw new ConfigError(`${path}.permits[${j}]`, `${is}, not "${realm}" use ${service}`);
        }
        return each;
      });
      return { realm, service, permits: compiled };
    }),
  };
}

/** Returns a plan with text in place of its values, for another process. */
export function printPlan({
  realms,
  presences,
  permits,
}: TranslationPlanInput): TranslationPlanInput {
  return {
    realms: realms.map(printRealm),
    presences: presences.map(printPresence),
    permits: permits.map(printPermit),
  };
}

/** Returns changes with text in place of their values, for another process. */
export function printChanges(changes: PlanChangesInput): PlanChangesInput {
  const { realms = [], presences = [], permits = [] } = changes;
  return {
    realms: realms.map(({ name, realm }) => ({ name, realm: realm && printRealm(realm) })),
    presences: presences.map(({ realm, address, of, formerUntil }) => ({
      realm,
      address: address.toString(),
      of: of && printEndpoint(of),
      ...(formerUntil === undefined ? {} : { formerUntil }),
    })),
    permits: permits.map(({ realm, service, permits: list }) => ({
      realm,
      service: printEndpoint(service),
      permits: list.map(printPermit),
    })),
  };
}

/** Returns a presence with text in place of its values, for another process. */
export function printPresence({ realm, address, of, formerUntil }: PresenceInput): PresenceInput {
  const presence = { realm, address: address.toString(), of: printEndpoint(of) };
  return formerUntil === undefined ? presence : { ...presence, formerUntil };
}

function printRealm({ sources, pools, ...realm }: RealmInput): RealmInput {
  return {
    ...realm,
    sources: sources.map(String),
    ...(pools && { pools: pools.map(String) }),
  };
}

function printPermit({ realm, service, ports, clients }: PermitInput): PermitInput {
  return {
    realm,
    service: printEndpoint(service),
    ports: ports.map(String),
    ...(clients && { clients: clients.map(String) }),
  };
}

function printEndpoint({ realm, address }: EndpointInput): EndpointInput {
  return { realm, address: address.toString() };
}

function prefixesOf(prefixes: readonly PrefixInput[], path: string): IpPrefix[] {
  return prefixes.map((prefix, i) => parsedAt(() => `${path}[${i}]`, prefix, IpPrefix.from));
}

/** Parses one thing, and names its place in the plan when it is wrong. */
function parsedAt<T, R>(path: () => string, input: T, parse: (input: T) => R): R {
  try {
    return parse(input);
  } catch (error) {
    throw new ConfigError(path(), (error as Error).message, { cause: error });
  }
}

/** Whether one of the prefixes contains the address `words[at]` on. */
export function containsWords(
  prefixes: readonly IpPrefix[],
  family: Family,
  words: ArrayLike<number>,
  at: number
): boolean {
  for (let i = 0; i < prefixes.length; i++) {
    const prefix = prefixes[i]!;
    if (prefix.family === family && prefix.containsWords(words, at)) return true;
  }
  return false;
}

/** Every host accepts packets of 576 bytes (RFC 791 section 3.1). */
const MIN_MTU = 576;
const MAX_MTU = 65_535;
const REJECTS: readonly Reject[] = ['drop', 'unreachable', 'reset'];
