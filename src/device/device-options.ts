/**
 * The options of the packet device of a gateway, and the function that opens the device.
 * @module
 */
import { isIP } from 'node:net';
import * as v from 'valibot';
import type { HostPort, HostPortInput } from '../base/host-port.ts';
import { AddressPortSchema, ListenAddressSchema } from '../base/host-port-schema.ts';
import { PrefixText, parseSchema, type Schema, wholeNumber } from '../base/schema.ts';
import type { PacketDevice } from './device.ts';
import { openTun, TUN_DEVICE_DEFAULTS, type TunDeviceOptions } from './open-tun.ts';
import { SocketDevice } from './socket.ts';

/** Which device to open. */
export type DeviceOptions =
  | ({
      /** A TUN, which is an interface of this machine's kernel; on Linux alone. */
      readonly type: 'tun';
    } & TunDeviceOptions)
  | {
      /** Another program, which has each packet in a UDP datagram. */
      readonly type: 'udp';
      /** The IP address and port that receive; port 0 takes a free port. */
      readonly local: HostPortInput;
      /** The IP address and port of the peer; datagrams from other sources are dropped. */
      readonly peer: HostPortInput;
      /** The longest packet in bytes, from 1280 to 65,535; default 1500. */
      readonly mtu?: number;
    }
  | {
      /** Another program at a unix stream socket, where each packet is behind its length: 32 bits, big-endian. */
      readonly type: 'unix';
      /** The path of the socket, at most 107 bytes. */
      readonly path: string;
      /** Whether the gateway or the other program makes the socket. */
      readonly role: 'listen' | 'connect';
      /** The longest packet in bytes, from 1280 to 65,535; default 1500. */
      readonly mtu?: number;
    };

/** `DeviceOptions` with defaults, and with endpoints as objects. */
export type ResolvedDeviceOptions =
  | ({ readonly type: 'tun' } & Pick<TunDeviceOptions, 'routes' | 'lan'> &
      Required<Omit<TunDeviceOptions, 'routes' | 'lan'>>)
  | {
      readonly type: 'udp';
      readonly local: HostPort;
      readonly peer: HostPort;
      readonly mtu: number;
    }
  | {
      readonly type: 'unix';
      readonly path: string;
      readonly role: 'listen' | 'connect';
      readonly mtu: number;
    };

const mtu = /* @__PURE__ */ v.optional(
  /* @__PURE__ */ wholeNumber(1280, 65_535),
  TUN_DEVICE_DEFAULTS.mtu
);
const interfaceName = /* @__PURE__ */ v.pipe(
  v.string(),
  v.regex(/^[^\s/:]{1,15}$/, 'an interface name of 1 to 15 characters'),
  v.metadata({ title: 'name of an interface' })
);

/** Reads `DeviceOptions`, also from a file: an error has the path of the option. */
export const DeviceOptionsSchema: Schema<ResolvedDeviceOptions> = /* @__PURE__ */ v.variant(
  'type',
  [
    v.strictObject({
      type: v.literal('tun'),
      name: interfaceName,
      mtu,
      routes: v.optional(v.array(PrefixText)),
      proxyArp: v.optional(v.array(interfaceName), [...TUN_DEVICE_DEFAULTS.proxyArp]),
      lan: v.optional(v.array(interfaceName)),
      transit: v.optional(v.array(interfaceName), [...TUN_DEVICE_DEFAULTS.transit]),
    }),
    v.pipe(
      v.strictObject({
        type: v.literal('udp'),
        local: ListenAddressSchema,
        peer: AddressPortSchema,
        mtu,
      }),
      v.check(
        ({ local, peer }) => isIP(local.host) === isIP(peer.host),
        'expected addresses of one IP version as local and peer'
      )
    ),
    v.strictObject({
      type: v.literal('unix'),
      path: v.pipe(v.string(), v.regex(/./, 'a path'), v.metadata({ title: 'path' })),
      role: v.picklist(['listen', 'connect']),
      mtu,
    }),
  ]
) as Schema<ResolvedDeviceOptions>;

/**
 * Opens the device. A TUN is opened and configured by `openTun`.
 *
 * @param onProblem called with one sentence for each thing that the machine lacks for a TUN, and for each repair. By
 *   default nothing is called.
 * @throws {ConfigError} with the path of the option that is wrong.
 * @throws {EnvironmentError} if the device cannot be opened; nothing is left open then.
 */
export async function openDevice(
  options: DeviceOptions,
  onProblem: (problem: string) => void = () => {}
): Promise<PacketDevice> {
  const resolved = parseSchema(DeviceOptionsSchema, options);
  return resolved.type === 'tun' ? openTun(resolved, onProblem) : SocketDevice.open(resolved);
}

/** Returns whether the value has the members of a `PacketDevice`, and so is not an options object. */
export function isPacketDevice(value: unknown): value is PacketDevice {
  if (typeof value !== 'object' || value === null) return false;
  const device = value as Readonly<Record<string, unknown>>;
  return (
    METHODS.every((method) => typeof device[method] === 'function') &&
    typeof device.mtu === 'number' &&
    typeof device.offload === 'boolean' &&
    typeof device.counters === 'object'
  );
}

const METHODS: readonly string[] = ['start', 'pause', 'resume', 'read', 'write', 'close'];
