/**
 * Remembers the datagrams whose first fragment was forwarded: later fragments take its path. Fragments are
 * not reassembled. The table only records which bytes have arrived, so that no fragment can overwrite
 * another ([RFC 1858](https://www.rfc-editor.org/rfc/rfc1858), [RFC 3128](https://www.rfc-editor.org/rfc/rfc3128),
 * [RFC 5722](https://www.rfc-editor.org/rfc/rfc5722)). Each ingress realm has its own table.
 * @module
 */
import { checkWhole } from '../base/option-check.ts';
import { FragmentPart } from '../packet/fields.ts';
import type { PacketHeader } from '../packet/header.ts';
import type { PathTable } from './path-table.ts';
import { RecencyTable } from './recency-table.ts';

export interface FragmentOptions {
  /** The number of datagrams to remember for each ingress realm, rounded up to a power of two; default 1024. */
  readonly maxFragments?: number;
  /** How long later fragments pass after the first one, in ms; default 15,000. */
  readonly fragmentTimeoutMs?: number;
}

/** The defaults of the options. */
export const FRAGMENT_DEFAULTS: Readonly<Required<FragmentOptions>> = Object.freeze({
  maxFragments: 1024,
  fragmentTimeoutMs: 15_000,
});

/** The outcome of `Fragments.admit`. */
export const Admission = {
  Pass: 0,
  /** The datagram is not known, or no longer known. */
  Orphan: 1,
  /** The fragment overlaps another one, or leaves too many holes. */
  Refused: 2,
} as const;
export type Admission = (typeof Admission)[keyof typeof Admission];

export class Fragments {
  /** The tables, by index of the ingress realm. */
  readonly #tables: (RecencyTable | undefined)[] = [];
  readonly #maxFragments: number;
  readonly #timeoutMs: number;

  /** @throws {ApiMisuseError} if an option is out of range. */
  constructor(options: FragmentOptions) {
    const {
      maxFragments = FRAGMENT_DEFAULTS.maxFragments,
      fragmentTimeoutMs = FRAGMENT_DEFAULTS.fragmentTimeoutMs,
    } = options;
    checkWhole('maxFragments', maxFragments, 1, 2 ** 20);
    checkWhole('fragmentTimeoutMs', fragmentTimeoutMs, 1, 120_000);
    this.#maxFragments = maxFragments;
    this.#timeoutMs = fragmentTimeoutMs;
  }

  /**
   * Checks a fragment against those of its datagram that have arrived. If it overlaps them, marks the whole
   * datagram as refused, except in a dry run.
   */
  admit(
    realm: number,
    view: DataView,
    header: PacketHeader,
    now: number,
    isDryRun: boolean
  ): Admission {
    const isFirst = header.part === FragmentPart.First;
    const table = this.#tables[realm];
    if (table === undefined) return isFirst ? Admission.Pass : Admission.Orphan;
    setKey(table, view, header);
    const at = table.find();
    if (at < 0 || !table.isRecent(at, now, this.#timeoutMs)) {
      return isFirst ? Admission.Pass : Admission.Orphan;
    }
    const { words } = table;
    const value = at + VALUE;
    if (words[value + STATE] === REFUSED) return Admission.Refused;
    const from = header.fragmentOffset;
    const to = from + header.end - header.fragmentPayload;
    if (isFirst && to === words[value + FIRST_LENGTH]) return Admission.Pass;

    // A second first fragment of another length is an attack.
    const overlap = isFirst
      ? Overlap.Harmful
      : overlapOf(words, value, from, to, header.moreFragments);
    if (overlap === Overlap.Harmful && !isDryRun) words[value + STATE] = REFUSED;
    return overlap === Overlap.None ? Admission.Pass : Admission.Refused;
  }

  /** Records a fragment that was admitted and forwarded. A first fragment restarts its datagram. */
  note(realm: number, view: DataView, header: PacketHeader, now: number): void {
    let table = this.#tables[realm];
    if (table === undefined) {
      table = new RecencyTable(KEY_WORDS, VALUE_WORDS, this.#maxFragments, MAX_PROBES);
      this.#tables[realm] = table;
    }
    setKey(table, view, header);
    const from = header.fragmentOffset;
    const to = from + header.end - header.fragmentPayload;
    let at = table.find();
    if (header.part === FragmentPart.First) {
      at = table.claim(now, this.#timeoutMs);
      table.words.fill(0, at + VALUE, at + VALUE + VALUE_WORDS);
      table.words[at + VALUE + FIRST_LENGTH] = to;
    }
    const { words } = table;
    const value = at + VALUE;
    if (!header.moreFragments) words[value + TOTAL] = to;
    insertInterval(words, value, from, to);
    const isComplete =
      words[value + COUNT] === 1 && intervalEnd(words, value, 0) === words[value + TOTAL];
    if (isComplete) table.remove(at);
  }

  /** Forgets the datagrams from a realm that is gone. */
  forget(realm: number): void {
    this.#tables[realm] = undefined;
  }

  /**
   * Forgets the datagrams whose path no longer exists.
   *
   * @param realms the ingress realms of paths that have ended; by default all
   */
  keep(
    hasPath: (table: 4 | 6, realm: number, words: Int32Array, at: number) => boolean,
    realms: Iterable<number> = this.#tables.keys()
  ): void {
    for (const realm of realms) {
      const table = this.#tables[realm];
      if (table === undefined) continue;
      for (const at of table.records()) {
        const family = table.words[at + 1]! >>> 8 === 6 ? 6 : 4;
        if (!hasPath(family, realm, table.words, at + 1 + KEY_ADDRESSES)) table.remove(at);
      }
    }
  }
}

/** Sets `table.key` to the path of a datagram, whose addresses are at `words[at]`. */
export function setPathKey(table: PathTable, realm: number, words: Int32Array, at: number): void {
  table.key[0] = realm;
  for (let i = 1; i < table.keyWords; i++) table.key[i] = words[at + i - 1]!;
}

/** Sets the key of a datagram: IP version and IPv4 protocol, identification, addresses. */
function setKey(table: RecencyTable, view: DataView, header: PacketHeader): void {
  const { key } = table;
  const isIpv4 = header.family === 4;
  key[0] = isIpv4 ? (4 << 8) | header.protocol : 6 << 8;
  key[1] = header.identification;
  const width = isIpv4 ? 2 : 8;
  for (let i = 0; i < 8; i++) {
    key[KEY_ADDRESSES + i] = i < width ? view.getInt32(header.source + 4 * i) : 0;
  }
}

/** Harmless: only this fragment is refused. Harmful: the rest of its datagram is refused too. */
const Overlap = { None: 0, Harmless: 1, Harmful: 2 } as const;
type Overlap = (typeof Overlap)[keyof typeof Overlap];

function overlapOf(
  words: Int32Array,
  value: number,
  from: number,
  to: number,
  moreFragments: boolean
): Overlap {
  const count = words[value + COUNT]!;
  for (let i = 0; i < count; i++) {
    const start = intervalStart(words, value, i);
    const end = intervalEnd(words, value, i);
    if (from >= start && to <= end) return Overlap.Harmless;
    if (from < end && to > start) return Overlap.Harmful;
  }
  const total = words[value + TOTAL]!;
  if (total !== 0 && (to > total || !moreFragments)) return Overlap.Harmful;
  if (!moreFragments && intervalEnd(words, value, count - 1) > to) return Overlap.Harmful;
  const touches = touchesInterval(words, value, from, to);
  return count === MAX_INTERVALS && !touches ? Overlap.Harmless : Overlap.None;
}

function touchesInterval(words: Int32Array, value: number, from: number, to: number): boolean {
  for (let i = 0; i < words[value + COUNT]!; i++) {
    if (intervalEnd(words, value, i) === from || intervalStart(words, value, i) === to) return true;
  }
  return false;
}

/** Inserts [from, to), which overlaps no interval, in order and merges it with its neighbours. */
function insertInterval(words: Int32Array, value: number, from: number, to: number): void {
  let count = words[value + COUNT]!;
  let i = 0;
  while (i < count && intervalStart(words, value, i) < from) i++;
  const joinsBefore = i > 0 && intervalEnd(words, value, i - 1) === from;
  const joinsAfter = i < count && intervalStart(words, value, i) === to;
  const list = value + INTERVALS;
  if (joinsBefore && joinsAfter) {
    setInterval(
      words,
      value,
      i - 1,
      intervalStart(words, value, i - 1),
      intervalEnd(words, value, i)
    );
    words.copyWithin(list + i, list + i + 1, list + count);
    count--;
  } else if (joinsBefore) {
    setInterval(words, value, i - 1, intervalStart(words, value, i - 1), to);
  } else if (joinsAfter) {
    setInterval(words, value, i, from, intervalEnd(words, value, i));
  } else {
    words.copyWithin(list + i + 1, list + i, list + count);
    setInterval(words, value, i, from, to);
    count++;
  }
  words[value + COUNT] = count;
}

function intervalStart(words: Int32Array, value: number, i: number): number {
  return words[value + INTERVALS + i]! >>> 16;
}

function intervalEnd(words: Int32Array, value: number, i: number): number {
  return words[value + INTERVALS + i]! & 0xffff;
}

function setInterval(words: Int32Array, value: number, i: number, from: number, to: number): void {
  words[value + INTERVALS + i] = (from << 16) | to;
}

const MAX_PROBES = 16;
const KEY_WORDS = 10;
/** The offset of the addresses in the key. */
const KEY_ADDRESSES = 2;

/** The offset of the value in a record; the offsets in it follow. */
const VALUE: number = 1 + KEY_WORDS;
const STATE = 0;
const REFUSED = 1;
/** The payload of the first fragment in bytes. */
const FIRST_LENGTH = 1;
/** The payload of the datagram in bytes; 0 until its last fragment has arrived. */
const TOTAL = 2;
/** The number of intervals of bytes that have arrived: in order, merged where they touch. */
const COUNT = 3;
const INTERVALS = 4;
/** Nine intervals have eight holes between them. */
const MAX_INTERVALS = 9;
const VALUE_WORDS: number = INTERVALS + MAX_INTERVALS;
