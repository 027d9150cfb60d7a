/**
 * Tunnels: mutually authenticated connections between gateways, for packets and control messages.
 * @module
 */

export type { BackoffOptions } from '../base/backoff.ts';
export type { HostPort, HostPortInput, RankedHostPort } from '../base/host-port.ts';
export type { KeyExchangeGroup } from '../base/key-exchange.ts';
export { type ProxyChoice, type ProxyOption, proxyFromEnvironment } from '../base/proxy.ts';
export type { Credentials } from '../pki/credentials.ts';
export { type Failure, type FailureKind, failureOf } from './failure.ts';
export { FrameType } from './frame.ts';
export type { ListenerCounters, RefusedConnection } from './handshakes.ts';
export type {
  AuthorizeAnswer,
  AuthorizeVerdict,
  TunnelAdmission,
  TunnelCandidate,
  TunnelRedirection,
} from './host-decision.ts';
export type { Progress } from './keepalive.ts';
export {
  type Close,
  CloseCode,
  type CloseEndpoint,
  type TunnelEpoch,
  type TunnelRefusal,
} from './messages.ts';
export { type ListenerEvents, MtlsTunnel, TunnelListener } from './mtls-tunnel.ts';
export {
  DIAL_DEFAULTS,
  type DialOptions,
  type HandshakeLimits,
  LISTEN_DEFAULTS,
  type ListenOptions,
  type TunnelLimits,
  type TunnelOptions,
  type TunnelTcp,
} from './options.ts';
export type {
  CloseCause,
  ConnectionCounters,
  ConnectionInfo,
  Tunnel,
  TunnelEvents,
  TunnelState,
} from './tunnel.ts';
