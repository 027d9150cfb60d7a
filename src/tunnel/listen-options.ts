/**
 * What a listener may be told, and what it counts.
 * @module
 */
import type { TLSSocket } from 'node:tls';
import type { Clock } from '../clock.ts';
import type { GateCounters } from '../connection-gate.ts';
import { ApiMisuseError } from '../errors.ts';
import type { Credentials } from '../pki/credentials.ts';
import type { GatewayIdentity } from '../pki/names.ts';
import type { AuthorizeAnswer, TunnelCandidate } from './authorize.ts';
import type { HandshakeLimits, RefusedConnection } from './handshakes.ts';
import type { LaneLimits, UnsentLimit } from './lane.ts';
import { ALPN_PROTOCOL } from './messages.ts';

export interface ListenOptions extends Credentials, LaneLimits, HandshakeLimits {
  /** Address to listen on; default all. */
  readonly host?: string;
  /** 0: any free one, see `TunnelListener.port`. */
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
  /** Connections of one identity that may come at once, lanes included; default 20. */
  readonly maxTunnelBurst?: number;
  /** Called for each connection that led to no tunnel and no lane, for an audit log. */
  readonly onRefused?: (refused: RefusedConnection) => void;
  /** Interval of PING of both sides, in ms; default 10,000. */
  readonly keepaliveMs?: number;
  /** Told to peers; default `virtual-presence`. */
  readonly software?: string;
  /** Size of the buffers in which packets are collected, in bytes; default 256 KiB. */
  readonly slabBytes?: number;
  /** Connections that may carry the packets of one tunnel; default 8. */
  readonly lanes?: number;
  /** Where there is one, the system's own queues are kept as short as the tunnel's. */
  readonly limitUnsent?: UnsentLimit;
  /** By which everything waits, and certificates run out; default `systemClock`. */
  readonly clock?: Clock;
  /**
   * How long after the end of its certificate a tunnel that its peer does not renew may live, for clocks
   * differ, in ms; default 60,000. It is ended with `untrusted` then.
   */
  readonly expiryGraceMs?: number;
}

/** Cumulative. */
export interface ListenerCounters {
  /** Tunnels that came up. */
  accepted: number;
  /** Tunnels whose first lane another one has followed, under a newer certificate. */
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
  /** Tunnels that were closed because the certificate of their first lane had run out. */
  expired: number;
}

export function newListenerCounters(gate: Readonly<GateCounters>): ListenerCounters {
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
export function checkOtherProtocols(
  protocols: NonNullable<ListenOptions['otherProtocols']>
): ReadonlyMap<string, (socket: TLSSocket) => void> {
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
