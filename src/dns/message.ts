/**
 * Reads queries and writes answers in the message format of
 * [RFC 1035 section 4](https://www.rfc-editor.org/rfc/rfc1035#section-4) with EDNS(0) of
 * [RFC 6891](https://www.rfc-editor.org/rfc/rfc6891).
 *
 * `dns-packet` encodes records, OPT records and messages without a question. Queries are read here,
 * in one pass over one question and at most one OPT record: no message costs more than its length,
 * and no octet of a name is lost. Answers are put together here, because `dns-packet` does not
 * compress names.
 *
 * ```
 *  0      2       4         6         8         10        12
 * +------+-------+---------+---------+---------+---------+
 * |  id  | flags | qdcount | ancount | nscount | arcount |  question ...
 * +------+-------+---------+---------+---------+---------+
 * ```
 * @module
 */
import {
  CHECKING_DISABLED,
  DNSSEC_OK,
  encode,
  RECURSION_DESIRED,
  TRUNCATED_RESPONSE,
} from 'dns-packet';
import type { OptRecords } from './opt-records.ts';
import { RecordType, type ZoneRecord } from './record.ts';

/** Response codes; those above 15 need EDNS. */
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
/** The longest UDP answer in bytes for a client that sends no OPT record; every client takes as much. */
export const MIN_UDP_LENGTH = 512;

/** One question, read by `readQuestion`. */
export interface Question {
  /** In the inner form of `name.ts`: lower case, and without a loss of octets. */
  readonly name: string;
  readonly type: number;
  readonly class: number;
  /** Offset of the first byte behind the question. */
  readonly end: number;
}

/** A well-formed message with the opcode QUERY and one question. */
export interface Query {
  /** The whole message; not copied. */
  readonly bytes: Uint8Array;
  readonly flags: number;
  /** In the inner form of `name.ts`; `bytes` has the name in the case of the client. */
  readonly name: string;
  readonly type: number;
  readonly class: number;
  /** Offset of the first byte behind the question. */
  readonly questionEnd: number;
  readonly edns: Edns | undefined;
}

export interface Edns {
  readonly version: number;
  /** Longest UDP answer that the client takes, in bytes. */
  readonly udpPayloadSize: number;
  readonly dnssecOk: boolean;
}

/**
 * Reads a query. Returns a response code for `encodeFault` if the message is malformed or has another
 * opcode, and `undefined` if it gets no answer: it has no whole header, or is a response itself.
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
  const question = readQuestion(bytes);
  if (question === undefined) return Rcode.FormErr;
  const { name, type, class: qclass, end: questionEnd } = question;

  let edns: Edns | undefined;
  if (additionals === 0) {
    if (questionEnd !== bytes.length) return Rcode.FormErr;
  } else {
    edns = parseOpt(bytes, questionEnd);
    if (edns === undefined) return Rcode.FormErr;
  }
  return { bytes, flags, name, type, class: qclass, questionEnd, edns };
}

/**
 * Reads the first question of a message with a whole header. Returns `undefined` if the question is
 * cut off, or its name is too long or not made of plain labels.
 */
export function readQuestion(bytes: Uint8Array): Question | undefined {
  const nameEnd = skipName(bytes, HEADER_LENGTH);
  const end = nameEnd + 4;
  if (nameEnd === 0 || end > bytes.length) return undefined;
  return {
    name: readName(bytes, HEADER_LENGTH),
    type: readUint16(bytes, nameEnd),
    class: readUint16(bytes, nameEnd + 2),
    end,
  };
}

/** The parts of an answer that do not come from the query. */
export interface Reply {
  readonly rcode: Rcode;
  /** The bits AA, TC and RA, as they apply. */
  readonly flags: number;
  readonly answers: readonly ZoneRecord[];
  readonly authority: readonly ZoneRecord[];
  readonly additional: readonly ZoneRecord[];
}

/**
 * Encodes the answer to `query`, with a copy of its question. An owner that the question's name ends
 * with, or is an alias of, becomes a compression pointer. An answer longer than `limit` loses its
 * additional records; if it is still too long, it loses all records and gets the TC bit, because
 * clients must not use a part of an RRset (RFC 2181 section 9).
 *
 * @param limit in bytes, at least `MIN_UDP_LENGTH`.
 * @param optRecords has the OPT record for a query that has one.
 */
export function encodeReply(
  query: Query,
  reply: Reply,
  limit: number,
  optRecords: OptRecords
): Uint8Array {
  let { flags, answers, authority, additional } = reply;
  const names = namesIn(query, answers);
  const opt = query.edns && optRecords.find(reply.rcode, query.edns.dnssecOk);
  const optLength = opt === undefined ? 0 : OPT_LENGTH;
  let length =
    query.questionEnd + optLength + recordsLength(names, answers) + recordsLength(names, authority);
  if (length > limit) {
    flags |= TRUNCATED_RESPONSE;
    answers = authority = additional = [];
    length = query.questionEnd + optLength;
  }
  const additionalLength = recordsLength(names, additional);
  if (length + additionalLength > limit) additional = [];
  else length += additionalLength;

  const bytes = Buffer.allocUnsafe(length);
  bytes.set(query.bytes.subarray(0, query.questionEnd));
  const copied = query.flags & (RECURSION_DESIRED | CHECKING_DISABLED);
  bytes.writeUInt16BE(FLAG_QR | flags | copied | (reply.rcode & RCODE_MASK), 2);
  bytes.writeUInt16BE(answers.length, 6);
  bytes.writeUInt16BE(authority.length, 8);
  bytes.writeUInt16BE(additional.length + (opt === undefined ? 0 : 1), 10);
  let offset = writeRecords(names, answers, bytes, query.questionEnd);
  offset = writeRecords(names, authority, bytes, offset);
  offset = writeRecords(names, additional, bytes, offset);
  if (opt !== undefined) bytes.set(opt, offset);
  return bytes;
}

/**
 * Encodes the answer to a message that has a whole header but is no query: its id, its opcode and a
 * response code below 16, without a question.
 */
export function encodeFault(bytes: Uint8Array, rcode: Rcode): Uint8Array {
  const flags = (readUint16(bytes, 2) & (OPCODE_MASK | RECURSION_DESIRED)) | rcode;
  return encode({ id: readUint16(bytes, 0), type: 'response', flags });
}

export function readUint16(bytes: Uint8Array, offset: number): number {
  return (bytes[offset]! << 8) | bytes[offset + 1]!;
}

/**
 * Returns the offset behind the name, or 0 if the name is cut off, too long or not made of plain
 * labels. The first name of a message has nothing that a compression pointer could point to.
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

/** Reads an OPT record that ends the message; returns `undefined` if anything else is there. */
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
    dnssecOk: (readUint16(bytes, offset + 7) & DNSSEC_OK) !== 0,
  };
}

/** The names of an answer that owners of its records can point to. */
interface EarlierNames {
  readonly question: string;
  /** Offset behind the question's name. */
  readonly questionNameEnd: number;
  /** The name that the question's name is an alias of, if it is one. */
  readonly canonical: string | undefined;
  /** Offset of `canonical` in the data of the CNAME record. */
  readonly canonicalOffset: number;
}

function namesIn({ name, questionEnd }: Query, [first]: readonly ZoneRecord[]): EarlierNames {
  return {
    question: name,
    questionNameEnd: questionEnd - 4,
    canonical: first?.content.type === 'CNAME' ? first.content.data : undefined,
    canonicalOffset: questionEnd + POINTER_LENGTH + RECORD_HEADER_LENGTH,
  };
}

function recordsLength(names: EarlierNames, records: readonly ZoneRecord[]): number {
  let length = 0;
  for (const { name, wire, bodyOffset } of records) {
    length += nameOffset(names, name) === 0 ? 0 : POINTER_LENGTH - bodyOffset;
    length += wire.length;
  }
  return length;
}

/** Returns the offset behind the last record. */
function writeRecords(
  names: EarlierNames,
  records: readonly ZoneRecord[],
  bytes: Buffer,
  offset: number
): number {
  for (const { name, wire, bodyOffset } of records) {
    const pointer = nameOffset(names, name);
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

/** Returns the offset of an earlier `name` in the message, which may be the end of the question's name, or 0. */
function nameOffset(
  { question, questionNameEnd, canonical, canonicalOffset }: EarlierNames,
  name: string
): number {
  if (question === name) return HEADER_LENGTH;
  // A name of the zone has no escapes: it is one byte longer in a message than as text.
  if (question.endsWith(`.${name}`)) return questionNameEnd - (name.length + 1);
  return name === canonical ? canonicalOffset : 0;
}

const FLAG_QR = 0x8000;
const OPCODE_MASK = 0x7800;
const RCODE_MASK = 0x000f;
const MAX_LABEL_LENGTH = 63;
/** The longest name on the wire in bytes, the root's zero byte included. */
const MAX_NAME_LENGTH = 255;
const POINTER = 0xc000;
const POINTER_LENGTH = 2;
/** Type, class, TTL and length of the data. */
const RECORD_HEADER_LENGTH = 10;
/** An OPT record without options. */
const OPT_LENGTH = 11;

/** The text of each octet of a label: see `name.ts`. */
const CHARACTERS: readonly string[] = Array.from({ length: 256 }, (_, octet) => {
  const character = String.fromCharCode(octet);
  return /[!-~]/.test(character) && !/[.\\]/.test(character)
    ? character.toLowerCase()
    : `\\${String(octet).padStart(3, '0')}`;
});
