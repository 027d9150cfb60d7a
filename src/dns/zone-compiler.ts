/**
 * Checks the plain data of a zone and turns it into records: what each host and each pointer gives to which names.
 * `ZoneTree` puts them together.
 * @module
 */
import { type AddressInput, IpAddress } from '../base/address.ts';
import { IpPrefix } from '../base/prefix.ts';
import { ConfigError } from '../errors.ts';
import { integerWithin } from './limits.ts';
import {
  isWithin,
  parentOf,
  parseName,
  parseRelativeName,
  reverseName,
  reverseZones,
} from './name.ts';
import { makeRecord, type RecordContent, type SoaData, type ZoneRecord } from './record.ts';
import { checkSvcb } from './svcb.ts';
import type {
  ZoneBinding,
  ZoneData,
  ZoneHost,
  ZonePatch,
  ZonePointer,
  ZonePort,
} from './zone-data.ts';
import type { Contribution } from './zone-tree.ts';

/** Compiles the hosts and pointers of one zone, whose origin, times and reverse zones never change. */
export class ZoneCompiler {
  readonly origin: string;
  readonly ttlSeconds: number;
  /** The apexes of the zone and of its reverse zones. */
  readonly #apexes: ReadonlySet<string>;
  readonly #soa: SoaData;

  /** @throws {ConfigError} as `Zone.compile`. */
  constructor(data: ZoneData) {
    this.origin = parseName('origin', data.origin);
    this.ttlSeconds = integerWithin('ttlSeconds', data.ttlSeconds, 0, MAX_TTL_SECONDS);
    this.#soa = {
      mname: this.#ownName('nameserver', data.nameserver),
      rname: parseName('origin', `hostmaster.${this.origin}`),
      serial: 0,
      ...TRANSFER_TIMES,
      minimum: integerWithin('negativeTtlSeconds', data.negativeTtlSeconds, 0, MAX_TTL_SECONDS),
    };
    const reverse = (data.reverse ?? []).flatMap((input, i) =>
      reverseZones(configured(`reverse[${i}]`, () => IpPrefix.from(input)))
    );
    this.#apexes = new Set([this.origin, ...reverse]);
  }

  /** @throws {ConfigError} at `serial` if it is not a number of 32 bits. */
  soa(serial: number): SoaData {
    return { ...this.#soa, serial: integerWithin('serial', serial, 0, 2 ** 32 - 1) };
  }

  /** Compiles what never changes: the nameserver and its addresses. */
  fixed({ nameserverAddresses }: ZoneData): ReadonlyMap<string, Contribution> {
    const { mname } = this.#soa;
    const addresses = this.#addresses('nameserverAddresses', mname, nameserverAddresses);
    const contribution = new Map([...this.#apexes].map((apex) => [apex, [this.#ns(apex)]]));
    return new Map([
      ['apexes', contribution],
      ['nameserver', new Map([[mname, addresses]])],
    ]);
  }

  /**
   * Compiles all hosts and pointers of the names and addresses in a change.
   *
   * @returns what these hosts and pointers give, keyed by source as `ZoneTree.replace` takes it
   * @throws {ConfigError} whose `path` leads to the entry that is wrong.
   */
  compile({
    names,
    hosts,
    addresses,
    pointers,
  }: Omit<ZonePatch, 'serial'>): ReadonlyMap<string, Contribution> {
    const contributions = new Map<string, Map<string, ZoneRecord[]>>();
    names?.forEach((text, i) => {
      contributions.set(hostSource(this.#ownName(`names[${i}]`, text)), new Map());
    });
    const parsed = (hosts ?? []).map((host, i) => {
      const name = this.#ownName(`hosts[${i}].name`, host.name);
      const contribution = entryOf(contributions, hostSource(name), () => new Map());
      this.#addHost(`hosts[${i}]`, name, host, contribution);
      return { name, host, contribution };
    });
    // A host's other records go before its aliases, also those of another entry of the same name.
    parsed.forEach(({ name, host, contribution }, i) => {
      this.#addAliases(`hosts[${i}].aliases`, name, host, contribution);
    });

    const ownerOf = (path: string, input: AddressInput): string => {
      const owner = reverseName(configured(path, () => IpAddress.from(input)));
      entryOf(contributions, pointerSource(owner), () => new Map());
      return owner;
    };
    addresses?.forEach((address, i) => {
      ownerOf(`addresses[${i}]`, address);
    });
    pointers?.forEach((pointer, i) => {
      const owner = ownerOf(`pointers[${i}].address`, pointer.address);
      this.#addPointer(`pointers[${i}]`, owner, pointer, contributions.get(pointerSource(owner))!);
    });
    return contributions;
  }

  #addHost(path: string, name: string, host: ZoneHost, into: Map<string, ZoneRecord[]>): void {
    const own = [
      ...this.#addresses(`${path}.addresses`, name, host.addresses),
      ...(host.texts ?? []).map((text) => this.#record(name, { type: 'TXT', data: text })),
    ];
    host.bindings?.forEach((binding, i) => {
      const { owner, record } = this.#binding(`${path}.bindings[${i}]`, name, binding);
      if (owner === name) own.push(record);
      else addRecords(into, owner, [record]);
    });
    addRecords(into, name, own);
    if (host.wildcard === true) {
      const owner = parseName(`${path}.wildcard`, `*.${name}`, true);
      addRecords(
        into,
        owner,
        own.map(({ content }) => this.#record(owner, content))
      );
    }
    host.ports?.forEach((port, i) => {
      this.#addPort(`${path}.ports[${i}]`, name, port, into);
    });
  }

  #addPort(
    path: string,
    name: string,
    { protocol, port, service }: ZonePort,
    into: Map<string, ZoneRecord[]>
  ): void {
    integerWithin(`${path}.port`, port, 1, 65_535);
    if (service === undefined) return;
    if (!SERVICE.test(service)) {
      throw new ConfigError(
        `${path}.service`,
        `"${service}" has characters other than letters, digits and single hyphens (RFC 6335)`
      );
    }
    const owner = parseName(`${path}.service`, `_${service}._${protocol}.${name}`);
    const data = { priority: 0, weight: 0, port, target: name };
    addRecords(into, owner, [this.#record(owner, { type: 'SRV', data })]);
  }

  #binding(
    path: string,
    name: string,
    { type, prefix, target: text = '.', priority, alpn, port }: ZoneBinding
  ): { owner: string; record: ZoneRecord } {
    const owner = prefix === undefined ? name : parseName(`${path}.prefix`, `${prefix}.${name}`);
    const target = text === '.' ? text : parseRelativeName(`${path}.target`, text, this.origin);
    const data = { priority, target, alpn, port };
    checkSvcb(path, data);
    return { owner, record: this.#record(owner, { type, data }) };
  }

  /** Leaves out an alias of a name that the host has other records for. */
  #addAliases(
    path: string,
    name: string,
    { aliases }: ZoneHost,
    into: Map<string, ZoneRecord[]>
  ): void {
    aliases?.forEach((text, i) => {
      const owner = this.#ownName(`${path}[${i}]`, text, true);
      if (!into.has(owner)) into.set(owner, [this.#record(owner, { type: 'CNAME', data: name })]);
    });
  }

  #addPointer(
    path: string,
    owner: string,
    pointer: ZonePointer,
    into: Map<string, ZoneRecord[]>
  ): void {
    const target = parseRelativeName(`${path}.name`, pointer.name, this.origin);
    const records = entryOf(into, owner, () => (this.#isCovered(owner) ? [] : [this.#ns(owner)]));
    records.push(this.#record(owner, { type: 'PTR', data: target }));
  }

  #ownName(path: string, text: string, allowsWildcard = false): string {
    const name = parseRelativeName(path, text, this.origin, allowsWildcard);
    if (!isWithin(name, this.origin)) {
      throw new ConfigError(path, `"${text}" is not within the zone ${this.origin}`);
    }
    return name;
  }

  #addresses(path: string, name: string, addresses: readonly AddressInput[]): ZoneRecord[] {
    return addresses.map((input, i) => {
      const address = configured(`${path}[${i}]`, () => IpAddress.from(input));
      const type = address.family === 4 ? 'A' : 'AAAA';
      return this.#record(name, { type, data: address.toString() });
    });
  }

  #ns(apex: string): ZoneRecord {
    return this.#record(apex, { type: 'NS', data: this.#soa.mname });
  }

  #record(name: string, content: RecordContent): ZoneRecord {
    return makeRecord(name, this.ttlSeconds, content);
  }

  /** Returns whether a name is in the zone or in one of its reverse zones. */
  #isCovered(name: string): boolean {
    for (let above: string | undefined = name; above !== undefined; above = parentOf(above)) {
      if (this.#apexes.has(above)) return true;
    }
    return false;
  }
}

/** Returns the source of what hosts of a name give. */
function hostSource(name: string): string {
  return name;
}

/** Returns the source of a pointer. No name has such a character. */
function pointerSource(owner: string): string {
  return `@${owner}`;
}

/** The owner exists from now on, also without records. */
function addRecords(
  into: Map<string, ZoneRecord[]>,
  owner: string,
  records: readonly ZoneRecord[]
): void {
  const list = entryOf(into, owner, () => []);
  for (const record of records) list.push(record);
}

function entryOf<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  let value = map.get(key);
  if (value === undefined) {
    value = make();
    map.set(key, value);
  }
  return value;
}

/** Runs a parser of addresses, whose errors do not name the place in the configuration. */
function configured<T>(path: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw new ConfigError(path, (error as Error).message, { cause: error });
  }
}

const SERVICE = /^[a-z0-9]+(?:-[a-z0-9]+)*$/i;
/** RFC 2181 section 8. */
const MAX_TTL_SECONDS = 2 ** 31 - 1;
/** In seconds. Zones are not transferred, so that nobody acts on them; the values of RFC 1912. */
const TRANSFER_TIMES = { refresh: 3600, retry: 600, expire: 1_209_600 };
