/**
 * The option `device` of the type `sockets`, and its check.
 * @module
 */
import * as v from 'valibot';
import type { IpAddress } from '../base/address.ts';
import { AddressText, chosen, NameText, PortText, type Schema } from '../base/schema.ts';
import {
  DeviceOptionsSchema,
  isPacketDevice,
  type ResolvedDeviceOptions,
} from '../device/index.ts';
import { ConfigError } from '../errors.ts';
import { BACKEND_SETTINGS_ENTRIES, checkServices } from '../sockets/backend/backend-options.ts';
import type {
  BackendService,
  SocketBackendSettings,
  SocketStackSettings,
} from '../sockets/index.ts';
import { STACK_SETTINGS_ENTRIES } from '../sockets/stack-options.ts';

/**
 * Sockets in this process instead of a device, without privileges: `EdgeGateway.sockets` and `CloudGateway.sockets` make
 * connections and servers, and services are reached by the sockets of this machine.
 */
export interface SocketsDeviceOptions extends SocketStackSettings {
  /** Sockets in this process instead of a device, without privileges. */
  readonly type: 'sockets';
  /**
   * The services of this site that clients of other realms may reach through an edge gateway, if the cloud exposes
   * them: nothing else is connected to, whatever the cloud says. Default: none. A cloud gateway has no such option: it
   * connects to the services of the site `cloud` in the desired state that are exposed.
   */
  readonly services?: readonly BackendService[] | undefined;
  /** How the gateway connects to the services. Default: see `ServiceSettings`. */
  readonly backend?: ServiceSettings | undefined;
}

/** How a gateway connects to services by the sockets of its machine. */
export interface ServiceSettings extends Omit<SocketBackendSettings, 'proxyProtocol'> {
  /**
   * Which services get a PROXY protocol header of version 2 that names the client: all, none, or at the cloud those of
   * these names. A service that does not expect it takes it for data. At an edge the option `services` can say it of one
   * service. What is said of one service holds for all that are reached at the same host and port. Default false.
   */
  readonly proxyProtocol?: boolean | readonly string[] | undefined;
}

/** @throws {ConfigError} if the option of a cloud gateway has what is for edges. */
export function checkCloudDevice(device: object): void {
  if (isPacketDevice(device) || !('services' in device) || device.services === undefined) return;
  const message = "is for edges: the cloud's services are those of the desired state";
  throw new ConfigError('device.services', message);
}

/** @throws {ConfigError} if the option of an edge gateway has what is for clouds, or services that contradict each other. */
export function checkEdgeDevice(device: object): void {
  if (isPacketDevice(device)) return;
  const { services = [], backend } = device as ParsedSocketsDevice;
  if (Array.isArray(backend?.proxyProtocol)) {
    const message = 'an edge does not know the names of services: set it in device.services';
    throw new ConfigError('device.backend.proxyProtocol', message);
  }
  checkServices(services, backend?.hosts ?? {}, 'device.services');
}

/** The part of the option that is checked as a whole, when each value was checked. */
interface ParsedSocketsDevice {
  readonly services?: readonly BackendService[] | undefined;
  readonly backend?:
    | { readonly proxyProtocol?: unknown; readonly hosts?: Readonly<Record<string, IpAddress>> }
    | undefined;
}

const SOCKETS = { type: v.literal('sockets'), ...STACK_SETTINGS_ENTRIES };
const services = v.optional(
  v.array(
    v.strictObject({
      address: AddressText,
      ports: v.array(PortText),
      proxyProtocol: v.optional(v.boolean()),
    })
  )
);
const backend = v.optional(
  v.strictObject({
    ...BACKEND_SETTINGS_ENTRIES,
    proxyProtocol: v.optional(v.union([v.boolean(), v.array(NameText)]), false),
  })
);

type Entries = { readonly type: v.LiteralSchema<'sockets', undefined> } & v.ObjectEntries;

function devicesWith(entries: Entries): Schema<ResolvedDeviceOptions | SocketsDeviceOptions> {
  const sockets = v.strictObject(entries);
  const all = [DeviceOptionsSchema as unknown as typeof sockets, sockets] as const;
  return v.variant('type', all) as unknown as Schema<ResolvedDeviceOptions | SocketsDeviceOptions>;
}

const deviceOptions = devicesWith({ ...SOCKETS, services, backend });
/** What a cloud gateway takes of that, for a JSON Schema; the messages of `checkCloudDevice` are better. */
export const CloudDeviceSchema: Schema<ResolvedDeviceOptions | SocketsDeviceOptions> = chosen(
  [devicesWith({ ...SOCKETS, backend })],
  () => deviceOptions
);
/** What an edge gateway takes of that, for a JSON Schema; the messages of `checkEdgeDevice` are better. */
export const EdgeDeviceSchema: Schema<ResolvedDeviceOptions | SocketsDeviceOptions> = chosen(
  [
    devicesWith({
      ...SOCKETS,
      services,
      backend: v.optional(v.strictObject(BACKEND_SETTINGS_ENTRIES)),
    }),
  ],
  () => deviceOptions
);

/** Takes a device of the host program as it is. */
export const DeviceSchema: Schema<ResolvedDeviceOptions | SocketsDeviceOptions> = chosen(
  [deviceOptions],
  (device) => (isPacketDevice(device) ? v.unknown() : deviceOptions)
);
