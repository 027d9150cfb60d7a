/**
 * TCP and UDP in this process: `SocketStack`, a packet device with Node's sockets over it.
 * @module
 */
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
export {
  type MessageListener,
  type PresenceDatagramOptions,
  PresenceDatagramSocket,
} from './datagram.ts';
export type {
  DatagramPayload,
  PresenceDatagramBindOptions,
  SendCallback,
} from './datagram-arguments.ts';
export type { DatagramLookup } from './datagram-sender.ts';
export type {
  AddListener,
  PresenceDatagramEvents,
  PresenceSocketEvents,
} from './events.ts';
export type { SocketHost } from './host.ts';
export type { PresenceLookup } from './lookup.ts';
export type { PingOptions, PingResult } from './ping.ts';
export {
  type ConnectionListener,
  type DroppedConnection,
  PresenceServer,
  type PresenceServerEvents,
  type PresenceServerOptions,
} from './server.ts';
export type { StackHost, StackProtocol, StackSite } from './site-view.ts';
export { PresenceSocket } from './socket.ts';
export { SocketStack } from './stack.ts';
export type { StackDeviceCounters } from './stack-device.ts';
export {
  SOCKET_STACK_DEFAULTS,
  type SocketStackLimits,
  type SocketStackOptions,
  type SocketStackSettings,
} from './stack-options.ts';
export type { SystemError } from './system-error.ts';
