/**
 * The plan of a translator: realms, presences and permits. `docs/translation.md` has the rules for them.
 * @module
 */
import { type Family, IpAddress, IpPrefix } from '../base/address.ts';
import { type PortRange, parsePortRange } from '../base/port-range.ts';
import { ConfigError } from '../errors.ts';

/** A real host: its realm and its address there. */
export interface Endpoint {
  readonly realm: string;
  readonly address: string;
}

/** An address of `realm` that stands there for an endpoint of another realm, of either IP version. */
export interface Presence {
  readonly realm: string;
  readonly address: string;
  readonly of: Endpoint;
}

export interface Realm {
  readonly name: string;
  /** Prefixes of the addresses that packets of this realm may come from. */
  readonly sources: readonly string[];
  /** Prefixes that the realm's presences are taken from. No packet of the realm may come from there. */
  readonly pools?: readonly string[];
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
  readonly ports: readonly string[];
  /** Prefixes of the clients' real addresses. Default: every source of the realm. */
  readonly clients?: readonly string[];
}

/** What a translator needs to know. It is always replaced as a whole. */
export interface TranslationPlan {
  readonly realms: readonly Realm[];
  readonly presences: readonly Presence[];
  readonly permits: readonly Permit[];
}

export interface CompiledPresence {
  readonly realm: string;
  readonly address: IpAddress;
  readonly of: { readonly realm: string; readonly address: IpAddress };
}

export interface CompiledPermit {
  readonly realm: string;
  readonly service: { readonly realm: string; readonly address: IpAddress };
  readonly ports: readonly PortRange[];
  /** Absent: every source of the realm. */
  readonly clients: readonly IpPrefix[] | undefined;
}

/**
 * Checks and parses one presence.
 *
 * @param path says where it stands, for the message of an error
 * @throws {ConfigError} with that in front.
 */
export function compilePresence(presence: Presence, path: () => string): CompiledPresence {
  if (presence.of.realm === presence.realm) {
    const message = `"${presence.realm}" is the presence's own realm`;
    throw new ConfigError(`${path()}.of.realm`, message);
  }
  return {
    realm: presence.realm,
    address: compileAddress(presence.address, () => `${path()}.address`),
    of: {
      realm: presence.of.realm,
      address: compileAddress(presence.of.address, () => `${path()}.of.address`),
    },
  };
}

/**
 * Checks and parses one permit.
 *
 * @throws {ConfigError} with `path` in front.
 */
export function compilePermit(permit: Permit, path: string): CompiledPermit {
  if (permit.service.realm === permit.realm) {
    throw new ConfigError(`${path}.service.realm`, `"${permit.realm}" is the permit's own realm`);
  }
  return {
    realm: permit.realm,
    service: {
      realm: permit.service.realm,
      address: compileAddress(permit.service.address, () => `${path}.service.address`),
    },
    ports: permit.ports.map((text, i) => parsePortRange(text, `${path}.ports[${i}]`)),
    clients: permit.clients?.map((text, i) => compilePrefix(text, `${path}.clients[${i}]`)),
  };
}

/** Parses an address, naming the place in the plan when it is not one. */
export function compileAddress(text: string, path: () => string): IpAddress {
  try {
    return IpAddress.parse(text);
  } catch (error) {
    throw new ConfigError(path(), (error as Error).message, { cause: error });
  }
}

/** Parses a prefix, naming the place in the plan when it is not one. */
export function compilePrefix(text: string, path: string): IpPrefix {
  try {
    return IpPrefix.parse(text);
  } catch (error) {
    throw new ConfigError(path, (error as Error).message, { cause: error });
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
