/**
 * The options of an edge gateway and their checks.
 * @module
 */
import * as v from 'valibot';
import type { HostPortInput, RankedHostPort } from '../base/host-port.ts';
import { RankedHostPortSchema } from '../base/host-port-schema.ts';
import { type ProxyOption, proxyFor } from '../base/proxy.ts';
import { chosen, hostFunction, parseSchema, type Schema, wholeNumber } from '../base/schema.ts';
import { CONTROL_CLIENT_DEFAULTS } from '../control/index.ts';
import {
  COMMON_ENTRIES,
  type CommonOptions,
  type ResolvedCommonOptions,
} from './common-options.ts';
import { checkEdgeDevice } from './sockets-options.ts';

export interface EdgeGatewayOptions extends CommonOptions {
  /**
   * A token from `CloudGateway.createToken`, or a function that returns the current one. It is needed when there is no
   * certificate yet, and when the certificate is no longer accepted. Default: none; a gateway without a certificate is
   * `rejected` until `enrol` receives a token.
   */
  readonly token?: string | (() => string | Promise<string>) | undefined;
  /**
   * The tunnel endpoints of the cloud gateway, each a `RankedHostPort` or a text such as `192.0.2.1:7443`. Those of the
   * lowest `priority` (0 if it is absent) are tried first, and those of one priority in an order that depends on the site, so that
   * the sites spread over them. Default: the endpoints that the cloud sent at the enrolment.
   */
  readonly cloud?: readonly (HostPortInput | RankedHostPort)[] | undefined;
  /**
   * The HTTP proxy that leads to the cloud's tunnel and to its enrolment, for example
   * `http://user:password@proxy.example.org:3128`, or a function that returns the proxy for an endpoint, such as
   * `proxyFromEnvironment` of `virtual-presence/tunnel`. Default: no proxy, and the environment is not read.
   */
  readonly proxy?: ProxyOption | undefined;
  /**
   * How long the last snapshot holds without contact with the cloud, in ms, from a minute to ten years; default 7 days.
   * Until then the gateway answers names, also after a restart. Afterwards it stops that until the tunnel is up again.
   */
  readonly snapshotValidMs?: number | undefined;
}

/** The default of each option that has one; times are in ms. */
export const EDGE_GATEWAY_DEFAULTS: Readonly<{ snapshotValidMs: number }> = Object.freeze({
  snapshotValidMs: CONTROL_CLIENT_DEFAULTS.snapshotValidMs,
});

export interface ResolvedEdgeOptions extends ResolvedCommonOptions {
  readonly token: (() => string | Promise<string>) | undefined;
  readonly cloud: readonly Required<RankedHostPort>[] | undefined;
  readonly proxy: ProxyOption | undefined;
  readonly snapshotValidMs: number;
}

/**
 * Checks the options and fills in the defaults.
 *
 * @throws {ConfigError} naming the first option that is not usable, with its value and what is expected.
 */
export function resolveEdgeOptions(options: EdgeGatewayOptions): ResolvedEdgeOptions {
  const resolved = parseSchema(EdgeOptionsSchema, options);
  checkEdgeDevice(resolved.device);
  const { token, proxy } = resolved;
  // A function is called only when an endpoint is dialled.
  if (typeof proxy === 'string') proxyFor(proxy, 'localhost', 1);
  return { ...resolved, token: typeof token === 'string' ? () => token : token };
}

const MINUTE_MS = 60_000;
const YEAR_MS = 365 * 24 * 60 * MINUTE_MS;

type Parsed = Omit<ResolvedEdgeOptions, 'token'> & Pick<EdgeGatewayOptions, 'token'>;

const textOrFunction = chosen<never>([v.string()], (value) =>
  typeof value === 'function' ? hostFunction() : v.string()
);

/** The entries of the schema, for the schema of a file that has some of them. */
export const EDGE_ENTRIES: v.ObjectEntries = {
  ...COMMON_ENTRIES,
  token: v.optional(textOrFunction),
  cloud: v.optional(
    v.pipe(v.array(RankedHostPortSchema), v.minLength(1, 'expected at least one host and port'))
  ),
  proxy: v.optional(textOrFunction),
  snapshotValidMs: v.optional(
    wholeNumber(MINUTE_MS, 10 * YEAR_MS),
    EDGE_GATEWAY_DEFAULTS.snapshotValidMs
  ),
};

export const EdgeOptionsSchema: Schema<Parsed> = v.strictObject(
  EDGE_ENTRIES
) as unknown as Schema<Parsed>;
