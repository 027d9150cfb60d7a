/**
 * Prefixes of IP addresses as values, such as `10.0.0.0/24`. Text is parsed where it enters.
 *
 * All arithmetic works on the words of addresses. The ranges of ip-num would do it too, but a plan has prefixes by the
 * thousand, which are checked and loaded again at each change: ip-num takes 2 to 10 µs to parse one and 28 to 270 µs to
 * compare two, where words take 1 µs and 20 ns. A test compares both.
 * @module
 */
import { ApiMisuseError } from '../errors.ts';
import { bitsOf, type Family, IpAddress } from './address.ts';
import { inspectAsText } from './inspect.ts';
import { checkThat } from './option-check.ts';
import { isOfKind, markKind } from './other-copy.ts';

/** A prefix as a caller gives it: the value, or text such as `10.0.0.0/24`; a bare address is one too. */
export type PrefixInput = IpPrefix | string;

/** An address prefix; the bits behind `length` are zero. It is immutable. */
export class IpPrefix {
  static {
    inspectAsText(IpPrefix);
    markKind(IpPrefix, 'IpPrefix');
  }

  readonly base: IpAddress;
  /** Prefix length in bits, 0 to 32 or 128. */
  readonly length: number;
  readonly #masks: readonly number[];
  /** The text that it was parsed from. */
  readonly #source: string | undefined;

  private constructor(base: IpAddress, length: number, source?: string | undefined) {
    this.base = base;
    this.length = length;
    this.#source = source;
    this.#masks = base.words.map((_, i) => maskWord(length - 32 * i));
  }

  /**
   * Parses `address/length`; a bare address is the prefix of that one address.
   *
   * @throws {ApiMisuseError} if the text is not a prefix, or has bits set behind its length.
   */
  static parse(text: string): IpPrefix {
    const [, addressText, lengthText] = PREFIX.exec(text) ?? [];
    let address: IpAddress;
    try {
      address = IpAddress.parse(addressText ?? '');
    } catch {
      throw new ApiMisuseError(`"${text}" is not an IP prefix`);
    }
    const length = Number(lengthText ?? bitsOf(address.family));
    if (length > bitsOf(address.family)) throw new ApiMisuseError(`"${text}" is not an IP prefix`);
    const prefix = new IpPrefix(address, length, text);
    if (prefix.contains(address)) return prefix;
    const meant = IpPrefix.around(address, length);
    throw new ApiMisuseError(`"${text}" has bits set behind its length; did you mean ${meant}?`);
  }

  /**
   * Returns the prefix that a caller gives as a value or as text.
   *
   * @throws {ApiMisuseError} if it is neither a prefix nor the text of one.
   */
  static from(input: PrefixInput): IpPrefix {
    if (input instanceof IpPrefix) return input;
    if (IpPrefix.isPrefix(input)) return IpPrefix.parse(input.toJSON());
    return IpPrefix.parse(checkThat('it', input, typeof input === 'string', 'an IP prefix'));
  }

  /** Returns whether this is a prefix as a value, of this or another copy of this package. */
  static isPrefix(input: unknown): input is IpPrefix {
    return isOfKind(input, 'IpPrefix');
  }

  /**
   * Returns the prefix of a length that an address is in.
   *
   * @param length in bits, 0 to 32 or 128; by default that of the address alone
   */
  static around(address: IpAddress, length: number = bitsOf(address.family)): IpPrefix {
    const words = address.words.map((word, i) => word & maskWord(length - 32 * i));
    return new IpPrefix(IpAddress.fromWords(words), length);
  }

  get family(): Family {
    return this.base.family;
  }

  /** The number of addresses; above 2^53 it is not exact. */
  get size(): number {
    return 2 ** (bitsOf(this.family) - this.length);
  }

  /** Returns whether the address is in the prefix. */
  contains(address: IpAddress): boolean {
    return address.family === this.family && this.containsWords(address.words);
  }

  /** Does the same for an address of this IP version whose words begin at `words[at]`; for use per packet. */
  containsWords(words: ArrayLike<number>, at = 0): boolean {
    const base = this.base.words;
    for (let i = 0; i < base.length; i++) {
      if ((words[at + i]! & this.#masks[i]!) !== base[i]!) return false;
    }
    return true;
  }

  /** Returns whether one of the two contains the other. */
  overlaps(other: IpPrefix): boolean {
    return this.contains(other.base) || other.contains(this.base);
  }

  /** Returns the address `index` steps behind the base. */
  at(index: number): IpAddress {
    if (this.family === 4) return IpAddress.fromWords([this.base.words[0]! + index]);
    const words = [...this.base.words];
    let rest = index;
    for (let i = words.length - 1; rest > 0 && i >= 0; i--) {
      rest += words[i]! >>> 0;
      words[i] = rest % WORD;
      rest = Math.floor(rest / WORD);
    }
    return IpAddress.fromWords(words);
  }

  /** Returns how many steps `address`, which must be in the prefix, is behind the base; above 2^53 it is not exact. */
  indexOf(address: IpAddress): number {
    let index = 0;
    for (let i = 0; i < address.words.length; i++) {
      index = index * WORD + ((address.words[i]! >>> 0) - (this.base.words[i]! >>> 0));
    }
    return index;
  }

  /** Returns the canonical text, with the length also of a single address. */
  toString(): string {
    return `${this.base}/${this.length}`;
  }

  /** Returns the text that it was parsed from, or else the canonical one: what a user wrote is stored as it is. */
  toJSON(): string {
    return this.#source ?? this.toString();
  }
}

/** `bits` is how many of this word's bits the prefix covers, clamped to 0..32. */
function maskWord(bits: number): number {
  if (bits <= 0) return 0;
  return bits >= 32 ? -1 : -1 << (32 - bits);
}

/** One more than the largest word. */
const WORD = 2 ** 32;
/** An address, and perhaps a length. */
const PREFIX = /^([^/]+)(?:\/(\d{1,3}))?$/;
