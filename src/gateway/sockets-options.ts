/**
 * The option `device` of the type `sockets`, and its check.
 * @module
 */
import * as v from 'valibot';
import type { Schema } from '../base/schema.ts';
import {
  DeviceOptionsSchema,
  isPacketDevice,
  type ResolvedDeviceOptions,
} from '../device/index.ts';
import type { SocketStackSettings } from '../sockets/index.ts';
import { STACK_SETTINGS_ENTRIES } from '../sockets/stack-options.ts';

/**
 * Sockets in this process instead of a device, without privileges: `EdgeGateway.sockets` and `CloudGateway.sockets` make
 * connections and servers.
 */
export type SocketsDeviceOptions = { readonly type: 'sockets' } & SocketStackSettings;

const socketsDevice = v.strictObject({ type: v.literal('sockets'), ...STACK_SETTINGS_ENTRIES });
const deviceOptions = v.variant('type', [
  DeviceOptionsSchema as unknown as typeof socketsDevice,
  socketsDevice,
]);

/** Takes a device of the host program as it is. */
export const DeviceSchema: Schema<ResolvedDeviceOptions | SocketsDeviceOptions> = v.lazy(
  (device) => (isPacketDevice(device) ? v.unknown() : deviceOptions)
) as unknown as Schema<ResolvedDeviceOptions | SocketsDeviceOptions>;
