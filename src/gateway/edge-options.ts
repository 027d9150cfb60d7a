/**
 * What an edge gateway may be told, and how that is checked.
 * @module
 */
import * as v from 'valibot';
import { type HostPort, type HostPortInput, HostPortSchema } from '../base/host-port.ts';
import { type ProxyOption, proxyFor } from '../base/proxy.ts';
import { hostFunction, parseSchema, type Schema } from '../base/schema.ts';
import {
  COMMON_ENTRIES,
  type CommonOptions,
  type ResolvedCommonOptions,
} from './common-options.ts';

export interface EdgeGatewayOptions extends CommonOptions {
  /**
   * The token that `CloudGateway.createToken` has made, or a function that returns the one there is now. It is asked
   * for when there is no certificate yet, and when the one there is does not serve any more. Default: there is none,
   * and a gateway without a certificate is `rejected` until `enrol` is given one.
   */
  readonly token?: string | (() => string | Promise<string>) | undefined;
  /**
   * The tunnel endpoints of the cloud gateway, tried in this order, each a `HostPort` or `192.0.2.1:7443`. Default:
   * those that the cloud has told when the site enrolled.
   */
  readonly cloud?: readonly HostPortInput[] | undefined;
  /**
   * The HTTP proxy that leads to the cloud's tunnel and to its enrolment, for example
   * `http://user:password@proxy.example.org:3128`, or a function that names one for each endpoint, such as
   * `proxyFromEnvironment` of `virtual-presence/tunnel`. Default: none, and the environment is not read.
   */
  readonly proxy?: ProxyOption | undefined;
}

export interface ResolvedEdgeOptions extends ResolvedCommonOptions {
  readonly token: (() => string | Promise<string>) | undefined;
  readonly cloud: readonly HostPort[] | undefined;
  readonly proxy: ProxyOption | undefined;
}

/**
 * Checks the options and fills in what is left out.
 *
 * @throws {ConfigError} naming the first option that is not usable, with what was given and what is expected.
 */
export function resolveEdgeOptions(options: EdgeGatewayOptions): ResolvedEdgeOptions {
  const resolved = parseSchema(EdgeOptionsSchema, options);
  const { token, proxy } = resolved;
  // A function is asked for each endpoint, when that is dialled.
  if (typeof proxy === 'string') proxyFor(proxy, 'localhost', 1);
  return { ...resolved, token: typeof token === 'string' ? () => token : token };
}

type Parsed = Omit<ResolvedEdgeOptions, 'token'> & Pick<EdgeGatewayOptions, 'token'>;

const textOrFunction = v.lazy((value) =>
  typeof value === 'function' ? hostFunction() : v.string()
);

export const EdgeOptionsSchema: Schema<Parsed> = v.strictObject({
  ...COMMON_ENTRIES,
  token: v.optional(textOrFunction),
  cloud: v.optional(
    v.pipe(
      v.array(HostPortSchema),
      v.check(({ length }) => length >= 1, 'expected at least one host and port')
    )
  ),
  proxy: v.optional(textOrFunction),
}) as unknown as Schema<Parsed>;
