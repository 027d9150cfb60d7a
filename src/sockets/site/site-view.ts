/**
 * What a stack knows of its site: its own addresses, the names and ports of the presences, and the pools.
 * @module
 */
import { isIP } from 'node:net';
import { type AddressInput, bitsOf, type Family, IpAddress } from '../../base/address.ts';
import { HostNames } from '../../base/host-names.ts';
import { type PortInput, PortRange } from '../../base/port-range.ts';
import { IpPrefix, type PrefixInput } from '../../base/prefix.ts';

/** The part of a snapshot that a stack needs; a `Snapshot` of the control channel is one. */
export interface StackSite {
  /** Prefixes of the site's real hosts, of which the stack is one. */
  readonly sources: readonly PrefixInput[];
  /** Prefixes of the presences, which may lie inside the sources. */
  readonly pools: readonly PrefixInput[];
  /** The domain of the names. */
  readonly zone: string;
  readonly hosts: readonly StackHost[];
}

export interface StackHost {
  /** The full domain name. */
  readonly name: string;
  readonly addresses: readonly AddressInput[];
  /** Empty for a host that is only a client. */
  readonly ports: readonly PortInput[];
  /** Addresses that lead to it, too, but that its name does not have any more; none if absent. */
  readonly former?: readonly AddressInput[] | undefined;
  /** Full domain names that lead to `name`; none if absent. */
  readonly aliases?: readonly string[] | undefined;
  /** Whether the names below `name` that do not exist have its addresses; false if absent. */
  readonly wildcard?: boolean | undefined;
}

/** A name with ports, of all its hosts together. */
export interface StackService {
  /** In lower case. */
  readonly name: string;
  readonly addresses: readonly IpAddress[];
  readonly ports: readonly PortRange[];
  /** Other names for it, in lower case. */
  readonly aliases: readonly string[];
}

export type StackProtocol = 'tcp' | 'udp' | 'icmp';

/** A connection of the stack, as `withdrawalOf` sees it. */
export interface StackConnection {
  /** Undefined for a UDP socket that takes part with any address of the stack. It may be the address of a service. */
  readonly local: IpAddress | undefined;
  readonly remote: IpAddress;
  readonly remotePort: number;
}

/** One state of a site, made from a snapshot. It does not change. */
export class SiteView {
  /** Before the first snapshot: without names and pools. */
  static readonly NONE: SiteView = new SiteView(
    { sources: [], pools: [], zone: '', hosts: [] },
    [],
    undefined
  );

  readonly #names: HostNames;
  readonly #sources: readonly IpPrefix[];
  readonly #pools: readonly IpPrefix[];
  /** Keyed by the full name, in lower case. */
  readonly #addresses = new Map<string, IpAddress[]>();
  /** Keyed by the text of the address. */
  readonly #presences = new Map<string, Presence>();
  /** The ports of the names that have some. */
  readonly #ports = new Map<string, PortRange[]>();
  /** The aliases of the same names. */
  readonly #aliases = new Map<string, string[]>();
  readonly #own: ReadonlyMap<Family, IpAddress>;

  /**
   * @param given the stack's own addresses, at most one of each family; the others are chosen
   * @param previous the state before, whose chosen addresses are kept if they are still possible
   * @throws {ApiMisuseError} if a text is not an address or a prefix, {ConfigError} if it is not a port.
   */
  constructor(site: StackSite, given: readonly IpAddress[], previous: SiteView | undefined) {
    this.#names = new HostNames(site.zone, site.hosts);
    this.#sources = site.sources.map(IpPrefix.from);
    this.#pools = site.pools.map(IpPrefix.from);
    for (const { name, addresses, ports, former = [], aliases = [] } of site.hosts) {
      const key = name.toLowerCase();
      const ranges = ports.map((port) => PortRange.from(port));
      for (const input of addresses) this.#addNamed(key, IpAddress.from(input), ranges);
      for (const input of former) this.#addPresence(key, IpAddress.from(input), ranges);
      if (addresses.length > 0 && ranges.length > 0) {
        this.#ports.set(key, [...(this.#ports.get(key) ?? []), ...ranges]);
        const others = aliases.map((alias) => alias.toLowerCase());
        this.#aliases.set(key, [...new Set([...(this.#aliases.get(key) ?? []), ...others])]);
      }
    }
    this.#own = this.#chooseOwn(given, previous);
  }

  /** Returns the names with ports, in the order of the snapshot. */
  *services(): Generator<StackService> {
    for (const [name, ports] of this.#ports) {
      const aliases = this.#aliases.get(name)!;
      yield { name, addresses: this.#addresses.get(name)!, ports, aliases };
    }
  }

  /** The stack's own address of this family; undefined if the site has none for it. */
  localAddress(family: Family): IpAddress | undefined {
    return this.#own.get(family);
  }

  /** Returns whether this is an address of the stack. The words are those of the address, from `at` on. */
  isOwn(family: Family, words: ArrayLike<number>, at: number): boolean {
    const own = this.#own.get(family);
    if (own === undefined) return false;
    for (let i = 0; i < own.words.length; i++) if (words[at + i] !== own.words[i]) return false;
    return true;
  }

  /** Returns whether this is an address in a pool; see `isOwn` for the words. */
  isPresenceAt(family: Family, words: ArrayLike<number>, at: number): boolean {
    for (const pool of this.#pools) {
      if (pool.family === family && pool.containsWords(words, at)) return true;
    }
    return false;
  }

  /** Returns the own addresses that the cloud does not let pass: they are outside the sources, or in a pool. */
  get refusedAddresses(): readonly IpAddress[] {
    return [...this.#own.values()].filter((address) => !this.#isReal(address));
  }

  /** Returns why the cloud lets no packet from the own address of this family pass; undefined if it does. */
  addressFault(family: Family): Error | undefined {
    const own = this.#own.get(family);
    if (own === undefined || this.#isReal(own)) return undefined;
    const expected = `one of the site's sources ${this.#sources.join()} outside its pools`;
    return new Error(`${own} cannot be used, expected ${expected}`);
  }

  /**
   * Returns the addresses of a name, in the order of the snapshot, or the address itself; none if the name is not
   * known.
   *
   * @param host a full domain name, a name within the zone, or the text of an address, whose family is not checked; an
   *   IPv4-mapped address means the IPv4 address. A name that only a wildcard covers must be full
   * @param family 0 for both
   */
  resolve(host: string, family: 0 | Family): readonly IpAddress[] {
    // An address with a zone index (`fe80::1%eth0`) names an interface of the host, and nothing here.
    if (isIP(host) !== 0) {
      // All connections to a presence share the object of its address.
      if (host.includes('%')) return [];
      const known = this.#presences.get(host)?.address;
      if (known !== undefined) return [known];
      const address = withoutMapping(IpAddress.parse(host));
      return [this.#presences.get(address.toString())?.address ?? address];
    }
    const name = this.#names.find(host);
    const found = (name !== undefined && this.#addresses.get(name)) || [];
    return family === 0 ? found : found.filter((address) => address.family === family);
  }

  /**
   * Returns the code with which a connection or request to this fails at once; undefined if it may be tried. It is
   * EADDRNOTAVAIL for every destination if the own address has a fault, for example because it is in a pool. Otherwise
   * the own address is in no pool, so that nothing leads back to the stack itself. For UDP the ports are not looked at,
   * since a datagram may be the answer to a client, which has no ports in the snapshot.
   */
  refusal(protocol: StackProtocol, remote: IpAddress, port: number): string | undefined {
    if (this.addressFault(remote.family) !== undefined) return 'EADDRNOTAVAIL';
    if (!this.isPresence(remote) || !this.#own.has(remote.family)) return 'ENETUNREACH';
    const isOpen = protocol === 'udp' || this.#allows(protocol, remote, port);
    return isOpen ? undefined : 'ECONNREFUSED';
  }

  /** Returns whether the address is in a pool. */
  isPresence(address: IpAddress): boolean {
    return this.#pools.some((pool) => pool.contains(address));
  }

  /**
   * Returns why a connection that was possible in the state `before` is not possible now; undefined if it is. An
   * address whose names are all different is withdrawn too, because another host may have it now.
   */
  withdrawalOf(
    protocol: 'tcp' | 'udp',
    { local, remote, remotePort }: StackConnection,
    before: SiteView
  ): string | undefined {
    // The address of a service is not one of the stack's, now and before.
    const wasOwn = local !== undefined && before.#own.get(local.family)?.equals(local) === true;
    if (wasOwn && !this.#own.get(local.family)?.equals(local)) {
      return `${local} is no longer the address of this stack`;
    }
    if (!this.isPresence(remote)) return `${remote} is not in the pools of the site any more`;
    const key = remote.toString();
    const now = this.#presences.get(key)?.names;
    const then = before.#presences.get(key)?.names;
    const isAnother =
      now !== undefined && then !== undefined && !then.some((it) => now.includes(it));
    if (isAnother) return `${remote} was withdrawn, and belongs to ${now[0]} now`;
    // A port that was not allowed before is that of a client, and the snapshot does not name all of these.
    const isService = before.#allows(protocol, remote, remotePort);
    if (!isService || this.#allows(protocol, remote, remotePort)) return undefined;
    return `${protocol}/${remotePort} of ${then?.[0] ?? remote} was withdrawn`;
  }

  #addNamed(name: string, address: IpAddress, ports: readonly PortRange[]): void {
    const list = this.#addresses.get(name);
    if (list === undefined) this.#addresses.set(name, [address]);
    else if (!list.some((other) => other.equals(address))) list.push(address);
    this.#addPresence(name, address, ports);
  }

  #addPresence(name: string, address: IpAddress, ports: readonly PortRange[]): void {
    const key = address.toString();
    const presence = this.#presences.get(key);
    if (presence === undefined) {
      this.#presences.set(key, { address, names: [name], ports: [...ports] });
    } else {
      presence.names.push(name);
      presence.ports.push(...ports);
    }
  }

  #allows(protocol: StackProtocol, remote: IpAddress, port: number): boolean {
    const ports = this.#presences.get(remote.toString())?.ports ?? [];
    return ports.some(
      (range) => range.protocol === protocol && range.first <= port && port <= range.last
    );
  }

  #chooseOwn(
    given: readonly IpAddress[],
    previous: SiteView | undefined
  ): ReadonlyMap<Family, IpAddress> {
    const own = new Map<Family, IpAddress>();
    for (const family of [4, 6] as const) {
      const before = previous?.localAddress(family);
      const address =
        given.find((it) => it.family === family) ??
        (before !== undefined && this.#isReal(before) ? before : this.#firstReal(family));
      if (address !== undefined) own.set(family, address);
    }
    return own;
  }

  #isReal(address: IpAddress): boolean {
    return this.#sources.some((prefix) => prefix.contains(address)) && !this.isPresence(address);
  }

  /** Returns the first address of the sources that a host may have, outside the pools. */
  #firstReal(family: Family): IpAddress | undefined {
    for (const prefix of this.#sources) {
      if (prefix.family !== family) continue;
      const { first, last } = hostsOf(prefix);
      let next = first;
      // The lowest address outside the pools is the first one, or directly behind a pool.
      for (const pool of [...this.#pools].sort(byBase)) {
        if (pool.family === family && pool.contains(addressAt(family, next))) next = endOf(pool);
      }
      if (next <= last) return addressAt(family, next);
    }
    return undefined;
  }
}

interface Presence {
  readonly address: IpAddress;
  /** In lower case. */
  readonly names: string[];
  readonly ports: PortRange[];
}

/**
 * Returns the first and the last address that a host in the prefix may have. The first one of a network means the
 * network itself (RFC 1122 section 3.2.1.3) or all its routers (RFC 4291 section 2.6.1), the last one of an IPv4
 * network all its hosts. Networks of one or two addresses have neither (RFC 3021, RFC 6164).
 */
function hostsOf(prefix: IpPrefix): { readonly first: bigint; readonly last: bigint } {
  const base = prefix.base.toBigInt();
  const end = endOf(prefix);
  const isSmall = bitsOf(prefix.family) - prefix.length <= 1;
  return {
    first: isSmall ? base : base + 1n,
    last: isSmall || prefix.family === 6 ? end - 1n : end - 2n,
  };
}

/** Returns the IPv4 address of an IPv4-mapped one, `::ffff:192.0.2.1` (RFC 4291 section 2.5.5.2), else the address. */
function withoutMapping(address: IpAddress): IpAddress {
  const [first, second, third, last] = address.words;
  const isMapped = first === 0 && second === 0 && third === 0xffff;
  return isMapped ? IpAddress.fromWords([last!]) : address;
}

/** Returns the number behind the last address of the prefix. */
function endOf(prefix: IpPrefix): bigint {
  return prefix.base.toBigInt() + (1n << BigInt(bitsOf(prefix.family) - prefix.length));
}

/** The number may be one behind the last address, which is in no prefix then. */
function addressAt(family: Family, value: bigint): IpAddress {
  const max = (1n << BigInt(bitsOf(family))) - 1n;
  return IpAddress.fromBigInt(family, value > max ? max : value);
}

function byBase(a: IpPrefix, b: IpPrefix): number {
  if (a.family !== b.family) return a.family - b.family;
  const [one, other] = [a.base.toBigInt(), b.base.toBigInt()];
  return one < other ? -1 : Number(one > other);
}
