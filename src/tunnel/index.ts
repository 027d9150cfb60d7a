/**
 * Tunnels: mutually authenticated connections between gateways, for packets and control messages.
 * @module
 */

export type { HostPort, HostPortInput } from '../base/host-port.ts';
export type { KeyExchangeGroup } from '../base/key-exchange.ts';
export { type ProxyChoice, type ProxyOption, proxyFromEnvironment } from '../base/proxy.ts';
export type { Credentials } from '../pki/credentials.ts';
export type { AuthorizeAnswer, TunnelCandidate, TunnelRefusal } from './authorize.ts';
export type { BackoffOptions } from './backoff.ts';
export type {
  CloseCause,
  Connection,
  ConnectionCounters,
  NotSentLowat,
  TunnelConnectionLimits,
} from './connection-types.ts';
export { DIAL_DEFAULTS, type DialOptions } from './dial-options.ts';
export { type Failure, type FailureKind, failureOf } from './failure.ts';
export { FrameType } from './frame.ts';
export type { HandshakeLimits, RefusedConnection } from './handshakes.ts';
export { LISTEN_DEFAULTS, type ListenerCounters, type ListenOptions } from './listen-options.ts';
export { type Close, CloseCode, type CloseEndpoint } from './messages.ts';
export { type ListenerEvents, MtlsTunnel, TunnelListener } from './mtls-tunnel.ts';
export type { TunnelOptions } from './option-checks.ts';
export type {
  ConnectionInfo,
  Tunnel,
  TunnelEvents,
  TunnelState,
} from './tunnel.ts';
