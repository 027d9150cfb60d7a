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
export { SocketBackend } from './backend.ts';
export type { BackendDial, BackendDialTarget } from './backend-dial.ts';
export {
  SOCKET_BACKEND_DEFAULTS,
  type SocketBackendLimits,
  type SocketBackendOptions,
  type SocketBackendSettings,
} from './backend-options.ts';
export type { BackendService, BackendTarget } from './backend-services.ts';
export type { UdpDial } from './backend-udp.ts';
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
export { Forward } from './forward.ts';
export {
  FORWARD_DEFAULTS,
  type ForwardCounters,
  type ForwardOptions,
  type ForwardTarget,
} from './forward-server.ts';
export type { SocketHost } from './host.ts';
export type { HostListen, HostListenPath, HostListenPort } from './host-listen.ts';
export type { PresenceLookup } from './lookup.ts';
export type { PingOptions, PingResult } from './ping.ts';
export { type ProxyCounters, SocketProxy } from './proxy.ts';
export type { ProxyCredentials } from './proxy-credentials.ts';
export { PROXY_DEFAULTS, type ProxyOptions } from './proxy-options.ts';
export type { ProxyOutcomes } from './proxy-outcome.ts';
export {
  PUBLISH_DEFAULTS,
  Publication,
  type PublicationEvents,
  type PublishCounters,
  type PublishOptions,
} from './publish.ts';
export type { NotPublished, PublishedService } from './publish-service.ts';
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
