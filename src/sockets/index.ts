/**
 * TCP and UDP in this process: `SocketStack`, a packet device with Node's sockets over it.
 * @module
 */
export { SocketBackend } from './backend/backend.ts';
export type { BackendDial, BackendDialTarget } from './backend/backend-dial.ts';
export {
  SOCKET_BACKEND_DEFAULTS,
  type SocketBackendLimits,
  type SocketBackendOptions,
  type SocketBackendSettings,
} from './backend/backend-options.ts';
export type { BackendService, BackendTarget } from './backend/backend-services.ts';
export type { UdpDial } from './backend/backend-udp.ts';
export { Forward } from './forward/forward.ts';
export {
  FORWARD_DEFAULTS,
  type ForwardCounters,
  type ForwardOptions,
  type ForwardTarget,
} from './forward/forward-server.ts';
export {
  PUBLISH_DEFAULTS,
  Publication,
  type PublicationEvents,
  type PublishCounters,
  type PublishOptions,
} from './forward/publish.ts';
export type { NotPublished, PublishedService } from './forward/publish-service.ts';
export type { HostListen, HostListenPath, HostListenPort } from './host/host-listen.ts';
export type { PingOptions, PingResult } from './icmp/ping.ts';
export type {
  AddListener,
  PresenceDatagramEvents,
  PresenceSocketEvents,
} from './node/events.ts';
export type { SystemError } from './node/system-error.ts';
export { type ProxyCounters, SocketProxy } from './proxy/proxy.ts';
export type { ProxyCredentials } from './proxy/proxy-credentials.ts';
export { PROXY_DEFAULTS, type ProxyOptions } from './proxy/proxy-options.ts';
export type { ProxyOutcomes } from './proxy/proxy-outcome.ts';
export type { PresenceLookup } from './site/lookup.ts';
export type { StackHost, StackProtocol, StackSite } from './site/site-view.ts';
export type { SocketHost } from './socket-host.ts';
export { SocketStack } from './stack.ts';
export type { StackDeviceCounters } from './stack-device.ts';
export {
  SOCKET_STACK_DEFAULTS,
  type SocketStackLimits,
  type SocketStackOptions,
  type SocketStackSettings,
} from './stack-options.ts';
export type {
  Connector,
  ConnectorCallback,
  ConnectorOptions,
  ConnectorRequest,
} from './stream/agents.ts';
export type {
  OnReadOptions,
  PresenceConnectOptions,
  PresenceListenOptions,
  PresenceNetConnectOptions,
  PresenceSocketOptions,
} from './stream/arguments.ts';
export {
  type ConnectionListener,
  type DroppedConnection,
  PresenceServer,
  type PresenceServerEvents,
  type PresenceServerOptions,
} from './stream/server.ts';
export { PresenceSocket } from './stream/socket.ts';
export {
  type MessageListener,
  type PresenceDatagramOptions,
  PresenceDatagramSocket,
} from './udp/datagram.ts';
export type {
  DatagramPayload,
  PresenceDatagramBindOptions,
  SendCallback,
} from './udp/datagram-arguments.ts';
export type { DatagramLookup } from './udp/datagram-sender.ts';
