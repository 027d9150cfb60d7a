/**
 * The names of a zone that exist, and the records of each. A name exists if it has records or a host, or if a name below
 * it exists ([RFC 8020](https://www.rfc-editor.org/rfc/rfc8020)).
 *
 * Records come from *sources*: a host gives records to its name, to names below it and to its aliases. When a source is
 * replaced, the names are recomputed that it gave records to before, and that it gives records to now; no other name
 * costs anything.
 * @module
 */
import { ConfigError } from '../errors.ts';
import { parentOf } from './name.ts';
import { RecordType, type ZoneRecord } from './record.ts';
import type { ZoneAnswer } from './zone-data.ts';

/**
 * What a source gives to names: keyed by the owner, CNAME alone or any other records. An owner without records exists
 * all the same.
 */
export type Contribution = ReadonlyMap<string, readonly ZoneRecord[]>;

/** A name that exists. */
export interface ZoneNode {
  readonly name: string;
  /** The name with one label less; `undefined` for the root. */
  readonly above: ZoneNode | undefined;
  /** The name `*` below, if it exists. */
  readonly wildcard: ZoneNode | undefined;
  /** Keyed by the number of the type; empty for a name that exists only through names below. */
  readonly sets: ReadonlyMap<number, RecordSet>;
}

/** The records of one owner and type. */
export interface RecordSet {
  readonly records: readonly ZoneRecord[];
  /** The whole answer, unless it depends on other names. */
  readonly answer: ZoneAnswer | undefined;
}

/** A table of names, keyed in the inner form of `name.ts`. */
export class ZoneTree {
  readonly #nodes = new Map<string, Node>();
  /** Keyed by source: the owners that it gives records to. */
  readonly #owners = new Map<string, readonly string[]>();

  get(name: string): ZoneNode | undefined {
    return this.#nodes.get(name);
  }

  /** Returns the nearest existing name above one that does not exist (RFC 4592 section 3.3.1). */
  closestEncloser(missing: string): ZoneNode | undefined {
    let node: ZoneNode | undefined;
    let name = parentOf(missing);
    while (node === undefined && name !== undefined) {
      node = this.#nodes.get(name);
      name = parentOf(name);
    }
    return node;
  }

  /**
   * Replaces everything that these sources have given.
   *
   * @param changes keyed by source
   * @throws {ConfigError} if a set of records is too long for a message; nothing has changed then.
   */
  replace(changes: ReadonlyMap<string, Contribution>): void {
    const staged = new Map<string, Part[]>();
    const partsOf = (owner: string): Part[] => {
      const parts = staged.get(owner) ?? [...(this.#nodes.get(owner)?.parts ?? [])];
      staged.set(owner, parts);
      return parts;
    };
    for (const [source, contribution] of changes) {
      for (const owner of this.#owners.get(source) ?? []) {
        const parts = partsOf(owner);
        parts.splice(
          parts.findIndex((part) => part.source === source),
          1
        );
      }
      for (const [owner, records] of contribution) partsOf(owner).push({ source, records });
    }
    const sets = new Map<string, ReadonlyMap<number, RecordSet>>();
    for (const [owner, parts] of staged) sets.set(owner, setsOf(owner, parts));
    // Nothing below throws.
    for (const [owner, parts] of staged) this.#set(owner, parts, sets.get(owner)!);
    for (const [source, contribution] of changes) {
      if (contribution.size === 0) this.#owners.delete(source);
      else this.#owners.set(source, [...contribution.keys()]);
    }
  }

  #set(name: string, parts: readonly Part[], sets: Node['sets']): void {
    if (parts.length === 0 && !this.#nodes.has(name)) return;
    const node = this.#nodes.get(name) ?? this.#add(name);
    node.parts = parts;
    node.sets = sets;
    this.#prune(node);
  }

  #add(name: string): Node {
    const parent = parentOf(name);
    const above = parent === undefined ? undefined : (this.#nodes.get(parent) ?? this.#add(parent));
    const node: Node = {
      name,
      above,
      wildcard: undefined,
      parts: [],
      sets: NO_SETS,
      children: 0,
    };
    this.#nodes.set(name, node);
    if (above !== undefined) {
      above.children++;
      if (name.startsWith('*.')) above.wildcard = node;
    }
    return node;
  }

  /** Removes a name without parts and children, and those above it that existed for its sake. */
  #prune(node: Node): void {
    const { name, above, parts, children } = node;
    if (parts.length > 0 || children > 0) return;
    this.#nodes.delete(name);
    if (above === undefined) return;
    above.children--;
    if (above.wildcard === node) above.wildcard = undefined;
    this.#prune(above);
  }
}

/** What one source gives to one owner. */
interface Part {
  readonly source: string;
  readonly records: readonly ZoneRecord[];
}

interface Node extends ZoneNode {
  readonly above: Node | undefined;
  wildcard: Node | undefined;
  parts: readonly Part[];
  sets: ReadonlyMap<number, RecordSet>;
  /** The number of existing names that have one label more. */
  children: number;
}

/**
 * Merges what the sources give to a name. The result does not depend on the order in which they came.
 *
 * A CNAME is the only record of its name (RFC 2181 section 10.1), so that it gives way to others. Since it also gives way
 * to a host without records, it never leads to another alias.
 */
function setsOf(owner: string, parts: readonly Part[]): ReadonlyMap<number, RecordSet> {
  const sorted =
    parts.length < 2 ? parts : [...parts].sort((a, b) => (a.source < b.source ? -1 : 1));
  const others = sorted.filter((part) => !isAlias(part));
  const kept = others.length > 0 ? others : sorted.slice(0, 1);
  const byType = new Map<number, ZoneRecord[]>();
  for (const record of distinct(kept.flatMap(({ records }) => records))) {
    const type = RecordType[record.content.type];
    const records = byType.get(type);
    if (records === undefined) byType.set(type, [record]);
    else records.push(record);
  }
  if (byType.size === 0) return NO_SETS;
  const sets = new Map<number, RecordSet>();
  for (const [type, records] of byType) {
    checkLength(owner, records);
    sets.set(type, { records, answer: POINTING_TYPES.has(type) ? undefined : answerOf(records) });
  }
  return sets;
}

function isAlias({ records }: Part): boolean {
  return records[0]?.content.type === 'CNAME';
}

function distinct(records: readonly ZoneRecord[]): readonly ZoneRecord[] {
  if (records.length < 2) return records;
  const byBytes = new Map<string, ZoneRecord>();
  for (const record of records) {
    const key = Buffer.from(record.wire.subarray(record.bodyOffset)).toString('latin1');
    if (!byBytes.has(key)) byBytes.set(key, record);
  }
  return [...byBytes.values()];
}

function answerOf(records: readonly ZoneRecord[]): ZoneAnswer {
  return { outcome: 'success', answers: records, authority: [], additional: [] };
}

function checkLength(owner: string, records: readonly ZoneRecord[]): void {
  // The owner of each record in an answer is a compression pointer of two bytes.
  const length = records.reduce(
    (sum, { wire, bodyOffset }) => sum + 2 + wire.length - bodyOffset,
    0
  );
  if (length > MAX_RRSET_LENGTH) {
    const { type } = records[0]!.content;
    throw new ConfigError(
      '',
      `the ${type} records of ${owner} take ${length} bytes; an answer holds ${MAX_RRSET_LENGTH}`
    );
  }
}

const NO_SETS: ReadonlyMap<number, RecordSet> = new Map();
/** The types whose answers have the addresses of other names in the additional section. */
const POINTING_TYPES: ReadonlySet<number> = new Set([
  RecordType.NS,
  RecordType.SRV,
  RecordType.SVCB,
  RecordType.HTTPS,
]);
/** The longest CNAME record in an answer: a pointer to its owner, ten bytes, and a name. */
const MAX_CNAME_LENGTH = 2 + 10 + 255;
/** A message's 65535 bytes less header (12), longest question (255 + 4), OPT (11) and a CNAME record. */
const MAX_RRSET_LENGTH: number = 65_535 - 12 - 259 - 11 - MAX_CNAME_LENGTH;
