/**
 * The packet device that a gateway's file asks for.
 * @module
 */
import type { ResolvedDeviceOptions } from 'virtual-presence';

/**
 * What the file leaves open: no routes are none.
 *
 * @param resolve turns a path of the file into one that can be opened
 */
export function deviceOf(
  device: ResolvedDeviceOptions,
  resolve: (path: string) => string
): ResolvedDeviceOptions {
  if (device.type === 'tun') return { ...device, routes: device.routes ?? [] };
  return device.type === 'unix' ? { ...device, path: resolve(device.path) } : device;
}
