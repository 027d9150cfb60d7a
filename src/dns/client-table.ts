/**
 * Decides whether a client may ask, and under which names the limits count it. The words and the
 * rules are those of an access list of BIND (`allow-query`, `exempt-clients`) or CoreDNS (`acl`).
 * @module
 */
import { IpAddress } from '../base/address.ts';
import { IpPrefix, type PrefixInput } from '../base/prefix.ts';
import { ConfigError } from '../errors.ts';

/** What is known of the address that a query comes from. */
export interface Client {
  /** The client that bounds count: an address, or '' for all who may not ask, as one. */
  readonly name: string;
  /** The /24 (IPv4) or /56 (IPv6) that the rate of answers counts. */
  readonly block: string;
  readonly mayAsk: boolean;
  /** Whether the rate of answers does not count it. */
  readonly isExempt: boolean;
}

/**
 * Each entry of the lists is a prefix, an address, or one of two words: `sources` stands for the
 * prefixes that `setSources` was given last, `loopback` for `127.0.0.0/8` and `::1`.
 */
export class ClientTable {
  readonly #allow: readonly Entry[];
  readonly #exempt: readonly Entry[];
  #sources: readonly IpPrefix[] = [];
  /** What was found for each recent address; emptied when it is full and when the sources change. */
  readonly #known = new Map<string, Client>();

  /**
   * @param allow who may ask
   * @param exempt whose answers have no rate
   * @throws {ConfigError} at `allow[i]` or `rateLimit.exempt[i]` if an entry is neither.
   */
  constructor(allow: readonly string[], exempt: readonly string[]) {
    this.#allow = parseEntries('allow', allow);
    this.#exempt = parseEntries('rateLimit.exempt', exempt);
  }

  /** @throws {ConfigError} at `sources[i]` if one is no prefix; the sources stay as they were then. */
  setSources(prefixes: readonly PrefixInput[]): void {
    this.#sources = prefixes.map((prefix, i) => prefixAt(`sources[${i}]`, prefix));
    this.#known.clear();
  }

  /** Finds the client for an address as `node:dgram` and `node:net` give it. */
  find(address: string): Client {
    let client = this.#known.get(address);
    if (client === undefined) {
      client = this.#judge(address);
      if (this.#known.size >= MAX_KNOWN) this.#known.clear();
      this.#known.set(address, client);
    }
    return client;
  }

  #judge(text: string): Client {
    const address = parsePeer(text);
    if (address === undefined) return UNKNOWN;
    const mayAsk = this.#matches(this.#allow, address);
    return {
      name: mayAsk ? address.toString() : '',
      block: blockOf(address),
      mayAsk,
      isExempt: this.#matches(this.#exempt, address),
    };
  }

  #matches(entries: readonly Entry[], address: IpAddress): boolean {
    for (const entry of entries) {
      for (const prefix of entry === SOURCES ? this.#sources : entry) {
        if (prefix.contains(address)) return true;
      }
    }
    return false;
  }
}

type Entry = readonly IpPrefix[] | typeof SOURCES;

function parseEntries(path: string, entries: readonly string[]): Entry[] {
  return entries.map((text, i) => {
    if (text === SOURCES) return SOURCES;
    if (text === 'loopback') return LOOPBACK;
    if (/^[a-z]*$/i.test(text)) {
      throw new ConfigError(
        `${path}[${i}]`,
        `"${text}" is not an IP prefix, nor "${SOURCES}" or "loopback"`
      );
    }
    return [prefixAt(`${path}[${i}]`, text)];
  });
}

function prefixAt(path: string, input: PrefixInput): IpPrefix {
  try {
    return IpPrefix.from(input);
  } catch (error) {
    throw new ConfigError(path, (error as Error).message, { cause: error });
  }
}

/**
 * Reads the address of a peer. A link-local address comes with the name of its interface behind it,
 * an IPv4 address on a socket of IPv6 in the mapped form (RFC 4291 section 2.5.5.2). A socket that is
 * gone has no address.
 */
function parsePeer(text: string): IpAddress | undefined {
  const [bare = ''] = text.split('%');
  try {
    const address = IpAddress.parse(bare);
    const [a, b, c, d] = address.words;
    const isMapped = a === 0 && b === 0 && c === 0xffff;
    return isMapped ? IpAddress.fromWords([d!]) : address;
  } catch {
    return undefined;
  }
}

function blockOf({ family, words }: IpAddress): string {
  const [first, second] = words;
  return family === 4 ? `4 ${first! >> 8}` : `6 ${first} ${second! >> 8}`;
}

const SOURCES = 'sources';
const LOOPBACK: readonly IpPrefix[] = [IpPrefix.parse('127.0.0.0/8'), IpPrefix.parse('::1')];
const UNKNOWN: Client = { name: '', block: '', mayAsk: false, isExempt: false };
/** Some 1 MiB. */
const MAX_KNOWN = 4096;
