/**
 * What the dialling side of a tunnel may be told.
 * @module
 */
import type { SecureContext } from 'node:tls';
import type { Clock } from '../base/clock.ts';
import { type HostPort, type HostPortInput, HostPortSchema } from '../base/host-port.ts';
import { type ProxyOption, proxyFor } from '../base/proxy.ts';
import { checkRate } from '../base/rate-limit.ts';
import { parseSchema } from '../base/schema.ts';
import { ApiMisuseError } from '../errors.ts';
import type { Credentials } from '../pki/credentials.ts';
import { formatIdentity, type GatewayIdentity } from '../pki/names.ts';
import { type BackoffOptions, DEFAULT_BACKOFF } from './backoff.ts';
import {
  CONNECTION_DEFAULTS,
  checkConnections,
  type NotSentLowat,
  resolveLimits,
  type TunnelConnectionLimits,
} from './connection-types.ts';
import { secureContext } from './credentials.ts';
import {
  checkFunction,
  checkOptions,
  checkRange,
  checkShared,
  given,
  SHARED_DEFAULTS,
  show,
  type TunnelOptions,
} from './option-checks.ts';

export interface DialOptions extends Credentials, TunnelConnectionLimits, TunnelOptions {
  /** Where to connect, tried in turn: one or more. */
  readonly endpoints: readonly HostPortInput[];
  /** Whom the listening side's certificate must name. Host names are not looked at. */
  readonly expectedPeer: GatewayIdentity;
  /**
   * HTTP proxy to connect through, for example `http://user:password@proxy.example.org:3128`, or a function that
   * names one for each endpoint. Default: none; the environment is read with `proxyFromEnvironment` only.
   */
  readonly proxy?: ProxyOption | undefined;
  /** How long to wait before the next attempt to connect; the defaults are 200 and 30,000 ms. */
  readonly backoff?: BackoffOptions;
  /** A tunnel that was up so long starts again with the shortest wait, in ms; default 10,000. */
  readonly stableAfterMs?: number;
  /** From the first packet of TCP to WELCOME, in ms; default 10,000. */
  readonly handshakeTimeoutMs?: number;
  /** Connections that may carry packets at a time, as far as the listening side agrees: 1 to 64; default 8. */
  readonly connections?: number;
  /** Numbers from 0 to below 1; default `Math.random`. */
  readonly random?: () => number;
}

/** What holds for options that are left out. */
export const DIAL_DEFAULTS: Readonly<
  Required<
    Pick<DialOptions, 'software' | 'slabBytes' | 'connections' | 'clock' | 'stableAfterMs'>
  > &
    Required<Pick<DialOptions, 'handshakeTimeoutMs' | 'random' | 'backoff'>> &
    typeof CONNECTION_DEFAULTS
> = Object.freeze({
  ...CONNECTION_DEFAULTS,
  ...SHARED_DEFAULTS,
  backoff: Object.freeze({ ...DEFAULT_BACKOFF }),
  stableAfterMs: 10_000,
  random: Math.random,
});

export interface ResolvedDialOptions {
  readonly context: SecureContext;
  readonly endpoints: readonly HostPort[];
  readonly expectedPeer: GatewayIdentity;
  readonly proxy: ProxyOption | undefined;
  readonly backoff: Required<BackoffOptions>;
  readonly stableAfterMs: number;
  readonly handshakeTimeoutMs: number;
  readonly software: string;
  readonly slabBytes: number;
  readonly connections: number;
  readonly limits: Required<TunnelConnectionLimits>;
  readonly limitUnsent: NotSentLowat | undefined;
  readonly clock: Clock;
  readonly random: () => number;
}

/**
 * @throws {ApiMisuseError} naming the option that is not usable.
 * @throws {ConfigError} if an endpoint is not usable, or `proxy` names no proxy that can be used.
 * @throws {CertificateError} if the credentials are unusable, or `expectedPeer` cannot be a gateway.
 */
export function resolveDialOptions(options: DialOptions): ResolvedDialOptions {
  checkOptions(options);
  checkShared(options);
  checkFunction('random', options.random);
  const { proxy, limitUnsent } = options;
  const endpoints = endpointsOf(options.endpoints);
  checkPeer(options.expectedPeer);
  for (const { host, port } of endpoints) proxyFor(proxy, host, port);
  const { software, slabBytes, clock, random } = { ...DIAL_DEFAULTS, ...given(options) };
  const { stableAfterMs, handshakeTimeoutMs, connections } = {
    ...DIAL_DEFAULTS,
    ...given(options),
  };
  return {
    context: secureContext(options),
    endpoints,
    expectedPeer: options.expectedPeer,
    proxy,
    backoff: backoffOf(options.backoff),
    stableAfterMs: checkRange('stableAfterMs', stableAfterMs, 0, Number.MAX_SAFE_INTEGER),
    handshakeTimeoutMs: checkRate('handshakeTimeoutMs', handshakeTimeoutMs),
    software,
    slabBytes,
    connections: checkConnections(connections),
    limits: resolveLimits(options),
    limitUnsent,
    clock,
    random,
  };
}

function endpointsOf(endpoints: unknown): readonly HostPort[] {
  if (!Array.isArray(endpoints)) {
    throw new ApiMisuseError(`endpoints must be a list of hosts and ports, not ${show(endpoints)}`);
  }
  if (endpoints.length === 0) throw new ApiMisuseError('there is no endpoint to dial');
  return endpoints.map((endpoint, i) => parseSchema(HostPortSchema, endpoint, `endpoints[${i}]`));
}

function checkPeer(peer: unknown): void {
  const { trustDomain, role, site } = (peer ?? {}) as Readonly<Record<string, unknown>>;
  const isSite = role === 'site' && typeof site === 'string';
  if (typeof trustDomain !== 'string' || !(isSite || role === 'cloud')) {
    throw new ApiMisuseError(
      'expectedPeer must name a trustDomain and the role cloud, or the role site and a site'
    );
  }
  formatIdentity(peer as GatewayIdentity);
}

function backoffOf(backoff: BackoffOptions | undefined): Required<BackoffOptions> {
  if (backoff !== undefined) checkOptions(backoff);
  const { minMs, maxMs } = { ...DEFAULT_BACKOFF, ...given(backoff ?? {}) };
  for (const [name, value] of Object.entries({ minMs, maxMs })) {
    if (!Number.isFinite(value) || value < 0) {
      throw new ApiMisuseError(`backoff.${name} must be a number, 0 or more, not ${show(value)}`);
    }
  }
  return { minMs, maxMs };
}
