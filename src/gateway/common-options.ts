/**
 * The options that both gateways have, and how they are checked.
 * @module
 */
import * as v from 'valibot';
import { type Clock, systemClock } from '../base/clock.ts';
import { hostObject, type Schema } from '../base/schema.ts';
import {
  type DeviceOptions,
  DeviceOptionsSchema,
  isPacketDevice,
  type PacketDevice,
  type ResolvedDeviceOptions,
} from '../device/index.ts';
import { type DnsOptions, DnsOptionsSchema, type ResolvedDnsOptions } from '../dns/index.ts';
import { type Logger, silentLogger } from '../observe/index.ts';
import type { Secrets, Store } from '../store/index.ts';
import type { StateOptions } from './state.ts';

export interface CommonOptions extends StateOptions {
  /**
   * The way to the hosts of the gateway's own site: what is to be opened, or a device of the program's own, for example
   * one half of `MemoryDevice.pair()`. The gateway closes it in the end, a given one too.
   */
  readonly device: DeviceOptions | PacketDevice;
  /** Where the names of the gateway's own site are answered by DNS, and for whom. Default: nobody is answered. */
  readonly dns?: DnsOptions | undefined;
  /** Takes the lines for an operator; its shape is that of pino. Default: nothing is logged. */
  readonly logger?: Logger | undefined;
  /** Default: the clocks of the system. */
  readonly clock?: Clock | undefined;
  /**
   * Ends a start that is under way: `start` rejects with its reason then, and nothing is left open. Default: nothing
   * ends it.
   */
  readonly signal?: AbortSignal | undefined;
}

export interface ResolvedCommonOptions extends StateOptions {
  readonly device: ResolvedDeviceOptions | PacketDevice;
  readonly dns: ResolvedDnsOptions | undefined;
  readonly logger: Logger;
  readonly clock: Clock;
  readonly signal: AbortSignal | undefined;
}

/**
 * Resolves options. A device that was given belongs to the gateway from the moment it is started, so it is closed if
 * they are not usable.
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
    // Why the options are not usable is what the caller has to know.
    if (isPacketDevice(device)) await device.close().catch(() => {});
    throw error;
  }
}

/** What both gateways' schemas have. */
export const COMMON_ENTRIES: v.ObjectEntries = {
  stateDirectory: v.optional(v.pipe(v.string(), v.regex(/./, 'the path of a directory'))),
  store: v.optional(hostObject<Store>('a store', ['get', 'list', 'commit', 'watch'])),
  secrets: v.optional(hostObject<Secrets>('secrets', ['get', 'commit'])),
  device: v.lazy((device) =>
    isPacketDevice(device) ? v.custom<PacketDevice>(() => true) : DeviceOptionsSchema
  ) as Schema<ResolvedDeviceOptions | PacketDevice>,
  dns: v.optional(DnsOptionsSchema) as Schema<ResolvedDnsOptions | undefined>,
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
