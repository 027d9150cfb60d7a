/**
 * The options of an endpoint, and its bounds.
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import type { Clock } from '../base/clock.ts';
import { checkWhole } from '../base/option-check.ts';
import { LARGE_SLAB, MAX_BUFFER } from './memory.ts';

/** Bounds of an endpoint. */
export interface TcpLimits {
  /** Connections that exist; default 16,384. */
  readonly connections: number;
  /** Connections whose handshake a peer has begun and not completed, of which the oldest go; default 1,024. */
  readonly halfOpen: number;
  /** Half-open connections of one remote address, once half of `halfOpen` is in use; default 128. */
  readonly halfOpenPerClient: number;
  /** Connections in TIME-WAIT, of which the oldest go; default 16,384. */
  readonly timeWait: number;
  /** All buffers of all connections, besides 4 KiB each way for each; default 64 MiB. */
  readonly bufferBytes: number;
  /** The bytes of the send buffer, and of the receive buffer, of one connection, from 64 KiB to 4 MiB; default 4 MiB. */
  readonly connectionBufferBytes: number;
  /** Resets that are sent in a second; default 1,000. */
  readonly resetsPerSecond: number;
}

export interface TcpEndpointOptions {
  readonly clock: Pick<Clock, 'monotonicMs'>;
  /** Returns random bytes that cannot be predicted. Default: those of `node:crypto`. */
  readonly random?: (length: number) => Uint8Array;
  /** The longest packet in bytes, from 1,280 to 65,515; default 65,515: IPv4 that becomes IPv6 still fits. */
  readonly mtu?: number;
  /** Whether frames may be super-segments with partial checksums; default true. */
  readonly offload?: boolean;
  /** Default for each that is absent: that of `TCP_ENDPOINT_DEFAULTS`. */
  readonly limits?: Partial<TcpLimits>;
  /**
   * Returns the longest packet in bytes that is known to reach a destination, 0 if nothing is known. New connections ask;
   * those that exist follow ICMP errors. Default: nothing is known.
   */
  readonly pathMtu?: (remote: IpAddress) => number;
}

/** The values of options that are left out. */
export const TCP_ENDPOINT_DEFAULTS: Readonly<{
  mtu: number;
  offload: boolean;
  limits: TcpLimits;
}> = Object.freeze({
  mtu: 65_515,
  offload: true,
  limits: Object.freeze({
    connections: 16_384,
    halfOpen: 1_024,
    halfOpenPerClient: 128,
    timeWait: 16_384,
    bufferBytes: 64 * 1_024 * 1_024,
    connectionBufferBytes: 4 * 1_024 * 1_024,
    resetsPerSecond: 1_000,
  }),
});

/** @throws {ApiMisuseError} if one is not a whole number in its range. */
export function checkedLimits(limits: Partial<TcpLimits> = {}): TcpLimits {
  const all = { ...TCP_ENDPOINT_DEFAULTS.limits, ...limits };
  for (const name of Object.keys(TCP_ENDPOINT_DEFAULTS.limits) as (keyof TcpLimits)[]) {
    const [least, most] = RANGES[name] ?? [1, Number.MAX_SAFE_INTEGER];
    checkWhole(`limits.${name}`, all[name], least, most);
  }
  return all;
}

/** @throws {ApiMisuseError} if it is not in its range. */
export function checkedMtu(mtu: number = TCP_ENDPOINT_DEFAULTS.mtu): number {
  return checkWhole('mtu', mtu, LEAST_TCP_MTU, TCP_ENDPOINT_DEFAULTS.mtu);
}

const LEAST_TCP_MTU = 1_280;
/** A window is 64 KiB at first, and a buffer has a bound of its own. */
const RANGES: Readonly<Partial<Record<keyof TcpLimits, readonly [number, number]>>> = {
  connectionBufferBytes: [LARGE_SLAB, MAX_BUFFER],
};
