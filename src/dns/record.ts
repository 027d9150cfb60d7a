/**
 * Resource records, which `dns-packet` encodes once when a zone is compiled
 * ([RFC 1035 section 3.2](https://www.rfc-editor.org/rfc/rfc1035#section-3.2)).
 * @module
 */
import { type Answer, encode } from 'dns-packet';
import { nameBytes } from './name.ts';
import { encodeSvcb, type SvcbData } from './svcb.ts';

/** The types that a zone serves, and the two that get a special treatment: OPT and ANY. */
export const RecordType = {
  A: 1,
  NS: 2,
  CNAME: 5,
  SOA: 6,
  PTR: 12,
  HINFO: 13,
  TXT: 16,
  AAAA: 28,
  SRV: 33,
  OPT: 41,
  SVCB: 64,
  HTTPS: 65,
  ANY: 255,
} as const;

/** The type and the data of a record. Names in the data are fully qualified, with the trailing dot. */
export type RecordContent =
  | { readonly type: 'A' | 'AAAA' | 'CNAME' | 'NS' | 'PTR' | 'TXT'; readonly data: string }
  | { readonly type: 'HINFO'; readonly data: { readonly cpu: string; readonly os: string } }
  | { readonly type: 'SRV'; readonly data: SrvData }
  | { readonly type: 'HTTPS' | 'SVCB'; readonly data: SvcbData }
  | { readonly type: 'SOA'; readonly data: SoaData };

/** RFC 2782. */
export interface SrvData {
  readonly priority: number;
  readonly weight: number;
  readonly port: number;
  readonly target: string;
}

/** RFC 1035 section 3.3.13; times in seconds. */
export interface SoaData {
  readonly mname: string;
  readonly rname: string;
  readonly serial: number;
  readonly refresh: number;
  readonly retry: number;
  readonly expire: number;
  /** Negative TTL (RFC 2308 section 4). */
  readonly minimum: number;
}

/** A record of class IN. */
export interface ZoneRecord {
  /** The owner, in lower case and with the trailing dot. */
  readonly name: string;
  readonly ttlSeconds: number;
  readonly content: RecordContent;
  /** The whole record as it is in a message, with the owner uncompressed. */
  readonly wire: Uint8Array;
  /** Offset of the type in `wire`; the owner ends there. */
  readonly bodyOffset: number;
}

/** Encodes a record. `name` is a result of `parseName`, so that it has as many bytes as characters. */
export function makeRecord(name: string, ttlSeconds: number, content: RecordContent): ZoneRecord {
  const answer = { name, ttl: ttlSeconds, ...encodable(content) } as Answer;
  const wire = encode({ answers: [answer] }).subarray(HEADER_LENGTH);
  return { name, ttlSeconds, content, wire, bodyOffset: name.length + 1 };
}

/**
 * Returns the records with the owner `name`, as the name of a query that a wildcard covers.
 *
 * @param name in the inner form of `name.ts`; it fits a message
 */
export function withOwner(records: readonly ZoneRecord[], name: string): readonly ZoneRecord[] {
  const owner = nameBytes(name)!;
  return records.map(({ ttlSeconds, content, wire, bodyOffset }) => ({
    name,
    ttlSeconds,
    content,
    wire: Buffer.concat([owner, wire.subarray(bodyOffset)]),
    bodyOffset: owner.length,
  }));
}

/** Returns the type and the data as `dns-packet` takes them. It does not know SVCB and HTTPS (RFC 3597). */
function encodable(content: RecordContent): { type: string; data: unknown } {
  switch (content.type) {
    case 'TXT':
      return { type: 'TXT', data: characterStrings(content.data) };
    case 'HTTPS':
    case 'SVCB':
      return { type: `UNKNOWN_${RecordType[content.type]}`, data: encodeSvcb(content.data) };
    default:
      return content;
  }
}

/** Splits a text into one or more strings of at most 255 bytes each (RFC 1035 section 3.3.14). */
function characterStrings(text: string): Buffer[] {
  const bytes = Buffer.from(text);
  const count = Math.max(1, Math.ceil(bytes.length / MAX_STRING_LENGTH));
  return Array.from({ length: count }, (_, i) =>
    bytes.subarray(i * MAX_STRING_LENGTH, (i + 1) * MAX_STRING_LENGTH)
  );
}

const HEADER_LENGTH = 12;
const MAX_STRING_LENGTH = 255;
