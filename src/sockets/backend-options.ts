/**
 * The options of a backend, their defaults and their checks.
 * @module
 */
import * as v from 'valibot';
import type { IpAddress } from '../base/address.ts';
import { hostFunction, parseSchema, type Schema, wholeNumber } from '../base/schema.ts';
import type { BackendDial } from './backend-dial.ts';
import type { BackendService, BackendTarget } from './backend-services.ts';
import type { SocketStack } from './stack.ts';

/** The bounds of a backend. Those of its connections are the bounds of its stack. */
export interface SocketBackendLimits {
  /** How many sockets of the host may be connecting, 1 to 65,536; default 512. */
  readonly dials?: number | undefined;
}

export interface SocketBackendOptions {
  readonly stack: SocketStack;
  /** The services that it connects to; default: none, until `setServices`. */
  readonly services?: readonly BackendService[] | undefined;
  /** Where the gateway itself listens, which is never connected to; default: none, until `setRefusedTargets`. */
  readonly refusedTargets?: readonly BackendTarget[] | undefined;
  /** Connects to a service by TCP; default: `net.connect` to its address and port. */
  readonly dial?: BackendDial | undefined;
  /**
   * Returns the site of a client's presence, undefined if it is not known. One site may have a quarter of the
   * connections, handshakes, dials, memory and resets. It is called while packets are handled: it only looks up. Default:
   * no site is known, and the bounds hold for clients alone.
   */
  readonly siteOf?: ((client: IpAddress) => string | undefined) | undefined;
  /**
   * Whether connections begin with a PROXY protocol header of version 2, which names the client's presence and port. A
   * service that does not expect it takes it for data. Default false.
   */
  readonly proxyProtocol?: boolean | undefined;
  /**
   * Whether a service in 127.0.0.0/8 sees each client at an address of its own in 127.128.0.0/9, which follows from the
   * client's presence. Linux alone has all these addresses. Default false: it sees 127.0.0.1.
   */
  readonly loopbackSource?: boolean | undefined;
  /** After how many ms without traffic both sides are probed, 0 to 2,147,483,647; default 60,000. 0: never. */
  readonly keepAliveMs?: number | undefined;
  /** Default: see `SocketBackendLimits`. */
  readonly limits?: SocketBackendLimits | undefined;
}

/** The values of options that are left out. */
export const SOCKET_BACKEND_DEFAULTS: Readonly<{
  proxyProtocol: boolean;
  loopbackSource: boolean;
  keepAliveMs: number;
  limits: Readonly<Required<SocketBackendLimits>>;
}> = Object.freeze({
  proxyProtocol: false,
  loopbackSource: false,
  keepAliveMs: 60_000,
  limits: Object.freeze({ dials: 512 }),
});

export interface ResolvedBackendOptions {
  readonly services: readonly BackendService[];
  readonly refusedTargets: readonly BackendTarget[];
  readonly dial: BackendDial | undefined;
  readonly siteOf: ((client: IpAddress) => string | undefined) | undefined;
  readonly proxyProtocol: boolean;
  readonly loopbackSource: boolean;
  readonly keepAliveMs: number;
  readonly limits: { readonly dials: number };
}

/** @throws {ConfigError} with the path of the option that is wrong. */
export function resolveBackendOptions(options: SocketBackendOptions): ResolvedBackendOptions {
  return parseSchema(BackendOptionsSchema, options);
}

const { proxyProtocol, loopbackSource, keepAliveMs, limits } = SOCKET_BACKEND_DEFAULTS;

// What is in the lists is checked by `BackendServices`.
const BackendOptionsSchema: Schema<ResolvedBackendOptions> = v.strictObject({
  stack: v.unknown(),
  services: v.optional(v.array(v.unknown()), []),
  refusedTargets: v.optional(v.array(v.unknown()), []),
  dial: v.optional(hostFunction()),
  siteOf: v.optional(hostFunction()),
  proxyProtocol: v.optional(v.boolean(), proxyProtocol),
  loopbackSource: v.optional(v.boolean(), loopbackSource),
  keepAliveMs: v.optional(wholeNumber(0, 2 ** 31 - 1), keepAliveMs),
  limits: v.optional(
    v.strictObject({ dials: v.optional(wholeNumber(1, 65_536), limits.dials) }),
    {}
  ),
}) as unknown as Schema<ResolvedBackendOptions>;
