/**
 * What a listener may be told, and what it counts.
 * @module
 */
import { X509Certificate } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import type { Clock } from '../base/clock.ts';
import type { ConnectionLimiterCounters } from '../base/connection-limiter.ts';
import { checkRate } from '../base/rate-limit.ts';
import { ApiMisuseError } from '../errors.ts';
import type { Credentials } from '../pki/credentials.ts';
import { type GatewayIdentity, identityOfCertificate } from '../pki/names.ts';
import type { AuthorizeAnswer, TunnelCandidate } from './authorize.ts';
import {
  CONNECTION_DEFAULTS,
  type ConnectionOptions,
  checkConnections,
  checkWhole,
  resolveLimits,
  type TunnelConnectionLimits,
} from './connection-types.ts';
import { secureContext } from './credentials.ts';
import { checkGrace, DEFAULT_GRACE_MS } from './expiry.ts';
import type { HandshakeLimits } from './handshakes.ts';
import { ALPN_PROTOCOL } from './messages.ts';
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
import { SlabPool } from './slab-pool.ts';

export interface ListenOptions
  extends Credentials,
    TunnelConnectionLimits,
    HandshakeLimits,
    TunnelOptions {
  /** Address or name to listen on; default all addresses. */
  readonly host?: string;
  /** 0 to 65535; 0 takes any free one, see `TunnelListener.port`. */
  readonly port: number;
  /**
   * Decides about a verified peer: undefined lets it in. It is asked for each connection when TLS is done, and again
   * at HELLO, just before the tunnel is up: what was true then need not be true any more.
   *
   * It may answer by a promise. The peer then waits, and its handshake counts as under way: `maxHandshakes`,
   * `handshakeTimeoutMs`, `cut` and `close` end it as before, and the answer comes too late. A peer is refused with
   * `CloseCode.NotAuthorized`, and `problem` is emitted, if this throws, rejects or answers anything else. A
   * connection that has waited at the step `certificate` is read by way of a copy for good; so answer there at once
   * where that can be done, and ask others at `hello`. Default: lets all in.
   */
  readonly authorize?: (candidate: TunnelCandidate) => AuthorizeAnswer;
  /**
   * What else is served on this port, by its ALPN name; for enrolment that is
   * `{ [EnrolmentServer.alpn]: (socket) => enrolment.handle(socket) }`. The function gets each connection whose
   * client has named that protocol, when TLS is done. Nothing is known of the client: it may have no certificate.
   * Up to there the limits on handshakes hold for it; from there on it is for the function to bound, and `close`
   * destroys what is left. Default: nothing.
   */
  readonly otherProtocols?: Readonly<Record<string, (socket: TLSSocket) => void>> | undefined;
  /** Role that peers must have; default `site`. */
  readonly peerRole?: GatewayIdentity['role'];
  /**
   * Connections a second of one identity, averaged; default 2. Further ones are refused with `too-many`:
   * two gateways with one certificate replace one another no faster.
   */
  readonly maxTunnelRate?: number;
  /** Connections of one identity that may come at once, connections included; default 20. */
  readonly maxTunnelBurst?: number;
  /** Interval of PING of both sides, in ms: 100 to 600,000; default 10,000. */
  readonly keepaliveMs?: number;
  /** Connections that may carry the packets of one tunnel: 1 to 64; default 8. */
  readonly connections?: number;
  /**
   * How long after the end of its certificate a tunnel that its peer does not renew may live, for clocks
   * differ, in ms; default 60,000. It is ended with `untrusted` then.
   */
  readonly expiryGraceMs?: number;
}

/** What holds for options that are left out. */
export const LISTEN_DEFAULTS: Readonly<
  Required<
    Pick<
      ListenOptions,
      | 'software'
      | 'slabBytes'
      | 'connections'
      | 'clock'
      | 'handshakeTimeoutMs'
      | 'maxHandshakes'
      | 'maxConnectionRate'
      | 'peerRole'
      | 'maxTunnelRate'
      | 'maxTunnelBurst'
      | 'keepaliveMs'
      | 'expiryGraceMs'
      | 'maxReceivedControlBytes'
    >
  > &
    typeof CONNECTION_DEFAULTS
> = Object.freeze({
  ...CONNECTION_DEFAULTS,
  ...SHARED_DEFAULTS,
  maxHandshakes: 128,
  maxConnectionRate: 50,
  peerRole: 'site',
  maxTunnelRate: 2,
  maxTunnelBurst: 20,
  keepaliveMs: 10_000,
  expiryGraceMs: DEFAULT_GRACE_MS,
  // A signing request is 64 KiB at most.
  maxReceivedControlBytes: 128 * 1024,
});

export interface ResolvedListenOptions {
  readonly credentials: Credentials;
  /** Who this side is, by its own certificate. */
  readonly identity: GatewayIdentity;
  readonly host: string | undefined;
  readonly port: number;
  readonly authorize: ListenOptions['authorize'];
  readonly otherProtocols: ReadonlyMap<string, (socket: TLSSocket) => void>;
  readonly peerRole: GatewayIdentity['role'];
  readonly maxHandshakes: number;
  readonly maxConnectionRate: number;
  readonly handshakeTimeoutMs: number;
  readonly maxTunnelRate: number;
  readonly maxTunnelBurst: number;
  readonly keepaliveMs: number;
  readonly expiryGraceMs: number;
  readonly software: string;
  readonly connections: number;
  readonly clock: Clock;
  readonly connection: ConnectionOptions;
}

/**
 * @throws {ApiMisuseError} naming the option that is not usable.
 * @throws {CertificateError} if the credentials are unusable or name no gateway.
 */
export function resolveListenOptions(options: ListenOptions): ResolvedListenOptions {
  checkOptions(options);
  checkShared(options);
  checkFunction('authorize', options.authorize);
  const { key, cert, ca, host, authorize, limitUnsent } = options;
  const all = { ...LISTEN_DEFAULTS, ...given(options) };
  if (host !== undefined && (typeof host !== 'string' || host === '')) {
    throw new ApiMisuseError(`host must be an address or a name, not ${show(host)}`);
  }
  if (all.peerRole !== 'site' && all.peerRole !== 'cloud') {
    throw new ApiMisuseError(`peerRole must be site or cloud, not ${show(all.peerRole)}`);
  }
  const { maxControlBytes } = all;
  const limits = resolveLimits({
    ...options,
    maxReceivedControlBytes:
      options.maxReceivedControlBytes ??
      Math.min(maxControlBytes, LISTEN_DEFAULTS.maxReceivedControlBytes),
  });
  secureContext(options);
  return {
    credentials: { key, cert, ca },
    identity: identityOfCertificate(new X509Certificate(cert)),
    host,
    port: checkRange('port', options.port, 0, 65_535),
    authorize,
    otherProtocols: checkOtherProtocols(options.otherProtocols ?? {}),
    peerRole: all.peerRole,
    maxHandshakes: checkWhole('maxHandshakes', all.maxHandshakes),
    maxConnectionRate: checkRate('maxConnectionRate', all.maxConnectionRate),
    handshakeTimeoutMs: checkRate('handshakeTimeoutMs', all.handshakeTimeoutMs),
    maxTunnelRate: checkRate('maxTunnelRate', all.maxTunnelRate),
    maxTunnelBurst: checkWhole('maxTunnelBurst', all.maxTunnelBurst),
    // A peer takes no other one.
    keepaliveMs: checkRange('keepaliveMs', all.keepaliveMs, 100, 600_000),
    expiryGraceMs: checkGrace(all.expiryGraceMs),
    software: all.software,
    connections: checkConnections(all.connections),
    clock: all.clock,
    connection: { ...limits, pool: new SlabPool(all.slabBytes), clock: all.clock, limitUnsent },
  };
}

/** Cumulative. */
export interface ListenerCounters {
  /** Tunnels that came up. */
  accepted: number;
  /** Tunnels whose first connection another one has followed, under a newer certificate. */
  renewed: number;
  /** Connections that were given to a function of `otherProtocols`. */
  otherProtocols: number;
  /** Connections cut because `maxHandshakes` were under way. */
  readonly evicted: number;
  /** Connections cut because their address brought more than `maxConnectionRate`. */
  readonly rateLimited: number;
  /** Connections that led to nothing, by reason: a code of Node, OpenSSL or a CLOSE of ours, `no-alpn`, `peer-closed`. */
  readonly failed: Map<string, number>;
  /** Those of `failed` whose peer was verified but not wanted, by code. */
  readonly refused: Map<string, number>;
  /** Connections that were up and were closed because the peer broke the protocol. */
  protocolErrors: number;
  /** Tunnels that were closed because the peer sent more control messages than `maxControlRate`. */
  controlFloods: number;
  /** Tunnels that were closed because the certificate of their first connection had run out. */
  expired: number;
}

export function newListenerCounters(gate: Readonly<ConnectionLimiterCounters>): ListenerCounters {
  return {
    accepted: 0,
    renewed: 0,
    otherProtocols: 0,
    get evicted() {
      return gate.evicted;
    },
    get rateLimited() {
      return gate.rateLimited;
    },
    failed: new Map(),
    refused: new Map(),
    protocolErrors: 0,
    controlFloods: 0,
    expired: 0,
  };
}

/**
 * Returns the protocols besides that of tunnels, by ALPN name.
 *
 * @throws {ApiMisuseError} if a name is not one of 1 to 255 ASCII characters, or is that of tunnels.
 */
function checkOtherProtocols(
  protocols: NonNullable<ListenOptions['otherProtocols']>
): ReadonlyMap<string, (socket: TLSSocket) => void> {
  if (typeof protocols !== 'object' || protocols === null) {
    throw new ApiMisuseError(
      `otherProtocols must be functions by their ALPN names, not ${show(protocols)}`
    );
  }
  for (const [name, serve] of Object.entries(protocols)) {
    const isName = /^[\x21-\x7e]{1,255}$/.test(name) && name !== ALPN_PROTOCOL;
    if (!isName || typeof serve !== 'function') {
      throw new ApiMisuseError(
        `otherProtocols must have ALPN names other than ${ALPN_PROTOCOL} and functions, not ${JSON.stringify(name)}`
      );
    }
  }
  return new Map(Object.entries(protocols));
}
