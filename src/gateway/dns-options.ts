/** SHIM until the merge: DnsOptions of src/dns. */
import * as v from 'valibot';
import type { SiteResolverOptions } from '../dns/index.ts';
import { type HostPort, type HostPortInput, ListenAddressSchema } from '../host-port.ts';
import type { Schema } from '../schema.ts';

export interface DnsOptions extends Pick<SiteResolverOptions, 'forward' | 'allow' | 'rateLimit'> {
  readonly listen: HostPortInput;
}
export interface ResolvedDns extends Pick<SiteResolverOptions, 'forward' | 'allow' | 'rateLimit'> {
  readonly listen: HostPort;
}
export const DnsOptionsSchema: Schema<ResolvedDns> = v.strictObject({
  listen: ListenAddressSchema,
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
}) as Schema<ResolvedDns>;
