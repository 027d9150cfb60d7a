/**
 * The packet device that a gateway's file asks for.
 * @module
 */
import { isIP } from 'node:net';
import * as v from 'valibot';
import {
  type HostPort,
  openTun,
  type PacketDevice,
  PrefixText,
  type Schema,
  SocketDevice,
  wholeNumber,
} from 'virtual-presence';
import { AddressPortSchema, ListenAddressSchema, PathSchema } from './fields.ts';
import { log } from './run.ts';

export interface TunConfig {
  readonly type: 'tun';
  readonly name: string;
  readonly mtu: number;
  /** Prefixes to route to the TUN: the pools of the gateway's own site. */
  readonly routes: readonly string[];
  /** LAN interfaces on which the kernel answers ARP for the routes. */
  readonly proxyArp: readonly string[];
  /** Further LAN interfaces. The kernel forwards between the LAN and the TUN, and nowhere else. */
  readonly lan?: readonly string[] | undefined;
}

export type DeviceConfig =
  | TunConfig
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

const mtu = v.optional(wholeNumber(1280, 65_535), 1500);
const interfaceName = v.pipe(
  v.string(),
  v.regex(/^[^\s/:]{1,15}$/, 'an interface name of 1 to 15 characters')
);

export const DeviceSchema: Schema<DeviceConfig> = v.variant('type', [
  v.strictObject({
    type: v.literal('tun'),
    name: interfaceName,
    mtu,
    routes: v.optional(v.array(PrefixText), []),
    proxyArp: v.optional(v.array(interfaceName), []),
    lan: v.optional(v.array(interfaceName)),
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
    path: PathSchema,
    role: v.picklist(['listen', 'connect']),
    mtu,
  }),
]);

/**
 * @param resolve turns a path of the configuration into one that can be opened
 * @throws {EnvironmentError} if the device cannot be had.
 */
export async function openDevice(
  config: DeviceConfig,
  resolve: (path: string) => string
): Promise<PacketDevice> {
  switch (config.type) {
    case 'tun':
      return openTun(config, (problem) => log(`device: ${problem}`));
    case 'udp':
      return SocketDevice.udp({
        bind: udpEndpoint(config.local),
        peer: udpEndpoint(config.peer),
        mtu: config.mtu,
      });
    case 'unix':
      return SocketDevice.unix({ ...config, path: resolve(config.path) });
  }
}

function udpEndpoint({ host, port }: HostPort): { address: string; port: number } {
  return { address: host, port };
}
