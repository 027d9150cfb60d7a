/**
 * Port ranges as values: `tcp/5672`, `udp/8000-8100`, `icmp` or `ip/47`. Text is parsed where it enters.
 * @module
 */
import { ConfigError } from '../errors.ts';
import { inspectAsText } from './inspect.ts';
import { isOfKind, markKind } from './other-copy.ts';

/** A protocol that has a name here. */
export type NamedProtocol = 'tcp' | 'udp' | 'udplite' | 'sctp' | 'icmp';

/** A port range as a caller gives it: the value, or text such as `tcp/5672`. */
export type PortInput = PortRange | string;

/**
 * A protocol and an inclusive range of ports. The range of `icmp` (echo) is 0 to 0. `ip` stands for a protocol without
 * a name here; its number is both `first` and `last`.
 */
export class PortRange {
  static {
    inspectAsText(PortRange);
    markKind(PortRange, 'PortRange');
  }

  readonly protocol: NamedProtocol | 'ip';
  readonly first: number;
  readonly last: number;
  /** The text that it was parsed from. */
  readonly #source: string;

  private constructor(protocol: NamedProtocol | 'ip', first: number, last: number, source: string) {
    this.protocol = protocol;
    this.first = first;
    this.last = last;
    this.#source = source;
  }

  /**
   * Parses `tcp/5672`, `udp/8000-8100` (likewise `udplite` and `sctp`), `icmp` or `ip/47`.
   *
   * @param path where the text stands, for the message
   * @throws {ConfigError} if the text is none of these.
   */
  static parse(text: string, path = ''): PortRange {
    if (text === 'icmp') return new PortRange('icmp', 0, 0, text);
    const [, digits] = /^ip\/(\d{1,3})$/.exec(text) ?? [];
    if (digits !== undefined) {
      const number = checkNumber(text, Number(digits), path);
      return new PortRange('ip', number, number, text);
    }
    const match = /^(tcp|udp|udplite|sctp)\/(\d{1,5})(?:-(\d{1,5}))?$/.exec(text);
    const first = Number(match?.[2]);
    const last = Number(match?.[3] ?? match?.[2]);
    if (match === null || first < 1 || last > 65_535 || first > last) {
      throw new ConfigError(
        path,
        `"${text}" is not a port such as tcp/5672, udp/8000-8100, icmp or ip/47`
      );
    }
    return new PortRange(match[1] as NamedProtocol, first, last, text);
  }

  /**
   * Returns the port range that a caller gives as a value or as text.
   *
   * @param path where it stands, for the message
   * @throws {ConfigError} if it is neither a port range nor the text of one.
   */
  static from(input: PortInput, path = ''): PortRange {
    if (input instanceof PortRange) return input;
    return PortRange.parse(String(input), path);
  }

  /** Returns whether this is a port range as a value, of this or another copy of this package. */
  static isPortRange(input: unknown): input is PortRange {
    return isOfKind(input, 'PortRange');
  }

  /** Returns the text that it was parsed from. */
  toString(): string {
    return this.#source;
  }

  /** Returns the text that it was parsed from: what a user wrote is stored as it is. */
  toJSON(): string {
    return this.#source;
  }
}

function checkNumber(text: string, number: number, path: string): number {
  const reason = number > 255 ? 'protocol numbers end at 255' : UNUSABLE_NUMBERS.get(number);
  if (reason !== undefined) throw new ConfigError(path, `"${text}" cannot be exposed: ${reason}`);
  return number;
}

/** The [protocol numbers](https://www.iana.org/assignments/protocol-numbers) that `ip/` refuses, and why. */
const UNUSABLE_NUMBERS: ReadonlyMap<number, string> = new Map([
  [1, 'write icmp'],
  [6, 'write tcp/ and a port'],
  [17, 'write udp/ and a port'],
  [58, 'write icmp'],
  [132, 'write sctp/ and a port'],
  [136, 'write udplite/ and a port'],
  [33, 'the checksum of DCCP covers the addresses, which is not supported'],
  ...[0, 43, 44, 60, 135, 139, 140, 253, 254].map(
    (number) => [number, 'it is an IPv6 extension header, or experimental'] as const
  ),
]);
