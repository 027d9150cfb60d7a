/**
 * `Zone`: the names a site's clients may ask for and what each answers; immutable, replaced whole.
 * Follows [RFC 1034 section 4.3.2](https://www.rfc-editor.org/rfc/rfc1034#section-4.3.2) as far as
 * a zone without delegations, aliases and wildcards needs it, RFC 2308 for negative answers and
 * [RFC 8020](https://www.rfc-editor.org/rfc/rfc8020) for names that exist only through names below.
 * @module
 */
import { canonicalName, parentOf } from './name.ts';
import { compileNodes } from './zone-compiler.ts';
import type { ZoneAnswer, ZoneData, ZoneNode } from './zone-data.ts';

/** The zone of the exposed names and the reverse zones of the presences; may be shared freely. */
export class Zone {
  /** Lower case, with the trailing dot. */
  readonly origin: string;
  readonly serial: number;
  readonly #nodes: ReadonlyMap<string, ZoneNode>;

  private constructor(origin: string, serial: number, nodes: ReadonlyMap<string, ZoneNode>) {
    this.origin = origin;
    this.serial = serial;
    this.#nodes = nodes;
  }

  /**
   * Checks the data and encodes every record of it; entries of the same name are merged.
   *
   * @throws {ConfigError} whose `path` leads to the entry, for example `hosts[2].addresses[0]`.
   */
  static compile(data: ZoneData): Zone {
    const { origin, nodes } = compileNodes(data);
    return new Zone(origin, data.serial, nodes);
  }

  /**
   * Finds what the zone has to say of a name, in any case, with or without the trailing dot.
   *
   * The name itself may exist: then the type decides. If not, the nearest existing name above it,
   * if there is any, knows the zone it is missing from. Nothing of ours is above a foreign name.
   *
   * @param qtype the number of the type, see `RecordType`.
   */
  lookup(qname: string, qtype: number): ZoneAnswer {
    let name: string | undefined = canonicalName(qname);
    const node = this.#nodes.get(name);
    if (node !== undefined) return node.byType.get(qtype) ?? node.nodata;
    while (true) {
      name = parentOf(name);
      if (name === undefined) return NOT_AUTHORITATIVE;
      const ancestor = this.#nodes.get(name);
      if (ancestor !== undefined) return ancestor.nxdomain;
    }
  }
}

const NOT_AUTHORITATIVE: ZoneAnswer = {
  outcome: 'not-authoritative',
  answers: [],
  authority: [],
  additional: [],
};
