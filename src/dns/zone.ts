/**
 * `Zone`: the names a site's clients may ask for and what each answers. Follows
 * [RFC 1034 section 4.3.2](https://www.rfc-editor.org/rfc/rfc1034#section-4.3.2) as far as a zone without delegations
 * needs it, [RFC 4592](https://www.rfc-editor.org/rfc/rfc4592) for wildcards and RFC 2308 for negative answers.
 *
 * 1. The name itself exists, or the wildcard below the nearest existing name above it (its closest encloser) covers it.
 * 2. The records of the type are the answer.
 * 3. If the name is an alias, its CNAME record goes first, and the name that it leads to answers. That name is always a
 *    host, so that there is no chain and no loop.
 * 4. The nearest apex above the name has the SOA of a negative answer. A name without an apex above it is foreign.
 * @module
 */
import { canonicalName, nameBytes } from './name.ts';
import {
  makeRecord,
  type RecordContent,
  RecordType,
  type SoaData,
  withOwner,
  type ZoneRecord,
} from './record.ts';
import { ZoneApex } from './zone-apex.ts';
import { ZoneCompiler } from './zone-compiler.ts';
import type { ZoneAnswer, ZoneData, ZonePatch } from './zone-data.ts';
import { type ZoneNode, ZoneTree } from './zone-tree.ts';

/**
 * The zone of the exposed names and the reverse zones of the presences. Only `patch` changes it; the answers that it gave
 * before stay as they are. Several resolvers may share it.
 */
export class Zone {
  readonly #compiler: ZoneCompiler;
  readonly #tree: ZoneTree = new ZoneTree();
  /** Keyed by the node of an apex, which is a name with NS records: there are no delegations. */
  readonly #apexes: WeakMap<ZoneNode, ZoneApex> = new WeakMap();
  /** Answers ANY without what amplifies an attack (RFC 8482 section 4.2). */
  readonly #minimalAny: readonly ZoneRecord[];
  #soa: SoaData;

  private constructor(compiler: ZoneCompiler, data: ZoneData) {
    this.#compiler = compiler;
    this.#soa = compiler.soa(data.serial);
    const minimal = { type: 'HINFO', data: { cpu: 'RFC8482', os: '' } } as const;
    this.#minimalAny = [makeRecord(compiler.origin, compiler.ttlSeconds, minimal)];
    this.#tree.replace(compiler.fixed(data));
    this.patch(data);
  }

  /**
   * Checks the data and encodes every record of it; entries of the same name are merged.
   *
   * @throws {ConfigError} whose `path` leads to the entry, for example `hosts[2].addresses[0]`.
   */
  static compile(data: ZoneData): Zone {
    return new Zone(new ZoneCompiler(data), data);
  }

  /** Lower case, with the trailing dot. */
  get origin(): string {
    return this.#compiler.origin;
  }

  get serial(): number {
    return this.#soa.serial;
  }

  /**
   * Replaces the hosts of some names and the pointers of some addresses; the zone then answers as one that is compiled
   * anew. The cost depends on these names and addresses, not on the size of the zone. The origin, the TTLs, the
   * nameserver and the reverse prefixes stay; `compile` makes a zone with others.
   *
   * @throws {ConfigError} whose `path` leads to the entry that is wrong. The zone is as before then.
   */
  patch(patch: ZonePatch): void {
    const soa = this.#compiler.soa(patch.serial);
    this.#tree.replace(this.#compiler.compile(patch));
    this.#soa = soa;
  }

  /**
   * Finds what the zone has to say of a name, in any case, with or without the trailing dot.
   *
   * @param qtype the number of the type, see `RecordType`.
   */
  lookup(qname: string, qtype: number): ZoneAnswer {
    const name = canonicalName(qname);
    const ready = this.#tree.get(name)?.sets.get(qtype)?.answer;
    if (ready !== undefined) return ready;

    const { node, apex } = this.#find(name);
    if (apex === undefined) return NOT_AUTHORITATIVE;
    const { soa, nodata, nxdomain } = apex.answers(this.#soa);
    if (node === undefined) return nxdomain;
    if (qtype === RecordType.SOA && apex.name === name) return soa;
    const records = this.#records(node, name, qtype);
    if (records.length > 0) return this.#success(records);

    const [alias] = this.#records(node, name, RecordType.CNAME);
    if (alias?.content.type !== 'CNAME') return nodata;
    // A CNAME has nothing beside it, also not the short answer to ANY (RFC 8482 section 4.2).
    if (qtype === RecordType.ANY) return this.#success([alias]);
    const host = alias.content.data;
    const behind = this.#records(this.#tree.get(host)!, host, qtype);
    if (behind.length === 0) return { ...nodata, answers: [alias] };
    return { ...this.#success(behind), answers: [alias, ...behind] };
  }

  /**
   * Returns the node that answers for a name, which is its own or that of the wildcard that covers it, and the apex above
   * the name. Without a node the name does not exist, and without an apex it is foreign.
   */
  #find(name: string): { node: ZoneNode | undefined; apex: ZoneApex | undefined } {
    const own = this.#tree.get(name);
    if (own !== undefined) return { node: own, apex: this.#apexOf(own) };
    const encloser = this.#tree.closestEncloser(name);
    const wildcard = encloser?.wildcard;
    // The name of a query fits a message. Any other name does not exist.
    const isCovered = wildcard !== undefined && nameBytes(name) !== undefined;
    return { node: isCovered ? wildcard : undefined, apex: this.#apexOf(encloser) };
  }

  /** Returns the nearest apex at or above a name that exists. */
  #apexOf(name: ZoneNode | undefined): ZoneApex | undefined {
    let node = name;
    while (node !== undefined && !node.sets.has(RecordType.NS)) node = node.above;
    if (node === undefined) return undefined;
    let apex = this.#apexes.get(node);
    if (apex === undefined) {
      apex = new ZoneApex(node.name, this.#compiler.ttlSeconds);
      this.#apexes.set(node, apex);
    }
    return apex;
  }

  /** Returns the records of a node with `name` as their owner, also if the node is a wildcard. */
  #records({ sets }: ZoneNode, name: string, type: number): readonly ZoneRecord[] {
    const isMinimal = type === RecordType.ANY && sets.size > 0 && !sets.has(RecordType.CNAME);
    const records = isMinimal ? this.#minimalAny : (sets.get(type)?.records ?? NO_RECORDS);
    return records.length === 0 || records[0]!.name === name ? records : withOwner(records, name);
  }

  #success(answers: readonly ZoneRecord[]): ZoneAnswer {
    return { outcome: 'success', answers, authority: [], additional: this.#additional(answers) };
  }

  /** Returns what clients ask for next: the addresses of the names that these records point to. */
  #additional(answers: readonly ZoneRecord[]): ZoneRecord[] {
    const types = new Map<string, Set<number>>();
    for (const { name, content } of answers) {
      const target = targetOf(name, content);
      if (target === undefined) continue;
      const wanted = types.get(target) ?? new Set([RecordType.A, RecordType.AAAA]);
      // The clients of a record in AliasMode ask for the target's records of its type (RFC 9460 section 4.1).
      if (isAliasMode(content)) wanted.add(RecordType[content.type]);
      types.set(target, wanted);
    }
    return [...types].flatMap(([target, wanted]) => {
      const { node } = this.#find(target);
      return node === undefined
        ? []
        : [...wanted].flatMap((type) => this.#records(node, target, type));
    });
  }
}

/** Returns the name whose addresses the clients of a record need; `undefined` if there is none. */
function targetOf(owner: string, content: RecordContent): string | undefined {
  switch (content.type) {
    case 'NS':
      return content.data;
    case 'SRV':
      return content.data.target;
    case 'HTTPS':
    case 'SVCB':
      if (content.data.target !== '.') return content.data.target;
      return isAliasMode(content) ? undefined : owner;
    default:
      return undefined;
  }
}

function isAliasMode(content: RecordContent): boolean {
  return (content.type === 'HTTPS' || content.type === 'SVCB') && content.data.priority === 0;
}

const NO_RECORDS: readonly ZoneRecord[] = [];
const NOT_AUTHORITATIVE: ZoneAnswer = {
  outcome: 'not-authoritative',
  answers: [],
  authority: [],
  additional: [],
};
