/**
 * Turns the plain data of a zone into the nodes that `Zone` looks up, with every answer ready made.
 *
 * 1. every entry is checked and becomes records, equal ones once;
 * 2. the names between a record and the apex of its zone become nodes without records
 *    (empty non-terminals);
 * 3. each RRset becomes an answer, with the addresses of the names it points to.
 * @module
 */
import { type AddressInput, IpAddress } from '../base/address.ts';
import { IpPrefix, type PrefixInput } from '../base/prefix.ts';
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
import {
  makeRecord,
  type RecordContent,
  RecordType,
  type SoaData,
  type ZoneRecord,
} from './record.ts';
import type { ZoneAnswer, ZoneData, ZoneHost, ZoneNode, ZonePointer } from './zone-data.ts';

/** @throws {ConfigError} as `Zone.compile`. */
export function compileNodes(data: ZoneData): {
  origin: string;
  nodes: ReadonlyMap<string, ZoneNode>;
} {
  const compiler = new ZoneCompiler(data);
  data.hosts.forEach((host, i) => {
    compiler.addHost(`hosts[${i}]`, host);
  });
  data.reverse?.forEach((prefix, i) => {
    compiler.addReverse(`reverse[${i}]`, prefix);
  });
  data.pointers.forEach((pointer, i) => {
    compiler.addPointer(`pointers[${i}]`, pointer);
  });
  return { origin: compiler.origin, nodes: compiler.finish() };
}

type RRsets = Map<number, ZoneRecord[]>;

class ZoneCompiler {
  readonly origin: string;
  readonly #ttlSeconds: number;
  readonly #negativeTtlSeconds: number;
  readonly #soa: SoaData;
  /** Apex to the SOA record that goes with negative answers. */
  readonly #apexes = new Map<string, ZoneRecord>();
  readonly #names = new Map<string, RRsets>();
  /** Owner, type and data of every record so far. */
  readonly #seen = new Set<string>();

  constructor(data: ZoneData) {
    this.origin = parseName('origin', data.origin);
    this.#ttlSeconds = integerWithin('ttlSeconds', data.ttlSeconds, 0, MAX_TTL_SECONDS);
    this.#negativeTtlSeconds = integerWithin(
      'negativeTtlSeconds',
      data.negativeTtlSeconds,
      0,
      MAX_TTL_SECONDS
    );
    const nameserver = this.#ownName('nameserver', data.nameserver);
    this.#soa = {
      mname: nameserver,
      rname: parseName('origin', `hostmaster.${this.origin}`),
      serial: integerWithin('serial', data.serial, 0, 2 ** 32 - 1),
      ...TRANSFER_TIMES,
      minimum: this.#negativeTtlSeconds,
    };
    this.#addApex(this.origin);
    this.#addName(nameserver);
    this.#addAddresses('nameserverAddresses', nameserver, data.nameserverAddresses);
  }

  addHost(path: string, host: ZoneHost): void {
    const name = this.#ownName(`${path}.name`, host.name);
    this.#addName(name);
    this.#addAddresses(`${path}.addresses`, name, host.addresses);
    for (const text of host.texts ?? []) this.#add(name, { type: 'TXT', data: text });
    host.ports?.forEach(({ protocol, port, service }, i) => {
      const portPath = `${path}.ports[${i}]`;
      integerWithin(`${portPath}.port`, port, 1, 65_535);
      if (service === undefined) return;
      if (!SERVICE.test(service)) {
        throw new ConfigError(
          `${portPath}.service`,
          `"${service}" has characters other than letters, digits and single hyphens (RFC 6335)`
        );
      }
      const owner = parseName(`${portPath}.service`, `_${service}._${protocol}.${name}`);
      this.#add(owner, { type: 'SRV', data: { priority: 0, weight: 0, port, target: name } });
    });
  }

  addReverse(path: string, input: PrefixInput): void {
    const prefix = configured(path, () => IpPrefix.from(input));
    for (const zone of reverseZones(prefix)) this.#addApex(zone);
  }

  addPointer(path: string, pointer: ZonePointer): void {
    const address = configured(`${path}.address`, () => IpAddress.from(pointer.address));
    const target = parseRelativeName(`${path}.name`, pointer.name, this.origin);
    const owner = reverseName(address);
    if (this.#apexOf(owner) === undefined) this.#addApex(owner);
    this.#add(owner, { type: 'PTR', data: target });
  }

  finish(): ReadonlyMap<string, ZoneNode> {
    for (const name of [...this.#names.keys()]) this.#addNamesAbove(name);
    const nodes = new Map<string, ZoneNode>();
    for (const [name, sets] of this.#names) {
      const authority = [this.#apexes.get(this.#apexOf(name)!)!];
      const byType = new Map<number, ZoneAnswer>();
      for (const [type, answers] of sets) byType.set(type, this.#answer(answers));
      if (sets.size > 0) byType.set(RecordType.ANY, this.#answer([this.#minimalAny(name)]));
      nodes.set(name, {
        byType,
        nodata: { outcome: 'nodata', answers: [], authority, additional: [] },
        nxdomain: { outcome: 'nxdomain', answers: [], authority, additional: [] },
      });
    }
    return nodes;
  }

  #ownName(path: string, text: string): string {
    const name = parseRelativeName(path, text, this.origin);
    if (!isWithin(name, this.origin)) {
      throw new ConfigError(path, `"${text}" is not within the zone ${this.origin}`);
    }
    return name;
  }

  #addApex(apex: string): void {
    if (this.#apexes.has(apex)) return;
    const negativeTtl = Math.min(this.#ttlSeconds, this.#negativeTtlSeconds);
    const soa = { type: 'SOA', data: this.#soa } as const;
    this.#apexes.set(apex, makeRecord(apex, negativeTtl, soa));
    this.#add(apex, soa);
    this.#add(apex, { type: 'NS', data: this.#soa.mname });
  }

  #addAddresses(path: string, name: string, addresses: readonly AddressInput[]): void {
    addresses.forEach((input, i) => {
      const address = configured(`${path}[${i}]`, () => IpAddress.from(input));
      this.#add(name, { type: address.family === 4 ? 'A' : 'AAAA', data: address.toString() });
    });
  }

  #add(name: string, content: RecordContent): void {
    const key = JSON.stringify([name, content]);
    if (this.#seen.has(key)) return;
    this.#seen.add(key);
    const sets = this.#addName(name);
    const type = RecordType[content.type];
    const set = sets.get(type) ?? [];
    set.push(makeRecord(name, this.#ttlSeconds, content));
    sets.set(type, set);
  }

  #addName(name: string): RRsets {
    let sets = this.#names.get(name);
    if (sets === undefined) {
      sets = new Map();
      this.#names.set(name, sets);
    }
    return sets;
  }

  /** Stops at a name that is there already: those above it are, or will be, added for its sake. */
  #addNamesAbove(name: string): void {
    let above = parentOf(name);
    while (above !== undefined && !this.#names.has(above) && this.#apexOf(above) !== undefined) {
      this.#addName(above);
      above = parentOf(above);
    }
  }

  #apexOf(name: string): string | undefined {
    let apex: string | undefined = name;
    while (apex !== undefined && !this.#apexes.has(apex)) apex = parentOf(apex);
    return apex;
  }

  #answer(answers: readonly ZoneRecord[]): ZoneAnswer {
    const { name, content } = answers[0]!;
    // each answer's owner is compressed to a pointer of two bytes
    const length = answers.reduce(
      (sum, { wire, bodyOffset }) => sum + 2 + wire.length - bodyOffset,
      0
    );
    if (length > MAX_RRSET_LENGTH) {
      throw new ConfigError(
        '',
        `the ${content.type} records of ${name} take ${length} bytes; an answer holds ${MAX_RRSET_LENGTH}`
      );
    }
    return { outcome: 'success', answers, authority: [], additional: this.#addressesOf(answers) };
  }

  #addressesOf(answers: readonly ZoneRecord[]): ZoneRecord[] {
    const targets = new Set<string>();
    for (const { content } of answers) {
      if (content.type === 'SRV') targets.add(content.data.target);
      if (content.type === 'NS') targets.add(content.data);
    }
    return [...targets].flatMap((target) => {
      const sets = this.#names.get(target);
      return [...(sets?.get(RecordType.A) ?? []), ...(sets?.get(RecordType.AAAA) ?? [])];
    });
  }

  /** Answers a query for ANY without what amplifies an attack (RFC 8482 section 4.2). */
  #minimalAny(name: string): ZoneRecord {
    return makeRecord(name, this.#ttlSeconds, { type: 'HINFO', data: { cpu: 'RFC8482', os: '' } });
  }
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
/** A message's 65535 bytes less header (12), longest question (255 + 4) and OPT (11). */
const MAX_RRSET_LENGTH = 65_535 - 12 - 259 - 11;
/** In seconds. Zones are not transferred, so that nobody acts on them; the values of RFC 1912. */
const TRANSFER_TIMES = { refresh: 3600, retry: 600, expire: 1_209_600 };
