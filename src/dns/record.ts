/**
 * Resource records, which `dns-packet` encodes once when a zone is compiled
 * ([RFC 1035 section 3.2](https://www.rfc-editor.org/rfc/rfc1035#section-3.2)).
 * @module
 */
import { type Answer, encode } from 'dns-packet';

/** The types that a zone serves, and the two that get a special treatment: OPT and ANY. */
export const RecordType = {
  A: 1,
  NS: 2,
  SOA: 6,
  PTR: 12,
  HINFO: 13,
  TXT: 16,
  AAAA: 28,
  SRV: 33,
  OPT: 41,
  ANY: 255,
} as const;

/** The type and the data of a record. Names in the data are fully qualified, with the trailing dot. */
export type RecordContent =
  | { readonly type: 'A' | 'AAAA' | 'NS' | 'PTR' | 'TXT'; readonly data: string }
  | { readonly type: 'HINFO'; readonly data: { readonly cpu: string; readonly os: string } }
  | { readonly type: 'SRV'; readonly data: SrvData }
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
  const data = content.type === 'TXT' ? characterStrings(content.data) : content.data;
  const answer = { name, ttl: ttlSeconds, type: content.type, data } as Answer;
  const wire = encode({ answers: [answer] }).subarray(HEADER_LENGTH);
  return { name, ttlSeconds, content, wire, bodyOffset: name.length + 1 };
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
