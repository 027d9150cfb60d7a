/**
 * A plan as lookup tables. Keys are realm names and plain texts of addresses.
 * @module
 */
import { bytesOf, isInside, type Prefix, plainText, prefixOf } from '../support/address.ts';
import type { TextPermit, TextPlan, TextPresence, TextRealm } from '../support/text-of.ts';
import { type IpVersion, versionOf } from './headers.ts';

export interface Endpoint {
  readonly realm: string;
  readonly address: string;
}

/** The path of packets between two addresses: egress realm and new addresses. */
export interface Path {
  readonly egress: string;
  readonly source: string;
  readonly destination: string;
}

interface Range {
  readonly protocol: string;
  readonly first: number;
  readonly last: number;
}

interface Rule {
  /** Absent: every source of the realm. */
  readonly clients: readonly Prefix[] | undefined;
  readonly ports: readonly Range[];
}

export class Tables {
  /** Realm and address to the endpoint that it stands for. */
  readonly #behind = new Map<string, Endpoint>();
  /** Realm, realm of the endpoint, its address and an IP version, to the address that stands for it. */
  readonly #presences = new Map<string, string>();
  /** Realm, realm of the service and its address. */
  readonly #rules = new Map<string, Rule[]>();
  readonly #realms: ReadonlyMap<string, TextRealm>;
  readonly #sources: ReadonlyMap<string, readonly Prefix[]>;
  readonly #pools: ReadonlyMap<string, readonly Prefix[]>;

  constructor(plan: TextPlan) {
    this.#realms = new Map(plan.realms.map((realm) => [realm.name, realm]));
    this.#sources = new Map(plan.realms.map((realm) => [realm.name, realm.sources.map(prefixOf)]));
    this.#pools = new Map(plan.realms.map(({ name, pools = [] }) => [name, pools.map(prefixOf)]));
    for (const presence of plan.presences) this.add(presence);
    for (const permit of plan.permits) {
      const { realm, address } = permit.service;
      const key = `${permit.realm} ${realm} ${plainText(address)}`;
      this.#rules.set(key, [...(this.#rules.get(key) ?? []), ruleOf(permit)]);
    }
  }

  add({ realm, address, of }: TextPresence): void {
    const real = plainText(of.address);
    this.#behind.set(`${realm} ${plainText(address)}`, { realm: of.realm, address: real });
    this.#presences.set(`${realm} ${of.realm} ${real} ${versionOf(address)}`, plainText(address));
  }

  hasRealm(name: string): boolean {
    return this.#realms.has(name);
  }

  realm(name: string): TextRealm {
    return this.#realms.get(name)!;
  }

  /** The endpoint that an address of the realm stands for. */
  behind(realm: string, address: string): Endpoint | undefined {
    return this.#behind.get(`${realm} ${address}`);
  }

  /** The address of that version which stands for the endpoint in the realm. */
  presenceOf(endpoint: Endpoint, realm: string, version: IpVersion): string | undefined {
    return this.#presences.get(`${realm} ${endpoint.realm} ${endpoint.address} ${version}`);
  }

  /** Whether a packet of the realm may come from the address: it is a source, and in no pool. */
  isSource(realm: string, address: string): boolean {
    return isAmong(this.#sources.get(realm)!, address) && !this.isInPool(realm, address);
  }

  isInPool(realm: string, address: string): boolean {
    return isAmong(this.#pools.get(realm)!, address);
  }

  /** Whether a permit of the client's realm lets it use that port of the service; any port if absent. */
  isPermitted(client: Endpoint, service: Endpoint, protocol?: string, port?: number): boolean {
    const rules = this.#rules.get(`${client.realm} ${service.realm} ${service.address}`) ?? [];
    return rules.some(
      ({ clients, ports }) =>
        (clients === undefined
          ? this.isSource(client.realm, client.address)
          : isAmong(clients, client.address)) &&
        (protocol === undefined ||
          ports.some(
            (range) => range.protocol === protocol && port! >= range.first && port! <= range.last
          ))
    );
  }

  /** The path of packets between two addresses of the realm, if there is one. */
  path(realm: string, source: string, destination: string): Path | undefined {
    const behind = this.behind(realm, destination);
    if (behind === undefined || !this.isSource(realm, source)) return undefined;
    const own = { realm, address: source };
    if (!this.isPermitted(own, behind) && !this.isPermitted(behind, own)) return undefined;
    const presence = this.presenceOf(own, behind.realm, versionOf(behind.address));
    if (presence === undefined) return undefined;
    return { egress: behind.realm, source: presence, destination: behind.address };
  }
}

export function isSamePath(a: Path, b: Path | undefined): boolean {
  return a.egress === b?.egress && a.source === b.source && a.destination === b.destination;
}

function ruleOf(permit: TextPermit): Rule {
  return { clients: permit.clients?.map(prefixOf), ports: permit.ports.map(rangeOf) };
}

/** `tcp/5672`, `udp/8000-8100`, `icmp` or `ip/47`. */
function rangeOf(text: string): Range {
  const [protocol, range = '0'] = text.split('/');
  const [first, last = first] = range.split('-').map(Number);
  return { protocol: protocol!, first: first!, last: last! };
}

function isAmong(prefixes: readonly Prefix[], address: string): boolean {
  const bytes = bytesOf(address);
  return prefixes.some((prefix) => isInside(bytes, prefix));
}
