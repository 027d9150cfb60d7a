/**
 * What both gateways' files have in common: endpoints, paths, DNS.
 * @module
 */
import { isIP } from 'node:net';
import * as v from 'valibot';
import type { ForwardRule, HostPort, ResponseRateOptions, Schema } from 'virtual-presence';

/** Where to connect: `192.0.2.1:7443`, `[2001:db8::1]:7443` or `gateway.example.org:7443`. */
export const HostPortSchema: Schema<HostPort> = hostPort(1);

/** Where to listen: the same, and port 0 takes a free port of the system's choice. */
export const ListenSchema: Schema<HostPort> = hostPort(0);

/** Where to bind: an address, because a lookup would make the gateway depend on a name server, and port 0 takes a free port. */
export const ListenAddressSchema: Schema<HostPort> = v.pipe(
  ListenSchema,
  v.check(({ host }) => isIP(host) !== 0, 'expected an IP address, not a name, before the port')
);

function hostPort(leastPort: number): Schema<HostPort> {
  return v.pipe(
    v.string(),
    v.regex(/^(\[[0-9a-f:.]+\]|[a-z0-9.-]+):\d{1,5}$/i, 'a host and port such as 192.0.2.1:7443'),
    v.transform((text) => {
      const at = text.lastIndexOf(':');
      return { host: text.slice(0, at).replace(/^\[|\]$/g, ''), port: Number(text.slice(at + 1)) };
    }),
    v.check(
      ({ port }) => port >= leastPort && port <= 65_535,
      `expected a port from ${leastPort} to 65535`
    ),
    v.check(
      ({ host }) => isIP(host) !== 0 || !/^[\d.]+$|:/.test(host),
      'expected an IP address or a host name before the port'
    )
  );
}

/** Relative to the file that it stands in. */
export const PathSchema: Schema<string> = v.pipe(v.string(), v.regex(/./, 'a path'));

export interface DnsConfig {
  readonly listen: HostPort;
  readonly forward: readonly ForwardRule[];
  /** The clients that may ask. The library's default applies where it is absent. */
  readonly allow?: readonly string[] | undefined;
  /** The rate of answers by UDP. The library's defaults apply where it is absent. */
  readonly rateLimit?: ResponseRateOptions | undefined;
}

export const DnsSchema: Schema<DnsConfig> = v.strictObject({
  listen: ListenAddressSchema,
  forward: v.optional(
    v.array(v.strictObject({ suffix: v.string(), upstreams: v.array(v.string()) })),
    []
  ),
  // The resolver checks what the prefixes and numbers are.
  allow: v.optional(v.array(v.string())),
  rateLimit: v.optional(
    v.strictObject({
      responsesPerSecond: v.optional(v.number()),
      errorsPerSecond: v.optional(v.number()),
      slip: v.optional(v.number()),
      exempt: v.optional(v.array(v.string())),
    })
  ),
});
