/**
 * IP addresses as values. Text is parsed where it enters: a user's options, files, the store and messages.
 *
 * ip-num parses the text, except plain text, for which a faster parser exists. Addresses are printed in the canonical
 * form of [RFC 5952](https://www.rfc-editor.org/rfc/rfc5952#section-4). An address is one (IPv4) or four (IPv6) words
 * in network order. Each word is a *signed* 32-bit integer: V8 keeps those unboxed, which it does not do for values
 * above 2^31 - 1.
 * @module
 */
import { IPv4, IPv6 } from 'ip-num';
import { ApiMisuseError } from '../errors.ts';
import { inspectAsText } from './inspect.ts';
import { checkThat } from './option-check.ts';
import { isOfKind, markKind } from './other-copy.ts';

/** IP version. */
export type Family = 4 | 6;

/** Returns how many bits an address of this IP version has. */
export function bitsOf(family: Family): number {
  return family === 4 ? 32 : 128;
}

/** An address as a caller gives it: the value, or text such as `10.0.0.5` or `2001:db8::5`. */
export type AddressInput = IpAddress | string;

/**
 * An IPv4 or IPv6 address. It is immutable; `equals` compares two of them, and `toString` gives the same text for
 * equal ones, which makes it the key for a `Map`.
 */
export class IpAddress {
  static {
    inspectAsText(IpAddress);
    markKind(IpAddress, 'IpAddress');
  }

  readonly family: Family;
  /** One word (IPv4) or four (IPv6), signed, most significant first. */
  readonly words: readonly number[];
  /** The canonical text, once it is known. */
  #text: string | undefined;
  /** The text that it was parsed from, if that may differ from the canonical one. */
  readonly #source: string | undefined;

  private constructor(
    family: Family,
    words: readonly number[],
    text?: string | undefined,
    source?: string | undefined
  ) {
    this.family = family;
    this.words = words;
    this.#text = text;
    this.#source = source;
  }

  /**
   * Parses dotted-quad IPv4 or any RFC 4291 form of IPv6. Zones (`fe80::1%eth0`) are refused: they
   * mean nothing on another host.
   *
   * @throws {ApiMisuseError} if the text is not an address.
   */
  static parse(text: string): IpAddress {
    const words = parsePlain(text);
    if (words?.length === 1) return new IpAddress(4, words, text);
    if (words !== undefined) return new IpAddress(6, words, undefined, text);
    if (text.length <= MAX_TEXT_LENGTH && ADDRESS_CHARACTERS.test(text)) {
      try {
        const family = text.includes(':') ? 6 : 4;
        const value = family === 6 ? new IPv6(text).getValue() : new IPv4(text).getValue();
        return new IpAddress(family, wordsOf(family, value), undefined, text);
      } catch {
        // The messages of ip-num do not name the value.
      }
    }
    throw new ApiMisuseError(`"${text}" is not an IP address`);
  }

  /**
   * Returns the address that a caller gives as a value or as text.
   *
   * @throws {ApiMisuseError} if it is neither an address nor the text of one.
   */
  static from(input: AddressInput): IpAddress {
    if (input instanceof IpAddress) return input;
    if (IpAddress.isAddress(input)) return IpAddress.parse(input.toJSON());
    return IpAddress.parse(checkThat('it', input, typeof input === 'string', 'an IP address'));
  }

  /** Returns whether this is an address as a value, of this or another copy of this package. */
  static isAddress(input: unknown): input is IpAddress {
    return isOfKind(input, 'IpAddress');
  }

  /** Makes an address of one word (IPv4) or four (IPv6), as `words` has them. */
  static fromWords(words: readonly number[]): IpAddress {
    if (words.length !== 1 && words.length !== 4) {
      throw new ApiMisuseError(`an address has 1 or 4 words, not ${words.length}`);
    }
    if (words.length === 1) return new IpAddress(4, [words[0]! | 0]);
    return new IpAddress(
      6,
      words.map((word) => word | 0)
    );
  }

  static fromBigInt(family: Family, value: bigint): IpAddress {
    return new IpAddress(family, wordsOf(family, value));
  }

  /** Reads 4 or 16 bytes in network order at `offset`. */
  static fromBytes(family: Family, bytes: Uint8Array, offset: number): IpAddress {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const wordAt = (i: number): number => view.getInt32(offset + 4 * i);
    return new IpAddress(family, family === 4 ? [wordAt(0)] : [0, 1, 2, 3].map(wordAt));
  }

  toBigInt(): bigint {
    let value = 0n;
    for (const word of this.words) value = (value << 32n) | BigInt(word >>> 0);
    return value;
  }

  /** Writes 4 or 16 bytes in network order at `offset`. */
  writeTo(bytes: Uint8Array, offset: number): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let i = 0; i < this.words.length; i++) view.setInt32(offset + 4 * i, this.words[i]!);
  }

  equals(other: IpAddress): boolean {
    return (
      this.words.length === other.words.length &&
      this.words.every((word, i) => word === other.words[i])
    );
  }

  /** Returns the canonical text. */
  toString(): string {
    if (this.#text === undefined) {
      const text = this.family === 4 ? formatIPv4(this.words[0]!) : formatIPv6(this.words);
      // Most text is canonical when it is parsed, and need not be kept twice.
      this.#text = text === this.#source ? this.#source : text;
    }
    return this.#text;
  }

  /** Returns the same address, whose JSON is the canonical text. */
  canonical(): IpAddress {
    const text = this.toString();
    return this.toJSON() === text ? this : new IpAddress(this.family, this.words, text);
  }

  /** Returns the text that it was parsed from, or else the canonical one: what a user wrote is stored as it is. */
  toJSON(): string {
    return this.#source ?? this.toString();
  }
}

/** Makes the list in its final length: a list that grows keeps room for 17 entries, with every address. */
function wordsOf(family: Family, value: bigint): number[] {
  const wordAt = (shift: bigint): number => Number(BigInt.asIntN(32, value >> shift));
  return family === 4 ? [wordAt(0n)] : [96n, 64n, 32n, 0n].map(wordAt);
}

/**
 * Parses plain text: four decimal numbers without leading zeros, or groups of hexadecimal digits with at most one `::`.
 * Plans have addresses by the hundred thousand, for which the big integers of ip-num take seconds. Returns undefined
 * for all other text, which ip-num then judges.
 */
function parsePlain(text: string): readonly number[] | undefined {
  const isIPv6 = text.includes(':');
  if (text.length > MAX_TEXT_LENGTH || !(isIPv6 ? PLAIN_IPV6 : PLAIN_IPV4).test(text))
    return undefined;
  if (!isIPv6) {
    const [a, b, c, d] = text.split('.').map(Number) as [number, number, number, number];
    return (a | b | c | d) > 255 ? undefined : [(a << 24) | (b << 16) | (c << 8) | d];
  }
  const [head, tail, ...rest] = text.split('::');
  const front = groupsOf(head!);
  const back = tail === undefined ? [] : groupsOf(tail);
  const missing = 8 - front.length - back.length;
  if (rest.length > 0 || (tail === undefined ? missing !== 0 : missing < 1)) return undefined;
  const groups = [...front, ...Array<number>(missing).fill(0), ...back];
  return [0, 2, 4, 6].map((i) => (groups[i]! << 16) | groups[i + 1]!);
}

function groupsOf(text: string): number[] {
  return text === '' ? [] : text.split(':').map((group) => Number.parseInt(group, 16));
}

/** Returns the dotted quad of one word. */
export function formatIPv4(word: number): string {
  return `${word >>> 24}.${(word >>> 16) & 255}.${(word >>> 8) & 255}.${word & 255}`;
}

/** Prints as RFC 5952 says: lower case, no leading zeros, the longest run of two or more zero groups as `::`. */
function formatIPv6(words: readonly number[]): string {
  if (words[0] === 0 && words[1] === 0 && words[2] === 0xffff) {
    return `::ffff:${formatIPv4(words[3]!)}`;
  }
  const groups = words.flatMap((word) => [word >>> 16, word & 0xffff]);
  let runStart = -1;
  let runLength = 1;
  for (let start = 0; start < 8; start++) {
    let end = start;
    while (end < 8 && groups[end] === 0) end++;
    if (end - start > runLength) {
      runStart = start;
      runLength = end - start;
    }
  }
  const hex = groups.map((group) => group.toString(16));
  if (runStart < 0) return hex.join(':');
  return `${hex.slice(0, runStart).join(':')}::${hex.slice(runStart + runLength).join(':')}`;
}

/** The longest text: six groups and a dotted quad, `ffff:...:255.255.255.255`. */
const MAX_TEXT_LENGTH = 45;
const ADDRESS_CHARACTERS = /^[0-9a-fA-F:.]+$/;
const PLAIN_IPV4 = /^(?:(?:0|[1-9]\d{0,2})\.){3}(?:0|[1-9]\d{0,2})$/;
/** Groups of one to four digits between single colons, with `::` where it may stand. */
const PLAIN_IPV6 =
  /^(?:[0-9a-fA-F]{1,4}(?::[0-9a-fA-F]{1,4})*)?(?:::(?:[0-9a-fA-F]{1,4}(?::[0-9a-fA-F]{1,4})*)?)?$/;
