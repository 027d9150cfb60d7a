/**
 * Tunnels: mutually authenticated connections between gateways, for packets and control messages.
 * @module
 */

export type { HostPort } from '../host-port.ts';
export type { KeyExchangeGroup } from '../key-exchange.ts';
export type { Credentials } from '../pki/credentials.ts';
export { type ProxyChoice, type ProxyOption, proxyFromEnvironment } from '../proxy.ts';
export { AcceptedTunnel } from './accepted.ts';
export type { TunnelCandidate, TunnelRefusal } from './authorize.ts';
export { type BackoffOptions, backoffDelayMs } from './backoff.ts';
export { DialledTunnel, type DialOptions } from './dialer.ts';
export { type Failure, type FailureKind, failureOf } from './failure.ts';
export {
  drainedLimits,
  FRAME_HEADER_LENGTH,
  FrameFault,
  type FrameLimits,
  FrameType,
  handshakeLimits,
  MAX_PACKET_PAYLOAD,
  openLimits,
  writeFrameHeader,
} from './frame.ts';
export { FrameDecoder, type FrameHandler } from './frame-decoder.ts';
export type { HandshakeLimits, RefusedConnection } from './handshakes.ts';
export type { CloseCause, Lane, LaneCounters, LaneLimits, UnsentLimit } from './lane.ts';
export type { ListenerCounters, ListenOptions } from './listen-options.ts';
export { type ListenerEvents, TunnelListener } from './listener.ts';
export { ALPN_PROTOCOL, CloseCode, type CloseEndpoint, PROTOCOL_VERSION } from './messages.ts';
export { MtlsTunnel } from './mtls-tunnel.ts';
export type {
  ConnectionInfo,
  Tunnel,
  TunnelEvents,
  TunnelState,
} from './tunnel.ts';
