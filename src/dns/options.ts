/**
 * The options of the DNS service, as an operator writes them in a file or a program gives them to a gateway.
 * @module
 */
import * as v from 'valibot';
import { systemClock } from '../base/clock.ts';
import type { HostPort, HostPortInput } from '../base/host-port.ts';
import { ListenAddressSchema } from '../base/host-port-schema.ts';
import { IPV4_PATTERN, IPV6_PATTERN, PORT_PATTERN } from '../base/patterns.ts';
import { chosen, PrefixText, type Schema } from '../base/schema.ts';
import { ConfigError } from '../errors.ts';
import { ClientTable } from './client-table.ts';
import { type ForwardRule, ForwardTable } from './forward-rules.ts';
import {
  MAX_PER_SECOND,
  MAX_SLIP,
  RESPONSE_RATE_DEFAULTS as RATES,
  ResponseRate,
  type ResponseRateOptions,
} from './response-rate.ts';

/** The rules of a resolver: the clients that may ask, the upstreams, and the rate of answers by UDP. */
export interface ResolverRules {
  /** The servers that are asked for foreign names. Default none: foreign names are refused. */
  readonly forward?: readonly ForwardRule[] | undefined;
  /**
   * The clients that may ask; all others are refused. Each entry is a prefix (`192.0.2.0/24`), an address, or a word:
   * `sources` means the sources of the site, which `setSources` sets, and `loopback` this machine's loopback addresses.
   * Default `['sources', 'loopback']`; as long as the sources are not known, that is loopback only.
   */
  readonly allow?: readonly string[] | undefined;
  /** Limits the rate of answers by UDP to one network. Default: see `RESPONSE_RATE_DEFAULTS`. */
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

/** The clients that may ask if none are named. */
export const DEFAULT_ALLOW: readonly string[] = Object.freeze(['sources', 'loopback']);

/**
 * Says in a JSON Schema what the resolver itself checks, with its own messages. Every value that it accepts is within.
 */
const said = <T>(schema: Schema<T>, form: Readonly<Record<string, unknown>>): Schema<T> =>
  v.pipe(schema, v.metadata(form)) as Schema<T>;
const rate = (least: number, most: number): Schema<number> =>
  said(v.number(), { type: 'integer', minimum: least, maximum: most });
const client = chosen<string>([v.picklist(['sources', 'loopback']), PrefixText], () => v.string());

const RULES = {
  forward: v.optional(
    v.array(
      v.strictObject({
        suffix: said(v.string(), { title: 'domain name', examples: ['.', 'example.org'] }),
        upstreams: said(
          v.array(
            said(v.string(), {
              title: 'address, or address and port',
              pattern: `^((\\[${IPV6_PATTERN}\\]|${IPV4_PATTERN})(:${PORT_PATTERN})?|${IPV6_PATTERN})$`,
              examples: ['192.0.2.53', '192.0.2.53:5353', '[2001:db8::53]:5353'],
            })
          ),
          { minItems: 1 }
        ),
      })
    ),
    []
  ),
  allow: v.optional(v.array(client), [...DEFAULT_ALLOW]),
  rateLimit: v.optional(
    v.strictObject({
      responsesPerSecond: v.optional(rate(1, MAX_PER_SECOND), RATES.responsesPerSecond),
      errorsPerSecond: v.optional(rate(1, MAX_PER_SECOND), RATES.errorsPerSecond),
      slip: v.optional(rate(0, MAX_SLIP), RATES.slip),
      exempt: v.optional(v.array(client), [...RATES.exempt]),
    }),
    {}
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
