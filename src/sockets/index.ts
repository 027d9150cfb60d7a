/**
 * TCP and UDP in this process: `SocketStack`, a packet device with Node's sockets over it.
 * @module
 */
export type { TcpLimits } from '../tcp/index.ts';
export type {
  Connector,
  ConnectorCallback,
  ConnectorOptions,
  ConnectorRequest,
} from './agents.ts';
export type {
  OnReadOptions,
  PresenceConnectOptions,
  PresenceListenOptions,
  PresenceNetConnectOptions,
  PresenceSocketOptions,
} from './arguments.ts';
export { type PresenceDatagramOptions, PresenceDatagramSocket } from './datagram.ts';
export type { PresenceDatagramBindOptions } from './datagram-arguments.ts';
export type { PresenceLookup } from './lookup.ts';
export type { PingOptions, PingResult } from './ping.ts';
export {
  type ConnectionListener,
  type DroppedConnection,
  PresenceServer,
  type PresenceServerOptions,
} from './server.ts';
export type { StackHost, StackSite } from './site-view.ts';
export { PresenceSocket } from './socket.ts';
export { SocketStack } from './stack.ts';
export type { StackDeviceCounters } from './stack-device.ts';
export {
  type ResolvedStackSettings,
  SOCKET_STACK_DEFAULTS,
  type SocketStackOptions,
  type SocketStackSettings,
  STACK_SETTINGS_ENTRIES,
} from './stack-options.ts';
export type { SystemError } from './system-error.ts';
