/**
 * The options that both gateways have, and their checks.
 * @module
 */
import * as v from 'valibot';
import { type Clock, systemClock } from '../base/clock.ts';
import { hostObject, type Schema } from '../base/schema.ts';
import {
  type DeviceOptions,
  isPacketDevice,
  type PacketDevice,
  type ResolvedDeviceOptions,
} from '../device/index.ts';
import { type DnsOptions, DnsOptionsSchema, type ResolvedDnsOptions } from '../dns/index.ts';
import { type Logger, silentLogger } from '../observe/index.ts';
import type { Secrets, Store } from '../store/index.ts';
import {
  type MetricsOptions,
  MetricsOptionsSchema,
  type ResolvedMetricsOptions,
} from './metrics-options.ts';
import { DeviceSchema, type SocketsDeviceOptions } from './sockets-options.ts';
import type { StateOptions } from './state.ts';

export interface CommonOptions extends StateOptions {
  /**
   * The device that leads to the hosts of the gateway's own site: what to open, or a device of the host program, for
   * example one half of `MemoryDevice.pair()`. With `{ type: 'sockets' }` the program itself is a host of the site: see
   * `EdgeGateway.sockets` and `CloudGateway.sockets`. The gateway closes the device in any case.
   */
  readonly device: DeviceOptions | SocketsDeviceOptions | PacketDevice;
  /** Where the gateway answers DNS queries for the names of its own site, and for which clients. Default: it does not. */
  readonly dns?: DnsOptions | undefined;
  /**
   * The path of a unix socket for the admin interface, for `AdminClient` or the command `virtual-presence`. Default: there
   * is none.
   */
  readonly adminSocket?: string | undefined;
  /** Where metrics, health and readiness are served. Default: nowhere. */
  readonly metrics?: MetricsOptions | undefined;
  /** Receives the log lines for an operator; it has the shape of pino. Default: nothing is logged. */
  readonly logger?: Logger | undefined;
  /** Default: the clocks of the system. */
  readonly clock?: Clock | undefined;
  /**
   * Cancels `start`, which then rejects with the signal's reason and leaves nothing open. Default: `start` cannot be
   * cancelled.
   */
  readonly signal?: AbortSignal | undefined;
}

export interface ResolvedCommonOptions extends StateOptions {
  readonly device: ResolvedDeviceOptions | SocketsDeviceOptions | PacketDevice;
  readonly dns: ResolvedDnsOptions | undefined;
  readonly adminSocket: string | undefined;
  readonly metrics: ResolvedMetricsOptions | undefined;
  readonly logger: Logger;
  readonly clock: Clock;
  readonly signal: AbortSignal | undefined;
}

/**
 * Resolves options. A device that was passed in belongs to the gateway from the start on, so it is closed if the
 * options are not usable.
 *
 * @throws what `resolve` throws.
 */
export async function closeGivenDevice<Given, Resolved>(
  options: Given,
  resolve: (options: Given) => Resolved
): Promise<Resolved> {
  try {
    return resolve(options);
  } catch (error) {
    const { device } = (options ?? {}) as { readonly device?: unknown };
    // The caller needs the first error, not one of closing the device.
    if (isPacketDevice(device)) await device.close().catch(() => {});
    throw error;
  }
}

/** The entries that the schemas of both gateways share. */
export const COMMON_ENTRIES: v.ObjectEntries = {
  device: DeviceSchema,
  stateDirectory: v.optional(v.pipe(v.string(), v.regex(/./, 'the path of a directory'))),
  store: v.optional(hostObject<Store>('a store', ['get', 'list', 'commit', 'watch'])),
  secrets: v.optional(hostObject<Secrets>('secrets', ['get', 'commit'])),
  dns: v.optional(DnsOptionsSchema) as Schema<ResolvedDnsOptions | undefined>,
  adminSocket: v.optional(v.pipe(v.string(), v.regex(/./, 'a path'))),
  metrics: v.optional(MetricsOptionsSchema),
  logger: v.optional(
    hostObject<Logger>('a logger', ['debug', 'info', 'warn', 'error']),
    () => silentLogger
  ),
  clock: v.optional(
    hostObject<Clock>('a clock', ['wallMs', 'monotonicMs', 'after']),
    () => systemClock
  ),
  signal: v.optional(
    hostObject<AbortSignal>('an AbortSignal', ['addEventListener', 'throwIfAborted'])
  ),
};
