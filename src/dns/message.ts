/**
 * Queries as bytes to their fields, and answers to bytes: the message format of
 * [RFC 1035 section 4](https://www.rfc-editor.org/rfc/rfc1035#section-4) with EDNS(0) of
 * [RFC 6891](https://www.rfc-editor.org/rfc/rfc6891).
 *
 * A query is read by hand, in one pass over at most one question and one OPT record, so that no
 * crafted message costs more than its length; records come ready encoded from the zone.
 *
 * ```
 *  0      2       4         6         8         10        12
 * +------+-------+---------+---------+---------+---------+
 * |  id  | flags | qdcount | ancount | nscount | arcount |  question ...
 * +------+-------+---------+---------+---------+---------+
 * ```
 * @module
 */
import { RecordType, type ZoneRecord } from './record.ts';

/** Response codes, those above 15 extended by EDNS. */
export const Rcode = {
  NoError: 0,
  FormErr: 1,
  ServFail: 2,
  NxDomain: 3,
  NotImp: 4,
  Refused: 5,
  BadVers: 16,
} as const;
export type Rcode = (typeof Rcode)[keyof typeof Rcode];

export const HEADER_LENGTH = 12;
export const MAX_MESSAGE_LENGTH = 65_535;
/** What every client takes over UDP, in bytes; the limit of one that sends no OPT. */
export const MIN_UDP_LENGTH = 512;

export const FLAG_QR = 0x8000;
export const FLAG_AA = 0x0400;
export const FLAG_TC = 0x0200;
export const FLAG_RD = 0x0100;
export const FLAG_RA = 0x0080;
export const FLAG_CD = 0x0010;
export const OPCODE_MASK = 0x7800;
export const RCODE_MASK = 0x000f;

/** A well-formed message with the opcode QUERY and one question. */
export interface Query {
  /** The whole message; not copied. */
  readonly bytes: Uint8Array;
  readonly flags: number;
  /** In the inner form of `name.ts`; the case it was asked in stays in `bytes`. */
  readonly name: string;
  readonly type: number;
  readonly class: number;
  /** Offset of the first byte behind the question. */
  readonly questionEnd: number;
  readonly edns: Edns | undefined;
}

export interface Edns {
  readonly version: number;
  /** Longest UDP answer the client takes, in bytes. */
  readonly udpPayloadSize: number;
  readonly dnssecOk: boolean;
}

/**
 * Reads a query. What is not one gives the code to answer it with by `encodeFault`, or `undefined`
 * when no answer is owed: it has no whole header, or is a response.
 *
 * @param maxBytes a longer message is malformed.
 */
export function parseQuery(bytes: Uint8Array, maxBytes: number): Query | Rcode | undefined {
  if (bytes.length < HEADER_LENGTH) return undefined;
  const flags = readUint16(bytes, 2);
  if ((flags & FLAG_QR) !== 0) return undefined;
  if ((flags & OPCODE_MASK) !== 0) return Rcode.NotImp;
  const additionals = readUint16(bytes, 10);
  if (
    bytes.length > maxBytes ||
    readUint16(bytes, 4) !== 1 ||
    readUint16(bytes, 6) !== 0 ||
    readUint16(bytes, 8) !== 0 ||
    additionals > 1
  ) {
    return Rcode.FormErr;
  }

  const nameEnd = skipName(bytes, HEADER_LENGTH);
  const questionEnd = nameEnd + 4;
  if (nameEnd === 0 || questionEnd > bytes.length) return Rcode.FormErr;

  let edns: Edns | undefined;
  if (additionals === 0) {
    if (questionEnd !== bytes.length) return Rcode.FormErr;
  } else {
    edns = parseOpt(bytes, questionEnd);
    if (edns === undefined) return Rcode.FormErr;
  }
  return {
    bytes,
    flags,
    name: readName(bytes, HEADER_LENGTH),
    type: readUint16(bytes, nameEnd),
    class: readUint16(bytes, nameEnd + 2),
    questionEnd,
    edns,
  };
}

/** What an answer says besides the question and the OPT record, which are the query's. */
export interface Reply {
  readonly rcode: Rcode;
  /** `FLAG_AA`, `FLAG_TC` and `FLAG_RA` as they apply. */
  readonly flags: number;
  readonly answers: readonly ZoneRecord[];
  readonly authority: readonly ZoneRecord[];
  readonly additional: readonly ZoneRecord[];
}

/**
 * Encodes the answer to `query`, its question copied byte for byte. Owners that end the question's
 * name are compressed. If it would be longer than `limit`, the additional records go first; if that
 * is not enough, all records do and TC is set, since part of an RRset is worth nothing
 * (RFC 2181 section 9).
 *
 * @param limit in bytes, at least `MIN_UDP_LENGTH`.
 * @param udpPayloadSize what our OPT record says we take.
 */
export function encodeReply(
  query: Query,
  reply: Reply,
  limit: number,
  udpPayloadSize: number
): Uint8Array {
  let { flags, answers, authority, additional } = reply;
  const optLength = query.edns === undefined ? 0 : OPT_LENGTH;
  let length =
    query.questionEnd + optLength + recordsLength(query, answers) + recordsLength(query, authority);
  if (length > limit) {
    flags |= FLAG_TC;
    answers = authority = additional = [];
    length = query.questionEnd + optLength;
  }
  const additionalLength = recordsLength(query, additional);
  if (length + additionalLength > limit) additional = [];
  else length += additionalLength;

  const bytes = Buffer.allocUnsafe(length);
  bytes.set(query.bytes.subarray(0, query.questionEnd));
  bytes.writeUInt16BE(
    FLAG_QR | flags | (query.flags & (FLAG_RD | FLAG_CD)) | (reply.rcode & RCODE_MASK),
    2
  );
  bytes.writeUInt16BE(answers.length, 6);
  bytes.writeUInt16BE(authority.length, 8);
  bytes.writeUInt16BE(additional.length + (query.edns === undefined ? 0 : 1), 10);
  let offset = writeRecords(query, answers, bytes, query.questionEnd);
  offset = writeRecords(query, authority, bytes, offset);
  offset = writeRecords(query, additional, bytes, offset);
  if (query.edns !== undefined) writeOpt(bytes, offset, reply.rcode, udpPayloadSize, query.edns);
  return bytes;
}

/** Answers a message that has a whole header but is no query: its id and a code, no question. */
export function encodeFault(bytes: Uint8Array, rcode: Rcode): Uint8Array {
  const reply = Buffer.alloc(HEADER_LENGTH);
  reply.set(bytes.subarray(0, 2));
  reply.writeUInt16BE(FLAG_QR | (readUint16(bytes, 2) & (OPCODE_MASK | FLAG_RD)) | rcode, 2);
  return reply;
}

export function readUint16(bytes: Uint8Array, offset: number): number {
  return (bytes[offset]! << 8) | bytes[offset + 1]!;
}

/**
 * Returns the offset behind the name, 0 if it is cut off, too long or not made of plain labels: a
 * compression pointer has nothing to point to in the first name of a message.
 */
function skipName(bytes: Uint8Array, start: number): number {
  let offset = start;
  while (offset < bytes.length && offset - start < MAX_NAME_LENGTH) {
    const length = bytes[offset]!;
    if (length === 0) return offset + 1;
    if (length > MAX_LABEL_LENGTH) return 0;
    offset += 1 + length;
  }
  return 0;
}

/** Reads a name that `skipName` accepted. */
function readName(bytes: Uint8Array, offset: number): string {
  if (bytes[offset] === 0) return '.';
  let name = '';
  for (let length = bytes[offset]!; length !== 0; length = bytes[offset]!) {
    const end = offset + 1 + length;
    for (offset++; offset < end; offset++) name += CHARACTERS[bytes[offset]!]!;
    name += '.';
  }
  return name;
}

/** Reads an OPT record that ends the message; `undefined` if anything else is there. */
function parseOpt(bytes: Uint8Array, offset: number): Edns | undefined {
  if (
    offset + OPT_LENGTH > bytes.length ||
    bytes[offset] !== 0 ||
    readUint16(bytes, offset + 1) !== RecordType.OPT ||
    offset + OPT_LENGTH + readUint16(bytes, offset + 9) !== bytes.length
  ) {
    return undefined;
  }
  return {
    udpPayloadSize: readUint16(bytes, offset + 3),
    version: bytes[offset + 6]!,
    dnssecOk: (bytes[offset + 7]! & EDNS_DO) !== 0,
  };
}

function writeOpt(
  bytes: Buffer,
  offset: number,
  rcode: Rcode,
  udpPayloadSize: number,
  edns: Edns
): void {
  bytes.fill(0, offset);
  bytes.writeUInt16BE(RecordType.OPT, offset + 1);
  bytes.writeUInt16BE(udpPayloadSize, offset + 3);
  bytes[offset + 5] = rcode >> 4;
  // the DO bit is copied though nothing is signed (RFC 3225 section 3)
  bytes[offset + 7] = edns.dnssecOk ? EDNS_DO : 0;
}

function recordsLength(query: Query, records: readonly ZoneRecord[]): number {
  let length = 0;
  for (const { name, wire, bodyOffset } of records) {
    length += suffixOffset(query, name) === 0 ? wire.length : 2 + wire.length - bodyOffset;
  }
  return length;
}

/** Returns the offset behind the last record. */
function writeRecords(
  query: Query,
  records: readonly ZoneRecord[],
  bytes: Buffer,
  offset: number
): number {
  for (const { name, wire, bodyOffset } of records) {
    const pointer = suffixOffset(query, name);
    if (pointer === 0) {
      bytes.set(wire, offset);
      offset += wire.length;
    } else {
      offset = bytes.writeUInt16BE(POINTER | pointer, offset);
      bytes.set(wire.subarray(bodyOffset), offset);
      offset += wire.length - bodyOffset;
    }
  }
  return offset;
}

/** Where in the question `name` stands as the end of its name; 0 if it does not. */
function suffixOffset(query: Query, name: string): number {
  if (query.name !== name && !query.name.endsWith(`.${name}`)) return 0;
  // a name of the zone has no escapes: it is one byte longer on the wire than as text
  return query.questionEnd - 4 - (name.length + 1);
}

const MAX_LABEL_LENGTH = 63;
/** On the wire, the root's zero byte included. */
const MAX_NAME_LENGTH = 255;
const POINTER = 0xc000;
/** An OPT record without options. */
const OPT_LENGTH = 11;
const EDNS_DO = 0x80;

/** How each octet of a label is written in a name: see `name.ts`. */
const CHARACTERS: readonly string[] = Array.from({ length: 256 }, (_, octet) => {
  const character = String.fromCharCode(octet);
  return /[!-~]/.test(character) && !/[.\\]/.test(character)
    ? character.toLowerCase()
    : `\\${String(octet).padStart(3, '0')}`;
});
