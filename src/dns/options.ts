/**
 * How a gateway serves names, as an operator says it: in a configuration file, or to a gateway of a program.
 * @module
 */
import * as v from 'valibot';
import { systemClock } from '../base/clock.ts';
import { type HostPort, type HostPortInput, ListenAddressSchema } from '../base/host-port.ts';
import type { Schema } from '../base/schema.ts';
import { ConfigError } from '../errors.ts';
import { ClientTable } from './client-table.ts';
import { type ForwardRule, ForwardTable } from './forward-rules.ts';
import { ResponseRate, type ResponseRateOptions } from './response-rate.ts';

/** The rules of a resolver: the clients that may ask, the upstreams, and the rate of answers by UDP. */
export interface ResolverRules {
  /** The servers that are asked for foreign names; none by default, so that such names are refused. */
  readonly forward?: readonly ForwardRule[] | undefined;
  /**
   * The clients that may ask; all others are refused. Each entry is a prefix (`192.0.2.0/24`), an address, or a word:
   * `sources` stands for the prefixes that `setSources` was given last, `loopback` for this machine's
   * loopback. Default `['sources', 'loopback']`: before `setSources`, loopback alone.
   */
  readonly allow?: readonly string[] | undefined;
  /** How many answers may go by UDP to one network. Default: `RESPONSE_RATE_DEFAULTS`. */
  readonly rateLimit?: ResponseRateOptions | undefined;
}

export interface DnsOptions extends ResolverRules {
  /**
   * Where queries are taken, by UDP and TCP: an address and a port, `10.0.0.1:53`. The address `0.0.0.0` or `::`
   * stands for all of the machine; port 0 takes a free one.
   */
  readonly listen: HostPortInput;
}

/** The same after `DnsOptionsSchema`. */
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

/** Reads the rules among other options. It checks their types; the resolver checks what they say. */
export const ResolverRulesSchema: Schema<ResolverRules> = /* @__PURE__ */ v.object(
  RULES
) as Schema<ResolverRules>;

/** Checks all that can be known before the port is opened. */
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

/** @throws {ConfigError} naming the first rule that cannot be. */
function checkRules({ forward = [], allow = [], rateLimit = {} }: ResolverRules): void {
  new ForwardTable(forward);
  new ClientTable(allow, rateLimit.exempt ?? []);
  new ResponseRate(rateLimit, systemClock);
}

function pathItem(key: string): v.UnknownPathItem {
  const index = /^\d+$/.test(key) ? Number(key) : key;
  return { type: 'unknown', origin: 'value', input: undefined, key: index, value: undefined };
}
