/**
 * The apex of a zone: its SOA record, and the negative answers that bring it
 * ([RFC 2308 section 3](https://www.rfc-editor.org/rfc/rfc2308#section-3)).
 * @module
 */
import { makeRecord, type SoaData } from './record.ts';
import type { ZoneAnswer } from './zone-data.ts';

interface ApexAnswers {
  readonly soa: ZoneAnswer;
  readonly nodata: ZoneAnswer;
  readonly nxdomain: ZoneAnswer;
}

/** Encodes its records when they are asked for, so that a new serial costs nothing until then. */
export class ZoneApex {
  /** In the inner form of `name.ts`. */
  readonly name: string;
  readonly #ttlSeconds: number;
  #encoded: SoaData | undefined;
  #answers: ApexAnswers | undefined;

  constructor(name: string, ttlSeconds: number) {
    this.name = name;
    this.#ttlSeconds = ttlSeconds;
  }

  /** Returns the answers with this SOA. */
  answers(soa: SoaData): ApexAnswers {
    if (this.#answers === undefined || this.#encoded !== soa) {
      this.#encoded = soa;
      this.#answers = this.#encode(soa);
    }
    return this.#answers;
  }

  #encode(data: SoaData): ApexAnswers {
    const content = { type: 'SOA', data } as const;
    const record = makeRecord(this.name, this.#ttlSeconds, content);
    // The lesser of the two says how long clients may keep a negative answer.
    const negative = makeRecord(this.name, Math.min(this.#ttlSeconds, data.minimum), content);
    const authority = [negative];
    return {
      soa: { outcome: 'success', answers: [record], authority: [], additional: [] },
      nodata: { outcome: 'nodata', answers: [], authority, additional: [] },
      nxdomain: { outcome: 'nxdomain', answers: [], authority, additional: [] },
    };
  }
}
