/**
 * The options of an edge gateway and their checks.
 * @module
 */
import * as v from 'valibot';
import type { HostPort, HostPortInput } from '../base/host-port.ts';
import { HostPortSchema } from '../base/host-port-schema.ts';
import { type ProxyOption, proxyFor } from '../base/proxy.ts';
import { hostFunction, parseSchema, type Schema } from '../base/schema.ts';
import {
  type DeviceOptions,
  DeviceOptionsSchema,
  isPacketDevice,
  type PacketDevice,
  type ResolvedDeviceOptions,
} from '../device/index.ts';
import type { SocketStackSettings } from '../sockets/index.ts';
import { type ResolvedStackSettings, STACK_SETTINGS_ENTRIES } from '../sockets/stack-options.ts';
import {
  COMMON_ENTRIES,
  type CommonOptions,
  type ResolvedCommonOptions,
} from './common-options.ts';

/** Sockets in this process instead of a device: `EdgeGateway.sockets` makes connections, and needs no privileges. */
export type SocketsDeviceOptions = { readonly type: 'sockets' } & SocketStackSettings;

export interface EdgeGatewayOptions extends Omit<CommonOptions, 'device'> {
  /**
   * The device that leads to the hosts of the site: what to open, or a device of the host program, for example one half
   * of `MemoryDevice.pair()`. With `{ type: 'sockets' }` the program itself is the host: see `EdgeGateway.sockets`. The
   * gateway closes the device in any case.
   */
  readonly device: DeviceOptions | SocketsDeviceOptions | PacketDevice;
  /**
   * A token from `CloudGateway.createToken`, or a function that returns the current one. It is needed when there is no
   * certificate yet, and when the certificate is no longer accepted. Default: none; a gateway without a certificate is
   * `rejected` until `enrol` receives a token.
   */
  readonly token?: string | (() => string | Promise<string>) | undefined;
  /**
   * The tunnel endpoints of the cloud gateway, tried in this order, each a `HostPort` or a text such as
   * `192.0.2.1:7443`. Default: the endpoints that the cloud sent at the enrolment.
   */
  readonly cloud?: readonly HostPortInput[] | undefined;
  /**
   * The HTTP proxy that leads to the cloud's tunnel and to its enrolment, for example
   * `http://user:password@proxy.example.org:3128`, or a function that returns the proxy for an endpoint, such as
   * `proxyFromEnvironment` of `virtual-presence/tunnel`. Default: no proxy, and the environment is not read.
   */
  readonly proxy?: ProxyOption | undefined;
}

export interface ResolvedEdgeOptions extends Omit<ResolvedCommonOptions, 'device'> {
  readonly device:
    | ResolvedDeviceOptions
    | ({ readonly type: 'sockets' } & ResolvedStackSettings)
    | PacketDevice;
  readonly token: (() => string | Promise<string>) | undefined;
  readonly cloud: readonly HostPort[] | undefined;
  readonly proxy: ProxyOption | undefined;
}

/**
 * Checks the options and fills in the defaults.
 *
 * @throws {ConfigError} naming the first option that is not usable, with its value and what is expected.
 */
export function resolveEdgeOptions(options: EdgeGatewayOptions): ResolvedEdgeOptions {
  const resolved = parseSchema(EdgeOptionsSchema, options);
  const { token, proxy } = resolved;
  // A function is called only when an endpoint is dialled.
  if (typeof proxy === 'string') proxyFor(proxy, 'localhost', 1);
  return { ...resolved, token: typeof token === 'string' ? () => token : token };
}

type Parsed = Omit<ResolvedEdgeOptions, 'token'> & Pick<EdgeGatewayOptions, 'token'>;

const textOrFunction = v.lazy((value) =>
  typeof value === 'function' ? hostFunction() : v.string()
);

const socketsDevice = v.strictObject({ type: v.literal('sockets'), ...STACK_SETTINGS_ENTRIES });
const edgeDevice = v.variant('type', [
  DeviceOptionsSchema as unknown as typeof socketsDevice,
  socketsDevice,
]);

export const EdgeOptionsSchema: Schema<Parsed> = v.strictObject({
  ...COMMON_ENTRIES,
  device: v.lazy((device) => (isPacketDevice(device) ? v.unknown() : edgeDevice)),
  token: v.optional(textOrFunction),
  cloud: v.optional(
    v.pipe(
      v.array(HostPortSchema),
      v.check(({ length }) => length >= 1, 'expected at least one host and port')
    )
  ),
  proxy: v.optional(textOrFunction),
}) as unknown as Schema<Parsed>;
