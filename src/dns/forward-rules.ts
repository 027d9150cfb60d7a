/**
 * Which servers are asked for names that are not ours: upstream lists by suffix, the longest
 * suffix wins.
 * @module
 */
import { type Family, IpAddress } from '../base/address.ts';
import { ConfigError } from '../errors.ts';
import { integerWithin } from './limits.ts';
import { parentOf, parseName } from './name.ts';

export interface ForwardRule {
  /** A name; the rule holds for it and all below it. `.` for all names. */
  readonly suffix: string;
  /**
   * Tried in this order: an address, or one with a port (`192.0.2.53:5353`, `[2001:db8::53]:5353`).
   * Without one it is port 53.
   */
  readonly upstreams: readonly string[];
}

export interface Upstream {
  readonly family: Family;
  readonly address: string;
  readonly port: number;
}

export class ForwardTable {
  readonly #bySuffix = new Map<string, readonly Upstream[]>();

  /** @throws {ConfigError} if a suffix or an upstream cannot be read, or a suffix stands twice. */
  constructor(rules: readonly ForwardRule[]) {
    rules.forEach(({ suffix, upstreams }, i) => {
      const path = `forward[${i}]`;
      const name = suffix === '.' ? '.' : parseName(`${path}.suffix`, suffix);
      if (this.#bySuffix.has(name)) {
        throw new ConfigError(`${path}.suffix`, `"${suffix}" has a rule already`);
      }
      if (upstreams.length === 0) {
        throw new ConfigError(`${path}.upstreams`, `no upstream is given for "${suffix}"`);
      }
      this.#bySuffix.set(
        name,
        upstreams.map((text, j) => parseUpstream(`${path}.upstreams[${j}]`, text))
      );
    });
  }

  get size(): number {
    return this.#bySuffix.size;
  }

  /** Returns the upstreams of the longest suffix of `name`, which is in the form of `name.ts`. */
  match(name: string): readonly Upstream[] | undefined {
    let suffix: string | undefined = name;
    while (suffix !== undefined) {
      const upstreams = this.#bySuffix.get(suffix);
      if (upstreams !== undefined) return upstreams;
      suffix = parentOf(suffix);
    }
    return undefined;
  }
}

function parseUpstream(path: string, text: string): Upstream {
  const [, bracketed, plain, portText] = UPSTREAM.exec(text) ?? [];
  const port = integerWithin(path, Number(portText ?? DNS_PORT), 1, 65_535);
  try {
    const address = IpAddress.parse(bracketed ?? plain ?? text);
    return { family: address.family, address: address.toString(), port };
  } catch (error) {
    throw new ConfigError(path, `"${text}" is not an address, nor one with a port`, {
      cause: error,
    });
  }
}

/** `[address]`, `[address]:port` or `address:port` without another colon; the rest is an address. */
const UPSTREAM = /^(?:\[([^\]]*)\]|([^:]*)(?=:\d+$))(?::(\d+))?$/;
const DNS_PORT = 53;
