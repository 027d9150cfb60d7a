/** SHIM until the merge: DeviceOptions of src/device. */
import * as v from 'valibot';
import {
  openTun,
  type PacketDevice,
  SocketDevice,
  type TunDeviceOptions,
} from '../device/index.ts';
import { AddressPortSchema, type HostPort, ListenAddressSchema } from '../host-port.ts';
import { PrefixText, type Schema, wholeNumber } from '../schema.ts';

export type DeviceOptions =
  | ({ readonly type: 'tun' } & TunDeviceOptions)
  | {
      readonly type: 'udp';
      readonly local: HostPort;
      readonly peer: HostPort;
      readonly mtu?: number;
    }
  | {
      readonly type: 'unix';
      readonly path: string;
      readonly role: 'listen' | 'connect';
      readonly mtu?: number;
    };
const mtu = v.optional(wholeNumber(1280, 65_535), 1500);
const interfaceName = v.pipe(
  v.string(),
  v.regex(/^[^\s/:]{1,15}$/, 'an interface name of 1 to 15 characters')
);
export const DeviceOptionsSchema: Schema<DeviceOptions> = v.variant('type', [
  v.strictObject({
    type: v.literal('tun'),
    name: interfaceName,
    mtu,
    routes: v.optional(v.array(PrefixText)),
    proxyArp: v.optional(v.array(interfaceName), []),
    lan: v.optional(v.array(interfaceName)),
  }),
  v.strictObject({
    type: v.literal('udp'),
    local: ListenAddressSchema,
    peer: AddressPortSchema,
    mtu,
  }),
  v.strictObject({
    type: v.literal('unix'),
    path: v.string(),
    role: v.picklist(['listen', 'connect']),
    mtu,
  }),
]) as Schema<DeviceOptions>;
export function isPacketDevice(value: unknown): value is PacketDevice {
  return (
    typeof value === 'object' &&
    value !== null &&
    ['start', 'pause', 'resume', 'read', 'write', 'close'].every(
      (name) => typeof (value as Record<string, unknown>)[name] === 'function'
    )
  );
}
export async function openDevice(
  options: DeviceOptions,
  onProblem: (problem: string) => void
): Promise<PacketDevice> {
  switch (options.type) {
    case 'tun':
      return openTun(options, onProblem);
    case 'udp': {
      const { local, peer } = options;
      return SocketDevice.udp({
        bind: { address: local.host, port: local.port },
        peer: { address: peer.host, port: peer.port },
        mtu: options.mtu ?? 1500,
      });
    }
    case 'unix':
      return SocketDevice.unix({ ...options, mtu: options.mtu ?? 1500 });
  }
}
