/**
 * A TCP endpoint in user space, without I/O ([RFC 9293](https://www.rfc-editor.org/rfc/rfc9293)).
 * @module
 */
export { TcpConnection, type TcpOwner } from './connection.ts';
export type { TcpCounters } from './counters.ts';
export { TcpEndpoint } from './endpoint.ts';
export {
  TCP_ENDPOINT_DEFAULTS,
  type TcpEndpointOptions,
  type TcpLimits,
} from './endpoint-options.ts';
export type { Flow } from './flow.ts';
export type { IcmpError, IcmpErrorKind } from './icmp-error.ts';
export { type ListenerOwner, TcpListener } from './listener.ts';
export { type TcpOpenCode, TcpOpenError } from './open-error.ts';
export {
  type TcpHolder,
  type TcpOpenEnd,
  type TcpOpenOwner,
  TcpPendingOpen,
} from './pending-open.ts';
export { TcpEvent, type TcpFailure, TcpState } from './state.ts';
