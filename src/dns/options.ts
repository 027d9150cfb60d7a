/**
 * The options of the DNS service, as an operator writes them in a file or a program gives them to a gateway.
 * @module
 */
import * as v from 'valibot';
import { systemClock } from '../base/clock.ts';
import type { HostPort, HostPortInput } from '../base/host-port.ts';
import { ListenAddressSchema } from '../base/host-port-schema.ts';
import type { Schema } from '../base/schema.ts';
import { ConfigError } from '../errors.ts';
import { ClientTable } from './client-table.ts';
import { type ForwardRule, ForwardTable } from './forward-rules.ts';
import { ResponseRate, type ResponseRateOptions } from './response-rate.ts';

/** The rules of a resolver: the clients that may ask, the upstreams, and the rate of answers by UDP. */
export interface ResolverRules {
  /** The servers that are asked for foreign names. Default none: foreign names are refused. */
  readonly forward?: readonly ForwardRule[] | undefined;
  /**
   * The clients that may ask; all others are refused. Each entry is a prefix (`192.0.2.0/24`), an address, or a word:
   * `sources` means the prefixes of the last `setSources`, `loopback` means this machine's loopback addresses.
   * Default `['sources', 'loopback']`; before the first `setSources` that is loopback only.
   */
  readonly allow?: readonly string[] | undefined;
  /** Limits the rate of answers by UDP to one network. Default `RESPONSE_RATE_DEFAULTS`. */
  readonly rateLimit?: ResponseRateOptions | undefined;
}

export interface DnsOptions extends ResolverRules {
  /**
   * The address and port that take queries by UDP and TCP: `10.0.0.1:53`. `0.0.0.0` and `::` mean all addresses
   * of the machine; port 0 takes a free port.
   */
  readonly listen: HostPortInput;
}

/** The options after `DnsOptionsSchema` has checked them. */
export interface ResolvedDnsOptions extends ResolverRules {
  readonly listen: HostPort;
  readonly forward: readonly ForwardRule[];
}

const RULES = {
  forward: v.optional(
    v.array(v.strictObject({ suffix: v.string(), upstreams: v.array(v.string()) })),
    []
  ),
  allow: v.optional(v.array(v.string())),
  rateLimit: v.optional(
    v.strictObject({
      responsesPerSecond: v.optional(v.number()),
      errorsPerSecond: v.optional(v.number()),
      slip: v.optional(v.number()),
      exempt: v.optional(v.array(v.string())),
    })
  ),
};

/** Reads the rules among other options and checks their types. The resolver checks their values. */
export const ResolverRulesSchema: Schema<ResolverRules> = /* @__PURE__ */ v.object(
  RULES
) as Schema<ResolverRules>;

/** Checks everything that can be checked before the port is opened. */
export const DnsOptionsSchema: Schema<ResolvedDnsOptions> = /* @__PURE__ */ v.pipe(
  v.strictObject({ listen: ListenAddressSchema, ...RULES }),
  v.rawCheck(({ dataset, addIssue }) => {
    if (!dataset.typed) return;
    try {
      checkRules(dataset.value as ResolverRules);
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      const { path, message } = error;
      const keys = path.split(/[.[\]]+/).filter((key) => key !== '');
      const [first, ...rest] = keys.map(pathItem);
      if (first === undefined) throw error;
      addIssue({ message: message.slice(`${path}: `.length), path: [first, ...rest] });
    }
  })
) as Schema<ResolvedDnsOptions>;

/** @throws {ConfigError} with the path of the first invalid rule. */
function checkRules({ forward = [], allow = [], rateLimit = {} }: ResolverRules): void {
  new ForwardTable(forward);
  new ClientTable(allow, rateLimit.exempt ?? []);
  new ResponseRate(rateLimit, systemClock);
}

function pathItem(key: string): v.UnknownPathItem {
  const index = /^\d+$/.test(key) ? Number(key) : key;
  return { type: 'unknown', origin: 'value', input: undefined, key: index, value: undefined };
}
