/**
 * Packet devices: the interface, a linked pair in memory, UDP and unix sockets, and a Linux TUN. Native code
 * is loaded only when a TUN is opened.
 * @module
 */
export {
  changeRoutes,
  configureTun,
  forgetRoutes,
  type RouteSetting,
  type TunConfiguration,
} from './configure.ts';
export type { Schedule } from './delivery.ts';
export type { DeviceCounters, PacketDevice } from './device.ts';
export {
  type DeviceOptions,
  DeviceOptionsSchema,
  isPacketDevice,
  openDevice,
  type ResolvedDeviceOptions,
} from './device-options.ts';
export type { FaultCounters, Faults } from './faults.ts';
export { LINUX_TUN_DEFAULTS, LinuxTun, type LinuxTunOptions } from './linux-tun.ts';
export { MEMORY_DEVICE_DEFAULTS, MemoryDevice, type MemoryDeviceOptions } from './memory.ts';
export { openTun, TUN_DEVICE_DEFAULTS, type TunDeviceOptions } from './open-tun.ts';
export {
  type CommonSocketOptions,
  deviceAddress,
  SOCKET_DEVICE_DEFAULTS,
  SocketDevice,
  type SocketDeviceCounters,
  type SocketDeviceOptions,
  type UdpDeviceOptions,
  type UnixDeviceOptions,
} from './socket.ts';
export { loadTcpControl, type TcpControl } from './tcp-control.ts';
export type { SocketFaultCounters } from './transport.ts';
export type { TunRoutes, TunSetup } from './tun-routes.ts';
export type { TunOffload } from './tun-setup.ts';
export type { WakeupKind } from './wakeup.ts';
