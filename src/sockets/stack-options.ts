/**
 * The options of a stack, their defaults and their checks.
 * @module
 */
import * as v from 'valibot';
import type { AddressInput, IpAddress } from '../base/address.ts';
import { type Clock, systemClock } from '../base/clock.ts';
import {
  AddressText,
  chosen,
  hostFunction,
  hostObject,
  parseSchema,
  type Schema,
  wholeNumber,
} from '../base/schema.ts';
import { TCP_ENDPOINT_DEFAULTS, type TcpLimits } from '../tcp/index.ts';
import { DEFAULT_QUEUE_BYTES } from './ip/datagram-queue.ts';

/** The options that an operator may have a reason to set. */
export interface SocketStackSettings {
  /**
   * The stack's own address among the hosts of its site, or one of each IP version. Default: the first address that the
   * site's `sources` have outside its pools.
   */
  readonly address?: AddressInput | readonly AddressInput[] | undefined;
  /** How long a connection waits for the tunnel before it fails with ENETDOWN, in ms; default 5,000. */
  readonly tunnelWaitMs?: number | undefined;
  /** The bounds of connections and memory. Default: see `SocketStackLimits`. */
  readonly limits?: SocketStackLimits | undefined;
}

/** The bounds of the TCP connections of a stack, and of its datagrams. */
export interface SocketStackLimits {
  /** How many connections there may be, 1 to 1,048,576; default 16,384. */
  readonly connections?: number | undefined;
  /** How many of them may be half-open, 1 to 1,048,576; default 1,024. */
  readonly halfOpen?: number | undefined;
  /** How many half-open ones may have the same remote address, 1 to 1,048,576; default 128. */
  readonly halfOpenPerClient?: number | undefined;
  /** How many connections in TIME-WAIT are remembered, 1 to 1,048,576; default 16,384. The oldest are forgotten. */
  readonly timeWait?: number | undefined;
  /**
   * The bytes of all buffers, besides 4 KiB for each direction of each connection, 1 to 16 GiB; default 67,108,864.
   */
  readonly bufferBytes?: number | undefined;
  /** The bytes of the send buffer and of the receive buffer of one connection, 64 KiB to 4 MiB; default 4 MiB. */
  readonly connectionBufferBytes?: number | undefined;
  /** How many resets answer segments of no connection in a second, 0 to 1,048,576; default 1,000. */
  readonly resetsPerSecond?: number | undefined;
  /** The bytes of all datagrams that wait at UDP sockets, 64 KiB to 16 GiB; default 16,777,216 (16 MiB). */
  readonly datagramBytes?: number | undefined;
}

export interface SocketStackOptions extends SocketStackSettings {
  /** The name in messages; default `sockets0`. */
  readonly name?: string | undefined;
  /** The longest packet that the stack makes, in bytes, 1,280 to 65,515; default 65,515. */
  readonly mtu?: number | undefined;
  /** Whether packets may be super-packets with partial checksums; default true. */
  readonly offload?: boolean | undefined;
  /** Default: the system's clock. */
  readonly clock?: Clock | undefined;
  /** Returns random bytes that cannot be predicted. Default: those of `node:crypto`. */
  readonly random?: ((length: number) => Uint8Array) | undefined;
}

/** The values of options that are left out. */
export const SOCKET_STACK_DEFAULTS: Readonly<{
  name: string;
  tunnelWaitMs: number;
  mtu: number;
  offload: boolean;
  limits: Readonly<Record<keyof SocketStackLimits, number>>;
}> = Object.freeze({
  name: 'sockets0',
  tunnelWaitMs: 5000,
  mtu: TCP_ENDPOINT_DEFAULTS.mtu,
  offload: true,
  limits: Object.freeze({ ...TCP_ENDPOINT_DEFAULTS.limits, datagramBytes: DEFAULT_QUEUE_BYTES }),
});

export interface ResolvedStackSettings {
  /** At most one of each IP version. */
  readonly address: readonly IpAddress[];
  readonly tunnelWaitMs: number;
  readonly limits: TcpLimits & { readonly datagramBytes: number };
}

export interface ResolvedStackOptions extends ResolvedStackSettings {
  readonly name: string;
  readonly mtu: number;
  readonly offload: boolean;
  readonly clock: Clock;
  readonly random: ((length: number) => Uint8Array) | undefined;
}

/** @throws {ConfigError} with the path of the option that is wrong. */
export function resolveStackOptions(options: SocketStackOptions): ResolvedStackOptions {
  return parseSchema(StackOptionsSchema, options);
}

const addresses = v.pipe(
  v.array(AddressText),
  v.check(
    (list) => new Set(list.map(({ family }) => family)).size === list.length,
    'expected at most one address of each IP version'
  )
);
const oneAddress = v.pipe(
  AddressText,
  v.transform((one) => [one])
);
const address = chosen<readonly IpAddress[]>([oneAddress, addresses], (input) =>
  Array.isArray(input) ? addresses : oneAddress
);

const { tunnelWaitMs, limits, mtu, offload, name } = SOCKET_STACK_DEFAULTS;
const MAX_TIMER_MS = 2 ** 31 - 1;
/** The tables have 30 bits for an index at most; more than a million of anything is a mistake. */
const MAX_ENTRIES = 1_048_576;
const MAX_BUFFER_BYTES = 16 * 1024 ** 3;

/** The entries of `SocketStackSettings`, for a schema that has others too. */
export const STACK_SETTINGS_ENTRIES: v.ObjectEntries = {
  address: v.optional(address, []) as Schema<readonly IpAddress[]>,
  tunnelWaitMs: v.optional(wholeNumber(1, MAX_TIMER_MS), tunnelWaitMs),
  limits: v.optional(
    v.strictObject({
      connections: v.optional(wholeNumber(1, MAX_ENTRIES), limits.connections),
      halfOpen: v.optional(wholeNumber(1, MAX_ENTRIES), limits.halfOpen),
      halfOpenPerClient: v.optional(wholeNumber(1, MAX_ENTRIES), limits.halfOpenPerClient),
      timeWait: v.optional(wholeNumber(1, MAX_ENTRIES), limits.timeWait),
      bufferBytes: v.optional(wholeNumber(1, MAX_BUFFER_BYTES), limits.bufferBytes),
      // The buffers hold no more than the default: a larger window would offer what they cannot take.
      connectionBufferBytes: v.optional(
        wholeNumber(65_536, limits.connectionBufferBytes),
        limits.connectionBufferBytes
      ),
      resetsPerSecond: v.optional(wholeNumber(0, MAX_ENTRIES), limits.resetsPerSecond),
      // Less has no room for one datagram of the greatest length.
      datagramBytes: v.optional(wholeNumber(65_536, MAX_BUFFER_BYTES), limits.datagramBytes),
    }),
    {}
  ),
};

const StackOptionsSchema: Schema<ResolvedStackOptions> = v.strictObject({
  ...STACK_SETTINGS_ENTRIES,
  name: v.optional(v.pipe(v.string(), v.regex(/./, 'a name')), name),
  mtu: v.optional(wholeNumber(1280, TCP_ENDPOINT_DEFAULTS.mtu), mtu),
  offload: v.optional(v.boolean(), offload),
  clock: v.optional(
    hostObject<Clock>('a clock', ['wallMs', 'monotonicMs', 'after']),
    () => systemClock
  ),
  random: v.optional(hostFunction()),
}) as unknown as Schema<ResolvedStackOptions>;
